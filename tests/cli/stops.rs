//! Requests to stop: which signals are one, what running jobs may still do, and what ends at once. Jobs that were ended from outside
//! are no failures.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::map_support::Module;
use crate::support::{self, Finished};
use crate::{Files, LIMIT, batch, command, records, until};

/// Waits for the end of a run.
#[track_caller]
pub fn end_of(child: &mut Child) -> Finished {
    let status = support::wait(child, LIMIT).expect("it ends");
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    child.stdout.take().expect("it is piped").read_to_end(&mut stdout).expect("it can be read");
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    Finished { code: status.code(), stdout, stderr }
}

/// Whether a process has this word in its command line.
fn is_running(word: &str) -> bool {
    let ids = fs::read_dir("/proc").expect("it is there on Linux").filter_map(|entry| entry.ok());
    ids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

/// A command that says by a file that it runs, and ends when there is a file `go`.
const WAITS: &str = "touch up{}; until test -e go; do sleep 0.02; done; echo {}";

#[test]
fn jobs_that_end_within_the_grace_time_have_their_results_whatever_the_signal_was() {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGXCPU];
    for signal in signals {
        let files = Files::new();
        let words = ["--threads", "1", "--range", "1:50", "--records", "r", "--grace", "10m", "--", "sh", "-c", WAITS];
        let mut child = support::start(&mut batch(&files, &words));
        until("two jobs run", || files.names().iter().filter(|name| name.starts_with("up")).count() == 2);
        support::signal(&child, signal);
        // Longer than signals belong together. One that is no key may come again.
        thread::sleep(Duration::from_millis(1200));
        if signal != Signal::SIGINT {
            support::signal(&child, signal);
        }
        files.with("go", "");
        let run = end_of(&mut child);
        run.expect_code(75).expect_said("stopped early by a signal, after 2 job(s)");
        let out = run.out();
        let lines: BTreeSet<&str> = out.lines().collect();
        assert_eq!((lines, records(&files, "r").len()), (BTreeSet::from(["1", "2"]), 2), "{signal}");
        assert!(!files.path("up3").exists(), "no job is started after {signal}");
    }
}

#[test]
fn the_result_of_a_built_in_function_that_ends_within_the_grace_time_is_there() {
    let files = Files::new();
    // The first job takes some seconds.
    let long = format!("[{}]\n", vec!["0.5"; 60_000].join(","));
    files.with("jobs.jsonl", long + &"[0.5]\n".repeat(20));
    let words = ["kernel", "slow-fn", "--n", "1000", "--input", "jobs.jsonl", "--threads", "1", "--chunk", "1"];
    let words = [&words[..], &["--grace", "10m", "-o", "o"]].concat();
    let mut child = support::start(command(&words).current_dir(files.0.path()));
    until("jobs are about to run", || files.path("o.partial").exists());
    // The others are done by now, and the first one is not.
    thread::sleep(Duration::from_millis(500));
    support::signal(&child, Signal::SIGTERM);
    let run = end_of(&mut child);
    let name = if run.code == Some(0) { "o" } else { "o.partial" };
    let out = fs::read_to_string(files.path(name)).expect("the output");
    assert!(out.lines().all(|line| line.parse::<f64>().is_ok()), "no job has lost its place: {out}");
}

#[test]
fn a_built_in_function_that_does_not_end_is_left_behind_after_the_grace_time() {
    let words = ["kernel", "sleep", "--seconds", "1000", "--jobs", "9", "--grace", "0.2s", "--progress", "line"];
    let mut child = support::start(&mut command(&words));
    thread::sleep(Duration::from_millis(500));
    support::signal(&child, Signal::SIGTERM);
    let run = end_of(&mut child);
    run.expect_code(75);
    assert!(!run.stderr.contains("did not end within the grace time"), "{}", run.stderr);
}

#[test]
fn with_a_journal_results_wait_for_the_jobs_before_them_in_the_grace_time() {
    let files = Files::new();
    let script = "touch up{}; until test -e go{}; do sleep 0.02; done; touch done{}; echo {}";
    let words = ["--threads", "1", "--range", "1:9", "--journal", "j", "-o", "o", "--grace", "10m"];
    let mut command = batch(&files, &[&words[..], &["--", "sh", "-c", script]].concat());
    // Without a journal, what is finished would be written at once under this launcher.
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "1");
    let mut child = support::start(&mut command);
    until("two jobs run", || files.path("up1").exists() && files.path("up2").exists());
    support::signal(&child, Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    files.with("go2", "");
    thread::sleep(Duration::from_millis(700));
    (1..=9).for_each(|job| drop(files.with(&format!("go{job}"), "")));
    end_of(&mut child).expect_code(75).expect_said("j has all finished jobs: --resume continues");
    let out = fs::read_to_string(files.path("o.partial")).expect("the output so far");
    assert!(out.starts_with("1\n2\n"), "{out}");
}

#[test]
fn a_second_int_ends_the_run_and_its_jobs_at_once() {
    let files = Files::new();
    let script = "trap '' INT TERM; touch up{}; while :; do sleep 0.0731; done";
    let words = ["--range", "1:4", "--threads", "1", "--grace", "10m", "--kill-after", "10m", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    until("two jobs run", || files.names().len() == 2);
    support::signal(&child, Signal::SIGINT);
    thread::sleep(Duration::from_millis(300));
    support::signal(&child, Signal::SIGINT);
    thread::sleep(Duration::from_millis(1200));
    assert!(child.try_wait().expect("it can be asked").is_none(), "two keys within a second are one request");
    support::signal(&child, Signal::SIGINT);
    assert_eq!(end_of(&mut child).code, Some(130));
    until("no job is left", || !is_running("sleep 0.0731"));
}

#[test]
fn a_job_that_ignores_term_is_killed_after_the_grace_time_and_left_to_the_next_run() {
    let files = Files::new();
    let script = "test {} = 1 && exit; trap '' TERM; touch up{}; while :; do sleep 0.0732; done";
    let words = ["--range", "1:3", "--threads", "1", "--records", "r", "--grace", "0.2s", "--kill-after", "0.2s"];
    let mut child = support::start(&mut batch(&files, &[&words[..], &["--", "sh", "-c", script]].concat()));
    until("two jobs run", || files.path("up2").exists() && files.path("up3").exists());
    support::signal(&child, Signal::SIGTERM);
    end_of(&mut child).expect_code(75);
    until("no job is left", || !is_running("sleep 0.0732"));
    let records = records(&files, "r");
    assert!(records.len() == 1 && records[0]["status"] == "ok", "{records:?}");
}

/// Kills the process whose id is in a file.
fn kill_named(files: &Files, name: &str, signal: Signal) {
    let id = fs::read_to_string(files.path(name)).expect("it is there").trim().parse().expect("a number");
    kill(Pid::from_raw(id), signal).expect("it runs");
}

#[test]
fn a_command_that_is_killed_from_outside_before_or_after_the_run_is_signalled_has_not_failed() {
    for (signal, comes_first) in [(Signal::SIGTERM, true), (Signal::SIGTERM, false), (Signal::SIGKILL, true)] {
        let files = Files::new();
        let script = "test {} = 1 && exit; echo $$ > id; mv id id{}; while :; do sleep 0.05; done";
        let words = ["--local", "1", "--threads", "1", "--range", "1:9", "--retries", "1", "--retry-pause", "0s"];
        let options = ["--records", "r", "--grace", "10m", "--", "sh", "-c", script];
        let mut child = support::start(&mut batch(&files, &[&words[..], &options].concat()));
        until("the second job runs", || files.path("id2").exists());
        if comes_first {
            kill_named(&files, "id2", signal);
            thread::sleep(Duration::from_millis(100));
            support::signal(&child, Signal::SIGTERM);
            // The next jobs may have been started before the run heard the signal.
            until("the run ends", || {
                for name in files.names().iter().filter(|name| name.starts_with("id") && name.len() > 2) {
                    let id = fs::read_to_string(files.path(name)).expect("it is there");
                    let _ = kill(Pid::from_raw(id.trim().parse().expect("a number")), signal);
                }
                child.try_wait().expect("it can be asked").is_some()
            });
        } else {
            support::signal(&child, Signal::SIGTERM);
            thread::sleep(Duration::from_millis(300));
            kill_named(&files, "id2", signal);
        }
        let run = end_of(&mut child);
        run.expect_code(75).expect_said("stopped early by a signal, after 1 job(s)");
        assert!(!run.stderr.contains("job(s) failed"), "{}", run.stderr);
        let records = records(&files, "r");
        assert!(records.len() == 1 && records[0]["status"] == "ok", "{signal} {comes_first}: {records:?}");
    }
}

#[test]
fn a_command_that_a_signal_ends_while_nobody_stops_the_run_has_failed() {
    let files = Files::new();
    let script = "test {} = 2 || exit 0; kill -TERM $$; sleep 10";
    let words = ["--range", "1:3", "--records", "r", "--retries", "1", "--retry-pause", "0s", "--", "sh", "-c", script];
    let run = support::run(&mut batch(&files, &words), LIMIT);
    run.expect_code(3).expect_said("1 of 3 job(s) failed:\n  job 2: killed by SIGTERM");
    let records = records(&files, "r");
    assert_eq!((records[1]["status"].as_str(), records[1]["attempts"].as_u64()), (Some("signal"), Some(2)));
}

#[test]
fn a_worker_that_is_killed_from_outside_while_the_run_is_stopped_has_not_failed() {
    let module = Module::new(
        "import os, time\ndef f(x):\n    if x == 2:\n        open('id', 'w').write(str(os.getpid()))\n        \
         os.rename('id', 'id2')\n        time.sleep(1000)\n    return x\n",
    );
    let words = ["--range", "1:2", "--chunk", "1", "--output", "o", "--records", "r", "--grace", "10m"];
    let mut child = support::start(&mut module.command(1, "f", &words));
    until("the second job runs", || module.files.path("id2").exists());
    support::signal(&child, Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    kill_named(&module.files, "id2", Signal::SIGTERM);
    end_of(&mut child).expect_code(75).expect_said("stopped early by a signal");
    let records = module.records("r");
    assert!(records.iter().all(|record| record["status"] == "ok"), "{records:?}");
}

#[test]
fn a_worker_that_is_killed_while_it_starts_and_the_run_is_stopped_does_not_fail_the_run() {
    // The second process never gets ready; one that replaces it does.
    let module = Module::new(
        "import os, time\nif os.environ['RANKPOOL_SLOT'] == '2' and not os.path.exists('id2'):\n    \
         open('id', 'w').write(str(os.getpid()))\n    os.rename('id', 'id2')\n    time.sleep(1000)\n\
         def f(x):\n    open('called', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.02)\n    return x\n",
    );
    let words =
        ["--threads", "2", "--range", "1:50", "--chunk", "1", "--output", "o", "--records", "r", "--grace", "10m"];
    let mut child = support::start(&mut module.command(1, "f", &words));
    until("both workers run", || module.files.path("id2").exists() && module.files.path("called").exists());
    kill_named(&module.files, "id2", Signal::SIGTERM);
    support::signal(&child, Signal::SIGTERM);
    module.files.with("go", "");
    end_of(&mut child).expect_code(75).expect_said("stopped early by a signal");
    let records = module.records("r");
    assert!(!records.is_empty() && records.iter().all(|record| record["status"] == "ok"), "{records:?}");
}
