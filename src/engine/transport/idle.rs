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
/// The first sleep after that; each is twice the one before, or four times if no thread is out of work yet.
const SHORTEST: Duration = Duration::from_micros(20);
/// The longest sleep while somebody is out of work.
const LONGEST: Duration = Duration::from_millis(1);
/// The shortest and the longest sleep while nobody is. A look takes some 30 µs from the threads that compute.
const CALM: Duration = Duration::from_micros(250);
const CALMEST: Duration = Duration::from_millis(10);
/// How often such a loop looks from one message to the next.
const LOOKS: u32 = 2;
/// How often a loop that is woken by its doorbell looks around all the same (for signals).
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// Who waits for the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A thread that is out of work.
    Now,
    /// A thread that soon will be.
    Soon,
    /// Nobody.
    Later,
}

/// The pauses of one loop.
#[derive(Debug)]
pub(crate) struct Idle {
    need: Need,
    active: Instant,
    pause: Duration,
    heard: Instant,
    /// How long it is from one message to the next, on average; times beyond the longest sleep do not count in full.
    rhythm: Duration,
}

impl Idle {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Idle { need: Need::Now, active: now, pause: SHORTEST, heard: now, rhythm: Duration::ZERO }
    }

    /// Messages came.
    pub(crate) fn heard(&mut self) {
        let since = self.heard.elapsed().min(CALMEST * LOOKS);
        self.rhythm = (self.rhythm * 3 + since) / 4;
        self.heard = Instant::now();
    }

    /// Something was done. If somebody needs more, look again at once and soon after; if not, there is time, and looking would only
    /// take it from the threads that compute.
    pub(crate) fn reset(&mut self, need: Need) {
        self.need = need;
        if need != Need::Later {
            self.active = Instant::now();
            self.pause = SHORTEST;
        }
    }

    /// There is nothing to do: wait for the doorbell, or, if the loop has to look by itself, for some time.
    pub(crate) fn wait(&mut self, must_poll: bool) {
        self.wait_at_most(LOOK_AROUND, must_poll);
    }

    /// The same, for no longer than this.
    pub(crate) fn wait_at_most(&mut self, limit: Duration, must_poll: bool) {
        if self.need == Need::Now && self.active.elapsed() < HOT {
            thread::yield_now();
        } else if !must_poll {
            thread::park_timeout(limit);
        } else if self.need == Need::Later {
            let pause = (self.rhythm / LOOKS).max(self.heard.elapsed() / 2);
            thread::park_timeout(pause.clamp(CALM, CALMEST).min(limit));
        } else {
            thread::park_timeout(self.pause.min(limit));
            let (growth, longest) = if self.need == Need::Now { (2, LONGEST) } else { (4, CALMEST) };
            self.pause = (self.pause * growth).min(longest);
        }
    }
}
