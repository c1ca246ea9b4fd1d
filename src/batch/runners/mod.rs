//! The ranks' half of a batch: how an attempt at a job is run, and what it takes to start.
//!
//! | file | runs |
//! |---|---|
//! | `kernel` | a built-in function |
//! | `command` | a process for each attempt |
//! | `worker` | requests to processes that stay; `doubts`: which of their answers turn out to be those of other jobs |

pub(crate) mod command;
pub(crate) mod doubtful;
pub(crate) mod kernel;
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
    /// What is kept of a job until it is settled.
    type Work: Serialize + Clone + Send + 'static;
    /// What travels to a rank.
    type Input: Input;
    type Output;

    /// How the output of a job is written.
    fn lines(&self) -> Lines;

    /// Adds what is done around the start of MPI on every rank: checks, processes that are started early.
    fn prepare<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        launch
    }

    /// The number of jobs that are not sent in parts, if `chunk` was asked for.
    fn chunk(&self, chunk: u32) -> u32 {
        chunk
    }

    /// Opens the stream of attempts. `chunk`: jobs in a chunk, 0 for automatic. `recorded`: results say where and when the
    /// attempt ran.
    ///
    /// # Errors
    /// The pool does not take the map.
    fn open(&self, pool: &Pool, chunk: u32, recorded: bool) -> Result<JobStream<Self::Input, Self::Output>, Failure>;

    /// What travels for this attempt.
    fn input(&self, attempt: Attempt<Self::Work>) -> Self::Input;

    /// Whether a result is nothing but the output of a job that succeeded, unless it is recorded.
    fn has_plain_results(&self) -> bool {
        false
    }

    /// Reads the encoded result of the attempt with this index.
    ///
    /// # Errors
    /// The bytes are not a result.
    fn result(&self, index: u64, value: &[u8], _recorded: bool) -> Result<AttemptResult, JobError> {
        decode_result(index, value)
    }

    /// The status of an attempt that the pool could not run to its end, and one word for it.
    fn status(&self, kind: JobErrorKind) -> (Status, String);

    /// With which the workers are asked at the end whether their answers were right.
    fn token(&self) -> Option<Token> {
        None
    }

    /// What `--dry-run` shows of a job.
    fn show(&self, number: u64, work: &Self::Work) -> Vec<u8>;

    /// Ends what [`prepare`](Self::prepare) has started, on every rank.
    fn end(&self) {}
}

fn decode_result(index: u64, value: &[u8]) -> Result<AttemptResult, JobError> {
    wire::decode_value(value).map_err(|error| JobError::new(index, JobErrorKind::Decode, error.to_string()))
}

/// The status of an attempt whose process the pool could not start.
fn status_of_process(kind: JobErrorKind) -> (Status, String) {
    let (status, word) = match kind {
        JobErrorKind::Cancelled => (Status::Cancelled, "cancelled"),
        JobErrorKind::Lost => (Status::Lost, "lost"),
        _ => (Status::Spawn, "spawn"),
    };
    (status, word.into())
}

/// Whether the folder that the jobs run in exists.
///
/// # Errors
/// A sentence, if it does not.
fn check_folder(cwd: Option<&Path>) -> Result<(), String> {
    match cwd {
        Some(folder) if !folder.is_dir() => Err(format!("no such directory: {}, which --cwd names", folder.display())),
        Some(_) | None => Ok(()),
    }
}
