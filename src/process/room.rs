//! Waiting for room: when file descriptors, processes or memory are exhausted, a rank does not fail the job but starts the process
//! later, and so runs fewer processes at once.
//!
//! Threads that wait form a queue. Only the first one tries to start its process, again and again; a thread that wants to start
//! another process joins the end of the queue. So the thread that has waited longest gets what becomes free.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Resource, getrlimit};

use super::pipes::is_ready_within;

/// How long starts are tried while no other process of this rank runs, whose end would make room.
const MOST_WAIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// A start that is not refused within this time has succeeded.
const REFUSED: Duration = Duration::from_secs(1);
/// The first and the longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(250)];
/// File descriptors that are kept free for everything else that a rank does, if its limit is high enough.
const RESERVE: u64 = 32;

static STARTS: Mutex<Starts> = Mutex::new(Starts { line: VecDeque::new(), running: BTreeMap::new(), scarce: None });
/// The length of the queue.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Whether `Starts::scarce` is set.
static SCARCE: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Starts {
    /// Turns that wait.
    line: VecDeque<u64>,
    /// Turns whose process was asked for, and since when.
    running: BTreeMap<u64, Instant>,
    /// When starts began to be refused, and when the last one was.
    scarce: Option<(Instant, Instant)>,
}

fn starts() -> MutexGuard<'static, Starts> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a thread waits for room.
pub(crate) fn is_wanted() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Whether this descriptor is one of the last that the rank can have while other processes run, whose ends would free descriptors.
pub(super) fn is_last(descriptor: &impl AsFd) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(0);
    if number < 32 {
        return false;
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    number >= most - RESERVE.min(most / 8) && !starts().running.is_empty()
}

/// A thread's turn to start a process. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct StartTurn {
    number: u64,
    pause: Duration,
}

impl StartTurn {
    pub(super) fn new() -> Self {
        StartTurn { number: NEXT.fetch_add(1, Ordering::Relaxed), pause: Duration::ZERO }
    }

    /// Waits until a process may be started, mostly not at all. Returns false if the run was cancelled.
    pub(super) fn wait(&mut self, cancelled: Option<BorrowedFd<'_>>) -> bool {
        if !is_wanted() {
            return true;
        }
        starts().join(self.number, false);
        let mut pause = self.pause;
        loop {
            if is_cancelled_within(pause, cancelled) {
                return false;
            }
            if starts().line.front() == Some(&self.number) {
                return true;
            }
            pause = PAUSES[0] * 4;
        }
    }

    /// Reports that the process was asked for: the turn goes to the next thread.
    pub(super) fn started(&mut self) {
        let mut starts = starts();
        starts.leave(self.number);
        starts.running.insert(self.number, Instant::now());
    }

    /// Reports that there was no room for the process: this thread goes to the front of the queue. Returns false if it has tried
    /// for long enough.
    pub(super) fn refused(&mut self) -> bool {
        self.pause = (2 * self.pause).clamp(PAUSES[0], PAUSES[1]);
        let mut starts = starts();
        starts.running.remove(&self.number);
        starts.join(self.number, true);
        let now = Instant::now();
        // The last refusal may be long ago.
        let since = starts.scarce.filter(|(_, last)| now - *last < MOST_WAIT).map_or(now, |(since, _)| since);
        starts.scarce = Some((since, now));
        SCARCE.store(true, Ordering::Relaxed);
        let others = starts.running.values().any(|since| since.elapsed() > REFUSED);
        others || since.elapsed() < MOST_WAIT
    }

    /// Reports that the process was started.
    pub(super) fn succeeded(&mut self) {
        self.pause = Duration::ZERO;
        if SCARCE.swap(false, Ordering::Relaxed) {
            starts().scarce = None;
        }
    }

    /// Leaves the queue: no process runs, and none is wanted.
    pub(super) fn release(&mut self) {
        let mut starts = starts();
        starts.leave(self.number);
        starts.running.remove(&self.number);
    }
}

impl Drop for StartTurn {
    fn drop(&mut self) {
        self.release();
    }
}

impl Starts {
    fn join(&mut self, number: u64, in_front: bool) {
        if !self.line.contains(&number) {
            if in_front {
                self.line.push_front(number);
            } else {
                self.line.push_back(number);
            }
            WAITING.store(self.line.len(), Ordering::Relaxed);
        }
    }

    fn leave(&mut self, number: u64) {
        if !self.line.is_empty() {
            self.line.retain(|other| *other != number);
            WAITING.store(self.line.len(), Ordering::Relaxed);
        }
    }
}

/// Waits for `pause`; returns whether the run was cancelled.
fn is_cancelled_within(pause: Duration, cancelled: Option<BorrowedFd<'_>>) -> bool {
    let mut watched: Vec<_> =
        cancelled.into_iter().map(|cancelled| PollFd::from_borrowed_fd(cancelled, PollFlags::IN)).collect();
    is_ready_within(pause, &mut watched)
}
