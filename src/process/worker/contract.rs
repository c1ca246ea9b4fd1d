//! What a worker and the rank that has it tell each other.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Protocol, WorkerEnd};
use crate::console;

/// A worker that has not answered its first record for so long may have forgotten to flush.
const SILENCE: Duration = Duration::from_secs(10);

/// What a worker is told of a record besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobHead {
    pub number: u64,
    /// From 1.
    pub attempt: u32,
    pub seed: u64,
}

/// Where records come from and answers go to.
pub(crate) trait WorkerFeed {
    /// Adds the next record, one JSON value, to the buffer. It is called while others are computed, so it must not wait: nothing
    /// means that there is none now.
    fn next(&mut self, json: &mut Vec<u8>) -> Option<JobHead>;
    /// Takes the answers, in the order of the records.
    fn done(&mut self, answer: Answer<'_>);
}

/// The outcome of one record.
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
    /// `exception exit encode batch error`, or what the worker says itself; `crash garbage timeout cancelled`, what it cannot say.
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

/// There is no worker: it cannot be started, or ends before it is of any use. The run has no sense without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StartFailure {
    pub message: String,
    pub traceback: Option<String>,
}

/// Why [`Worker::answer`](super::Worker::answer) came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEnd {
    /// Every record that it took is answered.
    AllAnswered,
    /// The run ends: what it had taken has failed as `cancelled`.
    Cancelled,
}

/// Whether the answers of a process are what they seem, where nothing but the order says whose a line is. It comes at the end of
/// each process, when its last answers were handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnswerCheck {
    /// It has written a line for each record and no more.
    Passed,
    /// It wrote what nobody had asked for, so what it had answered before may be other records' answers; why, in words.
    Doubtful(String),
}

/// How a worker is treated.
#[derive(Clone)]
pub(crate) struct Options {
    /// What people call it: a program's name, or `model.py:predict`.
    pub name: String,
    pub protocol: Protocol,
    /// What each new process is told first, whosever worker it becomes.
    pub preamble: Cow<'static, [u8]>,
    /// What it is told when it becomes this worker's.
    pub assignment: Vec<u8>,
    /// How long one record may take.
    pub timeout: Option<Duration>,
    /// How long after TERM comes KILL, and how long a process may take to end by itself.
    pub kill_after: Duration,
    /// A process that was given so many records is replaced.
    pub max_jobs: Option<NonZeroU64>,
    /// How long a worker may be silent before it is asked whether it flushes.
    pub silence: Duration,
    /// Takes what the end of a process says of the answers that were handed over since it began.
    pub on_check: Arc<dyn Fn(AnswerCheck) + Send + Sync>,
    /// Takes what people should know and no record's answer says.
    pub warn: Arc<dyn Fn(&str) + Send + Sync>,
    /// Ends a process that has nothing to do, if there is one: there is no room for another.
    pub make_room: fn(),
}

impl Options {
    /// No time limit, no limit of records; warnings are said on standard error.
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
