//! Batching of results: decides how long the loop may sleep after it has sent some.

use std::time::{Duration, Instant};

/// The longest time that results wait while the rank has other chunks to run.
pub(super) const GATHER: Duration = Duration::from_micros(500);

/// The time at which the loop must look for results that did not wake it because others were sent just before.
#[derive(Debug, Default)]
pub(super) struct Gather {
    until: Option<Instant>,
}

impl Gather {
    /// Records that results were sent: results that follow within [`GATHER`] do not wake the loop while chunks wait.
    pub(super) fn sent(&mut self, now: Instant) {
        self.until = Some(now + GATHER);
    }

    /// Returns how long the loop may sleep; `None` if it may sleep until it is woken. Zero is returned once, after the time is
    /// over, for results that came before it and did not wake the loop.
    pub(super) fn left(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now());
        if left.is_zero() {
            self.until = None;
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_looks_once_more_when_results_wake_it_again() {
        let mut gather = Gather::default();
        let now = Instant::now();
        assert_eq!(gather.left(|| now), None);
        gather.sent(now);
        assert_eq!(gather.left(|| now + GATHER / 5), Some(GATHER * 4 / 5));
        assert_eq!(gather.left(|| now + GATHER * 2), Some(Duration::ZERO));
        assert_eq!(gather.left(|| now + GATHER * 2), None);
    }
}
