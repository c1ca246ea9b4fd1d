//! What a worker needs of its process, whoever starts it.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Starts the worker's process: the first one, and each that replaces it.
pub(crate) trait Spawn: Send {
    /// # Errors
    /// Why the program could not be started.
    fn spawn(&mut self) -> io::Result<Spawned>;
}

impl<F: FnMut() -> io::Result<Spawned> + Send> Spawn for F {
    fn spawn(&mut self) -> io::Result<Spawned> {
        self()
    }
}

/// A process that was started, and our ends of its pipes.
pub(crate) struct Spawned {
    pub process: Box<dyn Process>,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
}

/// A running process with a process group of its own.
pub(crate) trait Process: Send {
    /// Readable or hung up as soon as the process has ended.
    fn end(&self) -> BorrowedFd<'_>;
    /// How it ended, if it has.
    fn ended(&mut self) -> Option<Ended>;
    /// Signals the whole group. That there is none any more is no error.
    fn signal(&mut self, signal: Signal);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Term,
    Kill,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ended::Code(code) => write!(f, "exit code {code}"),
            Ended::Signal(signal) => match nix_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

fn nix_name(signal: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(signal)
}
