//! The ranks' half of a batch: how an attempt at a job is run, and what is done before and after.
//!
//! | file | runs |
//! |---|---|
//! | `kernel` | a built-in function |
//! | `command` | a process for each attempt |
//! | `call` | calls of a Python script, in workers that stay |
//! | `gate` | how many processes of jobs run at once, when memory is short |
//! | `stretch` | which consecutive jobs of a chunk need the same room |
//! | `worker` | requests to processes that stay; `doubtful`: answers that may be those of other jobs |

pub(crate) mod call;
pub(crate) mod command;
pub(crate) mod doubtful;
mod gate;
pub(crate) mod kernel;
mod stretch;
pub(crate) mod worker;

use std::path::Path;

use serde::Serialize;

use super::job::{Attempt, AttemptResult};
use super::sinks::Lines;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::wire;
use crate::journal::Status;
use crate::launch::Launch;
use crate::pool::{Input, JobStream, Pool};
use doubtful::Token;

/// Runs the attempts of a batch on the ranks.
pub(crate) trait Runner: Sync {
    /// The work of a job, kept until the job is settled.
    type Work: Serialize + Clone + Send + 'static;
    /// The message for one attempt, sent to a rank.
    type Input: Input;
    /// The result of one attempt, sent back.
    type Output;

    /// Returns how the output of a job is written.
    fn lines(&self) -> Lines;

    /// Adds the work around the start of MPI on every rank: checks, and processes that are started early.
    fn prepare<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        launch
    }

    /// Returns the number of jobs that stay together in a chunk, if `--chunk` is `chunk`.
    fn chunk(&self, chunk: u32) -> u32 {
        chunk
    }

    /// Opens the stream of attempts. `chunk`: jobs in a chunk, 0 for automatic. `logged`: there is a job log, so results contain
    /// where and when the attempt ran.
    ///
    /// # Errors
    /// If the pool refuses the stream.
    fn open(&self, pool: &Pool, chunk: u32, logged: bool) -> Result<JobStream<Self::Input, Self::Output>, Failure>;

    /// Returns the message for this attempt.
    fn input(&self, attempt: Attempt<Self::Work>) -> Self::Input;

    /// Whether a result is only the output of a successful job, if there is no job log.
    fn has_plain_results(&self) -> bool {
        false
    }

    /// Decodes the result of the attempt with this index.
    ///
    /// # Errors
    /// If the bytes are not a result.
    fn result(&self, index: u64, value: &[u8], _logged: bool) -> Result<AttemptResult, JobError> {
        decode_result(index, value)
    }

    /// Returns the status of an attempt that the pool could not run to its end, and the `kind` of its error line.
    fn status(&self, kind: JobErrorKind) -> (Status, String);

    /// Returns the token with which the workers' answers are checked at the end; `None` if they need no check.
    fn token(&self) -> Option<Token> {
        None
    }

    /// Returns the parameters of a built-in function as text, which are the same for all jobs.
    fn parameters(&self) -> Option<String> {
        None
    }

    /// Returns the line that `--dry-run` shows for a job.
    fn show(&self, number: u64, work: &Self::Work) -> Vec<u8>;

    /// Ends the processes that [`prepare`](Self::prepare) has started, on every rank.
    fn end(&self) {}
}

fn decode_result(index: u64, value: &[u8]) -> Result<AttemptResult, JobError> {
    wire::decode_value(value).map_err(|error| JobError::new(index, JobErrorKind::Decode, error.to_string()))
}

/// Returns the status of an attempt that the pool could not run, and the `kind` of its error line, for commands and workers.
fn status_of_process(kind: JobErrorKind) -> (Status, String) {
    let (status, word) = match kind {
        JobErrorKind::Cancelled => (Status::Cancelled, "cancelled"),
        JobErrorKind::Lost => (Status::Lost, "lost"),
        _ => (Status::Spawn, "spawn"),
    };
    (status, word.into())
}

/// Checks that the folder that the jobs run in exists.
///
/// # Errors
/// A sentence, if it does not exist.
fn check_folder(cwd: Option<&Path>) -> Result<(), String> {
    match cwd {
        Some(folder) if !folder.is_dir() => Err(format!("no such directory: {}, which --cwd names", folder.display())),
        Some(_) | None => Ok(()),
    }
}
