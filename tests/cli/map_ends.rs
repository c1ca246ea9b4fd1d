//! How runs of `rankpool map` end early, and that answers come while records are still being written.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::map_support::{Module, kinds};
use crate::{LIMIT, support};

/// Each call leaves a line with its process in the file `seen`.
const SEEN: &str = "\
import os, signal, time
def seen():
    with open('seen', 'a') as file: file.write('%d\\n' % os.getpid())
def slow(x):
    seen()
    time.sleep(0.02)
    return x
def again(x):
    if x == 2: raise ValueError('again')
    return slow(x)
def hangs(x):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    seen()
    if x == 2: time.sleep(1000)
    time.sleep(0.02)
    return x
";

/// Waits until there were so many calls.
#[track_caller]
fn until_seen(module: &Module, calls: usize) {
    let deadline = Instant::now() + LIMIT;
    let seen = || fs::read_to_string(module.files.path("seen")).unwrap_or_default().lines().count();
    while seen() < calls {
        assert!(Instant::now() < deadline, "{} of {calls} calls", seen());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Fails unless all processes that were ever asked are gone, soon.
#[track_caller]
fn nobody_is_left(module: &Module) {
    let seen = fs::read_to_string(module.files.path("seen")).expect("there were calls");
    let folder = module.files.0.path().canonicalize().expect("it is there");
    let deadline = Instant::now() + LIMIT;
    // A number may have been given to another process meanwhile; that one works elsewhere.
    let lives = |pid: &str| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    while let Some(pid) = seen.lines().find(|pid| lives(pid)) {
        assert!(Instant::now() < deadline, "process {pid} is left");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a run says that is stopped after 30 calls, with its exit code.
fn stopped(module: &Module, function: &str, words: &[&str]) -> (Option<i32>, String) {
    let all = [&["--range", "1:100000", "--output", "out.jsonl", "--records", "r.jsonl"], words].concat();
    let mut child = support::start(&mut module.command(2, function, &all));
    until_seen(module, 30);
    support::signal(&child, Signal::SIGTERM);
    let code = support::wait(&mut child, LIMIT).expect("it ends").code();
    let mut said = String::new();
    let stderr = child.stderr.take().expect("it is piped");
    std::io::Read::read_to_string(&mut BufReader::new(stderr), &mut said).expect("it is text");
    (code, said)
}

/// Whether the record is still to be answered.
fn is_open(kind: &str) -> bool {
    kind == "!stopped" || kind == "!exception"
}

/// Fails unless line k of the partial output answers record k, up to the last one that was finished.
#[track_caller]
fn partial_output_is_in_order(module: &Module, gap: Option<(usize, &str)>) {
    let text = fs::read_to_string(module.files.path("out.jsonl.partial")).expect("the output so far");
    assert!(text.ends_with('\n'), "whole lines");
    let out: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds = kinds(&out);
    for (at, kind) in kinds.iter().enumerate() {
        assert!(*kind == (at + 1).to_string() || is_open(kind), "line {}: {kind}", at + 1);
        assert!(out[at]["error"]["job"].as_u64().is_none_or(|job| job == at as u64 + 1), "{}", out[at]);
    }
    assert!(kinds.last().is_some_and(|kind| kind != "!stopped"), "the last line is an answer: {kinds:?}");
    if let Some((gap, kind)) = gap {
        assert_eq!(kinds[gap - 1], kind);
    }
    let finished = kinds.iter().filter(|kind| *kind != "!stopped").count();
    let records = module.records("r.jsonl");
    assert_eq!(records.len(), finished, "those that were not finished have no records");
    assert!(records.iter().all(|record| record["status"] == "ok" || record["status"] == "failed"));
    assert!(!module.files.path("out.jsonl").exists());
    // What is left is run when it is asked for, and nothing else.
    let last = kinds.len().to_string();
    let range = format!("1:{last}");
    let again = module.map("slow", &["--range", &range, "--only-failed", "r.jsonl"]);
    let left: String = (1..).zip(&kinds).filter(|(_, kind)| is_open(kind)).map(|(at, _)| format!("{at}\n")).collect();
    assert_eq!(again.expect_code(0).out(), left);
}

#[test]
fn a_run_that_is_stopped_leaves_a_line_for_each_record_up_to_the_last_finished_one() {
    let module = Module::new(SEEN);
    let (code, said) = stopped(&module, "again", &["--retries", "3", "--retry-pause", "10m"]);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("stopped early by a signal") && said.contains("out.jsonl.partial"), "{said}");
    partial_output_is_in_order(&module, Some((2, "!exception")));
    nobody_is_left(&module);
    assert_eq!(module.files.names(), ["m.py", "out.jsonl.partial", "r.jsonl", "seen"]);
}

#[test]
fn a_function_that_ignores_the_end_is_not_waited_for() {
    let module = Module::new(SEEN);
    let since = Instant::now();
    let (code, said) = stopped(&module, "hangs", &["--kill-after", "100ms", "--grace", "0.5s"]);
    assert_eq!(code, Some(75), "{said}");
    assert!(since.elapsed() < Duration::from_secs(200), "{:?}", since.elapsed());
    partial_output_is_in_order(&module, Some((2, "!stopped")));
    nobody_is_left(&module);
}

#[test]
fn a_reader_that_has_enough_ends_the_run_quietly() {
    let module = Module::new(SEEN);
    let since = Instant::now();
    let run = format!(
        "{} --local 2 map --python m.py:slow --range 1:100000; echo code $? >&2",
        env!("CARGO_BIN_EXE_rankpool")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{{ {run}; }} | head -1")]).current_dir(module.files.0.path());
    let end = support::run(&mut shell, LIMIT);
    assert_eq!((end.out().as_str(), end.stderr.as_str()), ("1\n", "code 0\n"));
    assert!(since.elapsed() < Duration::from_secs(200), "{:?}", since.elapsed());
    nobody_is_left(&module);
    assert_eq!(module.files.names(), ["m.py", "seen"]);
}

/// A run that reads records from us.
fn talking(mut command: Command) -> (Child, impl FnMut(&str) -> String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("it starts");
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let (sender, answers) = channel();
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut stdin = child.stdin.take().expect("it is piped");
    let ask = move |record: &str| {
        writeln!(stdin, "{record}").expect("somebody reads");
        answers.recv_timeout(LIMIT).expect("an answer before the next record is written")
    };
    (child, ask)
}

#[test]
fn an_answer_comes_before_the_next_record_is_written() {
    let module = Module::new("def f(x): return [x]\ndef many(xs): return [[x] for x in xs]\n");
    module.files.with("w.sh", "while read -r x; do echo \"[$x]\"; done\n");
    for words in [
        vec!["--python", "m.py:f"],
        vec!["--python", "m.py:many", "--batch", "8"],
        vec!["--python", "m.py:f", "--retries", "2", "--unordered"],
    ] {
        let all = [&["map", "-q", "--input", "-"][..], &words].concat();
        let (mut child, mut ask) = talking(module.program(2, &all));
        for record in ["1", "2", "3"] {
            assert_eq!(ask(record), format!("[{record}]"), "{words:?}");
        }
        drop(ask);
        assert_eq!(support::wait(&mut child, LIMIT).expect("the input has ended").code(), Some(0));
    }
    let (mut child, mut ask) = talking(module.program(1, &["map", "-q", "-i", "-", "--", "sh", "w.sh"]));
    assert_eq!((ask("1"), ask("2")), ("[1]".into(), "[2]".into()));
    drop(ask);
    assert_eq!(support::wait(&mut child, LIMIT).expect("the input has ended").code(), Some(0));
}

#[test]
fn a_bad_record_in_a_pipe_ends_the_run_behind_the_answers_before_it() {
    let module = Module::new("def f(x): return [x]\n");
    let records = module.files.with("records", "1\n2\n{bad\n4\n");
    let run = |more: &str| {
        let words = format!("--local 2 map -q --python m.py:f -i - --format jsonl {more}");
        let script = format!("cat {records} | {} {words}", env!("CARGO_BIN_EXE_rankpool"));
        support::run(Command::new("sh").args(["-c", &script]).current_dir(module.files.0.path()), LIMIT)
    };
    assert_eq!(run("").expect_code(2).expect_said("standard input:3:2").out(), "[1]\n[2]\n");
    assert_eq!(run("--skip-bad").expect_code(0).expect_said("standard input:3:2").out(), "[1]\n[2]\n[4]\n");
    let file = module.files.with("t.jsonl", "1\n{bad\n");
    let early = module.map("f", &["--input", &file, "--output", "out.jsonl"]);
    early.expect_code(2).expect_said("t.jsonl:2:2");
    assert!(!Path::new(&module.files.path("out.jsonl.partial")).exists(), "nothing was started");
}
