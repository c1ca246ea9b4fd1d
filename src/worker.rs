//! A rank's computing side: chunks in, jobs on rayon threads, results out.
//!
//! The rank's loop owns the transport and computes nothing. Every chunk becomes one rayon task, so that no chunk keeps the
//! threads of another waiting, and a job that uses rayon itself finds the rank's idle threads. A task takes its jobs one at a
//! time from the chunk, so that the jobs that have not started can still be given back. What is finished while the loop
//! sleeps goes out as one message.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::catch::{catch, panic_message};
use crate::failure::{Failure, JobErrorKind};
use crate::func::Function;
use crate::launch::RankFacts;
use crate::schedule::{ChunkId, MapId, RankId};
use crate::stop::Signals;
use crate::transport::{Doorbell, Idle, Incoming, Transport, TransportError};
use crate::wire::{self, Frame, Frames, FunctionId, Packet, ToMaster, ToRank};

/// Why a rank cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] wire::CodecError),
    #[error("cannot start {0} compute threads: {1}")]
    Threads(u32, rayon::ThreadPoolBuildError),
    #[error("the master has gone")]
    Deserted,
}

/// The job that the calling thread is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CurrentJob {
    /// Its index in its map, from 0.
    pub job: u64,
    /// The rank that runs it.
    pub rank: u32,
    /// How often it has been started, from 1.
    pub attempt: u32,
}

thread_local! {
    static CURRENT: Cell<Option<CurrentJob>> = const { Cell::new(None) };
    /// Whether this is a compute thread of a rank.
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
    /// The broadcast values of the rank whose thread this is.
    static KEPT: RefCell<Option<Arc<Kept>>> = const { RefCell::new(None) };
}

/// The job that the calling thread is running; `None` outside of jobs.
pub fn current_job() -> Option<CurrentJob> {
    CURRENT.get()
}

/// Whether the calling thread belongs to a rank's computing side.
pub(crate) fn in_compute_thread() -> bool {
    COMPUTES.get()
}

/// A broadcast value as a rank got it, and as it was first read.
#[derive(Default)]
struct KeptValue {
    bytes: Bytes,
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The broadcast values of a rank.
#[derive(Default)]
struct Kept(Mutex<HashMap<u64, Arc<KeptValue>>>);

/// The broadcast value with this number on the rank that the calling thread computes for, read with `read` the first time.
pub(crate) fn kept_value<T: Any + Send + Sync>(
    number: u64,
    read: impl FnOnce(&[u8]) -> Result<T, wire::CodecError>,
) -> Result<Arc<T>, String> {
    let kept = KEPT.with_borrow(Clone::clone).ok_or("a broadcast value can only be read inside a job")?;
    let kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
    let kept = kept.ok_or_else(|| format!("there is no broadcast value {number} on this rank"))?;
    if kept.value.get().is_none() {
        // Two threads may both read it the first time; one of the results is kept.
        let value: Arc<dyn Any + Send + Sync> = Arc::new(read(&kept.bytes).map_err(|error| error.to_string())?);
        let _ = kept.value.set(value);
    }
    let value = kept.value.get().cloned().ok_or("a broadcast value was not kept")?;
    value.downcast::<T>().map_err(|_| format!("broadcast value {number} is of another type"))
}

/// A map's function on this rank, made from its context when its first chunk runs.
struct MapFunction {
    function: FunctionId,
    context: Bytes,
    executable: u64,
    made: OnceLock<Result<Box<dyn Function>, Failure>>,
}

impl MapFunction {
    fn get(&self) -> Result<&dyn Function, &Failure> {
        let made = self.made.get_or_init(|| {
            let builder = self.function.builder(self.executable)?;
            catch(|| builder(&self.context)).unwrap_or_else(|panic| {
                Err(Failure { kind: JobErrorKind::Decode, message: panic.message, location: panic.location })
            })
        });
        made.as_ref().map(|function| &**function)
    }
}

/// A chunk that is being worked on. `taken` packs two numbers: how many jobs were taken to be run (high half, it may run past
/// the end) and how many there are (low half, cut when jobs are given back).
struct Chunk {
    id: ChunkId,
    first: u64,
    attempt: u32,
    taken: AtomicU64,
    inputs: Bytes,
    map: Arc<MapFunction>,
}

impl Chunk {
    /// The next job to run, as an offset.
    fn take(&self) -> Option<u32> {
        let before = self.taken.fetch_add(1 << 32, Ordering::Relaxed);
        let (next, end) = ((before >> 32) as u32, before as u32);
        (next < end).then_some(next)
    }

    /// Gives up the jobs that were not taken; says how many were.
    fn cut(&self) -> u32 {
        let cut = |taken: u64| Some(taken & !u64::from(u32::MAX) | (taken >> 32).min(taken & u64::from(u32::MAX)));
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut).unwrap_or_else(|taken| taken);
        ((before >> 32) as u32).min(before as u32)
    }
}

/// A chunk's results.
struct Results {
    chunk: ChunkId,
    count: u32,
    busy: u64,
    failed: Vec<u32>,
    frames: Vec<u8>,
}

/// What the compute threads share with the rank's loop.
struct Bench {
    rank: RankId,
    results: Sender<Results>,
    doorbell: Doorbell,
    started: Instant,
    /// Chunks that no thread has begun.
    waiting: AtomicUsize,
    /// When the loop last sent results, in µs since `started`.
    sent: AtomicU64,
    kept: Arc<Kept>,
}

/// How long results may lie while the rank has other chunks to work on: they leave together. In µs.
const GATHER: u64 = 500;

impl Bench {
    /// Runs a chunk on the calling thread.
    fn run(&self, chunk: &Chunk) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let outer = KEPT.replace(Some(self.kept.clone()));
        let start = Instant::now();
        let mut results = Results { chunk: chunk.id, count: 0, busy: 0, failed: Vec::new(), frames: Vec::new() };
        let mut inputs = Frames::new(&chunk.inputs);
        while let Some(offset) = chunk.take() {
            results.count += 1;
            if let Err(failure) = self.run_job(chunk, offset, &mut inputs, &mut results.frames) {
                results.failed.push(offset);
                wire::push_failure(&mut results.frames, &failure);
            }
        }
        let end = Instant::now();
        KEPT.set(outer);
        if results.count == 0 {
            return;
        }
        results.busy = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX);
        let _ = self.results.send(results);
        let now = u64::try_from((end - self.started).as_micros()).unwrap_or(u64::MAX);
        if self.waiting.load(Ordering::Relaxed) == 0 || now.saturating_sub(self.sent.load(Ordering::Relaxed)) > GATHER {
            self.doorbell.ring();
        }
    }

    /// Runs one job and appends its result's frame; on a failure nothing is appended.
    fn run_job(&self, chunk: &Chunk, offset: u32, inputs: &mut Frames, out: &mut Vec<u8>) -> Result<(), Failure> {
        let garbled = |error: wire::CodecError| Failure::new(JobErrorKind::Decode, error.to_string());
        let input = match inputs.next().map_err(garbled)? {
            Frame::Value(input) => input,
            Frame::Failure(failure) => return Err(wire::decode(failure).map_err(garbled)?),
        };
        let function = chunk.map.get().map_err(Clone::clone)?;
        let current = CurrentJob { job: chunk.first + u64::from(offset), rank: self.rank.0, attempt: chunk.attempt };
        let outer = CURRENT.replace(Some(current));
        let start = out.len();
        let result = catch(|| wire::push_value(out, |out| function.call(input, out)));
        CURRENT.set(outer);
        result.unwrap_or_else(|panic| {
            out.truncate(start);
            Err(Failure { kind: JobErrorKind::Panic, message: panic.message, location: panic.location })
        })
    }
}

/// A rank's computing side, from joining the run to being dismissed.
pub(crate) struct Worker<'t> {
    transport: &'t mut dyn Transport,
    executable: u64,
    signals: &'t Signals,
    threads: Option<rayon::ThreadPool>,
    bench: Arc<Bench>,
    finished: Receiver<Results>,
    maps: BTreeMap<MapId, Arc<MapFunction>>,
    chunks: BTreeMap<ChunkId, Arc<Chunk>>,
    outbox: Packet<ToMaster>,
}

/// Works for the master at the other end of the transport until it dismisses this rank.
pub(crate) fn serve(
    rank: RankId,
    transport: &mut dyn Transport,
    doorbell: Doorbell,
    facts: RankFacts,
    signals: &Signals,
) -> Result<(), WorkerError> {
    doorbell.install();
    let (sender, finished) = unbounded();
    let bench = Bench {
        rank,
        results: sender,
        doorbell,
        started: Instant::now(),
        waiting: AtomicUsize::new(0),
        sent: AtomicU64::new(0),
        kept: Arc::default(),
    };
    let mut worker = Worker {
        transport,
        executable: facts.executable,
        signals,
        threads: None,
        bench: Arc::new(bench),
        finished,
        maps: BTreeMap::new(),
        chunks: BTreeMap::new(),
        outbox: Packet::default(),
    };
    worker.outbox.push(ToMaster::Join(Box::new(facts)));
    let result = panic::catch_unwind(AssertUnwindSafe(|| worker.work()));
    let (message, result) = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(WorkerError::Deserted)) => return Err(WorkerError::Deserted),
        Ok(Err(error)) => (error.to_string(), Err(error)),
        Err(payload) => (format!("a bug in rankpool: {}", panic_message(&*payload)), Err(WorkerError::Deserted)),
    };
    // The master ends the run with this message; if it cannot be sent any more, the caller's own message remains.
    worker.outbox.push(ToMaster::Broken { message });
    let _ = worker.send();
    result
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), WorkerError> {
        let mut idle = Idle::new();
        let mut signalled = false;
        loop {
            let mut active = false;
            while let Some(incoming) = self.transport.receive()? {
                active = true;
                let Incoming::Message(_, packet) = incoming else { return Err(WorkerError::Deserted) };
                for (message, payload) in wire::open::<ToRank>(packet)? {
                    if message == ToRank::Dismiss {
                        return Ok(());
                    }
                    self.take_in(message, payload)?;
                }
            }
            while let Ok(results) = self.finished.try_recv() {
                active = true;
                self.hand_over(results);
            }
            if self.signals.raised() && !signalled {
                signalled = true;
                self.outbox.push(ToMaster::Signalled);
            }
            self.send()?;
            if active {
                idle.reset(self.bench.waiting.load(Ordering::Relaxed) == 0);
            } else {
                idle.wait(self.transport.must_poll());
            }
        }
    }

    fn take_in(&mut self, message: ToRank, payload: Bytes) -> Result<(), WorkerError> {
        match message {
            ToRank::Welcome { threads } => self.start_threads(threads)?,
            ToRank::Define { map, function, .. } => {
                let made = OnceLock::new();
                let function = MapFunction { function, context: payload, executable: self.executable, made };
                self.maps.insert(map, Arc::new(function));
            }
            ToRank::Keep { value, .. } => {
                let mut kept = self.bench.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(value, Arc::new(KeptValue { bytes: payload, value: OnceLock::new() }));
            }
            ToRank::Chunk { chunk, map, first, count, attempt, .. } => {
                let Some(map) = self.maps.get(&map).cloned() else {
                    return Err(TransportError(format!("a chunk came before its map {}", map.0)).into());
                };
                let taken = AtomicU64::new(u64::from(count));
                let chunk = Arc::new(Chunk { id: chunk, first, attempt, taken, inputs: payload, map });
                self.chunks.insert(chunk.id, chunk.clone());
                let threads = self.threads.as_ref().expect("a rank is welcomed before it gets chunks");
                let bench = self.bench.clone();
                bench.waiting.fetch_add(1, Ordering::Relaxed);
                threads.spawn(move || bench.run(&chunk));
            }
            ToRank::Recall { chunk } => {
                if let Some(recalled) = self.chunks.get(&chunk) {
                    let kept = recalled.cut();
                    if kept == 0 {
                        self.chunks.remove(&chunk);
                    }
                    self.outbox.push(ToMaster::Returned { chunk, kept });
                }
            }
            ToRank::Release { map } => drop(self.maps.remove(&map)),
            ToRank::Dismiss => {}
        }
        Ok(())
    }

    fn start_threads(&mut self, threads: u32) -> Result<(), WorkerError> {
        let rank = self.bench.rank.0;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads as usize)
            .thread_name(move |thread| format!("rank {rank} thread {thread}"))
            .start_handler(|_| COMPUTES.set(true))
            .build()
            .map_err(|error| WorkerError::Threads(threads, error))?;
        self.threads = Some(pool);
        Ok(())
    }

    fn hand_over(&mut self, results: Results) {
        self.chunks.remove(&results.chunk);
        let Results { chunk, count, busy, failed, frames } = results;
        let bytes = frames.len() as u64;
        self.outbox.push_with(ToMaster::Finished { chunk, count, busy, failed, bytes }, [frames.into()]);
    }

    fn send(&mut self) -> Result<(), WorkerError> {
        if !self.outbox.is_empty() {
            let now = u64::try_from(self.bench.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.bench.sent.store(now, Ordering::Relaxed);
            self.transport.send(RankId(0), self.outbox.take()?)?;
        }
        Ok(())
    }
}
