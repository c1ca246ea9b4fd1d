//! How many requests a worker is given ahead, and when to look for its answers.
//!
//! Of short ones it has many, so that a round trip costs no waiting; of long ones only one, so that a slow job does not hold others
//! back that another thread could run. The first one is always alone: a worker that answers twice is found out. A look for each answer would cost a worker with short jobs as much time
//! as they take, since both run on the same CPU: so nobody looks while it has enough to do.

use std::time::Duration;

/// As much work is ahead as takes this long.
const AHEAD: Duration = Duration::from_millis(5);
/// Of requests that take no longer than this there are at least two.
const SHORT: Duration = Duration::from_millis(20);
const MOST: usize = 512;
/// A shorter nap is not worth it: the system's timers are not finer.
const SHORTEST_NAP: Duration = Duration::from_micros(100);
/// What a pipe holds for sure, so that a worker is not kept from writing.
const PIPE: usize = 1 << 15;

#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
    /// How long a request takes, rather less than more; zero is unknown.
    each: Duration,
    /// How long an answer is, in bytes.
    answer: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { window: 1, each: Duration::ZERO, answer: 0 }
    }

    /// How many requests may be unanswered.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// So many requests took so long and were answered with so many bytes. With `late`, the worker may have waited for more.
    pub(super) fn took(&mut self, requests: usize, time: Duration, bytes: usize, late: bool) {
        let requests = requests.max(1);
        let each = time / u32::try_from(requests).unwrap_or(u32::MAX);
        self.each = if late { each.min(self.each) / 2 } else { each };
        self.answer = bytes / requests;
        let fits = AHEAD.as_nanos() / each.as_nanos().max(1);
        let least = if each < SHORT { 2 } else { 1 };
        self.window = usize::try_from(fits).unwrap_or(MOST).clamp(least, (self.window * 2).min(MOST));
    }

    /// How long nobody need look, now that there are so many unanswered requests.
    pub(super) fn nap(&self, requests: usize) -> Option<Duration> {
        // At half a window more is sent. Where there is no more, the last answer is not waited for.
        let enough = if requests >= self.window { requests - self.window / 2 } else { requests.saturating_sub(1) };
        let enough = enough.min(PIPE / self.answer.max(1));
        let nap = self.each * u32::try_from(enough).unwrap_or(u32::MAX);
        (enough > 1 && nap >= SHORTEST_NAP).then(|| nap.min(AHEAD))
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        *self = Pace::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn nobody_looks_while_half_a_window_is_being_answered() {
        let mut pace = Pace::new();
        assert_eq!((pace.window(), pace.nap(1)), (1, None));
        for _ in 0..20 {
            pace.took(1, micros(50), 10, false);
        }
        assert_eq!(pace.window(), 100);
        assert_eq!(pace.nap(100), Some(micros(2500)));
        assert_eq!(pace.nap(60), Some(micros(2950)), "there is no more, and the last one is not waited for");
        assert_eq!(pace.nap(2), None);
        pace.took(10, micros(500), 100_000, false);
        assert_eq!(pace.nap(100), Some(micros(150)), "the pipe holds three of these");
    }

    #[test]
    fn a_nap_that_was_too_long_makes_the_next_ones_shorter() {
        let mut pace = Pace::new();
        (0..20).for_each(|_| pace.took(1, micros(50), 10, false));
        // They take 1 µs by now, but the nap hides that.
        let mut nap = pace.nap(100);
        while let Some(time) = nap {
            pace.took(100, time, 1000, true);
            let next = pace.nap(100);
            assert!(next.is_none_or(|next| next < time));
            nap = next;
        }
    }

    #[test]
    fn slow_requests_are_given_one_at_a_time() {
        let mut pace = Pace::new();
        for (each, window) in [(25_000, 1), (10_000, 2), (1_000, 4), (1_000, 5), (25_000, 1)] {
            pace.took(1, micros(each), 10, false);
            assert_eq!(pace.window(), window);
        }
        pace.forget();
        assert_eq!(pace.window(), 1);
    }
}
