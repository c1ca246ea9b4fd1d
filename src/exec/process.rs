//! What is to be started, and one process from its start to its end.

mod failure;
mod resolve;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub(crate) use super::helper::protocol::Order;

use super::helper::Slot;
use super::helper::protocol::{self, Answer, Request};

/// A program and what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// As it was typed: a path, or a name to look for in `PATH`.
    pub program: String,
    /// What the program takes for its own name, if not `program`.
    pub arg0: Option<String>,
    pub args: Vec<String>,
    /// Variables besides those of the rank; the last of a name counts.
    pub env: Vec<(String, String)>,
    pub cwd: Option<PathBuf>,
}

/// Why there is no process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpawnError {
    /// Nothing can be started any more on this rank.
    #[error("the spawn helper of this rank is gone; no command can be started")]
    HelperGone,
    /// This program could not be started.
    #[error("{0}")]
    NotStarted(String),
}

impl SpawnError {
    /// Something was scarce on the rank's side.
    pub(super) fn resources(error: io::Error) -> Self {
        SpawnError::NotStarted(failure::scarce(&error).map_or_else(|| error.to_string(), str::to_string))
    }
}

/// How a process has ended, and what it has used, with those of its children that it has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub user: Duration,
    pub system: Duration,
    /// The largest resident memory. It is never less than the spawn helper's own, some MiB, from which the process was made.
    pub max_rss_kib: u64,
}

/// A process in a group of its own. Dropped before its end it is killed with its group.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` when it has ended.
    slot: Option<Slot>,
    /// What a failure to start is told with: the program and its folder.
    launch: Launch,
    /// The file that is run.
    file: String,
}

impl Process {
    /// Starts a program with these ends of its standard streams; where there is none, `/dev/null`. Returns before it runs: why it
    /// could not be started may come as its end.
    pub(crate) fn start(launch: &Launch, streams: [Option<BorrowedFd<'_>>; 3]) -> Result<Self, SpawnError> {
        let file = resolve::file_of(&launch.program).map_err(SpawnError::NotStarted)?;
        failure::refuse(launch).map_err(SpawnError::NotStarted)?;
        let mut slot = Slot::take()?;
        slot.requests += 1;
        let request = Request {
            number: slot.requests,
            file: Cow::Borrowed(&file),
            launch: Cow::Borrowed(launch),
            streams: streams.map(|stream| stream.is_some()),
        };
        if protocol::write_frame(&request, &mut slot.outbox).is_none() {
            slot.requests -= 1;
            slot.give_back();
            return Err(SpawnError::NotStarted(failure::explain(Errno::TOOBIG.raw_os_error(), launch, &file)));
        }
        let streams: Vec<_> = streams.into_iter().flatten().collect();
        let sent = protocol::send(slot.socket.as_fd(), &slot.outbox, &streams);
        if slot.outbox.capacity() > 1 << 18 {
            slot.outbox = Vec::new();
        }
        match sent {
            Ok(()) => {
                let launch = Launch { program: launch.program.clone(), cwd: launch.cwd.clone(), ..Launch::default() };
                Ok(Process { slot: Some(slot), launch, file })
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Slot::why_closed()),
            Err(error) => Err(SpawnError::resources(error)),
        }
    }

    /// Signals the process and its group. Nothing happens if it has ended.
    pub(crate) fn signal(&self, order: Order) -> Result<(), SpawnError> {
        self.slot.as_ref().map_or(Ok(()), |slot| slot.signal(order))
    }

    /// Readable when the process has ended; `None` when [`ended`](Self::ended) has told.
    pub(crate) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.slot.as_ref().map(|slot| slot.socket.as_fd())
    }

    /// How it ended; waits for that.
    pub(crate) fn ended(&mut self) -> Result<Ended, SpawnError> {
        let Some(mut slot) = self.slot.take() else { return Err(SpawnError::HelperGone) };
        let answer = slot.inbox.frame(&slot.socket);
        match answer {
            Ok(Some(Answer::Ended { status, user, system, max_rss_kib })) => {
                slot.give_back();
                Ok(Ended {
                    status: ExitStatus::from_raw(status),
                    user: Duration::from_micros(user),
                    system: Duration::from_micros(system),
                    max_rss_kib,
                })
            }
            Ok(Some(Answer::Failed { errno })) => {
                slot.give_back();
                resolve::forget(&self.launch.program);
                Err(SpawnError::NotStarted(failure::explain(errno, &self.launch, &self.file)))
            }
            Ok(None) | Err(_) => Err(Slot::why_closed()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its slot is still busy and goes with it.
        let _ = self.signal(Order::Kill);
    }
}

/// A duration as `poll` takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    // More than a century is for ever.
    let seconds = duration.as_secs().min(1 << 32);
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// The file that a program's name means, which can be run: one of `PATH`, or, if the name holds a slash, that path (relative
/// to `cwd`).
pub(crate) fn resolve(program: &str, cwd: Option<&Path>) -> Result<String, String> {
    let file = resolve::file_of(program)?;
    let path = cwd.map_or_else(|| PathBuf::from(&file), |folder| folder.join(&file));
    resolve::check(&path, program).map(|()| file)
}
