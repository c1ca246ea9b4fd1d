//! The scheduler's events and actions. They hold ids and counts only; payloads stay with the master.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The number of a rank: an MPI process, or a group of threads of the local transport. Rank 0 is in the master's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RankId(pub u32);

impl fmt::Display for RankId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a map: one function applied to one stream of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MapId(pub u64);

/// The number of a chunk: one assignment of consecutive jobs to a rank. A number is never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId(pub u64);

/// The number of jobs that travel as one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkSize {
    /// Follows the measured duration of the jobs.
    Auto,
    /// As `Auto`, with longer chunks: for jobs that another process answers, so that a chunk costs a rank much more than a message.
    Coarse,
    /// Always this number, fewer only at the end of the queue.
    Fixed(NonZeroU32),
}

/// A map's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// The number of jobs that travel as one chunk.
    pub chunk: ChunkSize,
    /// How many times a failing job is run again: with 0 it runs once.
    pub retries: u32,
}

/// A fact that the scheduler reacts to. Times are durations in nanoseconds, measured by the ranks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A rank is ready to compute with this many threads. A rank joins once.
    Joined { rank: RankId, threads: NonZeroU32 },
    /// A map was opened; it has no jobs yet. Every map has an id of its own. Its jobs are expected to take as long as
    /// those of earlier maps of the same function.
    Opened { map: MapId, policy: Policy, function: i64 },
    /// `count` more jobs of a map were submitted; their indexes continue those of the earlier ones, from 0. They are assigned to
    /// another rank than `avoid` if there is one.
    Submitted { map: MapId, count: u64, avoid: Option<RankId> },
    /// A map gets no more jobs.
    Closed { map: MapId },
    /// The driver dropped a map: queued jobs are settled as cancelled, running jobs when they end.
    Abandoned { map: MapId },
    /// The driver asked to cancel one job. The job is settled as cancelled if it is still queued; otherwise nothing happens.
    CancelAsked { map: MapId, job: u64 },
    /// A rank finished the jobs of a chunk that it had not given back. `busy` is the time its thread spent in the jobs; `failed`
    /// holds the failed jobs as ascending offsets from the chunk's first job. `failed_results` is the number of further jobs whose
    /// result says that they failed: they are done, but count as failures of the rank.
    Finished { rank: RankId, chunk: ChunkId, busy: u64, failed: Vec<u32>, failed_results: u32 },
    /// A rank answered a recall: it keeps the first `kept` jobs of the chunk (those it had started) and gives the rest back.
    /// With `kept == 0` there will be no `Finished` for the chunk. Comes before the chunk's `Finished`.
    Returned { rank: RankId, chunk: ChunkId, kept: u32 },
    /// A job of a chunk takes long, and jobs behind it that the rank had taken up already were not started after all: it can give
    /// them back, even if it was asked before.
    Delayed { rank: RankId, chunk: ChunkId },
    /// A rank is gone; its later messages are ignored.
    Lost { rank: RankId },
    /// The run is to end early: queued jobs are settled as stopped, running jobs when they end, and none is assigned any more.
    Draining,
    /// Nothing has happened for longer than a short job and its message take, though threads are idle.
    Quiet,
    /// The driver has left: no map will be opened any more. When all maps are released, the ranks are dismissed.
    DriverLeft,
}

/// The final outcome of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Their results are in the `Finished` being handled.
    Done,
    /// Their failures are in the `Finished` being handled, and their retries are used up.
    Failed,
    /// They were lost with their ranks as often as is allowed, or no rank is left.
    Lost,
    /// They were cancelled before they started.
    Cancelled,
    /// The run was stopped before they started.
    Stopped,
}

/// An order to the master, which carries out the actions in sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send jobs `first .. first + count` of a map to a rank. `attempt` counts from 1 and is the same for all of them.
    Assign { rank: RankId, chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32 },
    /// Ask a rank to give back the jobs of a chunk that it has not started. It answers `Returned`, unless its `Finished` was
    /// already on its way.
    Recall { rank: RankId, chunk: ChunkId },
    /// Report the final outcome of jobs `first .. first + count`. `attempt` is the number of times they ran (0: never).
    Settle { map: MapId, first: u64, count: u64, outcome: Outcome, attempt: u32 },
    /// Forget a closed or abandoned map, here and on the ranks: all of its jobs are settled.
    Release { map: MapId },
    /// Send a rank away: it has nothing more to do in this run. This is the last action for this rank.
    Dismiss { rank: RankId },
}
