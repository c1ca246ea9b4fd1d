//! The errors of jobs.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The function panicked.
    Panic,
    /// An input could not be serialised on the driver's side, or a result on the rank that computed it.
    Encode,
    /// An input, a context or a result could not be deserialised.
    Decode,
    /// The `init` of `map_init` panicked on the rank that had the job.
    Init,
    /// The iterator of inputs panicked; the map has no inputs after this one.
    Input,
    /// The job was lost with several ranks, so that it may be the cause; or no rank is left that may run it.
    Lost,
    /// It was cancelled before it started.
    Cancelled,
    /// The run was stopped before it started.
    Stopped,
    /// No result came within the map's time-out. The job goes on; its result comes later.
    Timeout,
    /// It ran longer than the [time limit](crate::Map::job_timeout) of its map's jobs.
    TimedOut,
    /// It was not accepted: a pool was used inside a job, or a function cannot cross ranks.
    Refused,
    /// The pool has ended.
    Closed,
}

impl fmt::Display for JobErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobErrorKind::Panic => "panic",
            JobErrorKind::Encode => "encode",
            JobErrorKind::Decode => "decode",
            JobErrorKind::Init => "init",
            JobErrorKind::Input => "input",
            JobErrorKind::Lost => "lost",
            JobErrorKind::Cancelled => "cancelled",
            JobErrorKind::Stopped => "stopped",
            JobErrorKind::Timeout => "timeout",
            JobErrorKind::TimedOut => "timed out",
            JobErrorKind::Refused => "refused",
            JobErrorKind::Closed => "closed",
        })
    }
}

/// The source of every [`JobError`], so that it is found inside other errors, too.
impl std::error::Error for JobErrorKind {}

/// The failure of a job, as the rank reports it to the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub kind: JobErrorKind,
    pub message: String,
    /// `file:line:column` of a panic.
    pub location: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: JobErrorKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), location: None }
    }
}

/// The error of a job that has no result.
///
/// ```
/// # use rankpool::{Launch, JobErrorKind};
/// # Launch::new().local(1).threads(1).run(|pool| {
/// let error = pool.apply(|x: u32| if x == 3 { panic!("no threes") } else { x }, 3).unwrap_err();
/// assert_eq!((error.kind, error.message.as_str()), (JobErrorKind::Panic, "no threes"));
/// # Ok(()) });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobError {
    /// The kind of failure.
    pub kind: JobErrorKind,
    /// The panic's message, or a sentence.
    pub message: String,
    /// The location of the panic as `file:line:column`, if it is known.
    pub location: Option<String>,
    /// The job's index in its map, from 0; for `submit`, the number of jobs of the same function that were submitted before.
    pub job: u64,
    /// The rank that ran it, if one did.
    pub rank: Option<u32>,
    /// That rank's host.
    pub host: Option<String>,
    /// The number of the attempt, from 1; 0 if the job never started.
    pub attempt: u32,
}

impl JobError {
    pub(crate) fn new(job: u64, kind: JobErrorKind, message: impl Into<String>) -> Self {
        Self::of(job, Failure::new(kind, message))
    }

    pub(crate) fn of(job: u64, failure: Failure) -> Self {
        let Failure { kind, message, location } = failure;
        JobError { kind, message, location, job, rank: None, host: None, attempt: 0 }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.kind)
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}: {}: {}", self.job, self.kind, self.message)?;
        if let Some(location) = &self.location {
            write!(f, ", at {location}")?;
        }
        if let Some(rank) = self.rank {
            write!(f, " (rank {rank}")?;
            if let Some(host) = &self.host {
                write!(f, " on {host}")?;
            }
            if self.attempt > 1 {
                write!(f, ", attempt {}", self.attempt)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
