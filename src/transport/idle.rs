//! Waiting that costs next to nothing and ends at once when something is there.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Wakes the loop of one thread out of [`Idle::wait`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Doorbell(Arc<OnceLock<Thread>>);

impl Doorbell {
    /// The calling thread is the one to wake. Before this, ringing does nothing: the loop has not looked yet.
    pub(crate) fn install(&self) {
        let _ = self.0.set(thread::current());
    }

    /// Wakes the loop, or lets it skip its next wait.
    pub(crate) fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// How long a loop keeps looking without a pause after something came: about two message round trips.
const HOT: Duration = Duration::from_micros(20);
/// The first sleep after that, and the longest; each is twice the one before.
const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(1);
/// The first sleep of a loop that has nothing urgent to wait for.
const CALM: Duration = Duration::from_micros(250);
/// How often a loop that is woken by its doorbell looks around all the same (for signals).
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// The pauses of one loop.
#[derive(Debug)]
pub(crate) struct Idle {
    active: Instant,
    pause: Duration,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Idle { active: Instant::now(), pause: SHORTEST }
    }

    /// Something came. If somebody is out of work, look again at once and soon after; if not, there is time, and looking would
    /// only take it from the threads that compute.
    pub(crate) fn reset(&mut self, urgent: bool) {
        if urgent {
            self.active = Instant::now();
            self.pause = SHORTEST;
        } else {
            self.pause = CALM;
        }
    }

    /// Nothing came: wait for the doorbell, or, if the loop has to look by itself, a little longer than the last time.
    pub(crate) fn wait(&mut self, must_poll: bool) {
        if !must_poll {
            thread::park_timeout(LOOK_AROUND);
        } else if self.pause < CALM && self.active.elapsed() < HOT {
            thread::yield_now();
        } else {
            thread::park_timeout(self.pause);
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}
