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

    /// Returns how long the loop may sleep; `None` if it may sleep until it is woken. Zero is returned once, after the time is
    /// over, for results that came before it and did not wake the loop.
    pub(super) fn remaining(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let remaining = self.until?.saturating_duration_since(now());
        if remaining.is_zero() {
            self.until = None;
        }
        Some(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_looks_once_more_when_results_wake_it_again() {
        let mut coalescing = Coalescing::default();
        let now = Instant::now();
        assert_eq!(coalescing.remaining(|| now), None);
        coalescing.sent(now);
        assert_eq!(coalescing.remaining(|| now + COALESCE_TIME / 5), Some(COALESCE_TIME * 4 / 5));
        assert_eq!(coalescing.remaining(|| now + COALESCE_TIME * 2), Some(Duration::ZERO));
        assert_eq!(coalescing.remaining(|| now + COALESCE_TIME * 2), None);
    }
}
