//! When results that come one by one are due to be seen.

use std::time::{Duration, Instant};

/// How long results that trickle in are collected before they are handed to the system.
const COLLECT: Duration = Duration::from_millis(200);
/// The clock is looked at once in so many results while they come fast, so that it costs nothing.
const STRIDE: u64 = 64;
/// Results come fast if a stride, or the result since the last look, took less than this.
const FAST: Duration = Duration::from_micros(100);

/// Says when results that come one by one, without a pause, are due to be seen.
pub(crate) struct Trickle {
    flushed: Instant,
    looked: Instant,
    next_look: u64,
}

impl Trickle {
    pub(crate) fn new() -> Trickle {
        Trickle { flushed: Instant::now(), looked: Instant::now(), next_look: 1 }
    }

    pub(crate) fn is_due(&mut self, results: u64) -> bool {
        if results < self.next_look {
            return false;
        }
        let now = Instant::now();
        self.next_look = results + if now - self.looked < FAST { STRIDE } else { 1 };
        self.looked = now;
        let is_due = now - self.flushed > COLLECT;
        if is_due {
            self.flushed = now;
        }
        is_due
    }
}
