//! Files that change between two readings, or during one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};

use super::*;
use crate::input::inputs::Reading;

/// So many records are several blocks of a file.
const MANY: usize = 100_000;

/// The same number of bytes for each record.
fn lines(count: usize) -> String {
    (0..count).map(|line| format!("{line:08}\n")).collect()
}

/// A file that was read once, whole.
fn checked(directory: &TempDir, name: &str, text: &str) -> (std::path::PathBuf, Inputs) {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let inputs = Inputs::from(Source::new(&path));
    inputs.check(|_| Ok(())).unwrap();
    (path, inputs)
}

/// The records before the error, and the error.
fn read(reading: Reading) -> (Vec<String>, Option<String>) {
    let mut texts = Vec::new();
    for (_, record) in reading {
        match record {
            Ok(record) => texts.push(record.text().into_owned()),
            Err(error) => {
                assert!(!error.is_bad_record());
                return (texts, Some(error.to_string()));
            }
        }
    }
    (texts, None)
}

fn shorter(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn longer(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn other_at(path: &Path, offset: u64, text: &str) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(text.as_bytes(), offset).unwrap();
}

#[test]
fn a_file_that_has_changed_gives_no_record_of_what_is_new() {
    type Edit = fn(&Path);
    let edits: [(&str, Edit); 9] = [
        ("it is shorter than before", |path| shorter(path, 27)),
        ("it is shorter than before", |path| shorter(path, 31)),
        ("it is shorter than before", |path| shorter(path, 0)),
        ("it is longer than before", |path| longer(path, "more\n")),
        ("it is longer than before", |path| longer(path, "\n")),
        ("its contents are not those from before", |path| other_at(path, 30, "x")),
        ("its contents are not those from before", |path| std::fs::write(path, lines(10).replace('9', "x")).unwrap()),
        ("its contents are not those from before", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("/dev/null", path).unwrap();
        }),
        ("cannot read ", |path| std::fs::remove_file(path).unwrap()),
    ];
    for name in ["jobs.txt", "jobs.csv", "jobs.tsv"] {
        for (fault, edit) in edits {
            let directory = TempDir::new().unwrap();
            let (path, inputs) =
                checked(&directory, name, &format!("{}\n", lines(10).trim_end().replacen("00", "a0", 1)));
            edit(&path);
            let (texts, error) = read(inputs.skip_bad(true).open());
            assert_eq!(texts, [""; 0], "{name}, {fault}");
            let error = error.unwrap();
            assert!(error.contains(fault), "{error}");
            assert!(fault.starts_with("cannot") || error.contains(&format!("{name} changed while it was read: ")));
        }
    }
}

#[test]
fn a_file_that_changes_behind_what_was_read_gives_only_records_from_before() {
    let text = lines(MANY);
    let length = text.len() as u64;
    type Edit = fn(&Path, u64);
    let edits: [(&str, Edit); 6] = [
        ("it is shorter than before", |path, length| shorter(path, length - 9)),
        ("it is shorter than before", |path, length| shorter(path, length - 5)),
        ("it is shorter than before", |path, length| shorter(path, length / 2 + 3)),
        ("it is longer than before", |path, _| longer(path, "12345678")),
        ("its contents are not those from before", |path, length| other_at(path, length - 3, "x")),
        ("its contents are not those from before", |path, length| other_at(path, length / 2, "x")),
    ];
    for (fault, edit) in edits {
        let directory = TempDir::new().unwrap();
        let (path, inputs) = checked(&directory, "jobs.txt", &text);
        let mut reading = inputs.open();
        let first = reading.next().unwrap().1.unwrap().text().into_owned();
        edit(&path, length);
        let (mut texts, error) = read(reading);
        texts.insert(0, first);
        assert!(error.unwrap().contains(fault));
        assert!(texts.len() < MANY && text.lines().zip(&texts).all(|(expected, text)| expected == text), "{fault}");
    }
}

#[test]
fn a_file_with_the_same_contents_has_not_changed() {
    let directory = TempDir::new().unwrap();
    let text = lines(MANY);
    let (path, inputs) = checked(&directory, "jobs.txt", &text);
    let mut reading = inputs.open();
    assert!(reading.next().is_some());
    File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(read(reading).0.len(), MANY - 1);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &text).unwrap();
    assert_eq!(read(inputs.open()), (text.lines().map(str::to_owned).collect(), None));
}

#[test]
fn a_part_of_a_file_is_compared_as_far_as_it_was_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("jobs.txt");
    std::fs::write(&path, lines(10)).unwrap();
    let inputs = Inputs::from(Source::new(&path)).take(3);
    assert_eq!(inputs.check(|_| Ok(())).unwrap(), Some(3));
    longer(&path, &lines(MANY));
    assert_eq!(read(inputs.open()).0.len(), 3, "what is behind them is not read");
    other_at(&path, 9, "x");
    assert!(read(inputs.open()).1.is_some());
}

#[test]
fn each_file_is_compared_with_itself_also_one_that_is_given_twice_or_behind_a_stream() {
    let directory = TempDir::new().unwrap();
    let (one, two) = (directory.path().join("one.txt"), directory.path().join("two.txt"));
    std::fs::write(&one, "1\n").unwrap();
    std::fs::write(&two, "2\n3\n").unwrap();
    let files = [&one, &two, &one, Path::new("/dev/null"), &two].map(Source::new).to_vec();
    let inputs = Inputs::files(files, Layout::default());
    assert_eq!(inputs.check(|_| Ok(())).unwrap(), None);
    assert_eq!(read(inputs.open()), (["1", "2", "3", "1", "2", "3"].map(str::to_owned).to_vec(), None));
    let mut reading = inputs.open();
    assert_eq!(reading.by_ref().take(4).count(), 4);
    longer(&two, "4\n");
    assert!(read(reading).1.unwrap().contains("two.txt changed while it was read: it is longer"));
}

#[test]
fn an_empty_file_that_gets_records_has_changed() {
    let directory = TempDir::new().unwrap();
    let (path, inputs) = checked(&directory, "jobs.txt", "");
    longer(&path, "1\n");
    assert!(read(inputs.open()).1.unwrap().contains("it is longer than before"));
}
