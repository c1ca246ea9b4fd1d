//! Batching of results: decides how long the loop may sleep after it has sent some.

use std::time::{Duration, Instant};

/// The longest time that results wait while the rank has other chunks to run: a part of the time for which it has work in advance
/// ([`CREDIT_TIME`](crate::engine::schedule)), so that the next chunks come in time.
pub(super) const COALESCE_TIME: Duration = Duration::from_millis(2);

/// This many results do not wait: the loop is woken seldom enough, and the driver has something to do.
pub(super) const COALESCE_JOBS: usize = 2048;

/// The time at which the loop must look for results that did not wake it because others were sent just before.
#[derive(Debug, Default)]
pub(super) struct Coalescing {
    until: Option<Instant>,
}

impl Coalescing {
    /// Records that results were sent: results that follow within [`COALESCE_TIME`] do not wake the loop while chunks wait.
    pub(super) fn sent(&mut self, now: Instant) {
        self.until = Some(now + COALESCE_TIME);
    }

    /// Whether the time is over: true once, for results that came before its end and did not wake the loop.
    pub(super) fn is_over(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now());
        if is_over {
            self.until = None;
        }
        is_over
    }

    /// Returns how long the loop may sleep; `None` if it may sleep until it is woken.
    pub(super) fn remaining(&self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_looks_once_more_when_results_wake_it_again() {
        let mut coalescing = Coalescing::default();
        let begin = Instant::now();
        let (early, late) = (|| begin + COALESCE_TIME / 5, || begin + COALESCE_TIME * 2);
        assert_eq!((coalescing.remaining(early), coalescing.is_over(late)), (None, false));
        coalescing.sent(begin);
        assert_eq!((coalescing.remaining(early), coalescing.is_over(early)), (Some(COALESCE_TIME * 4 / 5), false));
        assert_eq!((coalescing.remaining(late), coalescing.is_over(late)), (Some(Duration::ZERO), true));
        assert_eq!((coalescing.remaining(late), coalescing.is_over(late)), (None, false));
    }
}
