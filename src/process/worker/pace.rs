//! How many requests a worker is sent ahead, and when the rank polls for its answers.
//!
//! Many short requests are sent ahead, so that a round trip costs no waiting. Long ones are sent one at a time, so that a slow job
//! does not hold back others that another thread could run. The first one is always alone, so that a worker that answers twice is
//! noticed.
//!
//! Polling for every answer would take much of the CPU that a worker with short jobs needs. So the rank does not poll while the
//! worker has enough to do.

use std::time::Duration;

/// Requests are sent ahead for this much computing time.
const AHEAD: Duration = Duration::from_millis(20);
/// At least two requests are unanswered if each takes less than this.
const SHORT: Duration = Duration::from_millis(20);
/// Most unanswered requests.
const MOST: usize = 512;
/// A shorter delay is not worth it: the system's timers are not finer.
const SHORTEST_DELAY: Duration = Duration::from_micros(100);
/// Weight of the past after each poll.
const DECAY: f64 = 0.75;
/// Before the rank does not poll, it has seen more requests than one: the first is often slow, since it loads what the others need.
const KNOWN: f64 = 3.0;
/// Bytes that a pipe certainly holds, so that a worker does not have to wait before it writes.
const PIPE: usize = 1 << 15;

#[derive(Debug)]
pub(in crate::process) struct RequestPace {
    window: usize,
    /// Exponentially decayed sums. A poll between two answers counts part of one request's time for the next; averaging over several
    /// polls evens that out.
    requests: f64,
    seconds: f64,
    bytes: f64,
    /// The time for a request at the last poll.
    last: f64,
}

impl RequestPace {
    pub(in crate::process) fn new() -> Self {
        RequestPace { window: 1, requests: 0.0, seconds: 0.0, bytes: 0.0, last: 0.0 }
    }

    /// Returns how many requests may be unanswered.
    pub(in crate::process) fn window(&self) -> usize {
        self.window
    }

    /// Records that `requests` requests took `time` and were answered with `bytes` bytes. With `late`, the worker may have been idle
    /// for a part of that time.
    pub(in crate::process) fn record(&mut self, requests: usize, time: Duration, bytes: usize, late: bool) {
        self.requests = self.requests * DECAY + requests as f64;
        self.seconds = self.seconds * DECAY + time.as_secs_f64();
        self.bytes = self.bytes * DECAY + bytes as f64;
        if late {
            self.seconds /= 2.0;
        }
        self.last = time.as_secs_f64() / requests.max(1) as f64;
        let each = self.seconds / self.requests;
        let fits = (AHEAD.as_secs_f64() / each.max(1e-9)) as usize;
        let least = if each < SHORT.as_secs_f64() { 2 } else { 1 };
        self.window = fits.clamp(least, (self.window * 2).min(MOST));
    }

    /// Returns how long the rank need not poll while `requests` requests are unanswered. A worker that is out of work costs more than a
    /// poll, so the requests are expected to be as short as those at the last poll, if these were shorter than the average.
    pub(in crate::process) fn poll_delay(&self, requests: usize) -> Option<Duration> {
        if self.requests < KNOWN {
            return None;
        }
        // More is sent when the window is half empty. If there is no more to send, the delay ends before the last answer.
        let enough = if requests >= self.window { requests - self.window / 2 } else { requests.saturating_sub(1) };
        let enough = (enough as f64).min((PIPE as f64 * self.requests / self.bytes.max(1.0)).floor());
        let delay = Duration::from_secs_f64((self.seconds / self.requests).min(self.last) * enough);
        (enough > 1.0 && delay >= SHORTEST_DELAY).then(|| delay.min(AHEAD))
    }

    /// Forgets everything: the process is a new one.
    pub(in crate::process) fn reset(&mut self) {
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
    fn there_is_no_poll_while_half_a_window_is_being_answered() {
        let mut pace = RequestPace::new();
        assert_eq!((pace.window(), pace.poll_delay(1)), (1, None));
        for _ in 0..20 {
            pace.record(1, micros(50), 10, false);
        }
        assert_eq!(pace.window(), 400);
        assert_eq!(pace.poll_delay(400), Some(micros(10_000)));
        assert_eq!(
            pace.poll_delay(60),
            Some(micros(2950)),
            "there is no more to send, and the last answer is not waited for"
        );
        assert_eq!(pace.poll_delay(2), None);
        (0..20).for_each(|_| pace.record(1, micros(50), 10_000, false));
        assert_eq!(pace.poll_delay(400), Some(micros(150)), "the pipe holds three of these");
    }

    #[test]
    fn a_delay_that_was_too_long_makes_the_next_ones_shorter() {
        let mut pace = RequestPace::new();
        (0..20).for_each(|_| pace.record(1, micros(50), 10, false));
        // They take 1 µs by now, but the delay hides that.
        let mut delay = pace.poll_delay(100);
        while let Some(time) = delay {
            pace.record(100, time, 1000, true);
            let next = pace.poll_delay(100);
            assert!(next.is_none_or(|next| next < time));
            delay = next;
        }
    }

    #[test]
    fn a_slow_first_request_delays_no_poll() {
        let mut pace = RequestPace::new();
        pace.record(1, micros(15_000), 10, false);
        assert_eq!((pace.window(), pace.poll_delay(2)), (2, None));
        pace.record(2, micros(60), 20, false);
        pace.record(2, micros(60), 20, false);
        let delay = pace.poll_delay(pace.window());
        assert!(delay.is_none_or(|delay| delay < micros(60 * 8)), "{delay:?}");
    }

    #[test]
    fn slow_requests_are_given_one_at_a_time() {
        let mut pace = RequestPace::new();
        for (each, window) in [(25_000, 1), (15_000, 2), (900, 22), (1, 512), (25_000, 1)] {
            (0..40).for_each(|_| pace.record(1, micros(each), 10, false));
            assert_eq!(pace.window(), window);
        }
        pace.record(1, micros(10), 10, false);
        pace.reset();
        assert_eq!(pace.window(), 1);
    }

    #[test]
    fn polls_between_two_answers_do_not_change_the_estimate() {
        let mut pace = RequestPace::new();
        // One answer each 5 ms: a poll after 9.9 ms finds one, and 0.1 ms later the next.
        for _ in 0..20 {
            pace.record(1, micros(9_900), 10, false);
            pace.record(1, micros(100), 10, false);
            assert!(pace.window() <= 6, "{}", pace.window());
        }
        assert!((3..=6).contains(&pace.window()), "{}", pace.window());
    }
}
