//! How commands end, by themselves and otherwise.

use std::io::{BufRead, BufReader, Write};

use super::*;
use crate::process::child::Process;
use crate::process::pipes::is_readable;
use crate::process::program::SpawnError;
use crate::process::spawn::protocol::SignalOrder;

fn limits(timeout_ms: u64, kill_after_ms: u64) -> TimeLimit {
    TimeLimit { timeout: Some(Duration::from_millis(timeout_ms)), kill_after: Duration::from_millis(kill_after_ms) }
}

#[test]
fn an_exit_code_and_the_used_time_are_reported() {
    for code in [0, 1, 127, 255] {
        assert_eq!(finish(&shell(&format!("exit {code}")), None).0.reason, EndReason::Exited(code));
    }
    let (end, ..) = finish(&shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"), None);
    assert!(end.user > 0.0 && end.user + end.system < end.seconds * 1.5 + 0.1, "{end:?}");
    assert!((100..10_000_000).contains(&end.max_rss_kib), "{end:?}");
    assert!(end.start.elapsed().is_ok_and(|age| age.as_secs_f64() + 0.1 > end.seconds), "{end:?}");
}

#[test]
fn a_group_that_ignores_the_wish_to_end_is_killed() {
    let script = "trap '' TERM; echo $$; sleep 1000 & echo $!; sh -c 'sleep 1001 & echo $!; echo $$; wait' & wait";
    let (end, text) = cancel_after(4, &shell(script), Duration::from_millis(200));
    assert_eq!(end.reason, EndReason::Cancelled);
    assert!((0.2..30.0).contains(&end.seconds), "{end:?}");
    assert_eq!(pids(&text).len(), 4);
    until_gone(&pids(&text));
}

#[test]
fn a_deaf_command_is_killed_when_its_time_is_over() {
    let (end, ..) = finish_within(&shell("trap '' TERM; while :; do sleep 1000; done"), None, &limits(300, 200));
    assert_eq!(end.reason, EndReason::TimedOut);
    assert!((0.5..30.0).contains(&end.seconds), "{end:?}");
}

#[test]
fn a_command_that_follows_the_wish_ends_at_once() {
    let (end, ..) = finish_within(&program(&["sleep", "1000"]), None, &limits(50, 60_000));
    assert_eq!(end.reason, EndReason::TimedOut);
    assert!(end.seconds < 30.0, "{end:?}");
}

#[test]
fn the_program_of_a_shell_that_ends_at_once_has_its_time() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let file = folder.path().join("cleaned");
    let inner =
        format!("trap \"sleep 0.3; : > {}; exit\" TERM; echo ready; while :; do sleep 0.01; done", file.display());
    let script = format!("sh -c '{inner}' & wait");
    let (end, text) = cancel_after(1, &shell(&script), LONG);
    // A shell may report that its sleep was terminated.
    assert!(end.reason == EndReason::Cancelled && text.starts_with(b"ready\n"), "{end:?}");
    assert!(file.exists(), "it was killed before it had cleaned up");
    assert!(end.seconds < 30.0, "there is no wait when all are gone: {}", end.seconds);
}

#[test]
fn the_others_of_a_group_have_no_more_than_its_time() {
    let script = "sh -c 'trap \"\" TERM; echo $$; sleep 1000 & echo $!; wait' & wait";
    let (end, text) = cancel_after(2, &shell(script), Duration::from_millis(300));
    assert_eq!(end.reason, EndReason::Cancelled);
    assert!((0.3..30.0).contains(&end.seconds), "{end:?}");
    assert_eq!(pids(&text).len(), 2);
    until_gone(&pids(&text));
}

#[test]
fn a_stopped_command_follows_the_wish_to_end() {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let file = folder.path().join("cleaned");
    let script = format!("trap ': > {}; exit' TERM; kill -STOP $$", file.display());
    let (end, ..) = finish_within(&shell(&script), None, &limits(1000, 60_000));
    assert_eq!(end.reason, EndReason::TimedOut);
    assert!(end.seconds < 30.0 && file.exists(), "{end:?}");
}

#[test]
fn a_command_is_cancelled_by_a_closed_pipe() {
    let (end, text) = cancel_after(1, &shell("echo $$; sleep 1000"), LONG);
    assert_eq!(end.reason, EndReason::Cancelled);
    until_gone(&pids(&text));
}

#[test]
fn a_flood_can_be_cancelled() {
    start_helper();
    let (cancelled, mut keep) = pipe();
    let mut length = 0;
    let end = run(&program(&["cat", "/dev/zero"]), None, &LIMITS, Some(cancelled.as_fd()), &mut |_, bytes| {
        if length < 1_000_000 && length + bytes.len() >= 1_000_000 {
            keep.write_all(b"x").expect("there is room for a byte");
        }
        length += bytes.len();
    });
    assert_eq!(end.expect("the helper is there").reason, EndReason::Cancelled);
}

#[test]
fn a_command_without_a_limit_runs_to_its_end() {
    let never = TimeLimit { timeout: None, kill_after: Duration::MAX };
    assert_eq!(finish_within(&shell("sleep 0.1; exit 3"), None, &never).0.reason, EndReason::Exited(3));
    let endless = TimeLimit { timeout: Some(Duration::MAX), ..never };
    assert_eq!(finish_within(&shell("exit 3"), None, &endless).0.reason, EndReason::Exited(3));
}

#[test]
fn a_signal_right_after_the_start_is_not_lost() {
    start_helper();
    for round in 0..300 {
        let mut process = Process::start(&program(&["sleep", "1000"]), [None; 3]).expect("it starts");
        let order = if round % 2 == 0 { SignalOrder::Kill } else { SignalOrder::Term { grace: LONG } };
        process.signal(order).expect("the helper is there");
        let ended = process.ended().expect("the helper is there");
        assert!(ended.status.code().is_none(), "{ended:?}");
    }
}

#[test]
fn a_worker_lives_on_while_other_commands_run() {
    start_helper();
    let (stdin, mut to) = pipe();
    let (from, stdout) = pipe();
    let streams = [Some(stdin.as_fd()), Some(stdout.as_fd()), None];
    let mut worker = Process::start(&program(&["cat"]), streams).expect("it starts");
    drop((stdin, stdout));
    let mut from = BufReader::new(from);
    for round in 0..20 {
        writeln!(to, "job {round}").expect("it reads");
        assert_eq!(output(&shell("echo other"), None), b"other\n");
        let mut line = String::new();
        from.read_line(&mut line).expect("it writes");
        assert_eq!(line, format!("job {round}\n"));
    }
    assert!(!is_readable(worker.end().expect("its end was not reported")), "it still runs");
    drop(to);
    let ended = worker.ended().expect("the helper is there");
    assert!(ended.status.success() && worker.end().is_none());
    assert_eq!(from.read_line(&mut String::new()).ok(), Some(0), "its output is closed");
    assert_eq!(worker.signal(SignalOrder::Kill), Ok(()), "there is no process to signal");
}

#[test]
fn a_process_that_is_dropped_is_killed() {
    start_helper();
    let (from, stdout) = pipe();
    let process = Process::start(&shell("sleep 1000 & echo $$ $!; wait"), [None, Some(stdout.as_fd()), None]);
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).expect("it writes");
    drop(process.expect("it starts"));
    assert_eq!(pids(line.as_bytes()).len(), 2);
    until_gone(&pids(line.as_bytes()));
}

#[test]
fn a_program_that_cannot_run_ends_at_once() {
    start_helper();
    let folder = tempfile::tempdir().expect("a directory for the test");
    let program = Program { cwd: Some(folder.path().join("missing")), ..program(&["true"]) };
    let mut process = Process::start(&program, [None; 3]).expect("it is asked for");
    let SpawnError::NotStarted(why) = process.ended().expect_err("there is no such folder") else { panic!() };
    assert!(why.starts_with("cwd: no such directory"), "{why}");
}

#[test]
fn the_helper_is_started_once() {
    start_helper();
    spawn::start().expect("it is there already");
    assert!(output(&program(&["true"]), None).is_empty());
}

#[test]
fn a_kill_that_the_kernel_has_counted_is_one_for_lack_of_memory() {
    let count = crate::process::memory::fake::count();
    let kill = shell("kill -9 $$");
    let is_out_of_memory = |program: &Program| finish(program, None).0.out_of_memory;
    assert!(!is_out_of_memory(&kill), "nothing was counted");
    count.fetch_add(3, std::sync::atomic::Ordering::SeqCst);
    assert!(!is_out_of_memory(&shell("kill -15 $$")) && !is_out_of_memory(&shell("exit 1")));
    let (end, ..) = finish_within(&shell("trap '' TERM; while :; do sleep 1; done"), None, &limits(50, 50));
    assert_eq!((end.reason, end.out_of_memory), (EndReason::TimedOut, false), "the rank has killed it");
    let (end, ..) = finish(&kill, None);
    assert_eq!((&end.reason, end.out_of_memory), (&EndReason::Signalled(9), true));
    let message = end.out_of_memory().expect("a message");
    assert_eq!(message, format!("killed for lack of memory (it had {} MiB)", end.max_rss_kib / 1024));
    assert!(is_out_of_memory(&shell("sh -c 'kill -9 $$'; exit $?")), "a shell says how its command ended");
    assert!(is_out_of_memory(&kill) && !is_out_of_memory(&kill), "each explains one kill");
}
