//! Ranks that die or are stopped: the others go on without them, if the launcher lets them.

use std::io::Read;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Finished, finish, start};
use crate::{LIMIT, program, rankpool, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("a_killed_rank_is_lost_and_the_others_do_its_jobs", a_killed_rank),
    ("a_stopped_rank_is_lost_whatever_the_launcher", a_stopped_rank),
    ("a_run_that_loses_a_rank_has_the_exit_code_of_its_jobs", a_failed_job_after_a_loss),
    ("a_job_that_kills_its_ranks_is_found_and_all_others_are_done", a_poisonous_job),
    ("a_run_for_a_value_goes_on_after_a_loss", a_value_after_a_loss),
    ("a_rank_that_is_stopped_for_a_moment_is_welcome_back", a_short_stop),
    ("a_rank_that_comes_back_too_late_is_given_up_and_ends_with_the_run", a_late_return),
    ("a_master_that_was_stopped_for_longer_loses_no_rank", a_stopped_master),
    ("a_rank_that_computes_for_long_is_not_lost", a_long_job),
    ("ranks_whose_master_dies_without_a_word_end_by_themselves", a_dead_master),
];

/// Ranks may be silent for this long.
const LOST_AFTER: Duration = Duration::from_secs(2);

pub fn is_open_mpi() -> bool {
    let library = run(Command::new(rankpool()).args(["info", "--json"])).expect_code(0).out();
    library.contains("Open MPI")
}

/// Returns a program under the launcher, with its flag that lets the others live if there is one.
fn survivor(name: &str, flag: Option<&str>, ranks: u32) -> Command {
    let plain = program(ranks, name);
    let mut command = Command::new(plain.get_program());
    command.args(flag).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("RANKPOOL_LOST_AFTER", LOST_AFTER.as_secs().to_string());
    command
}

/// Starts a program that begins with a line of its ranks' processes.
fn started(command: &mut Command) -> (Child, Vec<i32>) {
    let mut child = start(command);
    let stdout = child.stdout.as_mut().expect("it is piped");
    // The rest stays in the pipe.
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stdout.read_exact(&mut byte).is_ok() && byte != *b"\n" {
        line.extend(byte);
    }
    let line = String::from_utf8(line).expect("text");
    (child, line.split(' ').map(|pid| pid.parse().expect("a number")).collect())
}

pub fn recovery() -> Option<&'static str> {
    Some(if is_open_mpi() { "--enable-recovery" } else { "-disable-auto-cleanup" })
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the rank runs");
}

/// Waits for the end of the launcher and of all ranks.
fn ended(child: Child, pids: &[i32]) -> Finished {
    let finished = finish(child, LIMIT);
    let deadline = Instant::now() + LIMIT;
    for pid in pids {
        while kill(Pid::from_raw(*pid), None).is_ok() {
            assert!(Instant::now() < deadline, "process {pid} is still there; stderr:\n{}", finished.stderr);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    finished
}

fn expect_lost(finished: &Finished, lost: bool) {
    finished.expect_said("rank 0: there").expect_said("rank 1: there");
    finished.expect_said(if lost { "rank 2: lost" } else { "rank 2: there" });
    assert_eq!(finished.stderr.contains("rank 2 on"), lost, "{}", finished.stderr);
    assert!(!finished.stderr.contains("not waiting for it"), "{}", finished.stderr);
}

fn a_killed_rank() {
    let (child, pids) = started(&mut survivor("loses-a-rank", recovery(), 3));
    send(pids[2], Signal::SIGKILL);
    let finished = ended(child, &pids);
    if is_open_mpi() {
        expect_lost(finished.expect_code(0), true);
    } else {
        // MPICH's launcher lets only those on other hosts live.
        assert_ne!(finished.code, Some(0), "{}", finished.stderr);
    }
}

fn a_stopped_rank() {
    for flag in [None, recovery().filter(|_| is_open_mpi())] {
        let (child, pids) = started(&mut survivor("loses-a-rank", flag, 3));
        send(pids[2], Signal::SIGSTOP);
        expect_lost(ended(child, &pids).expect_code(0), true);
    }
}

fn a_failed_job_after_a_loss() {
    let (child, pids) = started(&mut survivor("loses-a-rank-and-fails", None, 3));
    send(pids[2], Signal::SIGSTOP);
    expect_lost(ended(child, &pids).expect_code(3).expect_said("panic: all is lost"), true);
}

fn a_poisonous_job() {
    // MPICH's launcher ends all ranks of a host on which one dies.
    if is_open_mpi() {
        let finished = run(survivor("poison", recovery(), 5).env("RANKPOOL_LOST_AFTER", "1"));
        finished.expect_code(0).expect_said("job 77: lost").expect_said("3 ranks were lost");
        assert_eq!(finished.stderr.matches("job ").count(), 1, "{}", finished.stderr);
    }
}

fn a_value_after_a_loss() {
    let (child, pids) = started(&mut survivor("value-after-a-loss", None, 3));
    send(pids[2], Signal::SIGSTOP);
    let finished = ended(child, &pids);
    expect_lost(finished.expect_code(0), true);
    assert_eq!(finished.out(), "went on\n");
}

fn a_short_stop() {
    let (child, pids) = started(&mut survivor("loses-a-rank", None, 3));
    send(pids[2], Signal::SIGSTOP);
    std::thread::sleep(LOST_AFTER / 2);
    send(pids[2], Signal::SIGCONT);
    expect_lost(ended(child, &pids).expect_code(0), false);
}

fn a_late_return() {
    let (child, pids) = started(&mut survivor("loses-a-rank", None, 3));
    send(pids[2], Signal::SIGSTOP);
    std::thread::sleep(LOST_AFTER * 3 / 2);
    send(pids[2], Signal::SIGCONT);
    let finished = ended(child, &pids);
    expect_lost(finished.expect_code(0), true);
    finished.expect_said("was silent for so long that it was taken for dead");
}

/// The ranks wait longer for the master than it for them, and the master does not count the time in which it was stopped.
fn a_stopped_master() {
    let (child, pids) = started(&mut survivor("loses-a-rank", None, 3));
    send(pids[0], Signal::SIGSTOP);
    std::thread::sleep(LOST_AFTER * 3 / 2);
    send(pids[0], Signal::SIGCONT);
    expect_lost(ended(child, &pids).expect_code(0), false);
}

fn a_long_job() {
    run(&mut survivor("long-job", None, 3)).expect_code(0);
}

/// Launchers differ in the exit code.
fn a_dead_master() {
    let (child, pids) = started(&mut survivor("endless", recovery(), 3));
    send(pids[0], Signal::SIGKILL);
    let finished = ended(child, &pids);
    if is_open_mpi() {
        finished.expect_said("rank 0 has sent no message for ");
    }
}
