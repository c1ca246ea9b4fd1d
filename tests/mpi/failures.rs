//! Failures: every run ends, prints the reason, and has the right exit code.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{program, rankpool, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("a_panicking_job_names_rank_host_place_and_attempt", a_panicking_job_is_described),
    ("an_exit_with_code_0_inside_a_job_ends_the_whole_run", || {
        ends_with_words("exit-0-in-job", "called std::process::exit")
    }),
    ("an_exit_with_code_7_inside_a_job_ends_the_whole_run", || {
        ends_with_words("exit-7-in-job", "called std::process::exit")
    }),
    ("an_exit_inside_the_driver_ends_the_whole_run", || ends_with_words("exit-in-driver", "called std::process::exit")),
    ("a_bug_in_the_master_ends_the_whole_run", || ends_with_words("bug-in-the-master", "a bug in rankpool")),
    ("a_killed_rank_ends_the_whole_run", || ends_with_words("kill-a-rank", "")),
    ("a_panicking_driver_gives_exit_code_1", || ends_with_code("panic-in-driver", 1)),
    ("a_driver_that_leaves_early_loses_no_submitted_job", a_driver_that_leaves_early),
    ("a_driver_that_returns_an_error_gives_exit_code_1", || ends_with_code("driver-error", 1)),
    ("a_wrapped_error_of_a_job_gives_exit_code_3_and_all_its_words", a_wrapped_error),
    ("a_job_over_its_time_limit_is_an_error_and_its_rank_goes_on", a_job_over_its_time_limit),
    ("a_job_that_never_ends_does_not_keep_the_run_from_ending", a_job_that_never_ends),
    ("another_launch_in_the_process_is_refused_in_words", another_launch_is_refused),
    ("a_run_for_a_value_returns_on_rank_0_only", a_run_for_a_value),
    ("a_panicking_input_iterator_fails_its_map_only", || succeeds("panicking-inputs")),
    ("a_dropped_endless_map_ends", || succeeds("dropped-map")),
    ("many_maps_from_many_threads_share_the_ranks", || succeeds("many-maps")),
    ("values_of_many_megabytes_cross", || succeeds("large-values")),
    ("messages_in_many_parts_cross", messages_in_many_parts),
    ("a_slow_rank_gets_fewer_jobs", || succeeds("slow-rank")),
    ("broadcast_values_reach_every_rank_once", || succeeds("broadcast")),
    ("retried_jobs_succeed_in_the_end", || succeeds("retries")),
    ("processes_that_see_only_themselves_are_refused", processes_that_see_only_themselves),
    ("another_program_on_a_rank_is_refused", another_program_is_refused),
    ("sigterm_to_the_launcher_ends_everything", sigterm_ends_everything),
    ("sigterm_to_one_rank_stops_the_run_with_exit_code_75", sigterm_to_one_rank_stops_the_run),
];

fn succeeds(name: &str) {
    for ranks in [1, 2, 3, 5] {
        run(&mut program(ranks, name)).expect_code(0);
    }
}

fn ends_with_code(name: &str, code: i32) {
    run(&mut program(3, name)).expect_code(code);
}

/// The exit code is the launcher's, and launchers differ; it is not 0.
fn ends_with_words(name: &str, words: &str) {
    let finished = run(&mut program(3, name));
    assert!(finished.code != Some(0), "{name} is taken for a success:\n{}", finished.stderr);
    finished.expect_said(words);
}

fn a_wrapped_error() {
    let finished = run(&mut program(2, "wrapped-error"));
    finished.expect_code(3).expect_said("rankpool: reading the sky: job 0: panic: clouds, at ");
}

fn a_job_over_its_time_limit() {
    for ranks in [1, 3] {
        let finished = run(&mut program(ranks, "job-timeout"));
        finished
            .expect_code(0)
            .expect_said("the job with index 51 has not ended within its time limit of 1 s: its thread (rank ");
    }
}

fn a_job_that_never_ends() {
    for ranks in [1, 3] {
        let finished = run(&mut program(ranks, "never-ending-job"));
        finished.expect_code(0).expect_said("has not ended within the grace time; the run ends without it");
    }
}

fn another_launch_is_refused() {
    for (name, out) in [
        ("launch-after-launch", "[Success, Usage]\n"),
        ("two-launches-at-once", "[Success, Usage]\n"),
        ("launch-in-driver", "Usage\n"),
    ] {
        for ranks in [1, 3] {
            let finished = run(&mut program(ranks, name));
            assert_eq!(finished.expect_code(0).out(), out, "{name}");
            finished.expect_said("MPI can be started only once in a process, and another launch has started it");
        }
    }
}

fn a_run_for_a_value() {
    for ranks in [1, 3] {
        assert_eq!(run(&mut program(ranks, "value")).expect_code(0).out(), "285 true true\n");
        let finished = run(&mut program(ranks, "no-value"));
        assert_eq!(finished.expect_code(3).out(), "");
        finished.expect_said("no value");
    }
}

fn a_panicking_job_is_described() {
    for ranks in [1, 2, 3, 5] {
        let out = run(&mut program(ranks, "panicking-job")).expect_code(0).out();
        let expected = "panic|no threes please|true|3|true|true|2\n";
        assert_eq!(out, expected);
    }
}

fn a_driver_that_leaves_early() {
    for ranks in [1, 2, 3, 5] {
        let out = run(&mut program(ranks, "leave-early")).expect_code(0).out();
        assert_eq!(out.lines().count(), 50, "{out}");
    }
}

fn messages_in_many_parts() {
    run(program(3, "large-values").env("RANKPOOL_MPI_LONGEST_PART", "10007")).expect_code(0);
}

fn processes_that_see_only_themselves() {
    // A launcher's variables without the launcher: a process of a program that was built for another MPI sees the same.
    for variables in [["PMI_RANK", "PMI_SIZE"], ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]] {
        // Each MPI believes its own launcher's variables and fails by itself.
        let library = run(Command::new(rankpool()).args(["info", "--json"])).expect_code(0).out();
        let own = if library.contains("Open MPI") { "OMPI" } else { "PMI" };
        if variables[0].starts_with(own) {
            continue;
        }
        let mut command = Command::new(rankpool());
        command.args(["kernel", "square"]).env(variables[0], "0").env(variables[1], "4");
        run(&mut command).expect_code(1).expect_said("4 processes were started, but each sees only itself");
    }
}

fn another_program_is_refused() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let other = directory.path().join("rankpool");
    let mut bytes = std::fs::read(rankpool()).expect("the program");
    bytes.extend_from_slice(b"another build");
    std::fs::write(&other, bytes).expect("a copy of the program");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&other, mode).expect("a mode of the copy");
    let mut command = crate::mpiexec(1, &rankpool());
    command.args(["kernel", "square", ":"]);
    // The flags are for the launcher itself and hold for both parts.
    command.args(["-n", "1"]).arg(&other).args(["kernel", "square"]);
    let finished = run(&mut command);
    assert!(finished.code != Some(0), "{}", finished.stderr);
    finished.expect_said("differs from the one on");
}

/// A program that never ends by itself: its launcher, and the processes of its ranks.
fn endless() -> (Child, Vec<i32>) {
    started(&mut program(3, "endless"))
}

/// A program that begins with a line of its ranks' processes.
fn started(command: &mut Command) -> (Child, Vec<i32>) {
    let mut child = crate::support::start(command);
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let pids = lines.next().expect("a first line").expect("text");
    (child, pids.split(' ').map(|pid| pid.parse().expect("a number")).collect())
}

/// The launcher's exit code is not checked: MPICH's returns 0.
fn sigterm_ends_everything() {
    let (mut child, pids) = endless();
    crate::support::signal(&child, Signal::SIGTERM);
    assert!(crate::support::wait(&mut child, crate::LIMIT).is_some(), "the launcher hangs");
    let deadline = Instant::now() + crate::LIMIT;
    for pid in pids {
        while kill(Pid::from_raw(pid), None).is_ok() {
            assert!(Instant::now() < deadline, "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn sigterm_to_one_rank_stops_the_run() {
    for rank in [0, 2] {
        let (mut child, pids) = endless();
        kill(Pid::from_raw(pids[rank]), Signal::SIGTERM).expect("the rank runs");
        let status = crate::support::wait(&mut child, crate::LIMIT);
        assert_eq!(status.and_then(|status| status.code()), Some(75), "after a signal to rank {rank}");
    }
}
