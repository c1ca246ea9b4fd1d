//! The rank side: receives chunks, runs their jobs on rayon threads, and sends the results.
//!
//! The rank's loop owns the transport and computes nothing. Chunks wait in a queue until a compute thread begins them, so that
//! no chunk keeps the threads of another waiting, and a job that uses rayon itself finds the rank's idle threads. A thread
//! takes its jobs one at a time from the chunk, so that the jobs that have not started can still be given back. All results
//! that finish while the loop sleeps are sent as one message.

mod broadcasts;
mod cancellation;
mod chunk;
mod coalesce;
mod context;
mod executor;
mod limited;
mod load;
mod overdue;
mod pulse;
mod results;
mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::console;
use crate::engine::catch::panic_message;
use crate::engine::limits;
use crate::engine::placement::RankFacts;
use crate::engine::schedule::{ChunkId, ChunkMap, MapId, RankId};
use crate::engine::stop::Signals;
use crate::engine::transport::{Doorbell, Idle, Incoming, Need, Transport, TransportError};
use crate::engine::wire::{self, Packet, ToMaster, ToRank};

use chunk::{Chunk, Cursor, Progress};
use coalesce::Coalescing;
use executor::{Executor, MapFunction};
use limited::Limited;
use load::LoadReports;
use pulse::MasterWatch;
use results::{Early, FromThread, Part, Rare, ResultFrames, Results};
use threads::{ComputeThreads, Work};

#[cfg(feature = "program")]
pub(crate) use context::is_forgotten;
pub use context::{CurrentJob, current_job};
pub(crate) use context::{abort_run, broadcast_value, cancellation, in_compute_thread, mark_failed, send_part};

/// The errors that end a rank early.
#[derive(Debug)]
pub(crate) enum RankError {
    Transport(TransportError),
    Codec(wire::CodecError),
    /// This number of threads could not be started.
    Threads(u32, rayon_core::ThreadPoolBuildError),
    /// The connection to the master is closed.
    MasterClosed,
    /// The master has sent nothing for this many seconds.
    MasterSilent(u64),
    /// The master has ended the run.
    Aborted,
    /// A job has called [`abort_run`], or too many threads were left behind.
    Unusable(String),
}

impl Error for RankError {}

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RankError::Transport(error) => error.fmt(f),
            RankError::Codec(error) => error.fmt(f),
            RankError::Threads(count, error) => {
                write!(f, "cannot start {count} compute threads: {} (see `ulimit -u`)", console::reason(error))
            }
            RankError::MasterClosed => f.write_str("the master is gone"),
            RankError::MasterSilent(seconds) => write!(
                f,
                "rank 0 has sent no message for {seconds} s: its process has died or is stopped, or its node is lost; \
                 this rank ends"
            ),
            RankError::Aborted => f.write_str("rank 0 has ended the run"),
            RankError::Unusable(message) => f.write_str(message),
        }
    }
}

impl From<TransportError> for RankError {
    fn from(error: TransportError) -> Self {
        RankError::Transport(error)
    }
}

impl From<wire::CodecError> for RankError {
    fn from(error: wire::CodecError) -> Self {
        RankError::Codec(error)
    }
}

/// How the part of a rank in a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RankEnd {
    /// All ranks were dismissed.
    Dismissed,
    /// Ranks were lost, this one or others, so that the ranks cannot end together.
    AfterLoss,
}

/// The loop of a rank, from joining the run to being dismissed.
pub(crate) struct RankLoop<'t> {
    transport: &'t mut dyn Transport,
    executable: u64,
    host: String,
    signals: &'t Signals,
    on_threads: Option<&'t OnThreads<'t>>,
    threads: Option<ComputeThreads>,
    executor: Arc<Executor>,
    /// Empty; it keeps the memory for what the threads send.
    finished: Vec<FromThread>,
    maps: BTreeMap<MapId, Arc<MapFunction>>,
    chunks: ChunkMap<Arc<Chunk>>,
    /// The chunks that have a time limit.
    limited: Vec<Arc<Chunk>>,
    /// Maps that are abandoned and not released.
    cancelled: BTreeSet<MapId>,
    /// Pieces of output that the driver has not taken: the map, and the channel to the job's thread.
    parts: BTreeMap<u64, (MapId, Sender<()>)>,
    next_part: u64,
    /// A sender is held by everything that may drop a map's function last; nothing is ever sent.
    releases: (Sender<()>, Receiver<()>),
    outbox: Packet<ToMaster>,
    coalescing: Coalescing,
    watch: Option<MasterWatch>,
    loads: LoadReports,
}

/// A callback that takes a rank's number and the slots of its compute threads.
pub(crate) type OnThreads<'a> = dyn Fn(u32, Range<u32>) + Send + Sync + 'a;

/// Runs the loop of a rank until the master, at the other end of the transport, dismisses the rank.
pub(crate) fn serve(
    rank: RankId,
    transport: &mut dyn Transport,
    doorbell: Doorbell,
    facts: RankFacts,
    on_threads: Option<&OnThreads<'_>>,
    signals: &Signals,
) -> Result<RankEnd, RankError> {
    doorbell.install();
    let executor = Executor::new(rank, doorbell);
    let watch = MasterWatch::new(transport);
    let mut rank_loop = RankLoop {
        transport,
        executable: facts.executable,
        host: facts.host.clone(),
        signals,
        on_threads,
        threads: None,
        executor: Arc::new(executor),
        finished: Vec::new(),
        maps: BTreeMap::new(),
        chunks: ChunkMap::default(),
        limited: Vec::new(),
        cancelled: BTreeSet::new(),
        parts: BTreeMap::new(),
        next_part: 0,
        releases: bounded(0),
        outbox: Packet::default(),
        coalescing: Coalescing::default(),
        watch,
        loads: LoadReports::default(),
    };
    rank_loop.outbox.push(ToMaster::Join(Box::new(facts)));
    let result = panic::catch_unwind(AssertUnwindSafe(|| rank_loop.run()));
    rank_loop.executor.close();
    let (message, result) = match result {
        Ok(Ok(end)) => return Ok(end),
        Ok(Err(error @ (RankError::MasterClosed | RankError::MasterSilent(_) | RankError::Aborted))) => {
            return Err(error);
        }
        Ok(Err(error)) => (error.to_string(), Err(error)),
        Err(payload) => (format!("a bug in rankpool: {}", panic_message(&*payload)), Err(RankError::MasterClosed)),
    };
    // The master ends the run when it receives this message. If it cannot be sent any more, the caller logs the error.
    rank_loop.outbox.push(ToMaster::Failed { message });
    let _ = rank_loop.send();
    result
}

impl RankLoop<'_> {
    fn run(&mut self) -> Result<RankEnd, RankError> {
        let mut idle = Idle::new();
        let mut signalled = false;
        loop {
            let mut active = false;
            while let Some(incoming) = self.transport.receive()? {
                active = true;
                let Incoming::Message(_, incoming) = incoming else { return Err(RankError::MasterClosed) };
                for (message, payload) in wire::open::<ToRank>(incoming.packet)? {
                    if let ToRank::Dismiss { after_loss } = message {
                        if self.chunks.is_empty() {
                            self.wait_for_releases();
                        } else {
                            self.leave_jobs_behind();
                        }
                        return Ok(if after_loss { RankEnd::AfterLoss } else { RankEnd::Dismissed });
                    }
                    if message == ToRank::GivenUp {
                        return self.stand_by();
                    }
                    self.handle_message(message, payload)?;
                }
            }
            if active {
                idle.received();
                if let Some(watch) = &mut self.watch {
                    watch.received();
                }
            }
            // A message that is sent anyway takes all results along.
            let sends = !self.outbox.is_empty();
            if sends || self.executor.take_due() || self.coalescing.is_over(Instant::now) {
                active |= self.take_finished();
            }
            if !self.limited.is_empty() {
                self.write_off()?;
            }
            if let Some(message) = self.executor.abort_message.get() {
                return Err(RankError::Unusable(message.clone()));
            }
            if self.signals.poll() && !signalled {
                signalled = true;
                self.outbox.push(ToMaster::Signalled);
            }
            self.report_load();
            self.watch(active)?;
            self.send()?;
            if active {
                idle.reset(self.need());
            } else {
                self.pause(&mut idle);
            }
        }
    }

    /// Queues what the compute threads have sent; false if there was nothing.
    fn take_finished(&mut self) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        self.executor.take(&mut finished);
        let any = !finished.is_empty();
        for message in finished.drain(..) {
            match message {
                FromThread::Results(results) => self.queue_results(results),
                FromThread::Part(part) => self.queue_part(part),
                FromThread::Early(early) => self.queue_early(early),
                FromThread::Delayed(chunk) => self.queue_delayed(chunk),
            }
        }
        self.finished = finished;
        any
    }

    /// Waits when there is nothing to do. Results wake the loop if no chunk waits; otherwise the loop has to look for them.
    fn pause(&mut self, idle: &mut Idle) {
        let waits = self.executor.waiting.load(Ordering::SeqCst) > 0;
        match if waits { self.coalescing.remaining(Instant::now) } else { None } {
            None => idle.wait(self.transport.polling()),
            Some(left) => idle.wait_at_most(left, self.transport.polling()),
        }
    }

    fn need(&self) -> Need {
        let threads = self.threads.as_ref().map_or(1, |threads| threads.count() as usize);
        if self.executor.waiting.load(Ordering::Relaxed) > 0 {
            Need::Later
        } else if self.chunks.len() < threads {
            Need::Now
        } else {
            Need::Soon
        }
    }

    fn handle_message(&mut self, message: ToRank, payload: Bytes) -> Result<(), RankError> {
        match message {
            ToRank::Welcome { threads, slots_before } => self.start_threads(threads, slots_before)?,
            ToRank::Define { map, function, limit, .. } => {
                let limit = (limit > 0).then(|| Duration::from_micros(limit));
                let function = MapFunction {
                    id: map,
                    function,
                    context: payload,
                    executable: self.executable,
                    limit,
                    made: OnceLock::new(),
                    cancellation: Mutex::default(),
                    _released: limit.is_none().then(|| self.releases.0.clone()),
                };
                self.maps.insert(map, Arc::new(function));
            }
            ToRank::Broadcast { value, .. } => self.executor.broadcasts.insert(value, payload),
            ToRank::Forget { value } => self.executor.broadcasts.remove(value),
            ToRank::Chunk { chunk, map, first, count, attempt, .. } => {
                let Some(map) = self.maps.get(&map).cloned() else {
                    return Err(TransportError(format!("a chunk came before its map {}", map.0)).into());
                };
                let cursor = Cursor::new(count);
                let (inputs, progress) = (payload, Progress::default());
                self.enqueue(Chunk { id: chunk, first, attempt, cursor, inputs, map, limited: None, progress }, count);
            }
            ToRank::Recall { chunk } => {
                if let Some(recalled) = self.chunks.get(chunk) {
                    let kept = recalled.cut();
                    if kept == 0 {
                        self.chunks.remove(chunk);
                        self.limited.retain(|limited| limited.id != chunk);
                    }
                    self.outbox.push(ToMaster::Returned { chunk, kept });
                }
            }
            ToRank::PartTaken { part } => {
                if let Some((_, taken)) = self.parts.remove(&part) {
                    let _ = taken.send(());
                }
            }
            ToRank::Cancel { map } => self.cancel(map),
            ToRank::Release { map } => self.release(map),
            ToRank::ReportLoad { every_ms } => self.loads.start(Duration::from_millis(every_ms.into())),
            ToRank::Abort => return Err(RankError::Aborted),
            ToRank::Pulse | ToRank::Dismiss { .. } | ToRank::GivenUp => {}
        }
        Ok(())
    }

    /// Adds a chunk to the queue of the compute threads.
    fn enqueue(&mut self, mut chunk: Chunk, count: u32) {
        let threads = self.threads.as_ref().expect("a rank is welcomed before it gets chunks");
        // The chunk may be the last holder of the map's function.
        chunk.limited = chunk.map.limit.map(|limit| Box::new(Limited::new(limit, count, self.releases.0.clone())));
        let chunk = Arc::new(chunk);
        self.chunks.insert(chunk.id, chunk.clone());
        if chunk.limited.is_some() {
            self.limited.push(chunk.clone());
        }
        threads.push(Work::Chunk(chunk));
    }

    /// Notifies the running jobs of a map that the driver has dropped the map.
    fn cancel(&mut self, map: MapId) {
        self.parts.retain(|_, (of, _)| *of != map);
        self.cancelled.insert(map);
        if let Some(cancellation) = self.maps.get(&map).and_then(|map| map.cancellation()) {
            cancellation.cancel();
        }
    }

    /// Drops a map's function: on a compute thread, since its destructor may take long.
    fn release(&mut self, map: MapId) {
        self.cancelled.remove(&map);
        if let (Some(function), Some(threads)) = (self.maps.remove(&map), &self.threads) {
            threads.push(Work::Release(function, self.releases.0.clone()));
        }
    }

    fn wait_for_releases(&mut self) {
        let own = bounded(0).0;
        drop(std::mem::replace(&mut self.releases.0, own));
        let _ = self.releases.1.recv_timeout(limits::RELEASE);
    }

    fn start_threads(&mut self, threads: u32, slots_before: u32) -> Result<(), RankError> {
        self.executor.slots_before.store(slots_before, Ordering::Relaxed);
        let started = ComputeThreads::start(threads, &self.executor);
        self.threads = Some(started.map_err(|error| RankError::Threads(threads, error))?);
        if let Some(on_threads) = self.on_threads {
            on_threads(self.executor.rank.0, slots_before..slots_before + threads);
        }
        Ok(())
    }

    fn queue_results(&mut self, results: Results) {
        self.chunks.remove(results.chunk);
        self.loads.chunk_done(results.wall_ns);
        let Results { chunk, count, wall_ns, useful_ns, failed_results, frames, rare } = results;
        let Rare { failed, lists } = rare.map_or_else(Rare::default, |rare| *rare);
        // A chunk has fewer jobs than that.
        let (bytes, number) = (frames.bytes().len() as u64, lists.len() as u32);
        let head =
            ToMaster::Finished { chunk, count, wall_ns, useful_ns, failed, failed_results, bytes, lists: number };
        match frames {
            ResultFrames::Few(few) => self.outbox.push_small(head, few.bytes()),
            ResultFrames::Many(many) => self.outbox.push_with(head, [many.into()]),
        }
        self.outbox.push_lists(lists);
    }

    fn queue_part(&mut self, part: Part) {
        let Part { map, job, stream, bytes, taken } = part;
        if self.cancelled.contains(&map) || !self.maps.contains_key(&map) {
            // Dropping `taken` makes the job's next `send_part` return an error.
            return;
        }
        let part = self.next_part;
        self.next_part += 1;
        self.parts.insert(part, (map, taken));
        let head = ToMaster::Part { part, map, job, stream, bytes: bytes.len() as u64 };
        self.outbox.push_with(head, [bytes.into()]);
    }

    fn queue_early(&mut self, early: Early) {
        let Early { chunk, first, count, frames } = early;
        if self.chunks.get(chunk).is_some() {
            let head = ToMaster::Early { chunk, first, count, bytes: frames.len() as u64 };
            self.outbox.push_with(head, [frames.into()]);
        }
    }

    fn queue_delayed(&mut self, chunk: ChunkId) {
        if self.chunks.get(chunk).is_some() {
            self.outbox.push(ToMaster::Delayed { chunk });
        }
    }

    fn send(&mut self) -> Result<(), RankError> {
        if !self.outbox.is_empty() {
            let now = Instant::now();
            self.executor.sent.store(self.executor.micros_at(now), Ordering::Relaxed);
            self.coalescing.sent(now);
            if let Some(watch) = &mut self.watch {
                watch.sent();
            }
            self.transport.send(RankId(0), self.outbox.take()?)?;
        }
        Ok(())
    }
}
