use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::input::InputError;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn line_of(entry: &JobEntry<'_>) -> String {
    serde_json::to_string(entry).unwrap()
}

fn read(text: &str) -> Result<LastEntries, InputError> {
    LastEntries::read_lines(&Arc::from("r.jsonl"), text.as_bytes(), None)
}

/// Appends these entries to the file.
fn append(path: &Path, entries: &[(u64, Status)]) {
    let mut log = JobLog::open(&Target::new(path), Existing::Append).unwrap();
    for (number, status) in entries {
        log.write(&JobEntry::new(*number, &raw(&number.to_string()), *status)).unwrap();
    }
    log.finish().unwrap();
}

#[test]
fn an_entry_is_one_object_without_the_fields_that_are_not_known() {
    let input = raw("{\"a\": [1, \"x\"]}");
    assert_eq!(
        line_of(&JobEntry::new(7, &input, Status::Lost)),
        "{\"number\":7,\"input\":{\"a\": [1, \"x\"]},\"status\":\"lost\",\"attempts\":0}"
    );
    let entry = JobEntry {
        exit: Some(3),
        signal: Some(9),
        attempts: 2,
        host: Some("node7"),
        rank: Some(1),
        slot: Some(4),
        start: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_903_999_123)),
        duration: Some(Duration::from_nanos(1_234_567_890)),
        user: Some(Duration::from_millis(1500)),
        system: Some(Duration::ZERO),
        max_rss: Some(1 << 30),
        output_bytes: Some(12),
        message: Some("no\nsuch"),
        traceback: Some("line 3"),
        ..JobEntry::new(1, &input, Status::Signal)
    };
    assert_eq!(
        line_of(&entry),
        concat!(
            "{\"number\":1,\"input\":{\"a\": [1, \"x\"]},\"status\":\"signal\",\"exit\":3,\"signal\":9,",
            "\"signal_name\":\"SIGKILL\",\"attempts\":2,\"host\":\"node7\",\"rank\":1,\"slot\":4,",
            "\"start\":\"2026-01-31T23:59:59.123Z\",\"seconds\":1.234567,\"user\":1.5,\"system\":0.0,",
            "\"max_rss\":1073741824,\"output_bytes\":12,\"message\":\"no\\nsuch\",\"traceback\":\"line 3\"}"
        )
    );
    // A real-time signal has a number and no name; a clock may be wrong.
    let odd = JobEntry {
        signal: Some(40),
        start: Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
        ..JobEntry::new(1, &input, Status::Signal)
    };
    assert!(line_of(&odd).ends_with("\"signal\":40,\"attempts\":0,\"start\":\"1970-01-01T00:00:00.000Z\"}"));
}

#[test]
fn each_status_is_one_word() {
    use Status::{Cancelled, Failed, Lost, Ok, Signal, Spawn, Timeout};
    let words = serde_json::to_string(&[Ok, Failed, Signal, Timeout, Spawn, Lost, Cancelled]).unwrap();
    assert_eq!(words, "[\"ok\",\"failed\",\"signal\",\"timeout\",\"spawn\",\"lost\",\"cancelled\"]");
}

#[test]
fn a_log_can_be_read_while_the_run_goes_on_and_end_with_a_whole_line() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.jsonl");
    fs::write(&path, "old\n").unwrap();
    let mut log = JobLog::open(&Target::new(&path), Existing::Replace).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    let input = raw(&format!("\"{}\"", "x".repeat(1000)));
    for number in 1..=500 {
        log.write(&JobEntry::new(number, &input, Status::Ok)).unwrap();
        let written = fs::read(&path).unwrap();
        assert!(written.is_empty() || written.ends_with(b"}\n"));
    }
    log.flush().unwrap();
    assert_eq!(LastEntries::read(&path, None).unwrap().ok_count(), 500);
    // The run is killed here.
    drop(log);
    assert_eq!(LastEntries::read(&path, None).unwrap().ok_count(), 500);
}

#[test]
fn an_input_on_several_lines_is_logged_on_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.jsonl");
    let input = raw("{\n \"a\": 1\n}");
    let mut log = JobLog::open(&Target::new(&path), Existing::Append).unwrap();
    log.write(&JobEntry::new(1, &input, Status::Failed)).unwrap();
    log.finish().unwrap();
    let last = LastEntries::read(&path, None).unwrap();
    assert!(!last.is_of_another(1, &input) && last.is_of_another(1, &raw("{}")));
}

#[test]
fn the_last_entry_of_a_job_counts() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.jsonl");
    append(&path, &[(1, Status::Ok), (2, Status::Failed), (3, Status::Timeout), (600, Status::Ok)]);
    append(&path, &[(2, Status::Ok), (1, Status::Lost)]);
    let last = LastEntries::read(&path, None).unwrap();
    for number in [1, 2, 3, 600] {
        assert!(!last.is_of_another(number, &raw(&number.to_string())), "{number}");
        assert!(last.is_of_another(number, &raw("\"other\"")), "{number}");
    }
    assert!(!last.is_of_another(4, &raw("4")), "it has no entry");
    assert_eq!(
        [0, 1, 2, 3, 4, 600, u64::MAX].map(|number| last.is_ok(number)),
        [false, false, true, false, false, true, false]
    );
    assert_eq!(last.ok_count(), 2);
}

#[test]
fn an_incomplete_last_line_is_ignored_and_cut_off_before_entries_are_appended() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.jsonl");
    append(&path, &[(1, Status::Ok), (2, Status::Failed)]);
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let before = LastEntries::read(&path, None).unwrap();
        append(&path, &[]);
        assert_eq!(LastEntries::read(&path, None).unwrap(), before, "{length}");
        append(&path, &[(3, Status::Ok)]);
        let after = LastEntries::read(&path, None).unwrap();
        assert!(after.is_ok(3) && after.ok_count() == before.ok_count() + 1, "{length}");
    }
}

#[test]
fn a_file_of_something_else_is_not_appended_to() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("data.csv");
    fs::write(&path, "a,b\n1,2").unwrap();
    let error = JobLog::open(&Target::new(&path), Existing::Append).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot write {}: its last line is not an entry of a job log, as `--records` writes it; give another file",
            path.display()
        )
    );
    assert_eq!(fs::read(&path).unwrap(), b"a,b\n1,2");
}

#[test]
fn garbage_is_an_error_with_file_and_line() {
    let good = "{\"number\":1,\"input\":1,\"status\":\"ok\",\"more\":[]}\n";
    for (garbage, expected) in [
        ("x\n", "r.jsonl:3:1: not an entry of a job log, as `--records` writes it: expected value"),
        (
            "{\"number\":1,\"input\":2}\n",
            "r.jsonl:3:22: not an entry of a job log, as `--records` writes it: missing field `status`",
        ),
        (
            "{\"number\":-1,\"input\":2,\"status\":\"ok\"}\n",
            "r.jsonl:3:12: not an entry of a job log, as `--records` writes it: invalid value",
        ),
        (
            "{\"number\":1,\"input\":2,\"status\":\"fine\"}\n",
            "r.jsonl:3:37: not an entry of a job log, as `--records` writes it: unknown variant `fine`",
        ),
        ("{\"number\":1,\"inp\n", "r.jsonl:3"),
        ("\u{0}\n", "r.jsonl:3:1: not an entry"),
    ] {
        let message = read(&format!("{good}\n{garbage}{good}")).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{garbage}: {message}");
    }
    assert!(LastEntries::read(Path::new("/no/such"), None).unwrap_err().to_string().contains("cannot read /no/such"));
}

#[test]
fn empty_lines_and_a_whole_last_line_without_end_are_fine() {
    let line = "{\"number\":1,\"input\":1,\"status\":\"ok\"}";
    assert!(read(&format!("\n{line}")).unwrap().is_ok(1));
    assert_eq!(read("").unwrap(), LastEntries::default());
}

#[test]
fn many_successful_jobs_take_little_memory() {
    let mut text = Vec::new();
    for number in 1..=100_000 {
        writeln!(text, "{{\"number\":{number},\"input\":null,\"status\":\"ok\"}}").unwrap();
    }
    let measured = allocation_counter::measure(|| {
        let last = LastEntries::read_lines(&Arc::from("r"), text.as_slice(), None).unwrap();
        assert_eq!(last.ok_count(), 100_000);
    });
    assert!(measured.bytes_max < 1_000_000, "{}", measured.bytes_max);
}

#[test]
fn a_device_is_written_as_it_is() {
    let mut log = JobLog::open(&Target::new("/dev/null"), Existing::Append).unwrap();
    log.write(&JobEntry::new(1, &raw("1"), Status::Ok)).unwrap();
    log.finish().unwrap();
    let mut log = JobLog::open(&Target::new("/dev/full"), Existing::Replace).unwrap();
    log.write(&JobEntry::new(1, &raw("1"), Status::Ok)).unwrap();
    assert_eq!(log.flush().unwrap_err().to_string(), "cannot write /dev/full: No space left on device");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_entries_that_are_read_are_the_last_ones(written in prop::collection::vec((0_u64..2000, any::<bool>()), 0..200)) {
        let mut text = String::new();
        let mut expected = std::collections::BTreeMap::new();
        for (number, is_ok) in written {
            let status = if is_ok { Status::Ok } else { Status::Failed };
            text.push_str(&line_of(&JobEntry::new(number, &raw("\"i\""), status)));
            text.push('\n');
            expected.insert(number, is_ok);
        }
        let last = read(&text).unwrap();
        for number in 0..2000 {
            prop_assert_eq!(last.is_ok(number), expected.get(&number) == Some(&true));
        }
        prop_assert_eq!(last.ok_count(), expected.values().filter(|is_ok| **is_ok).count() as u64);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = LastEntries::read_lines(&Arc::from("r"), bytes.as_slice(), None);
    }
}
