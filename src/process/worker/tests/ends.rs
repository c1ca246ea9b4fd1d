//! Processes that end, hang, or never begin.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::process::tests::{lives, until};

/// A worker that sleeps for the seconds in a record.
const SLEEPER: &str = "import os, signal, time\n\
    def sleep(x):\n    time.sleep(x)\n    return x\n\
    def stubborn(x):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    return sleep(x)\n";

#[test]
fn the_record_that_ends_the_process_is_charged_and_its_neighbours_are_not() {
    for (end, kind) in [
        ("os._exit(3)", WorkerEnd::Code(3)),
        ("os._exit(0)", WorkerEnd::Code(0)),
        ("os.kill(os.getpid(), signal.SIGKILL)", WorkerEnd::Signal(9)),
        ("ctypes.string_at(0)", WorkerEnd::Signal(11)),
    ] {
        let text = format!("import ctypes, os, signal\ndef f(x):\n    if x in (5, 6, 40): {end}\n    return x\n");
        let list = module(&text).map("f", 0..60);
        for (at, short) in list.short().iter().enumerate() {
            let surplus_records = [5, 6, 40].contains(&at);
            assert_eq!(*short, if surplus_records { "!crash".to_string() } else { at.to_string() }, "{end}");
        }
        assert_eq!(list.failure(5).ended, Some(kind.clone()), "{end}");
        assert_eq!(list.failure(5).message, format!("the worker {kind} before it answered"));
    }
}

#[test]
fn the_record_for_which_memory_is_exhausted_is_told_from_one_that_crashes() {
    let count = crate::process::memory::fake::count();
    let text = "import os, signal\ndef f(x):\n    if x in (3, 5): os.kill(os.getpid(), signal.SIGKILL)\n    return x\n";
    let module = module(text);
    let mut worker = module.worker("f");
    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let list = answered(&mut worker, list(0..7));
    assert_eq!(list.short(), ["0", "1", "2", "!crash", "4", "!crash", "6"]);
    assert!(matches!(list.failure(3).ended, Some(WorkerEnd::OutOfMemory { exit: None, .. })), "{:?}", list.failure(3));
    let message = &list.failure(3).message;
    assert!(message.starts_with("the worker was killed for lack of memory (it had "), "{message}");
    assert_eq!(list.failure(5).ended, Some(WorkerEnd::Signal(9)), "nothing was counted for it");
}

#[test]
fn a_worker_that_the_rank_has_killed_has_not_exhausted_the_memory() {
    let count = crate::process::memory::fake::count();
    count.fetch_add(9, std::sync::atomic::Ordering::SeqCst);
    let script = "trap '' TERM; while read -r x; do [ $x = 1 ] && while :; do sleep 1; done; echo $x; done";
    let (mut worker, _) = shell_with(script, |options| {
        (options.timeout, options.kill_after) = (Some(Duration::from_millis(100)), Duration::from_millis(50));
    });
    let list = answered(&mut worker, list(0..3));
    assert_eq!((list.short()[1].as_str(), &list.failure(1).ended), ("!timeout", &Some(WorkerEnd::Signal(9))));
}

#[test]
fn a_worker_for_whose_start_memory_is_exhausted_is_started_again() {
    let count = crate::process::memory::fake::count();
    count.fetch_add(2, std::sync::atomic::Ordering::SeqCst);
    let text = "import os, signal, time\nhere = os.path.dirname(__file__)\nfor name in ('a', 'b'):\n    \
        if not os.path.exists(os.path.join(here, name)):\n        open(os.path.join(here, name), 'w').close()\n        \
        os.kill(os.getpid(), signal.SIGKILL)\ndef f(x):\n    return x\n";
    assert_eq!(module(text).map("f", 0..3).short(), ["0", "1", "2"]);
}

#[test]
fn a_plain_worker_whose_first_records_exhaust_the_memory_is_still_a_worker() {
    let count = crate::process::memory::fake::count();
    count.fetch_add(4, std::sync::atomic::Ordering::SeqCst);
    let list = answered(&mut shell("while read -r x; do [ $x -lt 4 ] && kill -9 $$; echo $x; done"), list(0..6));
    assert_eq!(list.short(), ["!crash", "!crash", "!crash", "!crash", "4", "5"]);
}

#[test]
fn a_plain_worker_that_ends_is_started_anew() {
    let list = answered(&mut shell("while read -r x; do [ $x = 3 ] && exit 7; echo $x; done"), list(0..6));
    assert_eq!(list.short(), ["0", "1", "2", "!crash", "4", "5"]);
    assert_eq!(list.failure(3).ended, Some(WorkerEnd::Code(7)));
}

#[test]
fn a_plain_worker_that_answers_one_record_and_ends_answers_all() {
    let list_of = |script: &str| answered(&mut shell(script), list(0..20));
    let expected: Vec<_> = (0..20).map(|at| at.to_string()).collect();
    assert_eq!(list_of("read -r x && echo $x").short(), expected);
    // A worker that ends at a record, and not only behind an answer, does not get the record for ever.
    let list = list_of("while read -r x; do [ $x = 3 ] && exit 0; echo $x; done");
    assert_eq!(list.short()[2..5], ["2", "!crash", "4"]);
}

#[test]
fn a_program_that_writes_nothing_but_garbage_does_not_burn_through_the_records() {
    let (failure, list) = no_start(&mut shell("while read -r x; do echo hello; done"), 0..100);
    assert!(failure.message.contains("\"hello\", which is not JSON"), "{}", failure.message);
    assert!(failure.message.contains("without any answer, 3 times in a row"), "{}", failure.message);
    assert_eq!(list.answers.len(), 2);
}

#[test]
fn a_child_that_holds_the_pipe_does_not_hide_the_end() {
    let since = Instant::now();
    let script = "while read -r x; do [ $x = 1 ] && { sleep 100 & exit 3; }; echo $x; done";
    assert_eq!(answered(&mut shell(script), list(0..3)).short(), ["0", "!crash", "2"]);
    assert!(since.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_worker_that_closes_its_output_is_ended() {
    let script = "while read -r x; do [ $x = 1 ] && { exec >&-; sleep 100; }; echo $x; done";
    let list = answered(&mut shell(script), list(0..3));
    assert_eq!(list.short(), ["0", "!crash", "2"]);
    assert!(list.failure(1).message.contains("closed its standard output"), "{}", list.failure(1).message);
}

#[test]
fn a_worker_that_never_answers_does_not_burn_through_the_records() {
    let (failure, list) = no_start(&mut shell("exit 4"), 0..100);
    assert!(failure.message.contains("exit code 4 without any answer, 3 times in a row"), "{}", failure.message);
    assert_eq!(list.answers.len(), 2);
    let (mut worker, _) = shell_with("", |_| {});
    worker.program.name = "no-such-program-anywhere".to_string();
    let (failure, list) = no_start(&mut worker, 0..100);
    assert!(failure.message.contains("no-such-program-anywhere"), "{}", failure.message);
    assert_eq!(list.answers.len(), 0);
}

#[test]
fn a_record_that_takes_too_long_fails_and_the_others_do_not() {
    let module = module(SLEEPER);
    let mut worker = worker(&module.call("sleep"), |options| options.timeout = Some(Duration::from_secs(2)));
    let list = answered(&mut worker, list(["0", "0", "0", "100", "0", "0"]));
    assert_eq!(list.short(), ["0", "0", "0", "!timeout", "0", "0"]);
    assert_eq!(list.failure(3).ended, Some(WorkerEnd::Signal(15)));
    assert!(list.durations[3] >= Duration::from_secs(2));
}

#[test]
fn the_time_of_the_import_is_not_the_record_s() {
    let module = module(&format!("{SLEEPER}time.sleep(3)\n"));
    let mut worker = worker(&module.call("sleep"), |options| options.timeout = Some(Duration::from_secs(2)));
    assert_eq!(answered(&mut worker, list([0, 0])).short(), ["0", "0"]);
}

#[test]
fn who_ignores_term_is_killed() {
    let module = module(SLEEPER);
    let mut worker = worker(&module.call("stubborn"), |options| {
        options.timeout = Some(Duration::from_secs(2));
        options.kill_after = Duration::from_millis(200);
    });
    let list = answered(&mut worker, list([0, 100, 0]));
    assert_eq!(list.short(), ["0", "!timeout", "0"]);
    assert_eq!(list.failure(1).ended, Some(WorkerEnd::Signal(9)));
}

#[test]
fn a_run_that_ends_does_not_wait_for_its_workers() {
    start_helper();
    let (read, write): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let module = module(SLEEPER);
    let call = module.call("sleep");
    let (mut options, _) = options(call.protocol());
    options.preamble = call.preamble();
    options.assignment = call.assignment(0, 1);
    let mut worker = Worker::new(call.program(), options, Some(Arc::new(read)));
    let mut list = list([0, 0, 100, 0]);
    let mut write = Some(write);
    list.on_answer = Some(Box::new(move |answers| {
        if answers == 2 {
            drop(write.take());
        }
    }));
    let since = Instant::now();
    assert_eq!(worker.answer(&mut list), Ok(AnswerEnd::Cancelled));
    assert!(since.elapsed() < Duration::from_secs(50));
    assert_eq!(list.short()[..3], ["0", "0", "!cancelled"]);
    assert!(list.short().len() as u64 == list.given);
    // Nothing is started any more.
    worker.program.name = "no-such-program-anywhere".to_string();
    let mut rest = super::list([0, 0]);
    assert_eq!(worker.answer(&mut rest), Ok(AnswerEnd::Cancelled));
    assert_eq!(rest.short(), ["!cancelled"]);
}

#[test]
fn leaky_workers_are_replaced() {
    let module = module("import os\ndef pid(x):\n    return os.getpid()\n");
    let mut worker = worker(&module.call("pid"), |options| options.max_jobs = NonZeroU64::new(3));
    let pids = answered(&mut worker, list(0..10)).short();
    for (at, pid) in pids.iter().enumerate() {
        assert_eq!(*pid, pids[at - at % 3]);
    }
    let mut different = pids.clone();
    different.dedup();
    assert_eq!(different.len(), 4);
    drop(worker);
    until("they are gone", || !pids.iter().any(|pid| lives(pid.parse().expect("a process id"))));
}

#[test]
fn a_closed_worker_ends_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ended");
    let text = "import atexit\ndef f(x):\n    atexit.register(lambda: open(x, 'w').close())\n";
    let module = module(text);
    let mut worker = module.worker("f");
    answered(&mut worker, list([format!("{:?}", file.display().to_string())]));
    worker.close();
    assert!(file.exists());
}
