//! Commands and worker processes on real ranks.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support;
use crate::{LIMIT, mpiexec, rankpool, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("commands_give_the_same_bytes_for_every_number_of_ranks", commands_give_the_same_bytes),
    ("a_python_function_answers_the_same_for_every_number_of_ranks", a_python_function_answers_the_same),
    ("a_missing_program_is_named_with_its_host_and_nothing_starts", a_missing_program_is_named),
    ("failed_commands_give_exit_code_3_and_can_be_run_again", failed_commands_can_be_run_again),
    ("a_job_may_be_an_mpi_program", a_job_may_be_an_mpi_program),
    ("a_flood_from_another_rank_arrives_whole_in_little_memory", a_flood_arrives_whole),
    ("a_worker_killed_in_a_job_costs_that_job_only", a_killed_worker_costs_its_job),
    ("a_python_file_that_cannot_be_imported_ends_the_run", a_broken_import_ends_the_run),
    ("a_run_that_is_killed_leaves_no_commands_behind", a_killed_run_leaves_nothing),
    ("sigterm_to_a_rank_keeps_what_is_done", sigterm_keeps_what_is_done),
    ("slots_of_a_host_are_different_on_all_its_ranks", slots_are_different),
    ("the_status_file_and_the_trace_have_all_ranks", status_and_trace_have_all_ranks),
];

const RANKS: [u32; 3] = [1, 2, 4];

pub fn batch(ranks: u32, words: &[&str]) -> Command {
    let mut command = mpiexec(ranks, &rankpool());
    command.args(words);
    command
}

/// A folder for one test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

fn records(file: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("the records are there");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn commands_give_the_same_bytes() {
    let script = "echo out {}; echo err {} >&2; sleep 0.0$(( {} % 3 )); printf 'no newline {}'";
    let words = ["run", "-q", "--range", "1:40", "--shell", "--", script];
    let outputs = RANKS.map(|ranks| run(&mut batch(ranks, &words)).expect_code(0).stdout.clone());
    let expected: String = (1..=40).map(|n| format!("out {n}\nno newline {n}")).collect();
    for output in outputs {
        assert_eq!(String::from_utf8_lossy(&output), expected);
    }
}

fn a_python_function_answers_the_same() {
    let folder = folder();
    let file = folder.path().join("functions.py");
    fs::write(&file, "def twice(x):\n    print('said', x)\n    return {'twice': [2 * x, None]}\n").expect("a file");
    let function = format!("{}:twice", file.display());
    let expected: String = (1..=200).map(|n| format!("{{\"twice\":[{},null]}}\n", 2 * n)).collect();
    for ranks in RANKS {
        let run = run(&mut batch(ranks, &["map", "--python", &function, "--range", "1:200"]));
        assert_eq!(run.expect_code(0).expect_said("said 200").out(), expected, "{ranks} ranks");
    }
}

fn a_missing_program_is_named() {
    let host = nix::unistd::gethostname().expect("a host has a name").to_string_lossy().into_owned();
    let run = run(&mut batch(3, &["run", "--args", "a", "--", "no-such-program", "{}"]));
    run.expect_code(2).expect_said("no such program: no-such-program").expect_said(&host);
    assert_eq!(run.stderr.matches("no such program").count(), 1, "{}", run.stderr);
}

fn failed_commands_can_be_run_again() {
    let folder = folder();
    let file = folder.path().join("records.jsonl").display().to_string();
    let words = ["run", "--range", "1:20", "--records", &file, "--shell", "--"];
    let first = run(batch(2, &words).arg("exit $(( {} % 7 == 3 ))"));
    first.expect_code(3).expect_said("3 of 20 job(s) failed").expect_said(&format!("--only-failed {file}"));
    let failed: Vec<u64> = records(file.as_ref())
        .iter()
        .filter(|record| record["status"] == "failed")
        .filter_map(|record| record["number"].as_u64())
        .collect();
    assert_eq!(
        {
            let mut sorted = failed;
            sorted.sort_unstable();
            sorted
        },
        [3, 10, 17]
    );
    let again = run(&mut batch(2, &["--quiet", "run", "--range", "1:20", "--only-failed", &file, "--", "echo", "{}"]));
    assert_eq!(again.expect_code(0).out(), "3\n10\n17\n");
}

/// Without the launcher's variables the program is a run of its own and can start others.
fn a_job_may_be_an_mpi_program() {
    let rankpool = rankpool().display().to_string();
    let words = ["run", "-q", "--args", "1", "2", "3", "--", &rankpool, "-q", "--threads", "1", "kernel", "square"];
    let run_alone = run(batch(2, &words).args(["--args", "{}"]));
    assert_eq!(run_alone.expect_code(0).out(), "1\n4\n9\n");
    let inner = mpiexec(2, &rankpool.clone().into());
    let mut outer = batch(2, &["run", "-q", "--args", "4", "5", "--"]);
    outer.arg(inner.get_program()).args(inner.get_args()).args(["-q", "kernel", "square", "--args", "{}"]);
    assert_eq!(run(&mut outer).expect_code(0).out(), "16\n25\n");
}

fn a_flood_arrives_whole() {
    let folder = folder();
    let (out, summary) = (folder.path().join("out"), folder.path().join("summary.json"));
    // 200 MB from the second job; the first one ends last, so that all output has to wait for it.
    let script = "case {} in 1) sleep 2; echo first;; 2) head -c 200000000 /dev/zero;; *) echo last;; esac";
    let mut command = batch(3, &["run", "-q", "--range", "1:3", "--chunk", "1", "--threads", "1", "--output"]);
    command.arg(&out).arg("--summary").arg(&summary).args(["--shell", "--", script]);
    run(&mut command).expect_code(0);
    let bytes = fs::read(&out).expect("it is there");
    assert_eq!(bytes.len(), 6 + 200_000_000 + 5);
    assert!(bytes.starts_with(b"first\n\0\0") && bytes.ends_with(b"\0\0last\n"));
    let summary: Value = serde_json::from_slice(&fs::read(summary).expect("it is there")).expect("JSON");
    let peak = summary["peak_memory_bytes"].as_u64().expect("a number");
    assert!(peak < 150 << 20, "rank 0 took {} MiB", peak >> 20);
}

fn a_killed_worker_costs_its_job() {
    let folder = folder();
    let file = folder.path().join("functions.py");
    let text = "import os, signal\ndef f(x):\n    if x == 5: os.kill(os.getpid(), signal.SIGKILL)\n    return x\n";
    fs::write(&file, text).expect("a file for the test");
    let function = format!("{}:f", file.display());
    let run = run(&mut batch(2, &["map", "--python", &function, "--range", "1:50"]));
    let out = run.expect_code(3).out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 50);
    for (number, line) in (1..).zip(lines) {
        match number {
            5 => assert!(line.starts_with(r#"{"error":{"job":5,"kind":"crash""#), "{line}"),
            _ => assert_eq!(line, number.to_string()),
        }
    }
}

fn a_broken_import_ends_the_run() {
    let folder = folder();
    let file = folder.path().join("functions.py");
    for (text, said) in [
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def g(x): return x\n", "has no f; its functions are: g"),
    ] {
        fs::write(&file, text).expect("a file for the test");
        let function = format!("{}:f", file.display());
        let run = run(&mut batch(3, &["map", "--python", &function, "--range", "1:50"]));
        run.expect_code(2).expect_said(said);
        assert!(!run.stderr.to_lowercase().contains("mpi_abort"), "an orderly end: {}", run.stderr);
    }
}

/// Returns the processes with this word in their command line.
pub fn processes_with(word: &str) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").expect("there is /proc").filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        words.split(|byte| *byte == 0).any(|other| other == word.as_bytes()).then_some(pid)
    });
    numbers.collect()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_killed_run_leaves_nothing() {
    // A sleep that no other test has.
    let mark = format!("100{}.25", std::process::id());
    let mut child =
        support::start(&mut batch(2, &["run", "-q", "--range", "1:2", "--threads", "1", "--", "sleep", &mark]));
    wait_until("both jobs run", || processes_with(&mark).iter().filter(|pid| is_sleep(**pid)).count() == 2);
    // The launcher and both ranks are killed: only the helpers can clean up.
    for pid in processes_with("--range").into_iter().filter(|pid| processes_with(&mark).contains(pid)) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = support::wait(&mut child, LIMIT);
    wait_until("no job is left", || processes_with(&mark).is_empty());
}

fn is_sleep(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
}

fn sigterm_keeps_what_is_done() {
    let folder = folder();
    let file = folder.path().join("records.jsonl");
    let mut command = batch(2, &["run", "-q", "--range", "1:100000", "--threads", "1", "--records"]);
    command.arg(&file).args(["--shell", "--", "echo $PPID {}; sleep 0.01"]);
    let mut child = support::start(&mut command);
    let text = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("some jobs are done", || text().lines().count() > 20);
    let mark = file.display().to_string();
    let rank = processes_with(&mark).into_iter().rfind(|pid| is_rank(*pid)).expect("the ranks run");
    kill(Pid::from_raw(rank), Signal::SIGTERM).expect("the rank runs");
    let status = support::wait(&mut child, LIMIT);
    assert_eq!(status.and_then(|status| status.code()), Some(75));
    let records = records(&file);
    assert!(records.len() > 20 && records.iter().all(|record| record["status"] == "ok"), "{}", text());
}

pub fn is_rank(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == rankpool())
}

fn slots_are_different() {
    let words =
        ["run", "-q", "--range", "1:4", "--threads", "2", "--chunk", "1", "--", "sh", "-c", "echo {%}; sleep 0.5"];
    let run = run(&mut batch(2, &words));
    let out = run.expect_code(0).out();
    let mut slots: Vec<&str> = out.lines().collect();
    slots.sort_unstable();
    assert_eq!(slots, ["1", "2", "3", "4"]);
}

fn status_and_trace_have_all_ranks() {
    let folder = folder();
    let (status, trace) = (folder.path().join("status.json"), folder.path().join("trace.json"));
    let go = folder.path().join("go");
    fs::write(&go, "").expect("a file");
    let script = format!("while [ -e {} ]; do sleep 0.05; done", go.display());
    let mut command = batch(3, &["run", "--threads", "1", "--range", "1:6", "--status"]);
    command.arg(&status).arg("--trace").arg(&trace).args(["--", "sh", "-c", &script]);
    let run = support::start(&mut command);
    let read = |path: &std::path::Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let is_busy = |rank: &Value| rank["busy"].as_f64() > Some(0.5) && rank["slowest"]["job"].as_u64() > Some(0);
    let deadline = Instant::now() + LIMIT;
    while !read(&status).is_some_and(|status| status["ranks"].as_array().is_some_and(|ranks| ranks.iter().all(is_busy)))
    {
        assert!(Instant::now() < deadline, "not all ranks report what they do: {:?}", read(&status));
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::remove_file(&go).expect("it is there");
    support::finish(run, LIMIT).expect_code(0);
    let (status, trace) = (read(&status).expect("a status"), read(&trace).expect("a trace"));
    assert_eq!((&status["state"], &status["exit_code"], &status["settled"]), (&"ended".into(), &0.into(), &6.into()));
    let events = trace["traceEvents"].as_array().expect("a list");
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!((named("process_name"), named("job 1")), (3, 1), "{trace}");
}
