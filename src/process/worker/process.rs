//! The process of a worker: its start with pipes, and a description of its end.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::process::child::Process;
use crate::process::forked::{self, Forked};
use crate::process::memory;
use crate::process::program::{ProcessEnd, Program, SpawnError};
use crate::process::room;
use crate::process::spawn::protocol::SignalOrder;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    Code(i32),
    Signal(i32),
    /// The kernel has killed it, or what a shell has run for it, because memory was exhausted.
    OutOfMemory {
        /// The exit code of the shell.
        exit: Option<i32>,
        max_rss_kib: u64,
    },
    /// It was ended together with the spawn helper, which was killed. With `ran: false` it had not begun to run.
    WithHelper {
        ran: bool,
    },
    /// It was ended together with the fork server, which was killed.
    WithServer,
    /// It was not started: a resource is exhausted.
    Scarce(String),
    /// It did not start, or how it ended is not known.
    Unknown(String),
}

impl WorkerEnd {
    /// Whether the end was not caused by the process itself.
    pub(in crate::process) fn is_from_outside(&self) -> bool {
        matches!(self, WorkerEnd::WithHelper { .. } | WorkerEnd::WithServer | WorkerEnd::Scarce(_))
    }
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerEnd::Code(code) => write!(f, "ended with exit code {code}"),
            WorkerEnd::Signal(signal) => match signal_hook::low_level::signal_name(*signal) {
                Some(name) => write!(f, "was ended by signal {signal} ({name})"),
                None => write!(f, "was ended by signal {signal}"),
            },
            WorkerEnd::OutOfMemory { max_rss_kib, .. } => write!(f, "was {}", memory::killed(*max_rss_kib)),
            WorkerEnd::WithHelper { .. } => write!(f, "was {}", SpawnError::HelperKilled),
            WorkerEnd::WithServer => write!(f, "was {}", SpawnError::ServerKilled),
            WorkerEnd::Scarce(why) | WorkerEnd::Unknown(why) => write!(f, "is gone: {why}"),
        }
    }
}

/// How a process was started.
enum Handle {
    Plain(Box<Process>),
    Forked(Forked),
}

impl Handle {
    /// Has the process forked, if its program says so and that is possible, or starts it.
    fn start(program: &Program, streams: [Option<BorrowedFd<'_>>; 3]) -> Result<Handle, SpawnError> {
        if program.preload.is_empty() {
            return Process::start(program, streams).map(|process| Handle::Plain(Box::new(process)));
        }
        match Forked::start(program, streams)? {
            Some(forked) => Ok(Handle::Forked(forked)),
            None => Process::start(&forked::plain(program), streams).map(|process| Handle::Plain(Box::new(process))),
        }
    }

    fn end(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Handle::Plain(process) => process.end(),
            Handle::Forked(forked) => forked.end(),
        }
    }

    fn ended(&mut self) -> Result<ProcessEnd, SpawnError> {
        match self {
            Handle::Plain(process) => process.ended(),
            Handle::Forked(forked) => forked.ended(),
        }
    }
}

/// A process in a group of its own.
pub(in crate::process) struct Running {
    process: Handle,
    ended: Option<WorkerEnd>,
    /// Whether this rank has sent it a signal.
    signalled: Cell<bool>,
}

impl Running {
    /// Starts a process. Returns our ends of the pipes to its standard input and from its standard output. It shares our standard
    /// error.
    pub(super) fn start(program: &Program) -> Result<(Self, OwnedFd, OwnedFd), SpawnError> {
        let refused = |error: Errno| SpawnError::resources(error.into());
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(refused);
        let ((their_stdin, stdin), (stdout, their_stdout)) = (pipe()?, pipe()?);
        if room::is_last(&their_stdout) {
            return Err(refused(Errno::MFILE));
        }
        rustix::io::ioctl_fionbio(&stdin, true).map_err(refused)?;
        rustix::io::ioctl_fionbio(&stdout, true).map_err(refused)?;
        let stderr = io::stderr();
        let streams = [Some(their_stdin.as_fd()), Some(their_stdout.as_fd()), Some(stderr.as_fd())];
        Ok((Self::with_streams(program, streams)?, stdin, stdout))
    }

    /// Starts a process with these standard streams.
    pub(in crate::process) fn with_streams(
        program: &Program,
        streams: [Option<BorrowedFd<'_>>; 3],
    ) -> Result<Self, SpawnError> {
        memory::watch();
        let process = Handle::start(program, streams)?;
        Ok(Running { process, ended: None, signalled: Cell::new(false) })
    }

    /// Returns a descriptor that is readable when the process has ended; `None` after [`ended`](Self::ended) has returned.
    pub(in crate::process) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.process.end()
    }

    /// Waits for the end and returns how the process ended.
    pub(in crate::process) fn ended(&mut self) -> WorkerEnd {
        let process = &mut self.process;
        let is_own = self.signalled.get();
        let ended = self.ended.get_or_insert_with(|| match process.ended() {
            Ok(ended) => match (ended.status.code(), ended.status.signal()) {
                (exit, signal) if !is_own && is_killed(exit, signal) && memory::explains_kill() => {
                    WorkerEnd::OutOfMemory { exit, max_rss_kib: ended.max_rss_kib }
                }
                (Some(code), _) => WorkerEnd::Code(code),
                (None, Some(signal)) => WorkerEnd::Signal(signal),
                (None, None) => WorkerEnd::Unknown(ended.status.to_string()),
            },
            Err(SpawnError::HelperKilled) => WorkerEnd::WithHelper { ran: true },
            Err(SpawnError::Unread) => WorkerEnd::WithHelper { ran: false },
            Err(SpawnError::ServerKilled) => WorkerEnd::WithServer,
            Err(SpawnError::Scarce(why)) => WorkerEnd::Scarce(why),
            Err(error) => WorkerEnd::Unknown(error.to_string()),
        });
        ended.clone()
    }

    /// Signals the whole group.
    pub(in crate::process) fn signal(&self, order: SignalOrder) {
        self.signalled.set(true);
        // If the helper is gone, its processes are ended as soon as that is noticed.
        match &self.process {
            Handle::Plain(process) => drop(process.signal(order)),
            Handle::Forked(forked) => forked.signal(order),
        }
    }
}

/// Whether a SIGKILL has ended a process, or the command of a shell.
fn is_killed(exit: Option<i32>, signal: Option<i32>) -> bool {
    let kill = Signal::KILL.as_raw();
    signal == Some(kill) || exit == Some(128 + kill)
}
