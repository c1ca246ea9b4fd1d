//! Where a rank's chunks are worked on, job after job.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::context::{self, Cancellation, CurrentJob, Kept};
use super::gather::GATHER;
use super::overdue::Limited;
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::{ChunkFunction, Function, Jobs};
use crate::engine::schedule::{ChunkId, MapId, RankId};
use crate::engine::transport::Doorbell;
use crate::engine::wire::{self, Frame, Frames, FunctionId};

/// A map's function on this rank, made from its context when its first chunk runs.
pub(super) struct MapFunction {
    pub id: MapId,
    pub function: FunctionId,
    pub context: Bytes,
    pub executable: u64,
    /// How long a job may take.
    pub limit: Option<Duration>,
    pub made: OnceLock<Result<Function, Failure>>,
    pub cancellation: Mutex<Option<Arc<Cancellation>>>,
}

impl MapFunction {
    fn get(&self) -> Result<&Function, &Failure> {
        let made = self.made.get_or_init(|| {
            let builder = self.function.builder(self.executable)?;
            catch(|| builder(&self.context)).unwrap_or_else(|panic| {
                Err(Failure { kind: JobErrorKind::Decode, message: panic.message, location: panic.location })
            })
        });
        made.as_ref()
    }

    /// Made when somebody asks for it; `None` if the system has no more file descriptors.
    pub(super) fn cancellation(&self) -> Option<Arc<Cancellation>> {
        let mut made = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            *made = Some(Arc::new(Cancellation::new().ok()?));
        }
        made.clone()
    }
}

/// A chunk that is being worked on. `taken` packs two numbers: how many jobs were taken to be run (high half, it may run past
/// the end) and how many there are (low half, cut when jobs are given back).
pub(super) struct Chunk {
    pub id: ChunkId,
    pub first: u64,
    pub attempt: u32,
    pub taken: AtomicU64,
    pub inputs: Bytes,
    pub map: Arc<MapFunction>,
    /// If its map has a time limit.
    pub limited: Option<Limited>,
}

impl Chunk {
    /// The next job to run, as an offset.
    fn take(&self) -> Option<u32> {
        let before = self.taken.fetch_add(1 << 32, Ordering::Relaxed);
        let (next, end) = ((before >> 32) as u32, before as u32);
        (next < end).then_some(next)
    }

    /// The job that was taken last: the one that runs, if one does.
    pub(super) fn last_taken(&self) -> Option<u64> {
        let taken = self.taken.load(Ordering::Relaxed);
        let number = u64::min(taken >> 32, taken & u64::from(u32::MAX));
        Some(self.first + number.checked_sub(1)?)
    }

    /// Gives up the jobs that were not taken; says how many were.
    pub(super) fn cut(&self) -> u32 {
        let cut = |taken: u64| Some(taken & !u64::from(u32::MAX) | (taken >> 32).min(taken & u64::from(u32::MAX)));
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).unwrap_or_else(|taken| taken);
        ((before >> 32) as u32).min(before as u32)
    }
}

/// What compute threads have for the rank's loop.
pub(super) enum Upward {
    Results(Results),
    Part(Part),
}

/// A chunk's results.
pub(super) struct Results {
    pub chunk: ChunkId,
    pub count: u32,
    pub busy: u64,
    pub failed: Vec<u32>,
    /// Jobs whose results are failures for their function.
    pub bad: u32,
    pub frames: Vec<u8>,
}

/// A piece of a job's output, ahead of its result.
pub(super) struct Part {
    pub map: MapId,
    pub job: u64,
    pub stream: u8,
    pub bytes: Vec<u8>,
    /// Told when the driver has it; dropped when nobody wants it.
    pub taken: Sender<()>,
}

/// What the compute threads share with the rank's loop.
pub(super) struct Bench {
    pub rank: RankId,
    /// The slots of this host before those of this rank.
    pub slots_before: AtomicU32,
    pub results: Sender<Upward>,
    pub doorbell: Doorbell,
    pub started: Instant,
    /// Chunks that no thread has begun.
    pub waiting: AtomicUsize,
    /// Chunks' results that the loop has not taken.
    pub unsent: AtomicUsize,
    /// When the loop last sent results, in µs since `started`.
    pub sent: AtomicU64,
    pub kept: Kept,
    /// Why this rank cannot go on.
    pub broken: OnceLock<String>,
}

impl Bench {
    pub(super) fn send(&self, upward: Upward) {
        // Without the loop the run is over.
        let _ = self.results.send(upward);
    }

    /// The time in µs since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wakes the loop if no chunk waits and results do: there is nothing that they could leave together with.
    fn out_of_work(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 && self.unsent.load(Ordering::SeqCst) > 0 {
            self.doorbell.ring();
        }
    }

    /// A thread takes a chunk, which may take long, and may have been given back, so that it has no results.
    fn begin(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.out_of_work();
    }

    /// Hands the loop a chunk's results. They may lie about for a moment if chunks wait: either this thread sees that none does,
    /// or the one that takes the last of them sees these results, or the loop looks for them (see [`super::gather`]).
    fn finish(&self, results: Results) {
        self.unsent.fetch_add(1, Ordering::SeqCst);
        self.send(Upward::Results(results));
        if self.now().saturating_sub(self.sent.load(Ordering::Relaxed)) >= GATHER.as_micros() as u64 {
            self.doorbell.ring();
        } else {
            self.out_of_work();
        }
    }

    /// Runs a chunk on the calling thread, which has this place among those of the rank. False if the thread was written off
    /// meanwhile.
    pub(super) fn run(self: &Arc<Self>, chunk: &Chunk, place: u32) -> bool {
        self.begin();
        if let Some(limited) = &chunk.limited {
            limited.begin(place);
        }
        let start = Instant::now();
        let mut run = Run {
            chunk,
            rank: self.rank.0,
            slot: self.slots_before.load(Ordering::Relaxed) + place,
            inputs: Frames::new(&chunk.inputs),
            results: Results { chunk: chunk.id, count: 0, busy: 0, failed: Vec::new(), bad: 0, frames: Vec::new() },
            pulled: VecDeque::new(),
        };
        context::surrounded(self, &chunk.map, || match chunk.map.get() {
            Ok(Function::OfChunks(function)) => run.all_together(&**function),
            Ok(Function::OfJobs(function)) => run.one_by_one(|input, out| function.call(input, out)),
            Err(failure) => run.one_by_one(|_, _| Err(failure.clone())),
        });
        let mut results = run.results;
        if chunk.limited.as_ref().is_some_and(|limited| !limited.end()) {
            return false;
        }
        if results.count == 0 {
            return true;
        }
        results.bad = context::take_bad().min(results.count);
        results.busy = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.finish(results);
        true
    }
}

/// A chunk on its thread.
struct Run<'c> {
    chunk: &'c Chunk,
    rank: u32,
    slot: u32,
    inputs: Frames<'c>,
    results: Results,
    /// Jobs that a function of chunks has pulled and not answered, in order; with the reason, if they cannot be run.
    pulled: VecDeque<(u32, Option<Failure>)>,
}

impl<'c> Run<'c> {
    fn one_by_one(&mut self, call: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Failure>) {
        while let Some(offset) = self.chunk.take() {
            let result = self.input().and_then(|input| self.call(offset, |out| call(input, out)));
            self.settle(offset, result);
        }
    }

    /// Lets a function pull as many jobs as it likes. One that panics has failed all that it holds, and goes on with the rest.
    fn all_together(&mut self, function: &dyn ChunkFunction) {
        loop {
            let before = self.results.count;
            let first = self.current(0);
            let panic = context::as_job(first, || catch(|| function.serve(self))).err();
            while let Some((offset, failure)) = self.pulled.pop_front() {
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
        // A function that leaves jobs behind does not want them; somebody waits for their results.
        self.one_by_one(|_, _| Err(Failure::new(JobErrorKind::Cancelled, "the function has not taken the job")));
    }

    fn input(&mut self) -> Result<&'c [u8], Failure> {
        let garbled = |error: wire::CodecError| Failure::new(JobErrorKind::Decode, error.to_string());
        match self.inputs.next().map_err(garbled)? {
            Frame::Value(input) => Ok(input),
            Frame::Failure(failure) => Err(wire::decode(failure).map_err(garbled)?),
        }
    }

    fn current(&self, offset: u32) -> CurrentJob {
        let Chunk { first, attempt, .. } = *self.chunk;
        CurrentJob { job: first + u64::from(offset), rank: self.rank, attempt, slot: self.slot }
    }

    /// Runs one job and appends its result's frame; on a failure nothing is appended.
    fn call(&mut self, offset: u32, call: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>) -> Result<(), Failure> {
        let current = self.current(offset);
        let out = &mut self.results.frames;
        let start = out.len();
        let result = context::as_job(current, || catch(|| wire::push_value(out, call)));
        result.unwrap_or_else(|panic| {
            out.truncate(start);
            Err(Failure { kind: JobErrorKind::Panic, message: panic.message, location: panic.location })
        })
    }

    /// Counts a job whose result is in the frames, or puts its failure there.
    fn settle(&mut self, offset: u32, result: Result<(), Failure>) {
        self.results.count += 1;
        if let Err(failure) = result {
            self.results.failed.push(offset);
            wire::push_failure(&mut self.results.frames, &failure);
        }
    }

    /// Settles the jobs at the front that cannot be run.
    fn settle_refused(&mut self) {
        while let Some((offset, Some(_))) = self.pulled.front() {
            let offset = *offset;
            if let Some((_, Some(failure))) = self.pulled.pop_front() {
                self.settle(offset, Err(failure));
            }
        }
    }
}

impl<'c> Jobs<'c> for Run<'c> {
    fn pull(&mut self) -> Option<&'c [u8]> {
        loop {
            let offset = self.chunk.take()?;
            match self.input() {
                Ok(input) => {
                    self.pulled.push_back((offset, None));
                    return Some(input);
                }
                Err(failure) => self.pulled.push_back((offset, Some(failure))),
            }
            self.settle_refused();
        }
    }

    fn refuse(&mut self, failure: Failure) {
        if let Some((_, refused)) = self.pulled.back_mut() {
            *refused = Some(failure);
        }
        self.settle_refused();
    }

    fn answer(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Failure>) {
        if let Some((offset, _)) = self.pulled.pop_front() {
            let result = self.call(offset, |out| write(out));
            self.settle(offset, result);
        }
        self.settle_refused();
    }
}

#[cfg(test)]
mod tests;
