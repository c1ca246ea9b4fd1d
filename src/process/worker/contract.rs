//! The types that a worker shares with the rank that owns it.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Protocol, WorkerEnd};
use crate::console;

/// A worker that has not answered its first record for this long may have forgotten to flush.
const SILENCE: Duration = Duration::from_secs(10);

/// What is sent with a record besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobHead {
    pub number: u64,
    /// From 1.
    pub attempt: u32,
    pub seed: u64,
}

/// Gives records to a worker and takes its answers.
pub(crate) trait WorkerFeed {
    /// Writes the next record, one JSON value, to the buffer; returns `None` if there is none now. It is called while other records
    /// are computed, so it must not wait.
    fn next(&mut self, json: &mut Vec<u8>) -> Option<JobHead>;
    /// Takes an answer. Answers come in the order of the records.
    fn done(&mut self, answer: Answer<'_>);
}

/// The answer to one record.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub start: SystemTime,
    pub duration: Duration,
    /// One JSON value in one line.
    pub result: Result<&'a str, WorkerFailure>,
}

/// Why a record has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct WorkerFailure {
    /// Reported by the worker: `exception exit encode batch error`, or a word of its own. Found by the rank: `crash garbage surplus
    /// timeout cancelled lost`.
    pub kind: Cow<'static, str>,
    pub message: String,
    pub traceback: Option<String>,
    /// How the process ended, if it did.
    pub ended: Option<WorkerEnd>,
}

impl WorkerFailure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        WorkerFailure { kind: Cow::Borrowed(kind), message: message.into(), traceback: None, ended: None }
    }
}

/// The worker cannot be started, or ends before it has answered anything. The run cannot go on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StartFailure {
    pub message: String,
    pub traceback: Option<String>,
}

/// Why [`Worker::answer`](super::Worker::answer) returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEnd {
    /// Every record that was taken is answered.
    AllAnswered,
    /// The run ends: the records without an answer have failed as `cancelled`.
    Cancelled,
}

/// Whether the answers of a process are right, where they are matched to records by their order only. It is reported after the end
/// of each process, when its last answers were handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnswerCheck {
    /// The process has written one line for each record.
    Passed,
    /// The process wrote a surplus line, so its earlier answers may belong to other records. Holds the reason.
    Doubtful(String),
}

/// Settings of a worker.
#[derive(Clone)]
pub(crate) struct Options {
    /// Its name in messages: a program's name, or `model.py:predict`.
    pub name: String,
    pub protocol: Protocol,
    /// What is sent first to each new process, the same for all workers of a run.
    pub preamble: Cow<'static, [u8]>,
    /// What is sent to a process when it is assigned to this worker.
    pub assignment: Vec<u8>,
    /// Time limit for one record.
    pub timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL, and for a process to end by itself.
    pub kill_after: Duration,
    /// A process is replaced after this many records.
    pub max_jobs: Option<NonZeroU64>,
    /// Time without a first answer after which a warning about flushing is given.
    pub silence: Duration,
    /// Called after the end of each process: whether the answers that were handed over since its start are right.
    pub on_check: Arc<dyn Fn(AnswerCheck) + Send + Sync>,
    /// Called with warnings for the user.
    pub warn: Arc<dyn Fn(&str) + Send + Sync>,
    /// Ends an idle process, if there is one. Called when a resource for one more process is exhausted.
    pub make_room: fn(),
}

impl Options {
    /// Settings without limits; warnings are written to standard error.
    pub(crate) fn new(name: impl Into<String>, protocol: Protocol) -> Self {
        Options {
            name: name.into(),
            protocol,
            preamble: Cow::Borrowed(&[]),
            assignment: Vec::new(),
            timeout: None,
            kill_after: Duration::from_secs(5),
            max_jobs: None,
            silence: SILENCE,
            on_check: Arc::new(|_| ()),
            warn: Arc::new(|warning| console::eprint_error(warning)),
            make_room: || (),
        }
    }
}
