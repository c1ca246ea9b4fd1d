//! What travels between driver and ranks: an attempt at a job, and what came of it.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::journal::Status;

/// One attempt at a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempt<W> {
    /// Its index in the map: the driver's key for it.
    pub index: u64,
    /// The job's place in the output, from 0.
    pub place: u64,
    /// The job's number: the place of its record in the input, from 1.
    pub number: u64,
    /// How often the job is run with this attempt, from 1.
    pub attempt: u32,
    /// The job's own seed, the same in every attempt.
    pub seed: u64,
    pub work: W,
    /// The rank on which the attempt before failed.
    #[serde(skip)]
    pub avoid: Option<u32>,
}

/// What came of an attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub index: u64,
    pub status: Status,
    /// What went wrong, unless the status says it all.
    pub trouble: Option<Box<Trouble>>,
    pub run: Option<Run>,
    /// What it wrote to standard output and standard error, as far as it was not sent ahead.
    pub out: ByteBuf,
    pub err: ByteBuf,
    /// All that it wrote.
    pub output_bytes: u64,
}

/// What went wrong with a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// One word, for the line in the place of a result.
    pub kind: String,
    pub message: String,
    pub traceback: Option<String>,
    pub exit: Option<i32>,
    pub signal: Option<i32>,
}

/// Where and when an attempt ran, and what it cost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Run {
    pub rank: u32,
    pub slot: u32,
    /// In µs since 1970.
    pub start: u64,
    /// Wall time.
    pub seconds: f64,
    pub usage: Option<Usage>,
}

/// What a process used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// In s.
    pub user: f64,
    pub system: f64,
    /// In bytes.
    pub max_rss: u64,
}

impl Outcome {
    /// An attempt that never ran to an end.
    pub(crate) fn unrun(index: u64, status: Status, kind: &str, message: String) -> Self {
        let trouble = Trouble { kind: kind.into(), message, ..Trouble::default() };
        let (out, err) = (ByteBuf::new(), ByteBuf::new());
        Outcome { index, status, trouble: Some(Box::new(trouble)), run: None, out, err, output_bytes: 0 }
    }
}

/// Whether an attempt that ended so says something about the rank it ran on.
pub(crate) fn has_failed(status: Status) -> bool {
    !matches!(status, Status::Ok | Status::Cancelled)
}

/// The seed of a job: it depends on the run's seed and the job's number alone.
pub(crate) fn seed_of(seed: u64, number: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed)
}
