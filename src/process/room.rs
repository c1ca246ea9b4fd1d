//! What a rank does when the system has no file descriptor, process or memory left for one more process: that is no fault of
//! a job. It waits until there is room, with fewer processes at once.
//!
//! Those that wait stand in a line. Only the first one tries, again and again; everybody else who wants to start something
//! joins the line's end. So what becomes free goes to who has waited longest.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, getrlimit};

use super::program::timespec;

/// How long it is tried while nothing else of this rank runs, whose end would make room.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// A start that is refused is refused by then.
const REFUSED: Duration = Duration::from_secs(1);
/// The first and the longest pause between two tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(250)];
/// How many file descriptors are left for everything else that a rank does, if there are enough.
const RESERVE: u64 = 32;

static STARTS: Mutex<Starts> = Mutex::new(Starts { line: VecDeque::new(), running: BTreeMap::new(), scarce: None });
/// The length of the line.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Whether there is a time since when nothing could be started.
static SCARCE: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Starts {
    /// Those that wait.
    line: VecDeque<u64>,
    /// Those that do something, and since when.
    running: BTreeMap<u64, Instant>,
    /// Since when nothing could be started, and when that was tried last.
    scarce: Option<(Instant, Instant)>,
}

fn starts() -> MutexGuard<'static, Starts> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether somebody waits for room.
pub(crate) fn is_wanted() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Whether this descriptor is one of the last that the rank can have, and something else could end and give back its own.
pub(super) fn is_last(descriptor: &impl AsFd) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(0);
    if number < 32 {
        return false;
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    number >= most - RESERVE.min(most / 8) && !starts().running.is_empty()
}

/// The turn of somebody who wants to start a process.
#[derive(Debug)]
pub(super) struct StartTurn {
    number: u64,
    pause: Duration,
}

impl StartTurn {
    pub(super) fn new() -> Self {
        StartTurn { number: NEXT.fetch_add(1, Ordering::Relaxed), pause: Duration::ZERO }
    }

    /// Returns when a process may be started, mostly at once; false, if the run was cancelled meanwhile.
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

    /// The process is on its way: it is the next one's turn.
    pub(super) fn started(&mut self) {
        let mut starts = starts();
        starts.leave(self.number);
        starts.running.insert(self.number, Instant::now());
    }

    /// There was no room for the process: nobody else tries before this one has tried again. False, if it was tried for long
    /// enough.
    pub(super) fn refused(&mut self) -> bool {
        self.pause = (2 * self.pause).clamp(PAUSES[0], PAUSES[1]);
        let mut starts = starts();
        starts.running.remove(&self.number);
        starts.join(self.number, true);
        let now = Instant::now();
        // Nobody may have tried for a long time.
        let since = starts.scarce.filter(|(_, last)| now - *last < PATIENCE).map_or(now, |(since, _)| since);
        starts.scarce = Some((since, now));
        SCARCE.store(true, Ordering::Relaxed);
        let others = starts.running.values().any(|since| since.elapsed() > REFUSED);
        others || since.elapsed() < PATIENCE
    }

    /// The process was started.
    pub(super) fn succeeded(&mut self) {
        self.pause = Duration::ZERO;
        if SCARCE.swap(false, Ordering::Relaxed) {
            starts().scarce = None;
        }
    }

    /// Nothing is done, or wanted.
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

/// Waits; whether the run was cancelled meanwhile.
fn is_cancelled_within(pause: Duration, cancelled: Option<BorrowedFd<'_>>) -> bool {
    let mut watched: Vec<_> =
        cancelled.into_iter().map(|cancelled| PollFd::from_borrowed_fd(cancelled, PollFlags::IN)).collect();
    poll(&mut watched, Some(&timespec(pause))).is_ok_and(|ready| ready > 0)
}
