//! How runs end when something is wrong: exit codes, messages, and what is left behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{self, Finished};
use crate::{Files, LIMIT, command, kernel, piped};

#[test]
fn a_hundred_billion_jobs_need_no_memory() {
    let words = ["kernel", "nop", "--jobs", "100000000000", "-q"];
    let mut child = support::start(&mut command(&words));
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut first = String::new();
    out.read_line(&mut first).expect("the first results come at once");
    assert_eq!(first, "0\n");
    let mut some = vec![0; 1 << 20];
    out.read_exact(&mut some).expect("more results come");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    drop(out);
    let end = support::wait(&mut child, LIMIT).expect("the reader has gone away");
    assert_eq!(end.code(), Some(0), "quietly");
    assert!(peak.is_none_or(|kilobytes| kilobytes < 200_000), "{peak:?} kB");
}

#[test]
fn bad_records_in_a_file_are_found_before_anything_starts() {
    let files = Files::new();
    let output = files.path("out.jsonl").display().to_string();
    for (name, text, words, message) in [
        ("a.csv", "x\n1\nfoo\n", "square", "a.csv:3: column 'x': 'foo' is not an integer"),
        ("b.csv", "x,y\n1,2\n1\n", "square", "b.csv:3: 1 column, but the header has 2"),
        ("c.jsonl", "1\n{bad\n", "square", "c.jsonl:2:2: key must be a string"),
        ("d.jsonl", "1.5\n", "cube", "d.jsonl:1: 1.5 is not an integer"),
        ("e.csv", "a,b\n1,2\n", "sum", "e.csv:2: no column 'param1' (available: a, b)"),
        ("f.csv", "p1,p3\n1,2\n", "slow-fn", "f.csv:2: no column 'p2'"),
        ("g.jsonl", "[1]\n", "power --each-y", "g.jsonl:1: expected two values"),
        ("h.jsonl", "-1\n", "nop", "h.jsonl:1: -1 is negative"),
        ("i.csv", "1\n2\n", "square", "i.csv:1: the first line is '1'; a CSV file of jobs begins with the names"),
    ] {
        let file = files.with(name, text);
        let run = kernel(&format!("{words} --input {file} --output {output}"));
        assert_eq!(run.expect_code(2).expect_said(message).out(), "");
        fs::remove_file(file).expect("it was there");
        assert_eq!(files.names(), [""; 0], "nothing was written");
    }
}

#[test]
fn a_bad_record_in_a_pipe_ends_the_run_behind_the_results_before_it() {
    let run = piped("square", "1\n2\n{bad\n4\n");
    assert_eq!(run.expect_code(2).expect_said("standard input:3:2: key must be a string").out(), "1\n4\n");
    let files = Files::new();
    let output = files.path("out.jsonl").display().to_string();
    piped(&format!("square --output {output}"), "1\n2\n{bad\n4\n")
        .expect_code(2)
        .expect_said("the output so far is in");
    assert_eq!(files.names(), ["out.jsonl.partial"]);
    assert_eq!(fs::read_to_string(files.path("out.jsonl.partial")).expect("it is there"), "1\n4\n");
}

#[test]
fn bad_records_can_be_left_out_and_are_reported() {
    let files = Files::new();
    let jobs = files.with("jobs.csv", "x\n1\nfoo\n3\n4,5\n");
    kernel(&format!("square --input {jobs}")).expect_code(2).expect_said("'foo' is not an integer (--skip-bad leaves");
    let run = kernel(&format!("square --skip-bad --input {jobs}"));
    run.expect_said("2 bad record(s) left out: ").expect_said("jobs.csv:3: column 'x': 'foo' is not an integer; ");
    assert_eq!(run.expect_code(0).expect_said("square: 2 jobs in").out(), "1\n9\n");
    let run = piped("square -q --skip-bad", "1\n{\n3\n");
    assert_eq!(run.expect_code(0).expect_said("1 bad record(s) left out: standard input:2:").out(), "1\n9\n");
}

#[test]
fn files_that_cannot_be_used_are_said_before_anything_starts() {
    let files = Files::new();
    for (words, message) in [
        ("square --input no/such.csv", "cannot read no/such.csv: No such file or directory"),
        ("square --input .", "cannot read .: Is a directory"),
        ("square --output /nonexistent/x", "cannot write /nonexistent/x: No such file or directory"),
        ("square --output .", "cannot write .: Is a directory"),
        ("square --summary /nonexistent/x", "cannot write /nonexistent/x: No such file or directory"),
        ("parzen --samples no/such.csv", "cannot read no/such.csv: No such file or directory"),
    ] {
        let run = kernel(words);
        assert_eq!(run.expect_code(2).expect_said(&format!("rankpool: {message}")).out(), "");
    }
    let empty = files.with("empty.csv", "");
    kernel(&format!("parzen --samples {empty}")).expect_code(2).expect_said("empty.csv: the point has no coordinates");
}

#[test]
fn the_reader_may_go_away() {
    let script = format!("{} --local 2 kernel nop --jobs 100000000000 | head -n 2", env!("CARGO_BIN_EXE_rankpool"));
    let run = support::run(Command::new("bash").args(["-c", &format!("{script}; exit ${{PIPESTATUS[0]}}")]), LIMIT);
    assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("0\n1\n", ""));
}

#[test]
fn a_full_disk_is_exit_code_1() {
    kernel("nop --jobs 100000 --output /dev/full")
        .expect_code(1)
        .expect_said("cannot write /dev/full: No space left on device");
    let full = File::options().write(true).open("/dev/full").expect("it is there on Linux");
    // The last results are as important as the first.
    let mut child = command(&["kernel", "square", "-q"]).stdout(full).stderr(Stdio::null()).spawn().expect("it starts");
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(1));
}

#[test]
fn a_summary_that_cannot_be_written_is_exit_code_1() {
    kernel("square --summary /dev/full").expect_code(1).expect_said("cannot write /dev/full: No space left on device");
}

/// Starts jobs of a tenth of a second, and signals the process when it has printed its first result.
fn stopped(signal: Signal, options: &[&str]) -> Finished {
    let words = ["kernel", "sleep", "--seconds", "0.1", "--jobs", "100000", "--threads", "1"];
    let mut command = command(&words);
    let mut child = command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut stdout = String::new();
    out.read_line(&mut stdout).expect("the first result");
    support::signal(child, signal);
    let status = support::wait(child, LIMIT).expect("it ends soon after the signal");
    out.read_to_string(&mut stdout).expect("text");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    Finished { code: status.code(), stdout: stdout.into_bytes(), stderr }
}

#[test]
fn a_signal_stops_the_run_and_leaves_the_results_so_far() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = stopped(signal, &[]);
        // A result that is there is not kept back for a job that takes longer: a line stands for that one.
        let out = run.expect_code(75).out();
        let left_out = |job: usize| {
            format!(
                "{{\"error\":{{\"job\":{job},\"kind\":\"stopped\",\"message\":\"the run was stopped before its end\"}}}}"
            )
        };
        let is_result = |(at, line): &(usize, &str)| line.parse().is_ok_and(|number: f64| number == *at as f64);
        let (results, others): (Vec<_>, Vec<_>) = out.lines().enumerate().partition(is_result);
        assert!(!results.is_empty() && others.iter().all(|(at, line)| *line == left_out(at + 1)), "{out}");
        assert!(out.lines().last().is_some_and(|last| last.parse::<f64>().is_ok()), "{out}");
        run.expect_said(&format!("stopped early by a signal, after {} job(s)", results.len()));
    }
}

#[test]
fn a_signal_stops_an_unordered_run() {
    let run = stopped(Signal::SIGINT, &["--unordered"]);
    let lines = run.expect_code(75).out().lines().count();
    run.expect_said(&format!("stopped early by a signal, after {lines} job(s)"));
}

#[test]
fn a_signal_leaves_the_output_so_far_under_another_name() {
    let files = Files::new();
    let output = files.path("out.jsonl");
    let mut child =
        support::start(command(&["kernel", "sleep", "--seconds", "0.1", "--jobs", "100000", "-o"]).arg(&output));
    // The unfinished file appears when everything is ready for the first job.
    while files.names().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    support::signal(&child, Signal::SIGTERM);
    let status = support::wait(&mut child, LIMIT).expect("it ends soon after the signal");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("stopped early by a signal"), "{stderr}");
    assert!(files.names().iter().all(|name| name == "out.jsonl.partial"), "{:?}", files.names());
}

#[test]
fn a_signal_stops_a_run_that_waits_for_its_input() {
    let mut command = command(&["kernel", "square", "--input", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"1\n2\n3\n").expect("it reads");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut stdout = String::new();
    while stdout.lines().count() < 3 {
        assert!(out.read_line(&mut stdout).expect("text") > 0, "it ended early: {stdout}");
    }
    // Nothing more comes, so the program waits now.
    support::signal(&child, Signal::SIGINT);
    let status = support::wait(&mut child, LIMIT).expect("it ends without more input");
    assert_eq!((status.code(), stdout.as_str()), (Some(75), "1\n4\n9\n"));
    drop(stdin);
}
