//! Runs programs with a time limit, so that a hang is a failure.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The result of a program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails, with the program's whole output, unless it ended with this code.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out(), self.stderr);
        self
    }

    /// Fails unless the program's standard error contains this text.
    #[track_caller]
    pub fn expect_said(&self, words: &str) -> &Self {
        assert!(self.stderr.contains(words), "'{words}' is missing in stderr:\n{}", self.stderr);
        self
    }
}

/// Runs a program to its end. If it takes longer than `limit`, it is ended, and the test fails.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    finish(start(command), limit)
}

/// Waits for the end of a program that was [started](start), and collects what is left of its outputs. If it takes longer than
/// `limit`, it is ended, and the test fails.
#[track_caller]
pub fn finish(mut child: Child, limit: Duration) -> Finished {
    let id = child.id();
    try_finish(&mut child, limit)
        .unwrap_or_else(|said| panic!("process {id} took longer than {limit:?}; it said:\n{said}"))
}

/// [`finish`] for tests that go on after a hang.
///
/// # Errors
/// If the program takes longer: what it said on standard error.
pub fn try_finish(child: &mut Child, limit: Duration) -> Result<Finished, String> {
    let read = |from: Option<Box<dyn Read + Send>>| drain(from.unwrap_or_else(|| Box::new(std::io::empty())));
    let stdout = read(child.stdout.take().map(|from| Box::new(from) as _));
    let stderr = read(child.stderr.take().map(|from| Box::new(from) as _));
    let status = wait(child, limit);
    let stdout = stdout.join().expect("reading does not panic");
    let stderr = String::from_utf8_lossy(&stderr.join().expect("reading does not panic")).into_owned();
    match status {
        Some(status) => Ok(Finished { code: status.code(), stdout, stderr }),
        None => Err(stderr),
    }
}

/// Starts a program with its outputs piped and nothing to read.
pub fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Waits for the program's end. If it takes too long, it is asked to end, so that a launcher can end its ranks, and then killed.
pub fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let until = |child: &mut Child, limit: Duration| {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    if let Some(status) = until(child, limit) {
        return Some(status);
    }
    signal(child, Signal::SIGTERM);
    if until(child, Duration::from_secs(5)).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    None
}

/// Sends a signal to a program.
pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("process ids fit");
    let _ = kill(Pid::from_raw(pid), signal);
}
