//! What travels between the driver's threads and the master, as channel messages: requests and encoded inputs one way,
//! encoded results the other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;

use crate::engine::board::Settled;
use crate::engine::error::{Failure, JobError};
use crate::engine::schedule::{MapId, Policy, RankId};
use crate::engine::wire::{self, FunctionId};

/// What the driver's side asks of the master.
pub(crate) enum Command {
    /// A new map, without jobs yet.
    Open {
        map: MapId,
        function: FunctionId,
        context: Bytes,
        policy: Policy,
        job_timeout: Option<Duration>,
        client: Client,
    },
    /// The inputs of a map's next jobs.
    Submit { map: MapId, block: Block },
    /// The map gets no more jobs.
    Close { map: MapId },
    /// Nobody wants the jobs of the map that have not begun.
    GiveUp { map: MapId },
    /// Nobody wants the rest of the map, not even of the jobs that run.
    Abandon { map: MapId },
    /// The driver has a piece of output, so that the rank may send the next one.
    Took { rank: RankId, part: u64 },
    /// Cancel a job if no rank has it; the answer is whether it was cancelled.
    Cancel { map: MapId, job: u64, reply: Sender<bool> },
    /// Broadcast a value.
    Keep { value: u64, bytes: Bytes },
    /// The driver's closure has returned.
    DriverLeft,
}

/// Who gets a map's results, and what else it wants of the master.
pub(crate) struct Client {
    pub deliveries: Sender<(MapId, Vec<Delivery>)>,
    /// Tell when jobs are handed to a rank, too.
    pub starts: bool,
    /// How many queued jobs keep the ranks busy; the master keeps it up to date.
    pub advice: Arc<AtomicU64>,
    /// Counts the jobs that are settled, for a progress display.
    pub settled: Option<Arc<Settled>>,
}

/// The encoded inputs of some consecutive jobs, cut anywhere between two jobs without looking at the bytes.
#[derive(Debug)]
pub(crate) struct Block {
    frames: Bytes,
    /// Where each job's frame ends.
    ends: Box<[usize]>,
    count: u32,
    /// Jobs that are to be run on another rank than this one, if there is one; by their offsets, ascending.
    avoid: Vec<(u32, RankId)>,
}

impl Block {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The jobs in order, as runs of those that are to avoid the same rank or none.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, Option<RankId>)> + use<> {
        let mut runs: Vec<(u64, Option<RankId>)> = Vec::new();
        let mut next = 0;
        let mut add = |count: u32, avoid| match runs.last_mut() {
            _ if count == 0 => {}
            Some((before, same)) if *same == avoid => *before += u64::from(count),
            _ => runs.push((u64::from(count), avoid)),
        };
        for (job, avoid) in &self.avoid {
            add(job - next, None);
            add(1, Some(*avoid));
            next = job + 1;
        }
        add(self.count - next, None);
        runs.into_iter()
    }

    /// The frames of the jobs at these offsets.
    pub(crate) fn frames(&self, jobs: Range<u32>) -> Bytes {
        let end = |job: u32| if job == 0 { Some(0) } else { self.ends.get(job as usize - 1).copied() };
        match (end(jobs.start), end(jobs.end)) {
            (Some(start), Some(end)) => self.frames.slice(start..end),
            _ => Bytes::new(),
        }
    }

    /// Lets go of the bytes: nobody will ask for them again.
    pub(crate) fn forget(&mut self) {
        self.frames = Bytes::new();
        self.ends = Box::default();
    }
}

/// The next block is taken to be as large as the last one, but not larger than this.
const FRAMES: usize = 1 << 20;

/// A [`Block`] that is being filled.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    frames: Vec<u8>,
    ends: Vec<usize>,
    avoid: Vec<(u32, RankId)>,
}

impl BlockBuilder {
    /// The job that was added last is to be run on another rank than this one, if there is one.
    pub(crate) fn avoid(&mut self, rank: RankId) {
        if let Some(job) = self.ends.len().checked_sub(1).and_then(|job| u32::try_from(job).ok()) {
            self.avoid.push((job, rank));
        }
    }

    /// Adds a job. An input that cannot be encoded becomes a job that fails when its turn comes.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>) {
        if let Err(failure) = wire::push_value(&mut self.frames, write) {
            wire::push_failure(&mut self.frames, &failure);
        }
        self.ends.push(self.frames.len());
    }

    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The block so far; the builder starts anew.
    pub(crate) fn take(&mut self) -> Block {
        let (jobs, bytes) = (self.ends.len(), self.frames.len());
        let frames = std::mem::replace(&mut self.frames, Vec::with_capacity(bytes.min(FRAMES)));
        let ends = std::mem::replace(&mut self.ends, Vec::with_capacity(jobs));
        let (count, avoid) = (u32::try_from(jobs).expect("blocks are small"), std::mem::take(&mut self.avoid));
        Block { count, frames: frames.into(), ends: ends.into(), avoid }
    }
}

/// What the master has for the owner of a map.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Results, a frame for each job.
    Done { first: u64, count: u64, frames: Bytes },
    /// A job that failed for good.
    Failed(Box<JobError>),
    /// Jobs that never ran to an end, all for the same reason.
    Unrun { first: u64, count: u64, attempt: u32, failure: Failure },
    /// Jobs that were handed to a rank.
    Started { first: u64, count: u32 },
    /// A piece of the output of a job that runs. It is to be answered with [`Command::Took`].
    Part(OutputPart),
}

/// A piece of a job's output, ahead of its result.
#[derive(Debug)]
pub(crate) struct OutputPart {
    /// The marks that the job's function gave it.
    pub job: u64,
    pub stream: u8,
    pub bytes: Bytes,
    pub rank: RankId,
    pub part: u64,
}
