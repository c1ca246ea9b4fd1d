//! What the compute threads of a rank share with its loop: where their results go, and when the loop is woken.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::broadcasts::Broadcasts;
use super::cancellation::Cancellation;
use super::gather::GATHER;
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::Function;
use crate::engine::schedule::{ChunkId, MapId, RankId};
use crate::engine::transport::Doorbell;
use crate::engine::wire::FunctionId;

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
    pub(super) fn get(&self) -> Result<&Function, &Failure> {
        let made = self.made.get_or_init(|| {
            let builder = self.function.builder(self.executable)?;
            catch(|| builder(&self.context)).unwrap_or_else(|panic| {
                Err(Failure { kind: JobErrorKind::Decode, message: panic.message, location: panic.location })
            })
        });
        made.as_ref()
    }

    /// Made on the first call; `None` if the system has no more file descriptors.
    pub(super) fn cancellation(&self) -> Option<Arc<Cancellation>> {
        let mut made = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            *made = Some(Arc::new(Cancellation::new().ok()?));
        }
        made.clone()
    }
}

/// What compute threads have for the rank's loop.
pub(super) enum FromThread {
    Results(Results),
    Part(Part),
}

/// A chunk's results.
pub(super) struct Results {
    pub chunk: ChunkId,
    pub count: u32,
    /// From its start to its end.
    pub wall_ns: u64,
    /// The part of that time that was in the function of its jobs.
    pub useful_ns: u64,
    pub failed: Vec<u32>,
    /// Jobs whose results are failures for their function.
    pub bad: u32,
    pub frames: Vec<u8>,
}

impl Results {
    /// No results yet.
    pub(super) fn of(chunk: ChunkId) -> Self {
        Results { chunk, count: 0, wall_ns: 0, useful_ns: 0, failed: Vec::new(), bad: 0, frames: Vec::new() }
    }
}

/// A piece of a job's output, ahead of its result.
pub(super) struct Part {
    pub map: MapId,
    pub job: u64,
    pub stream: u8,
    pub bytes: Vec<u8>,
    /// Receives a message when the driver has taken the piece; dropped if the map is given up.
    pub taken: Sender<()>,
}

/// What the compute threads share with the rank's loop.
pub(super) struct Executor {
    pub rank: RankId,
    /// The slots of this host before those of this rank.
    pub slots_before: AtomicU32,
    pub results: Sender<FromThread>,
    pub doorbell: Doorbell,
    pub started: Instant,
    /// Chunks that no thread has begun.
    pub waiting: AtomicUsize,
    /// Chunks' results that the loop has not taken.
    pub unsent: AtomicUsize,
    /// When the loop last sent results, in µs since `started`.
    pub sent: AtomicU64,
    pub broadcasts: Broadcasts,
    /// Why this rank cannot go on.
    pub broken: OnceLock<String>,
}

impl Executor {
    /// For the loop of a rank that `doorbell` wakes, with what takes its threads' results.
    pub(super) fn new(rank: RankId, results: Sender<FromThread>, doorbell: Doorbell) -> Self {
        Executor {
            rank,
            slots_before: AtomicU32::new(0),
            results,
            doorbell,
            started: Instant::now(),
            waiting: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            broadcasts: Broadcasts::default(),
            broken: OnceLock::new(),
        }
    }

    pub(super) fn send(&self, message: FromThread) {
        // Without the loop the run is over.
        let _ = self.results.send(message);
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
    pub(super) fn begin(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.out_of_work();
    }

    /// Hands the loop a chunk's results. They may lie about for a moment if chunks wait: either this thread sees that none does,
    /// or the one that takes the last of them sees these results, or the loop looks for them (see [`super::gather`]).
    pub(super) fn finish(&self, results: Results) {
        self.unsent.fetch_add(1, Ordering::SeqCst);
        self.send(FromThread::Results(results));
        if self.now().saturating_sub(self.sent.load(Ordering::Relaxed)) >= GATHER.as_micros() as u64 {
            self.doorbell.ring();
        } else {
            self.out_of_work();
        }
    }
}
