//! Finished jobs survive the death of the launcher, or of a rank, under a real `mpiexec`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::batches::{batch, is_rank, processes_with, wait_until};
use crate::disk::{self, what_is_ok_is_on_disk};
use crate::support;
use crate::{LIMIT, rankpool};

pub const TRIALS: &[(&str, fn())] = &[
    ("a_signal_to_the_launcher_keeps_what_is_finished_behind_a_slow_job", a_signal_keeps_what_is_finished),
    ("a_kill_of_any_process_at_any_moment_loses_nothing_that_was_called_ok", a_kill_loses_nothing),
];

fn line(number: u64) -> String {
    format!("{number}\n")
}

/// What makes a folder's run the same with another launcher, or with none.
fn words<'a>(task: &[&'a str], folder: &'a str, more: &[&'a str], job: &[&'a str]) -> Vec<&'a str> {
    [task, &["-q", "-o", "o", "--records", "r", "--env"], &[folder], more, job].concat()
}

fn a_signal_keeps_what_is_finished() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mark = format!("FOLDER={}", folder.path().display());
        let script = "test {} = 1 && exec sleep 30; echo {}; touch done{}";
        let job = ["--range", "1:501", "--threads", "2", "--grace", "1s", "--", "sh", "-c", script];
        let mut child = support::start(batch(2, &words(&["run"], &mark, &[], &job)).current_dir(folder.path()));
        let done = || {
            let names = fs::read_dir(folder.path()).expect("it is there").filter_map(|entry| entry.ok());
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with("done")).count()
        };
        wait_until("500 jobs are done", || done() == 500);
        support::signal(&child, signal);
        support::wait(&mut child, LIMIT);
        // The launcher may be gone before its ranks are.
        wait_until("the ranks have ended", || !processes_with(&mark).into_iter().any(is_rank));
        assert_eq!(what_is_ok_is_on_disk(folder.path(), "r", "o", line), 500, "{signal}");
        completes(folder.path(), &["run"], &mark, &["--range", "1:501", "--", "echo", "{}"], 501);
    }
}

/// Goes on with a run, without a launcher, and fails unless its output has all results in order.
#[track_caller]
fn completes(folder: &Path, task: &[&str], mark: &str, job: &[&str], last: u64) {
    let go_on: &[&str] = if folder.join("r").exists() { &["--only-failed", "r"] } else { &[] };
    let mut command = Command::new(rankpool());
    command.args(["--local", "2"]).args(words(task, mark, go_on, job)).current_dir(folder);
    support::run(&mut command, LIMIT).expect_code(0);
    let text = fs::read_to_string(folder.join("o")).expect("the output");
    assert!(text.lines().eq((1..=last).map(|number| number.to_string())), "{} lines", text.lines().count());
    what_is_ok_is_on_disk(folder, "r", "o", line);
}

fn a_kill_loses_nothing() {
    for turn in 0..disk::kills(4) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mark = format!("FOLDER={}", folder.path().display());
        let (task, last, job): (&[&str], u64, &[&str]) = match turn % 2 {
            0 => (&["run"], 300, &["--range", "1:300", "--", "echo", "{}"]),
            _ => (&["map"], 20_000, &["--range", "1:20000", "--", "cat"]),
        };
        let mut child = support::start(batch(2, &words(task, &mark, &[], job)).current_dir(folder.path()));
        wait_until("the ranks run", || {
            processes_with(&mark).into_iter().any(is_rank) || folder.path().join("o").exists()
        });
        let since = Instant::now();
        let pause = Duration::from_millis(u64::from(turn) * 61 % 1100);
        while since.elapsed() < pause && !folder.path().join("o").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Any of the ranks, or the launcher.
        let launcher = i32::try_from(child.id()).expect("process ids fit");
        let processes: Vec<i32> =
            processes_with(&mark).into_iter().filter(|pid| is_rank(*pid)).chain([launcher]).collect();
        let _ = kill(Pid::from_raw(processes[turn as usize % processes.len()]), Signal::SIGKILL);
        support::wait(&mut child, LIMIT);
        wait_until("all have ended", || !processes_with(&mark).into_iter().any(is_rank));
        what_is_ok_is_on_disk(folder.path(), "r", "o", line);
        completes(folder.path(), task, &mark, job, last);
    }
}
