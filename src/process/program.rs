//! The description of a program to start, of its end, and of a failed start.

pub(super) mod failure;
pub(super) mod resolve;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::console::reason;

/// A program to start, with its arguments and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// As typed by the user: a path, or a name to look for in `PATH`.
    pub name: String,
    /// The program's `argv[0]`, if not `name`.
    pub arg0: Option<String>,
    pub args: Vec<String>,
    /// Variables besides those of the rank; of several with one name the last counts.
    pub env: Vec<(String, String)>,
    pub cwd: Option<PathBuf>,
    /// The modules of a Python worker that one interpreter of the host imports, from which workers are forked. One with a slash is a
    /// folder with modules.
    pub preload: Vec<String>,
}

/// Why a process was not started, or was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpawnError {
    /// No process can be started any more on this rank.
    #[error(
        "no command can be started any more on this rank: its spawn helper is gone, and another one could not be started: {0}"
    )]
    HelperGone(String),
    /// This program could not be started.
    #[error("{0}")]
    NotStarted(String),
    /// A resource of the rank is exhausted for now: nothing was started, and a later attempt may succeed.
    #[error("{0}")]
    Scarce(String),
    /// The spawn helper was killed before it read the request: nothing was started. There is a new helper.
    #[error("the spawn helper was killed before it started the process")]
    Unread,
    /// The spawn helper was killed, and the process with it. There is a new helper.
    #[error(
        "ended together with the spawn helper of its rank, the process that starts and watches commands, which was killed"
    )]
    HelperKilled,
    /// The fork server was killed, and the worker with it.
    #[error(
        "ended together with the fork server of its host, the process that had imported its modules, which was killed"
    )]
    ServerKilled,
}

impl SpawnError {
    /// The error when the rank could not make a pipe or send a message, before anything was started.
    pub(super) fn resources(error: io::Error) -> Self {
        SpawnError::scarce_or(error, |why| {
            SpawnError::NotStarted(format!("a pipe or a message to the spawn helper: {why}"))
        })
    }

    /// [`Scarce`](Self::Scarce) if a resource is exhausted, otherwise `or(reason)`.
    pub(super) fn scarce_or(error: io::Error, or: impl FnOnce(String) -> Self) -> Self {
        match failure::scarce(&error) {
            Some(what) => SpawnError::Scarce(what.into()),
            None => or(reason(&error)),
        }
    }

    /// The error when a process that runs cannot be watched any more.
    pub(super) fn while_it_runs(error: io::Error) -> Self {
        SpawnError::NotStarted(format!("the command cannot be watched any more: {}", reason(&error)))
    }

    pub(super) fn no_room() -> Self {
        SpawnError::Scarce(
            "the spawn helper has no thread or file descriptor for one more process (raise `ulimit -u` or `ulimit -n`)"
                .into(),
        )
    }
}

/// How a process has ended, and what it used, including the children that it has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessEnd {
    pub status: ExitStatus,
    pub user: Duration,
    pub system: Duration,
    /// The largest resident memory. It is at least that of the spawn helper, some MiB, from which the process was made.
    pub max_rss_kib: u64,
}

/// Finds the executable file of a program: one of `PATH`, or, if the name holds a slash, that path, relative to `cwd`.
pub(crate) fn resolve(program: &str, cwd: Option<&Path>) -> Result<String, String> {
    let file = resolve::file_of(program)?;
    let path = cwd.map_or_else(|| PathBuf::from(&file), |folder| folder.join(&file));
    resolve::check(&path, program).map(|()| file)
}
