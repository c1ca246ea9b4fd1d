use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::writer::WRITE_BUFFER_BYTES;
use super::*;

/// What batches do with their [`Writer`].
impl JsonLines {
    fn flush(&mut self) -> Result<(), OutputError> {
        self.writer.flush()
    }

    fn write_error(&mut self, error: ErrorLine<'_>) -> Result<(), OutputError> {
        self.writer.write_all(&error_line(error))
    }
}

fn open(path: &Path) -> JsonLines {
    JsonLines::open(&Target::new(path)).unwrap()
}

/// Opens a device of this machine; stops the test if the device would be replaced, because root's rename would succeed.
fn open_device(path: &str) -> JsonLines {
    let output = open(Path::new(path));
    assert!(output.writer.is_direct(), "{path} would be replaced");
    output
}

fn refusal(path: impl Into<PathBuf>) -> String {
    JsonLines::open(&Target::new(path)).err().expect("an output that cannot be written").to_string()
}

fn names_in(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn each_result_is_a_line_and_a_failure_stands_in_its_place() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    let mut output = open(&path);
    output.write(&i128::MAX).unwrap();
    output.write(&(1, "a\nb")).unwrap();
    output.write_error(ErrorLine { job: 2, kind: "panic", message: "said \"no\"\nand left" }).unwrap();
    output.write(&f64::NAN).unwrap();
    output.finish().unwrap();
    let expected = concat!(
        "170141183460469231731687303715884105727\n",
        "[1,\"a\\nb\"]\n",
        "{\"error\":{\"job\":2,\"kind\":\"panic\",\"message\":\"said \\\"no\\\"\\nand left\"}}\n",
        "null\n",
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn a_file_appears_only_when_it_is_finished() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    let mut output = open(&path);
    output.write(&1).unwrap();
    output.flush().unwrap();
    assert!(!path.exists());
    output.finish().unwrap();
    assert_eq!(names_in(&directory), ["results.jsonl"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn an_unfinished_output_stays_beside_the_old_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    fs::write(&path, "old\n").unwrap();
    let mut output = open(&path);
    output.write(&1).unwrap();
    output.flush().unwrap();
    output.write(&2).unwrap();
    drop(output);
    assert_eq!(names_in(&directory), ["results.jsonl", "results.jsonl.partial"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    assert_eq!(fs::read_to_string(directory.path().join("results.jsonl.partial")).unwrap(), "1\n2\n");
}

#[test]
fn an_empty_output_that_was_not_finished_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    drop(open(&directory.path().join("results.jsonl")));
    assert!(names_in(&directory).is_empty());
}

#[test]
fn the_output_of_an_earlier_run_is_kept_under_another_name() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("r");
    for text in ["1", "2", "3"] {
        open(&path).write(&text).unwrap();
    }
    assert_eq!(names_in(&directory), ["r.partial", "r.partial.1", "r.partial.2"]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(
        (read("r.partial.1"), read("r.partial.2"), read("r.partial")),
        ("\"1\"\n".into(), "\"2\"\n".into(), "\"3\"\n".into())
    );
}

#[test]
fn two_cannot_write_one_output() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("r");
    let mut first = open(&path);
    first.write(&1).unwrap();
    first.flush().unwrap();
    let refused = refusal(&path);
    assert!(refused.contains("r: another run is writing it; "), "{refused}");
    first.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
}

#[test]
fn a_link_to_a_file_that_is_not_there_stays_one_and_its_target_is_written() {
    let directory = TempDir::new().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let (link, other) = (directory.path().join("link"), directory.path().join("other"));
    symlink("folder/file", &link).unwrap();
    symlink(&link, &other).unwrap();
    let mut output = open(&other);
    output.write(&2).unwrap();
    output.finish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::symlink_metadata(&other).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "2\n");
    let circle = directory.path().join("circle");
    symlink("circle", &circle).unwrap();
    assert!(refusal(&circle).ends_with(": Too many levels of symbolic links"), "{}", refusal(&circle));
}

#[test]
fn an_output_whose_name_was_taken_by_a_folder_is_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("r");
    let mut output = open(&path);
    output.write(&1).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(output.finish().unwrap_err().to_string().ends_with(": Is a directory"));
    assert_eq!(names_in(&directory), ["r", "r.partial"]);
}

#[test]
fn a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode() {
    let directory = TempDir::new().unwrap();
    let (usual, new, old) =
        (directory.path().join("usual"), directory.path().join("new"), directory.path().join("old"));
    fs::write(&usual, "").unwrap();
    fs::write(&old, "").unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o640)).unwrap();
    open(&new).finish().unwrap();
    open(&old).finish().unwrap();
    assert_eq!(mode(&new), mode(&usual));
    assert_eq!(mode(&old), 0o640);
}

#[test]
fn a_symbolic_link_stays_one_and_its_target_is_replaced() {
    let directory = TempDir::new().unwrap();
    let (link, file) = (directory.path().join("link"), directory.path().join("file"));
    fs::write(&file, "old").unwrap();
    symlink("file", &link).unwrap();
    let mut output = open(&link);
    output.write(&2).unwrap();
    output.finish().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), "2\n");
}

#[test]
fn an_output_that_cannot_be_written_is_found_out_when_it_is_opened() {
    let directory = TempDir::new().unwrap();
    let shown = directory.path().display().to_string();
    let refused = |name: &str| refusal(directory.path().join(name));
    assert_eq!(refused("no/r.jsonl"), format!("cannot write {shown}/no/r.jsonl: No such file or directory"));
    assert_eq!(refusal(directory.path()), format!("cannot write {shown}: Is a directory"));
    assert!(refused("new/").starts_with(&format!("cannot write {shown}/new/: ")));
    assert!(refused(&"x".repeat(300)).ends_with(": File name too long"));
    assert!(refusal("").starts_with("cannot write : "));
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(refused("file/r.jsonl").ends_with(": Not a directory"));
    assert_eq!(names_in(&directory), ["file"]);
}

#[test]
fn a_read_only_file_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    // Root may write it all the same, and so may this program then.
    if fs::OpenOptions::new().write(true).open(&path).is_err() {
        assert_eq!(refusal(&path), format!("cannot write {}: Permission denied", path.display()));
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_nothing_whole_can_follow() {
    let mut output = open_device("/dev/full");
    output.write(&1).unwrap();
    let error = output.flush().unwrap_err();
    assert_eq!(error.to_string(), "cannot write /dev/full: No space left on device");
    assert!(!error.is_closed());
    assert_eq!(output.finish().unwrap_err().to_string(), "/dev/full is not complete: writing it failed before");

    let mut output = open_device("/dev/full");
    output.write(&1).unwrap();
    assert!(matches!(output.finish(), Err(OutputError::Unwritable { .. })));
}

#[test]
fn special_files_are_written_directly_and_not_replaced() {
    let mut output = open_device("/dev/null");
    output.write(&1).unwrap();
    output.finish().unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_special_file_that_took_the_name_meanwhile_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    let output = open(&path);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(output.finish(), Err(OutputError::Unwritable { .. })));
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    assert_eq!(names_in(&directory), ["results.jsonl"]);
}

/// A FIFO with a reader that reads one line and closes it.
fn fifo_read_by(directory: &TempDir, reader: &str) -> (PathBuf, std::process::Child) {
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{reader} < \"$0\"")).arg(&path);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    (path, child)
}

#[test]
fn a_reader_of_a_fifo_sees_every_line_that_was_flushed() {
    let directory = TempDir::new().unwrap();
    let (path, child) = fifo_read_by(&directory, "cat");
    let mut output = open(&path);
    output.write(&1).unwrap();
    output.flush().unwrap();
    output.write(&2).unwrap();
    output.finish().unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"1\n2\n");
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_reported_as_another_failure() {
    let directory = TempDir::new().unwrap();
    let (path, mut child) = fifo_read_by(&directory, "true");
    let mut output = open(&path);
    child.wait().unwrap();
    output.write(&1).unwrap();
    let error = output.flush().unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.to_string(), format!("the reader of {} has closed it", path.display()));
}

#[test]
fn a_value_without_json_form_leaves_no_trace_and_the_output_good() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    let mut output = open(&path);
    output.write(&1).unwrap();
    let error = output.write(&BTreeMap::from([(vec![1], 2)])).unwrap_err();
    assert!(error.to_string().ends_with("as JSON: key must be a string"), "{error}");
    output.write(&3).unwrap();
    output.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n3\n");
}

#[test]
fn a_line_larger_than_the_buffer_arrives_whole_and_in_order() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("results.jsonl");
    let large = "x".repeat(3 * WRITE_BUFFER_BYTES);
    let mut output = open(&path);
    output.write("a").unwrap();
    output.write(&large).unwrap();
    output.write("b").unwrap();
    output.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("\"a\"\n\"{large}\"\n\"b\"\n"));
}

#[test]
fn the_names_of_standard_output_mean_standard_output() {
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(Target::new(name), Target::Stdout);
    }
    assert_eq!(Target::new("./-"), Target::File("./-".into()));
    assert_eq!(&*Target::Stdout.name(), "standard output");
    JsonLines::open(&Target::Stdout).unwrap().finish().unwrap();
}

#[test]
fn bytes_of_one_call_stay_together_and_need_not_be_text() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("out");
    let mut writer = Writer::open(&Target::new(&path)).unwrap();
    writer.write_all(b"\xff\0").unwrap();
    writer.write_all(&[]).unwrap();
    writer.write_all(b"no line").unwrap();
    assert!(!writer.is_broken() && !path.exists());
    writer.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"\xff\0no line");
}

#[test]
fn a_file_that_is_written_directly_is_there_at_once_and_stays() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("records.jsonl");
    let write = |existing, text: &str| {
        let mut writer = Writer::open_direct(&Target::new(&path), existing).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.flush().unwrap();
        // Dropped, as by a run that ends early.
        fs::read_to_string(&path).unwrap()
    };
    assert_eq!(write(Existing::Append, "a\n"), "a\n");
    assert_eq!(write(Existing::Append, "b\n"), "a\nb\n");
    assert_eq!(write(Existing::Replace, "c\n"), "c\n");
    assert_eq!(names_in(&directory), ["records.jsonl"]);
    let refused = |path: &Path| Writer::open_direct(&Target::new(path), Existing::Append).err().unwrap().to_string();
    assert!(refused(directory.path()).ends_with(": Is a directory"));
    assert!(refused(&directory.path().join("no/x")).ends_with(": No such file or directory"));
}

#[test]
fn a_failed_write_makes_the_output_incomplete() {
    let mut writer = Writer::open_direct(&Target::new("/dev/full"), Existing::Replace).unwrap();
    writer.write_all(b"x").unwrap();
    assert!(writer.flush().is_err() && writer.is_broken());
    assert!(matches!(writer.finish(), Err(OutputError::Incomplete { .. })));
}

#[test]
fn the_names_of_standard_error_mean_standard_error() {
    for name in ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
        assert_eq!(Target::new(name), Target::Stderr);
    }
    assert_eq!(&*Target::Stderr.name(), "standard error");
    Writer::open(&Target::Stderr).unwrap().finish().unwrap();
    Writer::open_direct(&Target::Stderr, Existing::Append).unwrap().finish().unwrap();
}
