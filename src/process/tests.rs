//! External processes, with a real spawn helper: this test program, started again.

mod alone;
mod ends;
mod starts;
mod streams;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use super::command::{CommandEnd, EndReason, TimeLimit, run};
use super::program::Program;
use super::spawn;
use crate::engine::exchange::OutputStream;

/// Makes this test program a spawn helper.
const HELPER: &str = "RANKPOOL_TEST_HELPER";

#[test]
fn the_spawn_helper_itself() {
    if std::env::var_os(HELPER).is_some() {
        std::process::exit(i32::from(spawn::serve().is_err()));
    }
}

pub(super) fn start_helper() {
    let recipe = || {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "process::tests::the_spawn_helper_itself", "--nocapture"]).env(HELPER, "1");
        command
    };
    spawn::start_as(recipe).expect("the helper starts");
}

/// Time limit of everything here.
const LONG: Duration = Duration::from_secs(60);

const LIMITS: TimeLimit = TimeLimit { timeout: Some(LONG), kill_after: Duration::from_secs(5) };

fn program(words: &[&str]) -> Program {
    let mut words = words.iter().map(ToString::to_string);
    Program { name: words.next().expect("a program"), args: words.collect(), ..Program::default() }
}

fn shell(script: &str) -> Program {
    program(&["sh", "-c", script])
}

/// Runs a command with a time limit; returns its end and its outputs.
#[track_caller]
fn finish_within(program: &Program, stdin: Option<&[u8]>, time_limit: &TimeLimit) -> (CommandEnd, Vec<u8>, Vec<u8>) {
    start_helper();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = run(program, stdin, time_limit, None, &mut |stream, bytes| match stream {
        OutputStream::Stdout => stdout.extend_from_slice(bytes),
        OutputStream::Stderr => stderr.extend_from_slice(bytes),
    });
    (end.expect("the helper is there"), stdout, stderr)
}

/// Runs a command; returns its end and its outputs.
#[track_caller]
fn finish(program: &Program, stdin: Option<&[u8]>) -> (CommandEnd, Vec<u8>, Vec<u8>) {
    finish_within(program, stdin, &LIMITS)
}

/// Its reading and its writing end.
fn pipe() -> (File, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    (read.into(), write.into())
}

/// Runs a command that is cancelled when it has written `lines` lines; returns its end and its output.
#[track_caller]
fn cancel_after(lines: usize, program: &Program, kill_after: Duration) -> (CommandEnd, Vec<u8>) {
    start_helper();
    let (cancelled, keep) = pipe();
    let mut keep = Some(keep);
    let mut text = Vec::new();
    let time_limit = TimeLimit { kill_after, ..LIMITS };
    let end = run(program, None, &time_limit, Some(cancelled.as_fd()), &mut |_, bytes| {
        text.extend_from_slice(bytes);
        if text.iter().filter(|byte| **byte == b'\n').count() >= lines {
            keep = None;
        }
    });
    (end.expect("the helper is there"), text)
}

/// Runs a command that succeeds; returns its output.
#[track_caller]
fn output(program: &Program, stdin: Option<&[u8]>) -> Vec<u8> {
    let (end, stdout, stderr) = finish(program, stdin);
    assert_eq!(end.reason, EndReason::Exited(0), "{}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Returns why a command was not started.
#[track_caller]
fn why_not(program: &Program) -> String {
    match finish(program, None).0.reason {
        EndReason::NotStarted(why) => why,
        other => panic!("it was started: {other:?}"),
    }
}

/// The process ids in a command's output.
fn pids(output: &[u8]) -> Vec<i32> {
    String::from_utf8_lossy(output).split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

/// The fields of a process after its name: state, parent, group, …
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_string).collect())
}

/// Whether a process runs; a zombie does not.
pub(super) fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

#[track_caller]
pub(super) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn until_gone(pids: &[i32]) {
    until(&format!("processes {pids:?} are gone"), || !pids.iter().any(|pid| lives(*pid)));
}
