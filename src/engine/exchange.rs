//! The channel messages between the driver's threads and the master: requests and encoded inputs one way, encoded results the
//! other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;

use crate::engine::board::Settled;
use crate::engine::error::{Failure, JobError};
use crate::engine::schedule::{MapId, Policy, RankId};
use crate::engine::wire::{self, FunctionId, Lists};

pub(crate) use crate::engine::wire::OutputStream;

/// A request of the driver's side to the master.
pub(crate) enum Command {
    /// Open a map, which has no jobs yet.
    Open {
        map: MapId,
        function: FunctionId,
        context: Bytes,
        policy: Policy,
        job_timeout: Option<Duration>,
        client: Client,
    },
    /// Add jobs with these inputs to a map.
    Submit { map: MapId, block: Block },
    /// Close a map: it gets no more jobs.
    Close { map: MapId },
    /// Cancel the jobs of a map that have not begun.
    GiveUp { map: MapId },
    /// Abandon a map: cancel the jobs that have not begun and notify those that run.
    Abandon { map: MapId },
    /// Tell a rank that the driver has taken a piece of output, so that the rank may send the next one.
    PartTaken { rank: RankId, part: u64 },
    /// Cancel a job if no rank has it; the reply is whether it was cancelled.
    Cancel { map: MapId, job: u64, reply: Sender<bool> },
    /// Broadcast a value to all ranks.
    Broadcast { value: u64, bytes: Bytes },
    /// Have all ranks forget a broadcast value. Unsettled jobs that use it fail on ranks that have not begun with them.
    #[cfg_attr(
        not(feature = "program"),
        expect(dead_code, reason = "scripts alone send so much that it has to be forgotten")
    )]
    Forget { value: u64 },
    /// Have all ranks report their load, about once in this time.
    #[cfg_attr(not(feature = "program"), expect(dead_code, reason = "the program alone has a live view"))]
    ReportLoads { every: Duration },
    /// After a request to stop, let jobs and the driver go on for at least this time.
    StopGrace { least: Duration },
    /// Stop the run, as a signal does.
    Stop,
    /// The driver's closure has returned.
    DriverLeft,
}

/// The receiver of a map's results, and the reports that it asks for.
pub(crate) struct Client {
    pub deliveries: Sender<(MapId, Vec<Delivery>)>,
    /// Whether it also wants to know when jobs are sent to a rank.
    pub starts: bool,
    /// The number of queued jobs that keeps the ranks busy; the master updates it.
    pub queue_target: Arc<AtomicU64>,
    /// Counts the jobs that are settled, for a progress display.
    pub settled: Option<Arc<Settled>>,
}

/// The encoded inputs of consecutive jobs. It can be split between any two jobs without decoding.
#[derive(Debug)]
pub(crate) struct Block {
    frames: Bytes,
    /// The position of the end of each job's frame.
    ends: Box<[usize]>,
    count: u32,
    /// The jobs, by ascending offset, that are to avoid a rank if there is another one.
    avoid: Vec<(u32, RankId)>,
}

impl Block {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the jobs in order, as runs of jobs that are to avoid the same rank, or none: the length and the rank of each run.
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

    /// Returns the frames of the jobs at these offsets.
    pub(crate) fn frames(&self, jobs: Range<u32>) -> Bytes {
        let end = |job: u32| if job == 0 { Some(0) } else { self.ends.get(job as usize - 1).copied() };
        match (end(jobs.start), end(jobs.end)) {
            (Some(start), Some(end)) => self.frames.slice(start..end),
            _ => Bytes::new(),
        }
    }

    /// Frees the bytes: they are not needed any more.
    pub(crate) fn forget(&mut self) {
        self.frames = Bytes::new();
        self.ends = Box::default();
    }
}

/// The memory reserved for the next block is as large as the last block, but not larger than this.
const FRAMES: usize = 1 << 20;

/// A [`Block`] that is being filled.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    frames: Vec<u8>,
    ends: Vec<usize>,
    avoid: Vec<(u32, RankId)>,
}

impl BlockBuilder {
    /// Marks the job that was added last: it is to be run on another rank than `rank`, if there is one.
    pub(crate) fn avoid(&mut self, rank: RankId) {
        if let Some(job) = self.ends.len().checked_sub(1).and_then(|job| u32::try_from(job).ok()) {
            self.avoid.push((job, rank));
        }
    }

    /// Adds a job; `write` appends its encoded input. If that fails, the job fails when it is run.
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

    /// Returns the block so far and empties the builder.
    pub(crate) fn take(&mut self) -> Block {
        let (jobs, bytes) = (self.ends.len(), self.frames.len());
        let frames = std::mem::replace(&mut self.frames, Vec::with_capacity(bytes.min(FRAMES)));
        let ends = std::mem::replace(&mut self.ends, Vec::with_capacity(jobs));
        let (count, avoid) = (u32::try_from(jobs).expect("blocks are small"), std::mem::take(&mut self.avoid));
        Block { count, frames: frames.into(), ends: ends.into(), avoid }
    }
}

/// A message of the master to the owner of a map.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Results, a frame for each job. The frames are a part of a packet of `packet_bytes` and keep all of it in memory.
    Done { first: u64, count: u64, frames: Bytes, lists: Lists, packet_bytes: usize },
    /// Results that come before their chunk is finished, and again when it is. The jobs are not settled yet.
    Early { first: u64, count: u64, frames: Bytes, packet_bytes: usize },
    /// A job that failed for good.
    Failed(Box<JobError>),
    /// Jobs that did not run to their end, all for the same reason.
    Unrun { first: u64, count: u64, attempt: u32, failure: Failure },
    /// Jobs that were sent to a rank.
    Started { first: u64, count: u32 },
    /// A piece of the output of a running job. The receiver answers with [`Command::PartTaken`].
    Part(OutputPart),
}

/// A piece of a job's output, sent before its result.
#[derive(Debug)]
pub(crate) struct OutputPart {
    /// The mark that the job's function gave it.
    pub job: u64,
    pub stream: OutputStream,
    pub bytes: Bytes,
    pub rank: RankId,
    pub part: u64,
}
