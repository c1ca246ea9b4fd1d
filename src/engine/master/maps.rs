//! The master's state of a map: its function, the inputs of jobs that are not settled, and deliveries that are not yet sent.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{Block, Client, Delivery};
use crate::engine::schedule::{MapId, RankId};
use crate::engine::wire::{self, Frame, Frames, FunctionId, Lists, ToRank};

/// Inputs that were submitted together.
struct Inputs {
    first: u64,
    block: Block,
    unsettled: u32,
}

impl Inputs {
    /// Returns the offsets of those of these jobs that are in the block.
    fn offsets(&self, jobs: Range<u64>) -> Range<u32> {
        let offset = |job: u64| job.saturating_sub(self.first).min(u64::from(self.block.count())) as u32;
        offset(jobs.start)..offset(jobs.end)
    }
}

/// One map.
pub(super) struct MapState {
    function: FunctionId,
    context: Bytes,
    job_timeout: Option<Duration>,
    pub client: Client,
    /// Whether the driver submits no more jobs.
    pub closed: bool,
    /// Whether the driver has dropped the map.
    pub abandoned: bool,
    /// By rank: whether the map's definition was sent to it.
    defined: Vec<bool>,
    /// The inputs in the order of their jobs; the front is dropped when all its jobs are settled.
    inputs: VecDeque<Inputs>,
    submitted: u64,
    deliveries: Vec<Delivery>,
}

impl MapState {
    pub(super) fn new(
        function: FunctionId,
        context: Bytes,
        job_timeout: Option<Duration>,
        client: Client,
        ranks: usize,
    ) -> Self {
        MapState {
            function,
            context,
            job_timeout,
            client,
            closed: false,
            abandoned: false,
            defined: vec![false; ranks],
            inputs: VecDeque::new(),
            submitted: 0,
            deliveries: Vec::new(),
        }
    }

    /// Adds the inputs of the next jobs.
    pub(super) fn add(&mut self, block: Block) {
        let count = block.count();
        self.inputs.push_back(Inputs { first: self.submitted, block, unsettled: count });
        self.submitted += u64::from(count);
    }

    /// Returns the map's definition and its context if they were not yet sent to this rank, and marks them as sent.
    pub(super) fn define(&mut self, map: MapId, rank: RankId) -> Option<(ToRank, Bytes)> {
        let defined = self.defined.get_mut(rank.0 as usize)?;
        if std::mem::replace(defined, true) {
            return None;
        }
        let micros = |limit: Duration| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        let (function, bytes) = (self.function, self.context.len() as u64);
        let limit = self.job_timeout.map_or(0, micros);
        Some((ToRank::Define { map, function, limit, bytes }, self.context.clone()))
    }

    /// Returns the ranks to which the map's definition was sent.
    pub(super) fn defined_on(&self) -> impl Iterator<Item = RankId> + use<> {
        let ranks: Vec<_> =
            (0..).map(RankId).zip(&self.defined).filter(|(_, defined)| **defined).map(|(id, _)| id).collect();
        ranks.into_iter()
    }

    /// Returns the index of the block that holds this job.
    fn first_block(&self, job: u64) -> usize {
        self.inputs.partition_point(|inputs| inputs.first + u64::from(inputs.block.count()) <= job)
    }

    /// Returns the frames of these jobs' inputs, in pieces.
    pub(super) fn inputs(&self, first: u64, count: u32) -> impl Iterator<Item = Bytes> + use<'_> {
        let end = first + u64::from(count);
        let inputs = self.inputs.range(self.first_block(first)..).take_while(move |inputs| inputs.first < end);
        inputs.map(move |inputs| inputs.block.frames(inputs.offsets(first..end)))
    }

    /// Marks these jobs as settled: their inputs are not needed any more.
    pub(super) fn settle(&mut self, first: u64, count: u64) {
        let (start, end) = (self.first_block(first), first + count);
        for inputs in self.inputs.range_mut(start..).take_while(|inputs| inputs.first < end) {
            let settled = inputs.offsets(first..end);
            inputs.unsettled = inputs.unsettled.saturating_sub(settled.end - settled.start);
            if inputs.unsettled == 0 {
                inputs.block.forget();
            }
        }
        while self.inputs.front().is_some_and(|inputs| inputs.unsettled == 0) {
            self.inputs.pop_front();
        }
    }

    /// Queues a delivery for the client.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.deliveries.push(delivery);
    }

    /// Sends all queued deliveries to the client. They are dropped if the client has gone.
    pub(super) fn hand_over(&mut self, map: MapId) {
        if !self.deliveries.is_empty() {
            let _ = self.client.deliveries.send((map, std::mem::take(&mut self.deliveries)));
        }
    }
}

/// A rank's report of a finished chunk.
pub(super) struct ChunkReport {
    pub count: u32,
    pub wall_ns: u64,
    pub useful_ns: u64,
    pub failed: Vec<u32>,
    pub failed_results: u32,
    pub frames: Bytes,
    pub lists: Lists,
    /// The length of the packet that the frames are a part of.
    pub packet_bytes: usize,
}

/// The results of a chunk, to be split as the scheduler settles its jobs. It settles them in ascending order, so the
/// frames are read once.
pub(super) struct ChunkResults {
    pub(super) rank: RankId,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) attempt: u32,
    pub(super) frames: Bytes,
    pub(super) lists: Lists,
    pub(super) packet_bytes: usize,
    /// The job whose frame starts at `position`.
    pub(super) next: u64,
    pub(super) position: usize,
}

impl ChunkResults {
    /// Returns the rank that computed the results.
    pub(super) fn rank(&self) -> RankId {
        self.rank
    }

    /// Returns the position at which the frame of this job starts; the end, if the frames are truncated before it.
    fn position_of(&mut self, job: u64) -> usize {
        if job < self.next {
            (self.next, self.position) = (self.first, 0);
        }
        let mut frames = Frames::new(&self.frames[self.position..]);
        while self.next < job && frames.next().is_ok() {
            self.next += 1;
        }
        self.position = self.frames.len() - frames.rest().len();
        self.position
    }

    /// Returns the results of these jobs.
    pub(super) fn done(&mut self, first: u64, count: u64) -> Delivery {
        let (frames, lists) = if first == self.first && count == u64::from(self.count) {
            (self.frames.clone(), std::mem::take(&mut self.lists))
        } else {
            let start = self.position_of(first);
            let end = self.position_of(first + count);
            let frames = self.frames.slice(start..end);
            let lists = self.lists.split(wire::places_of_lists(&frames));
            (frames, lists)
        };
        Delivery::Done { first, count, frames, lists, packet_bytes: self.packet_bytes }
    }

    /// Returns the failure of this job.
    pub(super) fn failed(&mut self, job: u64, host: &str) -> Delivery {
        let start = self.position_of(job);
        let failure = match Frames::new(&self.frames[start..]).next() {
            Ok(Frame::Failure(failure)) => wire::decode(failure),
            Ok(Frame::Value(_) | Frame::List(_)) => {
                Ok(Failure::new(JobErrorKind::Decode, "garbled message: a result in a failure's place"))
            }
            Err(error) => Err(error),
        };
        let failure = failure.unwrap_or_else(|error| Failure::new(JobErrorKind::Decode, error.to_string()));
        let error = JobError {
            rank: Some(self.rank.0),
            host: Some(host.to_string()),
            attempt: self.attempt,
            ..JobError::of(job, failure)
        };
        Delivery::Failed(Box::new(error))
    }
}
