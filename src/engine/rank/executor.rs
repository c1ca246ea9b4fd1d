//! The state that the compute threads of a rank share with its loop: the channel for their results, and the decision when to
//! wake the loop.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::broadcasts::Broadcasts;
use super::cancellation::Cancellation;
use super::coalesce::{COALESCE_JOBS, COALESCE_TIME};
use super::results::{FromThread, Results};
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::Function;
use crate::engine::schedule::{MapId, RankId};
use crate::engine::transport::Doorbell;
use crate::engine::wire::FunctionId;

/// A map's function on this rank, made from its context when its first chunk runs.
pub(super) struct MapFunction {
    pub id: MapId,
    pub function: FunctionId,
    pub context: Bytes,
    pub executable: u64,
    /// The time limit of a job.
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

    /// Returns the map's cancellation, which is made at the first call; `None` if the system has no more file descriptors.
    pub(super) fn cancellation(&self) -> Option<Arc<Cancellation>> {
        let mut made = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            *made = Some(Arc::new(Cancellation::new().ok()?));
        }
        made.clone()
    }
}

/// The state that the compute threads share with the rank's loop.
pub(super) struct Executor {
    pub rank: RankId,
    /// The number of slots of this host that belong to earlier ranks.
    pub slots_before: AtomicU32,
    pub results: Sender<FromThread>,
    pub doorbell: Doorbell,
    pub started: Instant,
    /// The number of chunks that no thread has begun.
    pub waiting: AtomicUsize,
    /// The number of jobs with results that the loop has not taken.
    pub unsent: AtomicUsize,
    /// The time at which the loop last sent results, in µs since `started`.
    pub sent: AtomicU64,
    pub broadcasts: Broadcasts,
    /// The message with which a job has ended the run.
    pub abort_message: OnceLock<String>,
}

impl Executor {
    /// Returns the shared state of a rank. `results` goes to the rank's loop, which `doorbell` wakes.
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
            abort_message: OnceLock::new(),
        }
    }

    pub(super) fn send(&self, message: FromThread) {
        // If the loop has ended, the run is over.
        let _ = self.results.send(message);
    }

    /// Returns the time from the start of the rank to `moment`, in ns, at least 1.
    pub(super) fn since_start(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns the time from `started` to `moment` in µs.
    pub(super) fn micros_at(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Wakes the loop if results wait and no chunk does: no more results will follow soon with which they could be sent.
    fn wake_if_out_of_work(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 && self.unsent.load(Ordering::SeqCst) > 0 {
            self.doorbell.ring();
        }
    }

    /// Records that a thread begins a chunk. The chunk may take long, or have been given back, so that no results follow soon.
    pub(super) fn begin(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.wake_if_out_of_work();
    }

    /// Sends a chunk's results to the loop at the time `now`. If they are few, they may wait for a moment while chunks wait: either
    /// this thread sees that no chunk waits, or the thread that begins the last chunk sees these results, or the loop looks for them
    /// (see [`super::coalesce`]).
    pub(super) fn finish(&self, results: Results, now: Instant) {
        let jobs = results.count as usize;
        let many = self.unsent.fetch_add(jobs, Ordering::SeqCst) + jobs >= COALESCE_JOBS;
        self.send(FromThread::Results(results));
        let since_sent = self.micros_at(now).saturating_sub(self.sent.load(Ordering::Relaxed));
        if many || since_sent >= COALESCE_TIME.as_micros() as u64 {
            self.doorbell.ring();
        } else {
            self.wake_if_out_of_work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::engine::schedule::ChunkId;

    fn one_job(chunk: u64) -> Results {
        Results { count: 1, ..Results::of(ChunkId(chunk)) }
    }

    /// Whether the doorbell of the calling thread was rung since this was last asked.
    fn has_rung() -> bool {
        const LONG: Duration = Duration::from_millis(300);
        let begin = Instant::now();
        thread::park_timeout(LONG);
        begin.elapsed() < LONG / 2
    }

    #[test]
    fn results_wake_the_loop_unless_others_were_sent_just_before_and_chunks_wait() {
        let (results, finished) = unbounded();
        let executor = Executor::new(RankId(0), results, Doorbell::default());
        executor.doorbell.install();
        let just_before = || executor.sent.store(u64::MAX, SeqCst);
        executor.waiting.store(2, SeqCst);
        just_before();
        executor.finish(one_job(1), Instant::now());
        assert!(!has_rung(), "more results will follow");
        executor.begin();
        assert!(!has_rung(), "another chunk waits");
        executor.begin();
        assert!(has_rung(), "no chunk waits any more");
        executor.waiting.store(1, SeqCst);
        executor.sent.store(0, SeqCst);
        thread::sleep(COALESCE_TIME);
        executor.finish(one_job(2), Instant::now());
        assert!(has_rung(), "nothing was sent for a while");
        executor.waiting.store(0, SeqCst);
        just_before();
        executor.finish(one_job(3), Instant::now());
        assert!(has_rung(), "no chunk waits");
        assert_eq!((finished.len(), executor.unsent.load(SeqCst)), (3, 3));
    }

    #[test]
    fn many_results_wake_the_loop_at_once() {
        let (results, _finished) = unbounded();
        let executor = Executor::new(RankId(0), results, Doorbell::default());
        executor.doorbell.install();
        executor.waiting.store(1, SeqCst);
        executor.sent.store(u64::MAX, SeqCst);
        let half = || Results { count: COALESCE_JOBS as u32 / 2, ..Results::of(ChunkId(1)) };
        executor.finish(half(), Instant::now());
        assert!(!has_rung(), "others may follow");
        executor.finish(half(), Instant::now());
        assert!(has_rung(), "enough have come together");
    }

    #[test]
    fn a_function_of_another_program_is_an_error_each_time() {
        let map = MapFunction {
            id: MapId(1),
            function: FunctionId { offset: 16, seal: 1 },
            context: Bytes::new(),
            executable: 2,
            limit: None,
            made: OnceLock::new(),
            cancellation: Mutex::default(),
        };
        for _ in 0..2 {
            assert_eq!(map.get().err().map(|failure| failure.kind), Some(JobErrorKind::Decode));
        }
        let (one, same) = (map.cancellation().unwrap(), map.cancellation().unwrap());
        assert!(Arc::ptr_eq(&one, &same), "a map has one cancellation");
    }
}
