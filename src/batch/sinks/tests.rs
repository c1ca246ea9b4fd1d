use std::fs;

use serde_bytes::ByteBuf;

use super::*;
use crate::output::{Target, Writer};

/// Sinks that write `out` and `err` of a folder.
fn sinks(folder: &Path, lines: Lines) -> Sinks {
    let open = |name| Writer::open(&Target::new(folder.join(name))).unwrap();
    let handover = Handover::new(open("out"), open("err"), None, false, None);
    Sinks::new(lines, false, None, handover, Vec::new())
}

fn job(place: u64) -> Job {
    Job { place, number: place + 1, attempt: 1, input: None, read_us: 0 }
}

fn ok(out: &str) -> AttemptResult {
    AttemptResult::ok(out.into(), None)
}

fn failed(status: Status, message: &str) -> AttemptResult {
    AttemptResult::without_output(status, Cause::new("failed", message), None)
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

const ONE_LINE: Lines = Lines::OneForEach { echo_errors: true };

#[test]
fn output_comes_in_the_order_of_places_alone_and_in_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut sinks = sinks(folder.path(), Lines::AsWritten);
    assert!(sinks.takes_runs() && !sinks.writes_each_job());
    sinks.settle_run(3, 2, b"3\n4\n").unwrap();
    sinks.settle(&job(1), ok("1\n")).unwrap();
    assert_eq!((sinks.is_waiting(), sinks.behind(), sinks.end()), (true, 5, 5));
    sinks.settle_run(0, 1, b"0\n").unwrap();
    sinks.settle(&job(2), ok("2\n")).unwrap();
    assert_eq!((sinks.is_waiting(), sinks.behind()), (false, 0));
    sinks.finish(Some(Counts::default())).unwrap();
    assert_eq!(read(folder.path(), "out"), "0\n1\n2\n3\n4\n");
}

#[test]
fn pieces_of_an_attempt_that_is_forgotten_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut sinks = sinks(folder.path(), Lines::AsWritten);
    sinks.take_part(0, OutputStream::Stdout, b"first attempt, ");
    sinks.forget(0);
    sinks.take_part(0, OutputStream::Stdout, b"second attempt, ");
    let result = AttemptResult { err: ByteBuf::from(b"warning\n".to_vec()), ..ok("its end\n") };
    sinks.settle(&job(0), result).unwrap();
    sinks.finish(Some(Counts::default())).unwrap();
    assert_eq!(
        (read(folder.path(), "out"), read(folder.path(), "err")),
        ("second attempt, its end\n".into(), "warning\n".into())
    );
}

#[test]
fn errors_are_lines_in_the_output_or_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut one_line = sinks(folder.path(), ONE_LINE);
    one_line.settle(&job(0), failed(Status::Failed, "no \u{1b}[1mreason")).unwrap();
    one_line.settle(&job(1), failed(Status::Cancelled, "enough")).unwrap();
    one_line.finish(Some(Counts::default())).unwrap();
    let line =
        |job, message| format!("{{\"error\":{{\"job\":{job},\"kind\":\"failed\",\"message\":\"{message}\"}}}}\n");
    assert_eq!(read(folder.path(), "out"), line(1, "no \\u001b[1mreason") + &line(2, "enough"));
    let err = read(folder.path(), "err");
    assert!(err.starts_with("rankpool: job 1: no ") && !err.contains('\u{1b}') && err.lines().count() == 1, "{err}");

    let folder = tempfile::tempdir().unwrap();
    let mut as_written = sinks(folder.path(), Lines::AsWritten);
    as_written.settle(&job(0), failed(Status::Failed, "exit code 1")).unwrap();
    as_written.settle(&job(1), failed(Status::Timeout, "not done after 1 s")).unwrap();
    as_written.finish(Some(Counts::default())).unwrap();
    assert_eq!(
        (read(folder.path(), "out"), read(folder.path(), "err")),
        (String::new(), "rankpool: job 2: not done after 1 s\n".into())
    );
}

#[test]
fn after_gaps_are_closed_late_output_is_not_mixed_with_that_of_other_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let mut sinks = sinks(folder.path(), ONE_LINE);
    sinks.take_part(0, OutputStream::Stdout, b"half a li");
    sinks.settle(&job(1), ok("1\n")).unwrap();
    sinks.leave_out(&job(2));
    sinks.close_gaps().unwrap();
    sinks.take_part(0, OutputStream::Stdout, b"ne\n");
    sinks.settle(&job(0), ok("late\n")).unwrap();
    sinks.finish(None).unwrap();
    assert_eq!(read(folder.path(), "out.partial"), "1\n", "job 0 is torn, and no line is needed behind the last one");
}

#[test]
fn a_job_that_is_left_to_the_next_run_has_a_line_only_if_others_come_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut sinks = sinks(folder.path(), ONE_LINE);
    sinks.settle(&job(1), ok("1\n")).unwrap();
    sinks.leave_out(&job(0));
    sinks.leave_out(&job(2));
    sinks.finish(None).unwrap();
    let stopped =
        "{\"error\":{\"job\":1,\"kind\":\"stopped\",\"message\":\"the run was stopped before its end\"}}\n1\n";
    assert_eq!(read(folder.path(), "out.partial"), stopped);
}
