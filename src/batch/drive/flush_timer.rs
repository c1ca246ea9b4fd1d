//! The times at which outputs are flushed while results keep coming.

use std::time::{Duration, Instant};

use crate::batch::policy::FLUSH_PERIOD;

/// While results come fast, the clock is read once in this number of results.
const STRIDE: u64 = 64;
/// Results come fast if less than this time has passed since the clock was last read.
const FAST: Duration = Duration::from_micros(100);

/// Reports when outputs are due to be flushed although results come without a pause.
pub(super) struct FlushTimer {
    flushed: Instant,
    looked: Instant,
    next_look: u64,
}

impl FlushTimer {
    pub(super) fn new() -> FlushTimer {
        let now = Instant::now();
        FlushTimer { flushed: now, looked: now, next_look: 1 }
    }

    /// Whether a flush is due, with this number of results so far. If so, the time until the next one begins.
    pub(super) fn take_due(&mut self, results: u64) -> bool {
        results >= self.next_look && self.take_due_at(Instant::now(), results)
    }

    fn take_due_at(&mut self, now: Instant, results: u64) -> bool {
        self.next_look = results + if now - self.looked < FAST { STRIDE } else { 1 };
        self.looked = now;
        let is_due = now - self.flushed > FLUSH_PERIOD;
        if is_due {
            self.flushed = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_due_after_its_period_and_the_clock_is_read_rarely_while_results_come_fast() {
        let mut timer = FlushTimer::new();
        let start = timer.flushed;
        assert!(!timer.take_due_at(start, 1));
        assert_eq!(timer.next_look, 1 + STRIDE);
        assert!(!timer.take_due(STRIDE), "the clock is not read yet");
        assert!(!timer.take_due_at(start + FLUSH_PERIOD, 65), "not a moment too early");
        assert_eq!(timer.next_look, 66, "results come slowly");
        assert!(timer.take_due_at(start + FLUSH_PERIOD + FAST, 66));
        assert!(!timer.take_due_at(start + FLUSH_PERIOD + 2 * FAST, 67), "the period begins anew");
    }
}
