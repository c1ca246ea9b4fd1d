//! How many requests a worker is given ahead, and when to look for its answers.
//!
//! Of short ones it has many, so that a round trip costs no waiting; of long ones only one, so that a slow job does not hold others
//! back that another thread could run. The first one is always alone: a worker that answers twice is found out.
//!
//! A look for each answer would take much of the CPU that a worker with short jobs needs: so nobody looks while it has enough to do.

use std::time::Duration;

/// As much work is ahead as takes this long.
const AHEAD: Duration = Duration::from_millis(20);
/// Of requests that take no longer than this there are at least two.
const SHORT: Duration = Duration::from_millis(20);
const MOST: usize = 512;
/// A shorter poll_delay is not worth it: the system's timers are not finer.
const SHORTEST_NAP: Duration = Duration::from_micros(100);
/// What is left of the past after each look.
const MEMORY: f64 = 0.75;
/// What a pipe holds for sure, so that a worker is not kept from writing.
const PIPE: usize = 1 << 15;

#[derive(Debug)]
pub(super) struct RequestPace {
    window: usize,
    /// Sums in which what was long ago counts less: who looks between two answers takes a part of one request's time for another's.
    requests: f64,
    seconds: f64,
    bytes: f64,
}

impl RequestPace {
    pub(super) fn new() -> Self {
        RequestPace { window: 1, requests: 0.0, seconds: 0.0, bytes: 0.0 }
    }

    /// How many requests may be unanswered.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// So many requests took so long and were answered with so many bytes. With `late`, the worker may have waited for more.
    pub(super) fn took(&mut self, requests: usize, time: Duration, bytes: usize, late: bool) {
        self.requests = self.requests * MEMORY + requests as f64;
        self.seconds = self.seconds * MEMORY + time.as_secs_f64();
        self.bytes = self.bytes * MEMORY + bytes as f64;
        if late {
            self.seconds /= 2.0;
        }
        let each = self.seconds / self.requests;
        let fits = (AHEAD.as_secs_f64() / each.max(1e-9)) as usize;
        let least = if each < SHORT.as_secs_f64() { 2 } else { 1 };
        self.window = fits.clamp(least, (self.window * 2).min(MOST));
    }

    /// How long nobody need look, now that there are so many unanswered requests.
    pub(super) fn poll_delay(&self, requests: usize) -> Option<Duration> {
        // At half a window more is sent. Where there is no more, the last answer is not waited for.
        let enough = if requests >= self.window { requests - self.window / 2 } else { requests.saturating_sub(1) };
        let enough = (enough as f64).min((PIPE as f64 * self.requests / self.bytes.max(1.0)).floor());
        let poll_delay = Duration::from_secs_f64(self.seconds / self.requests.max(1.0) * enough);
        (enough > 1.0 && poll_delay >= SHORTEST_NAP).then(|| poll_delay.min(AHEAD))
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        *self = RequestPace::new();
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
        let mut pace = RequestPace::new();
        assert_eq!((pace.window(), pace.poll_delay(1)), (1, None));
        for _ in 0..20 {
            pace.took(1, micros(50), 10, false);
        }
        assert_eq!(pace.window(), 400);
        assert_eq!(pace.poll_delay(400), Some(micros(10_000)));
        assert_eq!(pace.poll_delay(60), Some(micros(2950)), "there is no more, and the last one is not waited for");
        assert_eq!(pace.poll_delay(2), None);
        (0..20).for_each(|_| pace.took(1, micros(50), 10_000, false));
        assert_eq!(pace.poll_delay(400), Some(micros(150)), "the pipe holds three of these");
    }

    #[test]
    fn a_nap_that_was_too_long_makes_the_next_ones_shorter() {
        let mut pace = RequestPace::new();
        (0..20).for_each(|_| pace.took(1, micros(50), 10, false));
        // They take 1 µs by now, but the poll_delay hides that.
        let mut poll_delay = pace.poll_delay(100);
        while let Some(time) = poll_delay {
            pace.took(100, time, 1000, true);
            let next = pace.poll_delay(100);
            assert!(next.is_none_or(|next| next < time));
            poll_delay = next;
        }
    }

    #[test]
    fn slow_requests_are_given_one_at_a_time() {
        let mut pace = RequestPace::new();
        for (each, window) in [(25_000, 1), (15_000, 2), (900, 22), (1, 512), (25_000, 1)] {
            (0..40).for_each(|_| pace.took(1, micros(each), 10, false));
            assert_eq!(pace.window(), window);
        }
        pace.took(1, micros(10), 10, false);
        pace.forget();
        assert_eq!(pace.window(), 1);
    }

    #[test]
    fn looks_between_two_answers_do_not_change_the_estimate() {
        let mut pace = RequestPace::new();
        // One answer each 5 ms; who looks after 9.9 ms sees one, and 0.1 ms later the next.
        for _ in 0..20 {
            pace.took(1, micros(9_900), 10, false);
            pace.took(1, micros(100), 10, false);
            assert!(pace.window() <= 6, "{}", pace.window());
        }
        assert!((3..=6).contains(&pace.window()), "{}", pace.window());
    }
}
