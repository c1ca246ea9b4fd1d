//! Results that leave together: how long the loop may sleep after it has sent some.

use std::time::{Duration, Instant};

/// How long results may lie while the rank has other chunks to work on.
pub(super) const GATHER: Duration = Duration::from_micros(500);

/// When the loop must look for results that did not wake it, because others were sent just before.
#[derive(Debug, Default)]
pub(super) struct Gather {
    until: Option<Instant>,
}

impl Gather {
    /// Results were sent: those that come within [`GATHER`] from now do not wake the loop while chunks wait.
    pub(super) fn sent(&mut self, now: Instant) {
        self.until = Some(now + GATHER);
    }

    /// How long the loop may sleep; zero is for one more look now that later results wake it. `None`: until it is woken.
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
