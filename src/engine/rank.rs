//! A rank's computing side: chunks in, jobs on rayon threads, results out.
//!
//! The rank's loop owns the transport and computes nothing. Chunks wait in a queue until a compute thread begins them, so that
//! no chunk keeps the threads of another waiting, and a job that uses rayon itself finds the rank's idle threads. A thread
//! takes its jobs one at a time from the chunk, so that the jobs that have not started can still be given back. What is
//! finished while the loop sleeps goes out as one message.

mod broadcasts;
mod cancellation;
mod chunk;
mod context;
mod crew;
mod executor;
mod gather;
mod limited;
mod overdue;
mod pulse;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::console;
use crate::engine::catch::panic_message;
use crate::engine::placement::RankFacts;
use crate::engine::schedule::{ChunkId, MapId, RankId};
use crate::engine::stop::Signals;
use crate::engine::transport::{Doorbell, Idle, Incoming, Need, Transport, TransportError};
use crate::engine::wire::{self, Packet, ToMaster, ToRank};

use chunk::{Chunk, Cursor};
use crew::{Crew, Work};
use executor::{Executor, FromThread, MapFunction, Part, Results};
use gather::Gather;
use limited::Limited;
use pulse::Watch;

pub use context::{CurrentJob, current_job};
pub(crate) use context::{broadcast_value, cancellation, give_up, in_compute_thread, mark_bad, send_part};

/// Why a rank cannot go on.
#[derive(Debug)]
pub(crate) enum WorkerError {
    Transport(TransportError),
    Codec(wire::CodecError),
    Threads(u32, rayon_core::ThreadPoolBuildError),
    /// The connection to the master is closed.
    Deserted,
    /// The master has sent nothing for this many seconds.
    Silent(u64),
    /// The master has ended the run.
    BrokenOff,
    GaveUp(String),
}

impl Error for WorkerError {}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Transport(error) => error.fmt(f),
            WorkerError::Codec(error) => error.fmt(f),
            WorkerError::Threads(count, error) => {
                write!(f, "cannot start {count} compute threads: {} (see `ulimit -u`)", console::reason(error))
            }
            WorkerError::Deserted => f.write_str("the master has gone"),
            WorkerError::Silent(seconds) => write!(
                f,
                "rank 0 has not been heard of for {seconds} s: its process has died or is stopped, or its node is lost; \
                 ending all ranks"
            ),
            WorkerError::BrokenOff => f.write_str("rank 0 has ended the run"),
            WorkerError::GaveUp(message) => f.write_str(message),
        }
    }
}

impl From<TransportError> for WorkerError {
    fn from(error: TransportError) -> Self {
        WorkerError::Transport(error)
    }
}

impl From<wire::CodecError> for WorkerError {
    fn from(error: wire::CodecError) -> Self {
        WorkerError::Codec(error)
    }
}

/// A rank's computing side, from joining the run to being dismissed.
pub(crate) struct Worker<'t> {
    transport: &'t mut dyn Transport,
    executable: u64,
    host: String,
    signals: &'t Signals,
    on_threads: Option<&'t OnThreads<'t>>,
    crew: Option<Crew>,
    executor: Arc<Executor>,
    finished: Receiver<FromThread>,
    maps: BTreeMap<MapId, Arc<MapFunction>>,
    chunks: BTreeMap<ChunkId, Arc<Chunk>>,
    /// Those that have a time limit.
    limited: Vec<Arc<Chunk>>,
    /// Maps that were given up and are not over.
    cancelled: BTreeSet<MapId>,
    /// Pieces of output that the driver has not taken: the map, and whom to tell.
    parts: BTreeMap<u64, (MapId, Sender<()>)>,
    next_part: u64,
    /// Held by everything that may let go of a map's function; nothing is ever sent.
    releases: (Sender<()>, Receiver<()>),
    outbox: Packet<ToMaster>,
    gather: Gather,
    watch: Option<Watch>,
}

/// How long a rank that was dismissed waits for its functions to let go of what they hold, such as worker processes.
const RELEASE: Duration = Duration::from_secs(10);

/// Takes a rank's number and the slots of its compute threads.
pub(crate) type OnThreads<'a> = dyn Fn(u32, Range<u32>) + Send + Sync + 'a;

/// Works for the master at the other end of the transport until it dismisses this rank.
pub(crate) fn serve(
    rank: RankId,
    transport: &mut dyn Transport,
    doorbell: Doorbell,
    facts: RankFacts,
    on_threads: Option<&OnThreads<'_>>,
    signals: &Signals,
) -> Result<(), WorkerError> {
    doorbell.install();
    let (sender, finished) = unbounded();
    let executor = Executor::new(rank, sender, doorbell);
    let watch = Watch::new(transport);
    let mut worker = Worker {
        transport,
        executable: facts.executable,
        host: facts.host.clone(),
        signals,
        on_threads,
        crew: None,
        executor: Arc::new(executor),
        finished,
        maps: BTreeMap::new(),
        chunks: BTreeMap::new(),
        limited: Vec::new(),
        cancelled: BTreeSet::new(),
        parts: BTreeMap::new(),
        next_part: 0,
        releases: bounded(0),
        outbox: Packet::default(),
        gather: Gather::default(),
        watch,
    };
    worker.outbox.push(ToMaster::Join(Box::new(facts)));
    let result = panic::catch_unwind(AssertUnwindSafe(|| worker.work()));
    let (message, result) = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error @ (WorkerError::Deserted | WorkerError::Silent(_) | WorkerError::BrokenOff))) => {
            return Err(error);
        }
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
                        if self.chunks.is_empty() {
                            self.await_releases();
                        } else {
                            self.leave_jobs_behind();
                        }
                        return Ok(());
                    }
                    self.take_in(message, payload)?;
                }
            }
            if active {
                idle.heard();
                if let Some(watch) = &mut self.watch {
                    watch.heard();
                }
            }
            while let Ok(message) = self.finished.try_recv() {
                active = true;
                match message {
                    FromThread::Results(results) => {
                        self.executor.unsent.fetch_sub(1, Ordering::SeqCst);
                        self.hand_over(results);
                    }
                    FromThread::Part(part) => self.hand_over_part(part),
                }
            }
            if !self.limited.is_empty() {
                self.write_off()?;
            }
            if let Some(message) = self.executor.broken.get() {
                return Err(WorkerError::GaveUp(message.clone()));
            }
            if self.signals.raised() && !signalled {
                signalled = true;
                self.outbox.push(ToMaster::Signalled);
            }
            self.watch(active)?;
            self.send()?;
            if active {
                idle.reset(self.need());
            } else {
                self.pause(&mut idle);
            }
        }
    }

    /// Nothing is to be done: waits. Results wake the loop when no chunk waits; else they may have to be looked for.
    fn pause(&mut self, idle: &mut Idle) {
        let waits = self.executor.waiting.load(Ordering::SeqCst) > 0;
        match if waits { self.gather.left(Instant::now) } else { None } {
            None => idle.wait(self.transport.must_poll()),
            Some(Duration::ZERO) => {}
            Some(left) => idle.wait_at_most(left, self.transport.must_poll()),
        }
    }

    fn need(&self) -> Need {
        let threads = self.crew.as_ref().map_or(1, |crew| crew.threads() as usize);
        if self.executor.waiting.load(Ordering::Relaxed) > 0 {
            Need::Later
        } else if self.chunks.len() < threads {
            Need::Now
        } else {
            Need::Soon
        }
    }

    fn take_in(&mut self, message: ToRank, payload: Bytes) -> Result<(), WorkerError> {
        match message {
            ToRank::Welcome { threads, slots_before } => self.start_threads(threads, slots_before)?,
            ToRank::Define { map, function, limit, .. } => {
                let function = MapFunction {
                    id: map,
                    function,
                    context: payload,
                    executable: self.executable,
                    limit: (limit > 0).then(|| Duration::from_micros(limit)),
                    made: OnceLock::new(),
                    cancellation: Mutex::default(),
                };
                self.maps.insert(map, Arc::new(function));
            }
            ToRank::Keep { value, .. } => self.executor.broadcasts.insert(value, payload),
            ToRank::Chunk { chunk, map, first, count, attempt, .. } => {
                let Some(map) = self.maps.get(&map).cloned() else {
                    return Err(TransportError(format!("a chunk came before its map {}", map.0)).into());
                };
                let cursor = Cursor::new(count);
                self.begin(Chunk { id: chunk, first, attempt, cursor, inputs: payload, map, limited: None }, count);
            }
            ToRank::Recall { chunk } => {
                if let Some(recalled) = self.chunks.get(&chunk) {
                    let kept = recalled.cut();
                    if kept == 0 {
                        self.chunks.remove(&chunk);
                        self.limited.retain(|limited| limited.id != chunk);
                    }
                    self.outbox.push(ToMaster::Returned { chunk, kept });
                }
            }
            ToRank::Took { part } => {
                if let Some((_, taken)) = self.parts.remove(&part) {
                    let _ = taken.send(());
                }
            }
            ToRank::Cancel { map } => self.cancel(map),
            ToRank::Release { map } => self.release(map),
            ToRank::BreakOff => return Err(WorkerError::BrokenOff),
            ToRank::Pulse | ToRank::Dismiss => {}
        }
        Ok(())
    }

    /// Puts a chunk where the compute threads take them from.
    fn begin(&mut self, mut chunk: Chunk, count: u32) {
        let crew = self.crew.as_ref().expect("a rank is welcomed before it gets chunks");
        // The chunk, or the thread that has it, may be the last that holds the map's function.
        let mut released = Some(self.releases.0.clone());
        chunk.limited = chunk.map.limit.map(|limit| Limited::new(limit, count, released.take()));
        let chunk = Arc::new(chunk);
        self.chunks.insert(chunk.id, chunk.clone());
        if chunk.limited.is_some() {
            self.limited.push(chunk.clone());
        }
        self.executor.waiting.fetch_add(1, Ordering::SeqCst);
        crew.push(Work::Chunk(chunk, released));
    }

    /// Tells the jobs of a map that nobody wants them.
    fn cancel(&mut self, map: MapId) {
        self.parts.retain(|_, (of, _)| *of != map);
        self.cancelled.insert(map);
        if let Some(cancellation) = self.maps.get(&map).and_then(|map| map.cancellation()) {
            cancellation.cancel();
        }
    }

    /// Lets go of a map's function: on a compute thread, since it may take its time.
    fn release(&mut self, map: MapId) {
        self.cancelled.remove(&map);
        if let (Some(function), Some(crew)) = (self.maps.remove(&map), &self.crew) {
            crew.push(Work::Release(function, self.releases.0.clone()));
        }
    }

    fn await_releases(&mut self) {
        let own = bounded(0).0;
        drop(std::mem::replace(&mut self.releases.0, own));
        let _ = self.releases.1.recv_timeout(RELEASE);
    }

    fn start_threads(&mut self, threads: u32, slots_before: u32) -> Result<(), WorkerError> {
        self.executor.slots_before.store(slots_before, Ordering::Relaxed);
        let crew = Crew::start(threads, &self.executor).map_err(|error| WorkerError::Threads(threads, error))?;
        self.crew = Some(crew);
        if let Some(tell) = self.on_threads {
            tell(self.executor.rank.0, slots_before..slots_before + threads);
        }
        Ok(())
    }

    fn hand_over(&mut self, results: Results) {
        self.chunks.remove(&results.chunk);
        let Results { chunk, count, wall_ns, useful_ns, failed, bad, frames } = results;
        let bytes = frames.len() as u64;
        let head = ToMaster::Finished { chunk, count, wall_ns, useful_ns, failed, bad, bytes };
        self.outbox.push_with(head, [frames.into()]);
    }

    fn hand_over_part(&mut self, part: Part) {
        let Part { map, job, stream, bytes, taken } = part;
        if self.cancelled.contains(&map) || !self.maps.contains_key(&map) {
            // Without `taken` the job learns that nobody wants it.
            return;
        }
        let part = self.next_part;
        self.next_part += 1;
        self.parts.insert(part, (map, taken));
        let head = ToMaster::Part { part, map, job, stream, bytes: bytes.len() as u64 };
        self.outbox.push_with(head, [bytes.into()]);
    }

    fn send(&mut self) -> Result<(), WorkerError> {
        if !self.outbox.is_empty() {
            self.executor.sent.store(self.executor.now(), Ordering::Relaxed);
            self.gather.sent(Instant::now());
            if let Some(watch) = &mut self.watch {
                watch.spoke();
            }
            self.transport.send(RankId(0), self.outbox.take()?)?;
        }
        Ok(())
    }
}
