//! A chunk on its thread: job after job, from its inputs to its results.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::context::{self, CurrentJob};
use super::executor::{Executor, MapFunction};
use super::limited::Limited;
use super::results::{Early, FromThread, ResultFrames, Results};
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::{ChunkFunction, Function, Jobs};
use crate::engine::schedule::{ChunkId, MapId};
use crate::engine::stopwatch::Stopwatch;
use crate::engine::wire::{self, Frame, Frames, List};

/// How many jobs of a chunk were taken to be run, and how many it has: the first number may run past the second, which is cut when
/// jobs are given back.
pub(super) struct Cursor(AtomicU64);

impl Cursor {
    /// Before the first of `jobs` jobs.
    pub(super) fn new(jobs: u32) -> Self {
        Cursor(AtomicU64::new(Cursor::packed(0, jobs)))
    }

    fn packed(taken: u32, jobs: u32) -> u64 {
        u64::from(taken) << 32 | u64::from(jobs)
    }

    fn unpacked(packed: u64) -> (u32, u32) {
        ((packed >> 32) as u32, packed as u32)
    }

    /// The next job to run, as an offset.
    fn take(&self) -> Option<u32> {
        let (next, jobs) = Cursor::unpacked(self.0.fetch_add(Cursor::packed(1, 0), Ordering::Relaxed));
        (next < jobs).then_some(next)
    }

    /// Puts back what was taken from this job on, an offset: it can be taken again, or given up. Only the thread that takes the jobs
    /// may do this.
    fn put_back(&self, from: u32) {
        let put_back = |packed| Some(Cursor::packed(from, Cursor::unpacked(packed).1));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put_back);
    }

    /// How many jobs were taken.
    fn taken(&self) -> u32 {
        let (taken, jobs) = Cursor::unpacked(self.0.load(Ordering::Relaxed));
        taken.min(jobs)
    }

    /// Gives up the jobs that were not taken; returns how many were.
    fn cut(&self) -> u32 {
        let cut = |packed| {
            let (taken, jobs) = Cursor::unpacked(packed);
            Some(Cursor::packed(taken, taken.min(jobs)))
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).unwrap_or_else(|packed| packed);
        let (taken, jobs) = Cursor::unpacked(before);
        taken.min(jobs)
    }
}

thread_local! {
    /// The stopwatch of the map whose chunk this thread has run last.
    static STOPWATCH: Cell<Option<(MapId, Box<Stopwatch>)>> = const { Cell::new(None) };
    /// An empty buffer, whose memory is used for one chunk after the other as long as their results are small.
    static FRAMES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A chunk that is being worked on.
pub(super) struct Chunk {
    pub id: ChunkId,
    pub first: u64,
    pub attempt: u32,
    pub cursor: Cursor,
    pub inputs: Bytes,
    pub map: Arc<MapFunction>,
    /// If its map has a time limit.
    pub limited: Option<Box<Limited>>,
    pub progress: Progress,
}

/// How far a chunk is, for reports about the rank's load.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The time of its start, in ns since the start of the rank; 0 if it has not started.
    begun_ns: AtomicU64,
    /// One more than the number of its jobs that a function of chunks has answered; 0 for functions of jobs, which have one job
    /// at a time.
    answered: AtomicU32,
}

impl Progress {
    /// Returns the time at which the chunk began, in ns since the start of the rank.
    pub(super) fn begun_ns(&self) -> Option<u64> {
        Some(self.begun_ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0)
    }
}

impl Chunk {
    /// The job that was taken last: the one that runs, if one does.
    pub(super) fn last_taken(&self) -> Option<u64> {
        Some(self.first + u64::from(self.cursor.taken().checked_sub(1)?))
    }

    /// The job that runs, if one does: of those that were taken, the first that was not answered.
    pub(super) fn running(&self) -> Option<u64> {
        match self.progress.answered.load(Ordering::Relaxed) {
            0 => self.last_taken(),
            more => Some(self.first + u64::from(more - 1)).filter(|job| Some(*job) <= self.last_taken()),
        }
    }

    /// Gives up the jobs that were not taken; returns how many were.
    pub(super) fn cut(&self) -> u32 {
        self.cursor.cut()
    }

    /// Runs a chunk on the calling thread, which has this place among those of the rank. False if the thread was written off
    /// meanwhile.
    pub(super) fn run(self: &Arc<Self>, executor: &Executor, place: u32) -> bool {
        if let Some(limited) = &self.limited {
            limited.begin(place);
        }
        let start = Instant::now();
        self.progress.begun_ns.store(executor.since_start(start), Ordering::Relaxed);
        let kept = STOPWATCH.take().filter(|(map, _)| *map == self.map.id);
        let mut run = Run {
            chunk: self,
            rank: executor.rank.0,
            slot: executor.slots_before.load(Ordering::Relaxed) + place,
            executor,
            inputs: Frames::new(&self.inputs),
            results: Results::of(self.id),
            frames: FRAMES.take(),
            ahead: (0, 0),
            stopwatch: kept.map_or_else(Box::default, |(_, stopwatch)| stopwatch),
            pulled: VecDeque::new(),
        };
        context::surrounded(self, || match self.map.get() {
            Ok(Function::OfChunks(function)) => {
                self.progress.answered.store(1, Ordering::Relaxed);
                run.all_together(&**function);
            }
            Ok(Function::OfJobs(function)) => {
                run.one_by_one(|input, out, stopwatch| function.call(input, out, stopwatch))
            }
            Err(failure) => run.one_by_one(|_, _, _| Err(failure.clone())),
        });
        let Run { mut results, mut stopwatch, mut frames, .. } = run;
        if self.limited.as_ref().is_some_and(|limited| !limited.end()) {
            return false;
        }
        if results.count == 0 {
            return true;
        }
        results.failed_results = context::take_marked().min(results.count);
        let end = Instant::now();
        results.wall_ns = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX);
        results.useful_ns = match self.map.get() {
            // It reads and writes while it waits for answers, so that there is no time of its own.
            Ok(Function::OfChunks(_)) => results.wall_ns,
            _ => stopwatch.end_chunk(results.wall_ns),
        };
        results.frames = ResultFrames::take(&mut frames);
        FRAMES.set(frames);
        STOPWATCH.set(Some((self.map.id, stopwatch)));
        executor.finish(results, end);
        true
    }
}

/// A chunk on its thread.
struct Run<'c> {
    chunk: &'c Chunk,
    rank: u32,
    slot: u32,
    executor: &'c Executor,
    inputs: Frames<'c>,
    results: Results,
    frames: Vec<u8>,
    /// The number of results, and of bytes of the frames, that were sent ahead.
    ahead: (u32, usize),
    stopwatch: Box<Stopwatch>,
    /// Jobs that a function of chunks has pulled and not answered, in order.
    pulled: VecDeque<Pulled<'c>>,
}

/// A job that was pulled.
struct Pulled<'c> {
    offset: u32,
    /// The inputs from this job on.
    inputs: Frames<'c>,
    /// Why it cannot be run.
    failure: Option<Failure>,
}

impl<'c> Run<'c> {
    fn one_by_one(&mut self, call: impl Fn(&[u8], &mut Vec<u8>, &mut Stopwatch) -> Result<Option<List>, Failure>) {
        while let Some(offset) = self.chunk.cursor.take() {
            let result = self.input().and_then(|input| self.call(offset, |out, stopwatch| call(input, out, stopwatch)));
            self.settle(offset, result);
        }
    }

    /// Lets a function pull as many jobs as it likes. One that panics has failed all that it holds, and goes on with the rest.
    fn all_together(&mut self, function: &dyn ChunkFunction) {
        loop {
            let before = self.results.count;
            let first = self.current(0);
            let panic = context::as_job(first, || catch(|| function.serve(self))).err();
            while let Some(Pulled { offset, failure, .. }) = self.pulled.pop_front() {
                let failure = failure.unwrap_or_else(|| match &panic {
                    Some(panic) => Failure {
                        kind: JobErrorKind::Panic,
                        message: panic.message.clone(),
                        location: panic.location.clone(),
                    },
                    None => Failure::new(JobErrorKind::Encode, "the function has not answered"),
                });
                self.settle(offset, Err(failure));
            }
            if panic.is_none() || self.results.count == before {
                break;
            }
        }
        // A function that leaves jobs behind does not want them, but the driver waits for their results.
        self.one_by_one(|_, _, _| Err(Failure::new(JobErrorKind::Cancelled, "the function has not taken the job")));
    }

    fn input(&mut self) -> Result<&'c [u8], Failure> {
        let garbled = |error: wire::CodecError| Failure::new(JobErrorKind::Decode, error.to_string());
        match self.inputs.next().map_err(garbled)? {
            Frame::Value(input) => Ok(input),
            Frame::Failure(failure) => Err(wire::decode(failure).map_err(garbled)?),
            Frame::List(_) => Err(Failure::new(JobErrorKind::Decode, "garbled message: a list in an input's place")),
        }
    }

    fn current(&self, offset: u32) -> CurrentJob {
        let Chunk { first, attempt, .. } = *self.chunk;
        CurrentJob { job: first + u64::from(offset), rank: self.rank, attempt, slot: self.slot }
    }

    /// Runs one job and appends its result's frame; on a failure nothing is appended.
    fn call(
        &mut self,
        offset: u32,
        call: impl FnOnce(&mut Vec<u8>, &mut Stopwatch) -> Result<Option<List>, Failure>,
    ) -> Result<(), Failure> {
        let current = self.current(offset);
        let (out, stopwatch) = (&mut self.frames, &mut self.stopwatch);
        let start = out.len();
        let mut list = None;
        let push = || {
            wire::push_value(out, |out| {
                list = call(out, stopwatch)?;
                Ok(())
            })
        };
        let result = context::as_job(current, || catch(push));
        if let Some(list) = list {
            let lists = &mut self.results.rare().lists;
            out.truncate(start);
            wire::push_list(out, lists.len() as u64);
            lists.push(list);
        }
        result.unwrap_or_else(|panic| {
            stopwatch.stop();
            out.truncate(start);
            Err(Failure { kind: JobErrorKind::Panic, message: panic.message, location: panic.location })
        })
    }

    /// Counts a job whose result is in the frames, or puts its failure there.
    fn settle(&mut self, offset: u32, result: Result<(), Failure>) {
        self.results.count += 1;
        if let Err(failure) = result {
            self.results.rare().failed.push(offset);
            wire::push_failure(&mut self.frames, &failure);
        }
    }

    /// Settles the jobs at the front that cannot be run.
    fn settle_refused(&mut self) {
        while self.pulled.front().is_some_and(|job| job.failure.is_some()) {
            if let Some(Pulled { offset, failure: Some(failure), .. }) = self.pulled.pop_front() {
                self.settle(offset, Err(failure));
            }
        }
    }
}

impl<'c> Jobs<'c> for Run<'c> {
    fn pull(&mut self) -> Option<&'c [u8]> {
        loop {
            let offset = self.chunk.cursor.take()?;
            let inputs = self.inputs;
            match self.input() {
                Ok(input) => {
                    self.pulled.push_back(Pulled { offset, inputs, failure: None });
                    return Some(input);
                }
                Err(failure) => self.pulled.push_back(Pulled { offset, inputs, failure: Some(failure) }),
            }
            self.settle_refused();
        }
    }

    fn send_ahead(&mut self) {
        let (first, start) = self.ahead;
        let (count, end) = (self.results.count - first, self.frames.len());
        if count == 0 || self.pulled.is_empty() {
            return;
        }
        self.ahead = (self.results.count, end);
        let frames = self.frames[start..].to_vec();
        self.executor.send(FromThread::Early(Early { chunk: self.chunk.id, first, count, frames }));
        self.executor.ring();
    }

    fn give_back(&mut self, mut count: usize) {
        let mut first = None;
        while count > 0 {
            let Some(job) = self.pulled.pop_back() else { break };
            // One that cannot be run is found again.
            count -= usize::from(job.failure.is_none());
            first = Some(job);
        }
        let Some(Pulled { offset, inputs, .. }) = first else { return };
        self.inputs = inputs;
        self.chunk.cursor.put_back(offset);
        self.executor.send(FromThread::Delayed(self.chunk.id));
        self.executor.ring();
    }

    fn message(&self) -> &Bytes {
        &self.chunk.inputs
    }

    fn refuse(&mut self, failure: Failure) {
        if let Some(job) = self.pulled.back_mut() {
            job.failure = Some(failure);
        }
        self.settle_refused();
    }

    fn answer(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Failure>) {
        if let Some(Pulled { offset, .. }) = self.pulled.pop_front() {
            let result = self.call(offset, |out, _| write(out).map(|()| None));
            self.settle(offset, result);
        }
        self.settle_refused();
        self.chunk.progress.answered.store(self.results.count + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
