//! The compute threads of a rank: each runs chunk after chunk, and helps the rayon jobs of other threads in between.
//!
//! A job may use rayon. While it waits for the pieces that it has split off, rayon runs other work of the thread pool on the same
//! thread, on the stack of the waiting job. If chunks were such work, a job could start inside another one, which may hold a
//! lock or a borrowed cell. So chunks wait in a queue that rayon does not know. Every thread of the pool
//! stays in [`Queue::serve`], and asks rayon for pieces of other threads' jobs only while there is no chunk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::RankError;
use super::chunk::Chunk;
use super::context::enter_compute_thread;
use super::executor::{Executor, MapFunction};

/// An element of the queue of the compute threads.
pub(super) enum Work {
    /// Run the jobs of a chunk.
    Chunk(Arc<Chunk>),
    /// Drop a function, which may take long, and then the sender.
    Release(Arc<MapFunction>, Sender<()>),
}

/// The number of times that a thread looks for work before it sleeps: a few microseconds.
const ROUNDS: u32 = 32;
/// The first pause of a thread that sleeps; each is twice the one before. A chunk ends the pause at once; a rayon piece does not.
const SHORTEST: Duration = Duration::from_micros(20);
/// The longest pause while a job of another thread runs, which may split at any time, and while none runs. They hold
/// for all sleeping threads together: with N of them, each sleeps N times as long.
const LONGEST: Duration = Duration::from_millis(1);
const QUIET: Duration = Duration::from_millis(5);
/// The longest pause of a single thread.
const LIMIT: Duration = Duration::from_millis(100);
/// A thread that has been helping for this long (µs) has found a job that other threads should help, too.
const WORTHWHILE: u64 = 50;

/// The queue of the compute threads: chunks that no thread has begun, and threads that have nothing to do.
struct Queue {
    /// Its `waiting` is more than 0 if `state` may hold work, or is closed.
    executor: Arc<Executor>,
    state: Mutex<State>,
    wake: Condvar,
    /// The number of threads that have found work and have not looked for more in vain.
    running: AtomicUsize,
    /// The number of threads that were written off and have not ended.
    left_behind: AtomicUsize,
    started: Instant,
    /// The time since which a thread has been helping others, in µs since `started`; 0 if none does.
    helping: AtomicU64,
    /// The time at which a thread last found nothing to help with, in µs since `started`.
    barren: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    asleep: u32,
    /// The number of sleeping threads that have been woken and have not looked at the queue yet: another wake-up would be wasted.
    woken: u32,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, work: Work) {
        let mut state = self.lock();
        state.waiting.push_back(work);
        self.executor.waiting.store(state.waiting.len(), Ordering::SeqCst);
        let wakes = state.asleep > state.woken;
        state.woken += u32::from(wakes);
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Closes the queue: no chunk is begun any more.
    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let (releases, chunks) = state.waiting.drain(..).partition(|work| matches!(work, Work::Release(..)));
        state.waiting = releases;
        self.executor.waiting.store(usize::MAX, Ordering::SeqCst);
        drop(state);
        self.wake.notify_all();
        // This may run destructors of the user's types, so it happens after the lock is released.
        drop::<VecDeque<_>>(chunks);
    }

    /// Runs the loop of the thread with the index `thread`. It ends with the run, or when the thread was written off.
    fn serve(&self, thread: u32) {
        let mut runs = false;
        while let Some(work) = self.next(&mut runs) {
            match work {
                Work::Chunk(chunk) => {
                    if !chunk.run(&self.executor, thread) {
                        self.running.fetch_sub(1, Ordering::Relaxed);
                        self.left_behind.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                }
                Work::Release(function, released) => {
                    drop(function);
                    drop(released);
                }
            }
            // Run what a job has spawned and not waited for.
            while rayon_core::yield_local() == Some(rayon_core::Yield::Executed) {}
        }
    }

    /// Returns the next work; until there is some, the thread helps others or sleeps. `None` if the queue is closed. `runs`: whether
    /// the thread counts as running.
    fn next(&self, runs: &mut bool) -> Option<Work> {
        let (mut rounds, mut pause) = (0, SHORTEST);
        loop {
            if self.executor.waiting.load(Ordering::Acquire) > 0 {
                let mut state = self.lock();
                if let Some(work) = state.waiting.pop_front() {
                    let left = if state.closed { usize::MAX } else { state.waiting.len() };
                    self.executor.waiting.store(left, Ordering::SeqCst);
                    drop(state);
                    self.executor.wake_if_out_of_work();
                    if !std::mem::replace(runs, true) {
                        self.running.fetch_add(1, Ordering::Relaxed);
                    }
                    return Some(work);
                }
                if state.closed {
                    return None;
                }
            }
            if std::mem::take(runs) {
                self.running.fetch_sub(1, Ordering::Relaxed);
            }
            if self.help() {
                (rounds, pause) = (0, SHORTEST);
            } else if rounds < ROUNDS {
                rounds += 1;
                thread::yield_now();
            } else {
                pause = self.sleep(pause);
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Runs a piece of another thread's job, if there is one, and returns whether it did.
    fn help(&self) -> bool {
        let marks = self.helping.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let helped = rayon_core::yield_now() == Some(rayon_core::Yield::Executed);
        if marks {
            self.helping.store(0, Ordering::Relaxed);
        }
        helped
    }

    /// Sleeps until there is a chunk, at most for `pause`, and returns the next pause. rayon does not wake these threads when a job
    /// splits, so sleeping threads look for pieces from time to time, in turn; a thread that sees another one help wakes the
    /// next, as long as they find something.
    fn sleep(&self, pause: Duration) -> Duration {
        self.barren.store(self.now(), Ordering::Relaxed);
        let mut state = self.lock();
        if !state.waiting.is_empty() || state.closed {
            return SHORTEST;
        }
        state.asleep += 1;
        // A single thread has no other thread to help.
        let limit = if rayon_core::current_num_threads() > 1 { (pause * state.asleep).min(LIMIT) } else { LIMIT };
        let mut state = self.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0;
        state.asleep -= 1;
        state.woken = state.woken.saturating_sub(1);
        let more = state.asleep > 0;
        drop(state);
        let since = self.helping.load(Ordering::Relaxed);
        if more && since > 0 && since > self.barren.load(Ordering::Relaxed) && self.now() > since + WORTHWHILE {
            self.wake.notify_one();
        }
        let longest = if self.running.load(Ordering::Relaxed) > 0 { LONGEST } else { QUIET };
        (pause * 2).min(longest)
    }
}

/// Starts `threads` threads that serve the queue, with the indexes from `first`.
fn serving_threads(
    queue: &Arc<Queue>,
    first: u32,
    threads: u32,
) -> Result<rayon_core::ThreadPool, rayon_core::ThreadPoolBuildError> {
    let (rank, executor) = (queue.executor.rank.0, queue.executor.clone());
    let pool = rayon_core::ThreadPoolBuilder::new()
        .num_threads(threads as usize)
        .thread_name(move |thread| format!("rank {rank} thread {}", first as usize + thread))
        .start_handler(move |_| enter_compute_thread(&executor))
        .build()?;
    let queue = queue.clone();
    pool.spawn_broadcast(move |thread| queue.serve(first + thread.index() as u32));
    Ok(pool)
}

/// The compute threads of a rank.
pub(super) struct ComputeThreads {
    queue: Arc<Queue>,
    count: u32,
    /// Owns the threads: when it is dropped, they end as soon as they leave their loops.
    _pool: rayon_core::ThreadPool,
    /// The threads that have replaced others, by their index.
    replacements: BTreeMap<u32, rayon_core::ThreadPool>,
}

/// The largest number of threads of a rank that were written off and have not ended.
const LEFT_BEHIND: usize = 200;

impl ComputeThreads {
    pub(super) fn start(count: u32, executor: &Arc<Executor>) -> Result<Self, rayon_core::ThreadPoolBuildError> {
        let queue = Arc::new(Queue {
            executor: executor.clone(),
            state: Mutex::default(),
            wake: Condvar::new(),
            running: AtomicUsize::new(0),
            left_behind: AtomicUsize::new(0),
            started: Instant::now(),
            helping: AtomicU64::new(0),
            barren: AtomicU64::new(0),
        });
        let pool = serving_threads(&queue, 0, count)?;
        Ok(ComputeThreads { queue, count, _pool: pool, replacements: BTreeMap::new() })
    }

    /// Replaces the thread with the index `thread`, which was written off, by a new one.
    pub(super) fn replace(&mut self, thread: u32) -> Result<(), RankError> {
        let left_behind = self.queue.left_behind.fetch_add(1, Ordering::Relaxed);
        if left_behind >= LEFT_BEHIND {
            let message = format!("{left_behind} jobs still run after their time limit, each on a thread of its own");
            return Err(RankError::Unusable(message));
        }
        let pool = serving_threads(&self.queue, thread, 1).map_err(|error| RankError::Threads(1, error))?;
        self.replacements.insert(thread, pool);
        Ok(())
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn push(&self, work: Work) {
        self.queue.push(work);
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        self.queue.close();
    }
}
