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

pub(crate) use super::spawn::protocol::Order;

use super::spawn::protocol::{self, Answer, Request};
use super::spawn::{Closed, Slot};
use crate::console::reason;

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

/// Why there is no process, or no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpawnError {
    /// Nothing can be started any more on this rank.
    #[error("no command can be started any more on this rank: its spawn helper is gone, and there is no other: {0}")]
    HelperGone(String),
    /// This program could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// The rank has no more of something just now: nothing was started, and another time it may be.
    #[error("{0}")]
    Scarce(String),
    /// The spawn helper was killed before it had looked at the request: nothing was started. There is a new helper.
    #[error("the spawn helper was killed before it started the process")]
    Unread,
    /// The spawn helper was killed, and the process with it. There is a new helper.
    #[error(
        "ended together with the spawn helper of its rank, the process that starts and watches commands, which was killed"
    )]
    HelperKilled,
}

impl SpawnError {
    /// Something was refused on the rank's side, before anything was started.
    pub(super) fn resources(error: io::Error) -> Self {
        SpawnError::scarce_or(error, |why| {
            SpawnError::NotStarted(format!("a pipe or a message to the spawn helper: {why}"))
        })
    }

    /// This, unless something is scarce.
    pub(super) fn scarce_or(error: io::Error, or: impl FnOnce(String) -> Self) -> Self {
        match failure::scarce(&error) {
            Some(what) => SpawnError::Scarce(what.into()),
            None => or(reason(&error)),
        }
    }

    /// What the system refused for a process that was started.
    pub(super) fn while_it_runs(error: io::Error) -> Self {
        SpawnError::NotStarted(format!("what the command does cannot be followed any more: {}", reason(&error)))
    }

    fn no_room() -> Self {
        SpawnError::Scarce(
            "the spawn helper has no thread or file descriptor for one more process (raise `ulimit -u` or `ulimit -n`)"
                .into(),
        )
    }
}

/// How often a process is asked for when the helper is killed again and again.
const MOST_HELPERS: u32 = 10;

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
        for _ in 0..MOST_HELPERS {
            let mut slot = Slot::take()?;
            let request = Request {
                number: slot.requests + 1,
                file: Cow::Borrowed(&file),
                launch: Cow::Borrowed(launch),
                streams: streams.map(|stream| stream.is_some()),
            };
            if protocol::write_frame(&request, &mut slot.outbox).is_none() {
                slot.give_back();
                return Err(SpawnError::NotStarted(failure::explain(Errno::TOOBIG.raw_os_error(), launch, &file)));
            }
            slot.requests += 1;
            let ends: Vec<_> = streams.into_iter().flatten().collect();
            let sent = protocol::send(slot.socket.as_fd(), &slot.outbox, &ends);
            if slot.outbox.capacity() > 1 << 18 {
                slot.outbox = Vec::new();
            }
            match sent {
                Ok(()) => {
                    let launch =
                        Launch { program: launch.program.clone(), cwd: launch.cwd.clone(), ..Launch::default() };
                    return Ok(Process { slot: Some(slot), launch, file });
                }
                Err(error) if protocol::is_closed(&error) => match slot.closed()? {
                    Closed::Refused => return Err(SpawnError::no_room()),
                    // It was killed while nothing ran, or right now.
                    Closed::Killed => {}
                },
                Err(error) => return Err(SpawnError::resources(error)),
            }
        }
        Err(SpawnError::HelperGone("each is killed at once".into()))
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
        let Some(mut slot) = self.slot.take() else { return Err(SpawnError::NotStarted("it has ended before".into())) };
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
            Ok(Some(Answer::NoThread)) => {
                Slot::end_unused();
                Err(SpawnError::no_room())
            }
            Ok(Some(Answer::Failed { errno })) => {
                let is_scarce = failure::scarce(&io::Error::from_raw_os_error(errno)).is_some();
                if is_scarce {
                    Slot::end_unused();
                } else {
                    resolve::forget(&self.launch.program);
                }
                slot.give_back();
                let why = failure::explain(errno, &self.launch, &self.file);
                Err(if is_scarce { SpawnError::Scarce(why) } else { SpawnError::NotStarted(why) })
            }
            Ok(None) | Err(_) => {
                // The system tells whether the other side has died with something unread.
                let is_unread = answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                Err(match (slot.closed()?, is_unread) {
                    (Closed::Killed, true) => SpawnError::Unread,
                    (Closed::Killed, false) => SpawnError::HelperKilled,
                    (Closed::Refused, true) => SpawnError::no_room(),
                    (Closed::Refused, false) => SpawnError::NotStarted("the spawn helper has lost it".into()),
                })
            }
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
