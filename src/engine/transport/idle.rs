//! Waiting that costs little CPU and ends soon after a message has arrived.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Wakes the loop of one thread out of [`Idle::wait`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Doorbell(Arc<OnceLock<Thread>>);

impl Doorbell {
    /// Makes the calling thread the one to wake. Before this, ringing has no effect; the loop has not started yet.
    pub(crate) fn install(&self) {
        let _ = self.0.set(thread::current());
    }

    /// Wakes the loop, or makes its next wait return at once.
    pub(crate) fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// The time for which a loop polls without a pause after a message: about the duration of a small map, whose next message then
/// wakes no thread.
const HOT: Duration = Duration::from_micros(50);
/// The first sleep after that; each is twice the one before.
const SHORTEST: Duration = Duration::from_micros(20);
/// The longest sleep while a thread is out of work.
const LONGEST: Duration = Duration::from_millis(1);
/// While a thread will soon be out of work, each sleep is this part of the time since the last message, so that the next one is late
/// by no more than that.
const SOON: u32 = 4;
/// The shortest and the longest sleep while no thread is out of work. A poll takes some 30 µs from the threads that compute.
const CALM: Duration = Duration::from_millis(1);
const CALMEST: Duration = Duration::from_millis(10);
/// The number of polls from one message to the next while no thread is out of work.
const POLLS: u32 = 2;
/// A loop that its doorbell wakes still looks around (for signals) after this time.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// How urgent the next message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A thread is out of work.
    Now,
    /// A thread will soon be out of work.
    Soon,
    /// No thread waits for it.
    Later,
}

/// What a transport needs of the loop that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polling {
    /// Its messages ring the doorbell.
    Never,
    /// A message can arrive without the doorbell being rung.
    Sometimes,
    /// A large message is on its way, of which a piece is moved each time that the loop looks.
    Always,
}

/// The pauses of one loop.
#[derive(Debug)]
pub(crate) struct Idle {
    need: Need,
    active: Instant,
    pause: Duration,
    last_message: Instant,
    /// The average time from one message to the next; each is counted up to `POLLS` times the longest sleep.
    rhythm: Duration,
}

impl Idle {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Idle { need: Need::Now, active: now, pause: SHORTEST, last_message: now, rhythm: Duration::ZERO }
    }

    /// Records that messages came.
    pub(crate) fn received(&mut self) {
        let since = self.last_message.elapsed().min(CALMEST * POLLS);
        self.rhythm = (self.rhythm * 3 + since) / 4;
        self.last_message = Instant::now();
    }

    /// Records that the loop was active. If a thread needs work, the loop polls at once and then often; otherwise it polls rarely,
    /// since polling takes CPU time from the threads that compute.
    pub(crate) fn reset(&mut self, need: Need) {
        self.need = need;
        if need != Need::Later {
            self.active = Instant::now();
            self.pause = SHORTEST;
        }
    }

    /// Waits for the doorbell or, if the transport needs polling, for a pause.
    pub(crate) fn wait(&mut self, polling: Polling) {
        self.wait_at_most(LOOK_AROUND, polling);
    }

    /// As [`wait`](Self::wait), but for at most `limit`.
    pub(crate) fn wait_at_most(&mut self, limit: Duration, polling: Polling) {
        if polling == Polling::Always || self.need == Need::Now && self.active.elapsed() < HOT {
            thread::yield_now();
        } else if polling == Polling::Never {
            thread::park_timeout(limit);
        } else if self.need == Need::Later {
            let pause = (self.rhythm / POLLS).max(self.last_message.elapsed() / 2);
            thread::park_timeout(pause.clamp(CALM, CALMEST).min(limit));
        } else if self.need == Need::Soon {
            thread::park_timeout((self.active.elapsed() / SOON).clamp(SHORTEST, CALMEST).min(limit));
        } else {
            thread::park_timeout(self.pause.min(limit));
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}
