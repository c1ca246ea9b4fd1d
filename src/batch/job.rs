//! The messages between the driver and the ranks: an attempt at a job, and its result.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::journal::Status;
use crate::process::calls::payload::Payload;

/// One attempt at a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempt<W> {
    /// The job's place in the output, from 0.
    pub place: u64,
    /// The job's number: the place of its record in the input, from 1.
    pub number: u64,
    /// Which attempt at the job this is, from 1.
    pub attempt: u32,
    /// The job's own seed, the same in every attempt.
    pub seed: u64,
    pub work: W,
    /// The rank on which the previous attempt failed.
    #[serde(skip)]
    pub avoid: Option<u32>,
    pub room: Room,
}

/// How many others may run on a rank beside an attempt. A job that was killed for lack of memory is run again with fewer of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Room {
    /// As many as the rank has threads for.
    #[default]
    Shared,
    /// Half of them.
    Half,
    /// None.
    Alone,
}

impl Room {
    /// Returns the next one, with fewer others; `None` if there are none already.
    pub(crate) fn next(self) -> Option<Room> {
        match self {
            Room::Shared => Some(Room::Half),
            Room::Half => Some(Room::Alone),
            Room::Alone => None,
        }
    }
}

/// The result of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AttemptResult {
    pub status: Status,
    /// Why the attempt failed; `None` if it succeeded.
    pub cause: Option<Box<Cause>>,
    pub run: Option<Run>,
    /// Standard output, without the pieces that were sent ahead; of a call the value or the exception.
    pub out: Payload,
    /// The status and the flags of the answer to a call.
    pub answer: Option<(u8, u8)>,
    /// Standard error, likewise.
    pub err: ByteBuf,
    /// The length of all output, with the pieces that were sent ahead.
    pub output_bytes: u64,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// One word: `kind` of the error line in place of a result.
    pub kind: String,
    pub message: String,
    pub traceback: Option<String>,
    pub exit: Option<i32>,
    pub signal: Option<i32>,
}

/// The `kind` of a cause: the kernel has killed the process because memory was exhausted.
pub(crate) const MEMORY: &str = "memory";

/// Where and when an attempt ran, and its resource usage.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Run {
    pub rank: u32,
    pub slot: u32,
    /// In µs since 1970.
    pub start_us: u64,
    /// Wall time.
    pub seconds: f64,
    pub usage: Option<Usage>,
}

/// The resource usage of a process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// In s.
    pub user: f64,
    pub system: f64,
    /// In bytes.
    pub max_rss: u64,
}

impl AttemptResult {
    /// Makes the result of an attempt that succeeded with this standard output.
    pub(crate) fn ok(out: Vec<u8>, run: Option<Run>) -> Self {
        let output_bytes = out.len() as u64;
        let (out, err) = (Payload::Bytes(out.into()), ByteBuf::new());
        AttemptResult { status: Status::Ok, cause: None, run, out, answer: None, err, output_bytes }
    }

    /// Makes the result of an attempt that has no output.
    pub(crate) fn without_output(status: Status, cause: Cause, run: Option<Run>) -> Self {
        let (out, err) = (Payload::default(), ByteBuf::new());
        AttemptResult { status, cause: Some(Box::new(cause)), run, out, answer: None, err, output_bytes: 0 }
    }
}

/// The result of an attempt, as far as the ledger uses it.
pub(crate) trait AttemptEnd {
    fn status(&self) -> Status;
    /// The rank that ran the attempt, if one did.
    fn rank(&self) -> Option<u32>;
    /// Whether the attempt was killed because memory was exhausted.
    fn ran_out_of_memory(&self) -> bool;
    /// Drops the output, which does not count if the job is run again.
    fn drop_output(&mut self);
}

impl AttemptEnd for AttemptResult {
    fn status(&self) -> Status {
        self.status
    }

    fn rank(&self) -> Option<u32> {
        self.run.map(|run| run.rank)
    }

    fn ran_out_of_memory(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.kind == MEMORY)
    }

    fn drop_output(&mut self) {
        (self.out, self.err) = (Payload::default(), ByteBuf::new());
    }
}

impl Cause {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Cause { kind: kind.into(), message: message.into(), ..Cause::default() }
    }
}

impl Run {
    /// Makes the run of an attempt that began at `start` in this slot and took `duration`.
    pub(crate) fn new(rank: u32, slot: u32, start: SystemTime, duration: Duration) -> Self {
        Run { rank, slot, start_us: micros_of(start), seconds: duration.as_secs_f64(), usage: None }
    }
}

/// Returns a time in µs since 1970.
pub(crate) fn micros_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Whether a job that ended with this status has failed; a cancelled one has not.
pub(crate) fn has_failed(status: Status) -> bool {
    !matches!(status, Status::Ok | Status::Cancelled)
}

/// Returns the seed of a job, which depends on the run's seed and the job's number alone.
pub(crate) fn seed_of(seed: u64, number: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed)
}
