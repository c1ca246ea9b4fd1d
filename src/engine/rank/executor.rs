//! The state that the compute threads of a rank share with its loop: their results, and the decision when to wake the loop.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    /// Dropped after the function. `None` if there is a time limit: a thread that was written off may never drop the function.
    pub _released: Option<Sender<()>>,
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
    /// What the threads have sent and the loop has not taken; `None` if the loop has ended.
    sent_by_threads: Mutex<Option<Vec<FromThread>>>,
    /// Wakes the loop; results that the threads have sent are then due (see [`Executor::ring`]).
    doorbell: Doorbell,
    /// Whether the loop is to take what the threads have sent.
    due: AtomicBool,
    pub started: Instant,
    /// The length of the threads' queue: the chunks that no thread has begun, and functions that are to be dropped. The largest number
    /// if the queue is closed.
    pub waiting: AtomicUsize,
    /// The number of jobs whose results are in `sent_by_threads`.
    pub unsent: AtomicUsize,
    /// The time at which the loop last sent results, in µs since `started`.
    pub sent: AtomicU64,
    pub broadcasts: Broadcasts,
    /// The message with which a job has ended the run.
    pub abort_message: OnceLock<String>,
}

impl Executor {
    /// Returns the shared state of a rank, whose loop `doorbell` wakes.
    pub(super) fn new(rank: RankId, doorbell: Doorbell) -> Self {
        Executor {
            rank,
            slots_before: AtomicU32::new(0),
            sent_by_threads: Mutex::new(Some(Vec::new())),
            doorbell,
            due: AtomicBool::new(false),
            started: Instant::now(),
            waiting: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            broadcasts: Broadcasts::default(),
            abort_message: OnceLock::new(),
        }
    }

    fn sent_by_threads(&self) -> MutexGuard<'_, Option<Vec<FromThread>>> {
        self.sent_by_threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the loop something else than results; the caller then calls [`ring`](Self::ring). If the loop has ended, the run is over,
    /// and the message is dropped.
    pub(super) fn send(&self, message: FromThread) {
        if let Some(sent) = &mut *self.sent_by_threads() {
            sent.push(message);
        }
    }

    /// Exchanges an empty vector for all that the threads have sent, in the order of each thread.
    pub(super) fn take(&self, empty: &mut Vec<FromThread>) {
        if let Some(sent) = &mut *self.sent_by_threads() {
            std::mem::swap(sent, empty);
            self.unsent.store(0, Ordering::SeqCst);
        }
    }

    /// Ends the loop's part: drops what it has not taken and what is sent later, so that no job waits for its output to be taken.
    pub(super) fn close(&self) {
        let sent = self.sent_by_threads().take();
        drop(sent);
    }

    /// Returns the time from the start of the rank to `moment`, in ns, at least 1.
    pub(super) fn since_start(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Returns the time from `started` to `moment` in µs.
    pub(super) fn micros_at(&self, moment: Instant) -> u64 {
        u64::try_from(moment.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Has the loop take what the threads have sent. A loop that wakes for another reason leaves it where it is: results that are
    /// sent one by one, because the master's messages come one by one, would make it send its own so.
    pub(super) fn ring(&self) {
        if !self.due.swap(true, Ordering::SeqCst) {
            self.doorbell.ring();
        }
    }

    /// Whether a thread has called [`ring`](Self::ring) since this was last asked.
    pub(super) fn take_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) && self.due.swap(false, Ordering::SeqCst)
    }

    /// Wakes the loop if results wait and no chunk does: no more results will follow soon with which they could be sent. This is called
    /// whenever results were sent, and whenever a chunk was taken, since that may take long, or have been given back.
    pub(super) fn wake_if_out_of_work(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 && self.unsent.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
    }

    /// Sends a chunk's results to the loop at the time `now`. If the loop has few of them, from fewer chunks than are waiting, it need
    /// not take them at once: either this thread sees that no chunk waits, or the thread that takes the last chunk sees these results,
    /// or the loop looks for them (see [`super::coalesce`]). So the next chunks come while the second half of the last ones is run.
    pub(super) fn finish(&self, results: Results, now: Instant) {
        let jobs = results.count as usize;
        let mut sent = self.sent_by_threads();
        let mut messages = 0; // one for each chunk
        if let Some(sent) = &mut *sent {
            sent.push(FromThread::Results(results));
            messages = sent.len();
        }
        let unsent = self.unsent.load(Ordering::Relaxed) + jobs;
        self.unsent.store(unsent, Ordering::SeqCst);
        drop(sent);
        let many = unsent >= COALESCE_JOBS || messages > self.waiting.load(Ordering::SeqCst);
        let since_sent = self.micros_at(now).saturating_sub(self.sent.load(Ordering::Relaxed));
        if many || since_sent >= COALESCE_TIME.as_micros() as u64 {
            self.ring();
        } else {
            self.wake_if_out_of_work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use crossbeam_channel::TryRecvError;

    use super::*;
    use crate::engine::rank::results::Part;
    use crate::engine::schedule::ChunkId;
    use crate::engine::wire::OutputStream;

    fn one_job(chunk: u64) -> Results {
        Results { count: 1, ..Results::of(ChunkId(chunk)) }
    }

    /// Whether the calling thread was woken to take results since this was last asked.
    fn has_rung(executor: &Executor) -> bool {
        const LONG: Duration = Duration::from_millis(300);
        let begin = Instant::now();
        thread::park_timeout(LONG);
        let woken = begin.elapsed() < LONG / 2;
        assert_eq!(executor.take_due(), woken, "results are due when the loop is woken");
        woken
    }

    #[test]
    fn results_wake_the_loop_unless_others_were_sent_just_before_and_chunks_wait() {
        let executor = Executor::new(RankId(0), Doorbell::default());
        executor.doorbell.install();
        let just_before = || executor.sent.store(u64::MAX, SeqCst);
        executor.waiting.store(2, SeqCst);
        just_before();
        executor.finish(one_job(1), Instant::now());
        assert!(!has_rung(&executor), "more results will follow");
        executor.waiting.store(1, SeqCst);
        executor.wake_if_out_of_work();
        assert!(!has_rung(&executor), "another chunk waits");
        executor.waiting.store(0, SeqCst);
        executor.wake_if_out_of_work();
        assert!(has_rung(&executor), "no chunk waits any more");
        executor.waiting.store(1, SeqCst);
        executor.sent.store(0, SeqCst);
        thread::sleep(COALESCE_TIME);
        executor.finish(one_job(2), Instant::now());
        assert!(has_rung(&executor), "nothing was sent for a while");
        executor.waiting.store(0, SeqCst);
        just_before();
        executor.finish(one_job(3), Instant::now());
        assert!(has_rung(&executor), "no chunk waits");
        let mut sent = Vec::new();
        executor.take(&mut sent);
        assert_eq!((sent.len(), executor.unsent.load(SeqCst)), (3, 0));
    }

    #[test]
    fn many_results_wake_the_loop_at_once() {
        let executor = Executor::new(RankId(0), Doorbell::default());
        executor.doorbell.install();
        executor.sent.store(u64::MAX, SeqCst);
        let half = COALESCE_JOBS as u32 / 2;
        // The number of chunks that wait, and the number of jobs of each of the two chunks that end.
        for (waiting, jobs) in [(usize::MAX, half), (1, 1), (1, half / 2)] {
            executor.waiting.store(waiting, SeqCst);
            let chunk = |number| Results { count: jobs, ..Results::of(ChunkId(number)) };
            executor.finish(chunk(1), Instant::now());
            assert!(!has_rung(&executor), "others may follow");
            executor.finish(chunk(2), Instant::now());
            assert!(has_rung(&executor), "enough have come together");
            executor.take(&mut Vec::new());
        }
    }

    #[test]
    fn when_the_loop_has_ended_no_job_waits_for_its_output_to_be_taken() {
        let executor = Executor::new(RankId(0), Doorbell::default());
        let part = || {
            let (taken, receiver) = crossbeam_channel::bounded(1);
            let (stream, bytes) = (OutputStream::Stdout, Vec::new());
            (FromThread::Part(Part { map: MapId(1), job: 0, stream, bytes, taken }), receiver)
        };
        let ((before, before_is_taken), (after, after_is_taken)) = (part(), part());
        executor.send(before);
        assert!(before_is_taken.try_recv() == Err(TryRecvError::Empty));
        executor.close();
        executor.send(after);
        for is_taken in [before_is_taken, after_is_taken] {
            assert_eq!(is_taken.try_recv(), Err(TryRecvError::Disconnected));
        }
        executor.finish(one_job(1), Instant::now());
    }

    #[test]
    fn the_loop_is_woken_once_for_results_that_it_has_not_taken() {
        let executor = Executor::new(RankId(0), Doorbell::default());
        executor.doorbell.install();
        executor.ring();
        assert!(has_rung(&executor));
        executor.doorbell.ring();
        thread::park();
        assert!(!executor.take_due(), "a message of the master's has come");
        executor.ring();
        thread::park();
        executor.ring();
        assert!(executor.take_due() && !has_rung(&executor), "the second ring is that of the first");
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
            _released: None,
        };
        for _ in 0..2 {
            assert_eq!(map.get().err().map(|failure| failure.kind), Some(JobErrorKind::Decode));
        }
        let (one, same) = (map.cancellation().unwrap(), map.cancellation().unwrap());
        assert!(Arc::ptr_eq(&one, &same), "a map has one cancellation");
    }
}
