//! Time limits of runs: given by an option, or found in the environment of a batch system.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use nix::sys::signal::Signal;

use crate::stops::end_of;
use crate::support::{self, Finished};
use crate::{Files, LIMIT, batch, command, records, until};

/// The number in a message of a run that its time limit has stopped: how many jobs are done, and how many are left.
#[track_caller]
fn done_and_left(run: &Finished, limit: &str) -> (usize, usize) {
    let start = format!("stopped early, because the time limit is near ({limit}), after ");
    let (_, message) = run.stderr.split_once(&start).unwrap_or_else(|| panic!("{}", run.stderr));
    let mut numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    (numbers.next().expect("a number"), numbers.next().expect("another number"))
}

#[test]
fn a_run_stops_in_time_and_keeps_what_is_done() {
    let files = Files::new();
    let script = "touch up{}; sleep 0.5; echo {}";
    let words = ["--threads", "1", "--range", "1:100", "--records", "r", "-o", "o", "--time-limit", "4s"];
    let since = Instant::now();
    let run = support::run(&mut batch(&files, &[&words[..], &["--", "sh", "-c", script]].concat()), LIMIT);
    let took = since.elapsed();
    run.expect_code(75);
    let (done, left) = done_and_left(&run, "--time-limit");
    assert!(done > 0 && done + left == 100, "{}", run.stderr);
    let begun = files.names().iter().filter(|name| name.starts_with("up")).count();
    // Jobs that were begun have ended, unless the machine is so busy that they take much longer than usual.
    let records = records(&files, "r");
    assert!(records.len() == done && records.iter().all(|record| record["status"] == "ok"), "{records:?}");
    assert!(begun == done || took > Duration::from_secs(3), "{begun} begun, {done} done");
    let rest = [&words[..6], &["-o", "o", "--only-failed", "r", "--", "echo", "{}"]].concat();
    support::run(&mut batch(&files, &rest), LIMIT).expect_code(0);
    let out = fs::read_to_string(files.path("o")).expect("the output is whole");
    assert!(out.lines().eq((1..=100).map(|number: u32| number.to_string())), "{out}");
}

#[test]
fn a_run_with_a_journal_says_how_to_go_on_and_its_next_run_does_the_rest() {
    let files = Files::new();
    let script = "sleep 0.2; echo {}";
    let words = ["--threads", "1", "--range", "1:30", "--journal", "j", "--resume", "-o", "o", "--time-limit", "2s"];
    let words = [&words[..], &["--", "sh", "-c", script]].concat();
    let mut runs = 0;
    let last = loop {
        let run = support::run(&mut batch(&files, &words), LIMIT);
        runs += 1;
        if run.code != Some(75) {
            break run;
        }
        run.expect_said("job(s) are left").expect_said("j has all finished jobs: --resume continues");
        assert!(runs < 100, "a run does some jobs: {}", run.stderr);
    };
    last.expect_code(0);
    assert!(runs > 1, "all jobs take longer than the time limit is");
    let out = fs::read_to_string(files.path("o")).expect("the output is whole");
    assert!(out.lines().eq((1..=30).map(|number: u32| number.to_string())), "{out}");
}

#[test]
fn no_job_is_started_that_could_not_end_and_one_that_runs_has_the_time_that_is_left() {
    let files = Files::new();
    // The first job tells how long jobs take. The second one would need more time than the grace time is.
    let script = "touch up{}; sleep 2; echo {}";
    let words = ["--local", "1", "--threads", "1", "--range", "1:9", "--records", "r", "--grace", "0s"];
    let words = [&words[..], &["--kill-after", "0s", "--time-limit", "6s", "--", "sh", "-c", script]].concat();
    let since = Instant::now();
    let run = support::run(&mut batch(&files, &words), LIMIT);
    run.expect_code(75);
    let (done, _) = done_and_left(&run, "--time-limit");
    let begun = files.names().iter().filter(|name| name.starts_with("up")).count();
    // Three jobs would be begun before the end of jobs, after 4.5 s.
    assert!(begun <= 2, "{begun} jobs begun");
    assert!(done == begun || since.elapsed() > Duration::from_secs(5), "{done} of {begun} begun jobs done");
}

#[test]
fn the_time_limit_of_a_built_in_function_is_noticed_while_results_come_without_a_pause() {
    let run = support::run(
        &mut command(&["kernel", "nop", "--jobs", "100000000000", "-o", "/dev/null", "--time-limit", "2s"]),
        LIMIT,
    );
    run.expect_code(75).expect_said("stopped early, because the time limit is near (--time-limit), after ");
    let run = support::run(&mut command(&["kernel", "nop", "--jobs", "1000", "-q", "--time-limit", "1h"]), LIMIT);
    assert_eq!((run.expect_code(0).stderr.as_str(), run.out().lines().count()), ("", 1000));
}

#[test]
fn a_signal_ends_a_long_wait_for_the_last_jobs_before_the_time_limit() {
    let files = Files::new();
    // By the first job, none can end before the time limit any more: those that run have hours.
    let script = "test {} = 1 && { until test -e go; do sleep 0.02; done; exit; }; touch up{}; exec sleep 1000";
    let words = ["--threads", "1", "--range", "1:9", "--records", "r", "--grace", "0.3s", "--time-limit", "40s"];
    let mut child = support::start(&mut batch(&files, &[&words[..], &["--", "sh", "-c", script]].concat()));
    until("the second job runs", || files.path("up2").exists());
    support::signal(&child, Signal::SIGTERM);
    files.with("go", "");
    let since = Instant::now();
    end_of(&mut child).expect_code(75);
    assert!(since.elapsed() < Duration::from_secs(200));
}

/// A folder with a program that prints this text, or does that.
fn fake(files: &Files, name: &str, script: &str) {
    fs::create_dir_all(files.path("bin")).expect("a folder");
    let path = files.path("bin").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be executed");
}

/// A run of endless jobs in an allocation.
fn in_allocation(files: &Files, variables: &[(&str, &str)]) -> Command {
    let words = ["--threads", "1", "--range", "1:100000", "--", "sh", "-c", "touch up; sleep 0.1"];
    let mut command = batch(files, &words);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", files.path("bin").display()));
    command.envs(variables.iter().copied());
    command
}

fn seconds_from_now(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    (now.as_secs() + seconds).to_string()
}

#[test]
fn the_end_of_an_allocation_is_found_in_the_environment_and_through_its_tools() {
    let files = Files::new();
    let end = seconds_from_now(4);
    let run = support::run(&mut in_allocation(&files, &[("SLURM_JOB_ID", "7"), ("SLURM_JOB_END_TIME", &end)]), LIMIT);
    done_and_left(run.expect_code(75), "the end of the Slurm allocation");
    fake(
        &files,
        "scontrol",
        "test \"$*:$SLURM_TIME_FORMAT\" = 'show job 7:%s' && echo JobId=7 EndTime=$(($(date +%s) + 4))",
    );
    let run = support::run(&mut in_allocation(&files, &[("SLURM_JOB_ID", "7")]), LIMIT);
    done_and_left(run.expect_code(75), "the end of the Slurm allocation");
    let start = "date -d '-56 seconds' '+    stime = %a %b %e %H:%M:%S %Y'";
    fake(&files, "qstat", &format!("echo '    Resource_List.walltime = 00:01:00'; LC_ALL=C {start}"));
    let run = support::run(&mut in_allocation(&files, &[("PBS_JOBID", "9.host")]), LIMIT);
    done_and_left(run.expect_code(75), "the end of the PBS allocation");
    // A built-in function asks, too.
    let mut kernel = command(&["kernel", "sleep", "--seconds", "0.1", "--jobs", "100000", "-o", "/dev/null"]);
    kernel.env("PATH", format!("{}:/usr/bin:/bin", files.path("bin").display())).env("SLURM_JOB_ID", "7");
    let run = support::run(&mut kernel, LIMIT);
    done_and_left(run.expect_code(75), "the end of the Slurm allocation");
}

#[test]
fn an_allocation_whose_end_is_not_known_or_not_wanted_sets_no_limit() {
    let files = Files::new();
    fake(&files, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified'; exit 1");
    let over = seconds_from_now(0);
    let soon = seconds_from_now(3);
    for (variables, options, said) in [
        (
            &[("SLURM_JOB_ID", "7")][..],
            &[][..],
            Some("ends: scontrol has failed: slurm_load_jobs error: Invalid job id"),
        ),
        (&[("SLURM_JOB_ID", "7")], &["-q"], None),
        (&[("SLURM_JOB_ID", "7"), ("SLURM_JOB_END_TIME", &over)], &[], None),
        (&[("SLURM_JOB_ID", "7"), ("SLURM_JOB_END_TIME", &soon)], &["--time-limit", "none"], None),
    ] {
        let words = [options, &["--range", "1:20", "--threads", "1", "--", "sleep", "0.01"]].concat();
        let mut command = batch(&files, &words);
        command.env("PATH", format!("{}:/usr/bin:/bin", files.path("bin").display())).envs(variables.iter().copied());
        let run = support::run(&mut command, LIMIT);
        run.expect_code(0);
        match said {
            Some(said) => drop(run.expect_said(said).expect_said("--time-limit TIME sets a limit")),
            None => assert!(!run.stderr.contains("allocation"), "{}", run.stderr),
        }
    }
}

#[test]
fn a_batch_system_that_does_not_answer_delays_a_run_for_seconds_only() {
    let files = Files::new();
    fake(&files, "scontrol", "touch asked; exec sleep 1000");
    let mut child = support::start(&mut in_allocation(&files, &[("SLURM_JOB_ID", "7")]));
    until("the batch system is asked", || files.path("asked").exists());
    until("jobs run all the same", || files.path("up").exists());
    thread::sleep(Duration::from_millis(10));
    support::signal(&child, Signal::SIGTERM);
    end_of(&mut child).expect_code(75).expect_said("scontrol has not answered for 5 s");
}
