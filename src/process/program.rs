//! What is to be started, and how it ends or why it does not start.

pub(super) mod failure;
pub(super) mod resolve;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::Timespec;
use serde::{Deserialize, Serialize};

use crate::console::reason;

/// A program and what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// As it was typed: a path, or a name to look for in `PATH`.
    pub name: String,
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

    pub(super) fn no_room() -> Self {
        SpawnError::Scarce(
            "the spawn helper has no thread or file descriptor for one more process (raise `ulimit -u` or `ulimit -n`)"
                .into(),
        )
    }
}

/// How a process has ended, and what it has used, with those of its children that it has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessEnd {
    pub status: ExitStatus,
    pub user: Duration,
    pub system: Duration,
    /// The largest resident memory. It is never less than the spawn helper's own, some MiB, from which the process was made.
    pub max_rss_kib: u64,
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
