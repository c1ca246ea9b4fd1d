//! The scheduler's language: facts in, orders out. Ids and counts only; payloads stay with the shell.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// One MPI process, or one thread group of the local transport. Rank 0 is the master's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RankId(pub u32);

impl fmt::Display for RankId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One function applied to one stream of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MapId(pub u64);

/// One assignment of consecutive jobs to a rank. Never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId(pub u64);

/// How many jobs travel as one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkSize {
    /// Follows the measured duration of the jobs.
    Auto,
    /// The same for jobs whose chunks cost a rank much more than a message: it asks another process for their results.
    Coarse,
    /// Always this many, fewer only where the queue ends.
    Fixed(NonZeroU32),
}

/// What a map asks of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// How many jobs travel as one chunk.
    pub chunk: ChunkSize,
    /// How often a failing job is run again: 0 means that it runs once.
    pub retries: u32,
}

/// A fact the scheduler is told. Times are durations measured by the shell, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A rank is ready to compute with this many threads. A rank joins once.
    Joined { rank: RankId, threads: NonZeroU32 },
    /// A map was opened; it has no jobs yet. Ids are handed out by the shell, each once. Its jobs are expected to take as long as
    /// those of earlier maps of the same function.
    Opened { map: MapId, policy: Policy, function: i64 },
    /// So many more jobs of a map are there; their indexes follow on from the earlier ones, from 0. They go to another rank than
    /// `avoid` if there is one.
    Submitted { map: MapId, count: u64, avoid: Option<RankId> },
    /// A map gets no more jobs.
    Closed { map: MapId },
    /// Nobody wants the rest of a map: queued jobs are settled as cancelled, running ones when they end.
    Abandoned { map: MapId },
    /// Somebody asked to cancel one job. It is settled as cancelled if it is still queued, else nothing happens.
    CancelAsked { map: MapId, job: u64 },
    /// A rank answered a chunk (what it had kept of it). `busy` is the time its thread spent in the jobs; `failed` holds the
    /// failed jobs as offsets from the chunk's first, ascending. `bad` is how many more have a result that says that they
    /// failed: they are done, and tell something about the rank.
    Finished { rank: RankId, chunk: ChunkId, busy: u64, failed: Vec<u32>, bad: u32 },
    /// A rank answered a recall: it keeps the first `kept` jobs of the chunk (those it had started) and gives the rest back.
    /// With `kept == 0` there will be no `Finished` for the chunk. Comes before the chunk's `Finished`.
    Returned { rank: RankId, chunk: ChunkId, kept: u32 },
    /// A rank is gone; whatever still comes from it is ignored.
    Lost { rank: RankId },
    /// The run is to end early: queued jobs are settled as stopped, running ones when they end, and none is dealt any more.
    Draining,
    /// Nothing has happened for a while, though threads are idle: more than a short job takes, and its message.
    Quiet,
    /// The driver is done: no map will be opened any more. When all are released, the ranks are dismissed.
    DriverLeft,
}

/// How jobs ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Their results are in the `Finished` being handled.
    Done,
    /// The job's failure is in the `Finished` being handled, and its retries are used up.
    Failed,
    /// The ranks that had them are gone, as often as is allowed.
    Lost,
    /// Cancelled before they started.
    Cancelled,
    /// The run was stopped before they started.
    Stopped,
}

/// An order to the shell, to be carried out in sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send jobs `first .. first + count` of a map to a rank. `attempt` counts from 1, the same for all of them.
    Assign { rank: RankId, chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32 },
    /// Ask a rank for the jobs of a chunk that it has not started; it answers `Returned`, or `Finished` was on its way.
    Recall { rank: RankId, chunk: ChunkId },
    /// Jobs `first .. first + count` have their final outcome. `attempt` is how often they ran (0: never).
    Settle { map: MapId, first: u64, count: u64, outcome: Outcome, attempt: u32 },
    /// All jobs of a closed or abandoned map are settled: forget it, here and on the ranks.
    Release { map: MapId },
    /// A rank has nothing more to do in this run. It is the last word to this rank.
    Dismiss { rank: RankId },
}
