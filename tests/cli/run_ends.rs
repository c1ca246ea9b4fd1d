//! How batches of `rankpool run` end: exit codes, what was wrong in words, signals, and what is left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::{Files, LIMIT, batch, records, run_batch, start_limited, support, until};

#[test]
fn what_cannot_be_run_is_said_before_anything_starts() {
    let files = Files::new();
    files.with("jobs.csv", "a,b\n1,2\n3,4\n");
    files.with("bad.csv", "a,b\n1,2\n3\n");
    files.with("bad.jsonl", "1\n{\n");
    files.with("latin", b"caf\xe9\n");
    files.with("nul.jsonl", "\"a\\u0000b\"\n");
    let before = files.names();
    for (words, message) in [
        (&["--args", "1", "--", "no-such-program", "{}"][..], "no such program: no-such-program"),
        (&["--args", "1", "--", "./no-such"], "no such program: ./no-such"),
        (&["--args", "1", "--", "/etc"], "/etc"),
        (&["--args", "1", "--", "./jobs.csv"], "jobs.csv"),
        (&["--args", "1", "--", ""], "no command to run"),
        (&["--args", "1", "--cwd", "nowhere", "--", "touch", "x"], "no such directory: nowhere"),
        (&["-i", "jobs.csv", "--", "touch", "{c}"], "jobs.csv:2: no column, key or position 'c'"),
        (&["-i", "jobs.csv", "--", "touch", "{3}"], "jobs.csv:2: no column, key or position '3'"),
        (&["-i", "bad.csv", "--", "touch", "{a}"], "bad.csv:3: 1 column, but the header has 2"),
        (&["-i", "bad.jsonl", "--", "touch", "{}"], "bad.jsonl:2"),
        (&["-i", "latin", "--", "touch", "{}"], "latin:1"),
        (&["-i", "nul.jsonl", "--", "touch", "{}"], "nul.jsonl:1: the value of {} contains a zero byte"),
        (&["-i", "none.csv", "--", "touch", "x"], "cannot read none.csv"),
        (&["--", "touch", "x"], "there are no records: give --input FILE"),
        (&["--args", "1"], "<COMMAND>"),
        (&["--skip", "1", "--", "touch", "x"], "--skip has no effect without a source of records"),
        (&["--args", "1", "--range", "1:2", "--", "touch", "x"], "--args and --range cannot be combined"),
        (&["--args", "1", "--env", "X", "--", "touch", "x"], "'X' does not set a variable; write NAME=VALUE"),
        (&["--args", "1", "--env", "=1", "--", "touch", "x"], "'=1' does not set a variable"),
        (&["--args", "1", "--timeout", "soon", "--", "touch", "x"], "'soon' for '--timeout <TIME>'"),
        (&["--args", "1", "--timeout=-1s", "--", "touch", "x"], "for '--timeout <TIME>'"),
        (&["--args", "1", "--retry-on", "never", "--", "touch", "x"], "'never' for '--retry-on <STATUS>'"),
        (&["--args", "1", "--max-failures", "200%", "--", "touch", "x"], "'200%' is neither a number nor a share"),
        (&["--args", "1", "--job-cpus", "0", "--", "touch", "x"], "'0' for '--job-cpus <N>'"),
        (
            &["--args", "1", "-o", "x", "--stderr", "x", "--", "true"],
            "--output and --stderr cannot both be written to x",
        ),
        (&["--args", "1", "-o", "x", "--records", "x", "--", "true"], "--output and --records cannot both be"),
        (&["--args", "1", "--records", "-", "--", "touch", "x"], "--output and --records cannot both be"),
        (&["--args", "1", "-o", "x", "--records", "./jobs.csv/../x", "--", "true"], "x"),
        (&["--args", "1", "--summary", "x", "--records", "x", "--", "true"], "--records and --summary cannot both be"),
        (&["--args", "1", "--summary", "x", "--stderr", "x", "--", "true"], "--stderr and --summary cannot both be"),
        (&["-i", "jobs.csv", "--records", "jobs.csv", "--", "true"], "--records would overwrite the input jobs.csv"),
        (&["-i", "./jobs.csv", "--records", "jobs.csv", "--", "true"], "--records would overwrite the input jobs.csv"),
        (&["--args", "1", "--only-failed", "bad.jsonl", "-o", "./bad.jsonl", "--", "true"], "bad.jsonl"),
        (&["--args", "1", "--records", "no/r", "--", "touch", "x"], "cannot write no/r: No such file or directory"),
        (&["--args", "1", "--stderr", ".", "--", "touch", "x"], "cannot write .: Is a directory"),
    ] {
        let run = run_batch(&files, words);
        assert_eq!(run.expect_code(2).expect_said(message).out(), "", "{words:?}");
        assert_eq!(files.names(), before, "{words:?}: {}", run.stderr);
    }
    assert_eq!(fs::read_to_string(files.path("jobs.csv")).expect("text"), "a,b\n1,2\n3,4\n");
}

#[test]
fn bad_records_of_a_pipe_end_it_behind_the_jobs_before_them() {
    let files = Files::new();
    files.with("jobs", "1\n{\"a\":2}\n{bad\n4\n");
    let binary = env!("CARGO_BIN_EXE_rankpool");
    let piped = |options: &str| {
        let script = format!("cat jobs | {binary} --local 2 run -i - --format jsonl {options} -- echo {{}}");
        support::run(Command::new("sh").args(["-c", &script]).current_dir(files.0.path()), LIMIT)
    };
    let run = piped("--records r -o out");
    run.expect_code(2)
        .expect_said("standard input:3:2: key must be a string")
        .expect_said("; the output so far is in out.partial");
    assert_eq!(fs::read_to_string(files.path("out.partial")).expect("text"), "1\n{\"a\":2}\n");
    assert_eq!(records(&files, "r").len(), 2);
    let run = piped("--skip-bad -q");
    assert_eq!(run.expect_code(0).expect_said("1 bad record(s) left out: standard input:3").out(), "1\n{\"a\":2}\n4\n");
    files.with("jobs.csv", "a\n1\n2,3\n4\n");
    let run = run_batch(&files, &["-q", "--skip-bad", "-i", "jobs.csv", "--records", "r", "--", "echo", "{a}"]);
    assert_eq!(run.expect_code(0).expect_said("1 bad record(s) left out: jobs.csv:3").out(), "1\n4\n");
}

#[test]
fn quiet_shows_nothing_when_all_jobs_succeed_and_failures_are_named_in_order() {
    let files = Files::new();
    assert_eq!(run_batch(&files, &["-q", "--range", "1:9", "--", "true"]).expect_code(0).stderr, "");
    let run = run_batch(
        &files,
        &["--range", "1:30", "--threads", "3", "--", "sh", "-c", "sleep 0.00$((9 - {} % 10)); exit {}"],
    );
    run.expect_code(3).expect_said("30 of 30 job(s) failed:\n  job 1: exit code 1\n  job 2: exit code 2\n");
    run.expect_said(
        "\n  job 10: exit code 10\n  and 20 more\nWith --records FILE, the failed jobs alone can be run again",
    );
    run.expect_said("run: 30 jobs (30 failed) in");
    // --quiet shows failures and nothing else.
    let run = run_batch(&files, &["-q", "--args", "1", "--records", "a b", "--", "false"]);
    assert_eq!(run.expect_code(3).stderr.lines().count(), 3, "{}", run.stderr);
}

#[test]
fn a_signal_ends_running_jobs_after_a_moment_and_keeps_what_was_done() {
    let files = Files::new();
    // The jobs from the third on wait for a signal that is theirs.
    let script = "echo {}; test {} -le 2 && exit; touch up{}; (sleep 5.43e1; true) & sleep 5.43e1";
    let words = ["--threads", "2", "--range", "1:50", "--records", "r", "-o", "out", "--grace", "0.3s"];
    let words = [&words[..], &["--", "sh", "-c", script]].concat();
    let mut child = support::start(&mut batch(&files, &words));
    until("jobs wait", || files.names().iter().filter(|name| name.starts_with("up")).count() == 4);
    support::signal(&child, Signal::SIGTERM);
    let status = support::wait(&mut child, LIMIT).expect("it ends soon");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(
        stderr.contains("stopped early by a signal, after 2 job(s); the output so far is in out.partial"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(files.path("out.partial")).expect("text"), "1\n2\n");
    assert!(!files.path("out").exists() && records(&files, "r").len() == 2);
    until("no process is left", || !is_running("5.43e1"));
}

#[test]
fn a_signal_lets_running_jobs_end_and_starts_no_more() {
    let files = Files::new();
    let script = "touch up{}; until test -e go; do sleep 0.01; done; echo {}";
    let words = ["--local", "1", "--threads", "1", "--range", "1:50", "--records", "r", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    until("a job runs", || files.path("up1").exists());
    support::signal(&child, Signal::SIGINT);
    files.with("go", "");
    let status = support::wait(&mut child, LIMIT).expect("it ends soon");
    let mut stdout = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut stdout).expect("text");
    // The signal may be heard late: jobs that were dealt by then are run.
    let count = stdout.lines().count();
    assert!(status.code() == Some(75) && (1..50).contains(&count), "{status}: {stdout}");
    assert!(stdout.lines().eq((1..=count).map(|number| number.to_string())), "{stdout}");
    assert_eq!(records(&files, "r").len(), count, "all that is shown is recorded, and the other way round");
}

fn is_running(word: &str) -> bool {
    let ids = fs::read_dir("/proc").expect("it is there on Linux").filter_map(|entry| entry.ok());
    ids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn no_job_outlives_a_killed_rankpool() {
    let files = Files::new();
    let script = "trap '' TERM; touch up{}; sleep 6.54e1; sleep 6.54e1";
    let words = ["--threads", "1", "--range", "1:4", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    until("jobs run", || files.names().len() == 2);
    support::signal(&child, Signal::SIGKILL);
    support::wait(&mut child, LIMIT);
    until("no process is left", || !is_running("6.54e1"));
}

#[test]
fn a_reader_that_goes_away_ends_the_batch_quietly() {
    let files = Files::new();
    let words = ["--range", "1:1000000", "--records", "r", "--", "echo", "{}"];
    let (mut child, _limit) = start_limited(&mut batch(&files, &words), Stdio::null());
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    drop(out);
    let status = support::wait(&mut child, LIMIT).expect("it ends soon");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    assert_eq!((line.as_str(), status.code(), stderr.as_str()), ("1\n", Some(0), ""));
    assert!(!records(&files, "r").is_empty());
}

#[test]
fn a_full_disk_is_exit_code_1() {
    let files = Files::new();
    for option in ["--output", "--stderr", "--records"] {
        let words = [option, "/dev/full", "--range", "1:3000", "--", "sh", "-c", "echo out; echo err >&2"];
        run_batch(&files, &words).expect_code(1).expect_said("cannot write /dev/full: No space left on device");
    }
    assert_eq!(files.names(), [""; 0]);
}

/// The user CPU seconds in a line of the shell's `times`, such as `0m1.23s 0m0.04s`.
fn user_seconds(line: &str) -> f64 {
    let (minutes, seconds) =
        line.split_once(' ').and_then(|(user, _)| user.trim_end_matches('s').split_once('m')).expect("two times");
    60.0 * minutes.parse::<f64>().expect("a number") + seconds.parse::<f64>().expect("a number")
}

#[test]
fn the_cpu_time_of_commands_is_part_of_that_of_the_program() {
    let files = Files::new();
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; times";
    let measured = batch(&files, &["--range", "1:3", "--", "sh", "-c", busy]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "\"$@\"; times", "sh"])
        .arg(measured.get_program())
        .args(measured.get_args())
        .current_dir(files.0.path());
    let out = support::run(&mut shell, LIMIT).expect_code(0).out();
    // Each shell tells its own time and that of its children.
    let times: Vec<f64> = out.lines().map(user_seconds).collect();
    let commands: f64 = times[..6].iter().step_by(2).sum();
    let children = times[7];
    assert!(commands > 0.05 && children >= 0.9 * commands, "{children} s of at least {commands} s: {out}");
}
