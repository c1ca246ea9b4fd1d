//! Decides when a run that has a time limit stops: early enough for running jobs, for the end of processes, and for the last writes.
//! Pure: times are arguments.

// Pure: see clippy.toml.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::policy::TIME_LIMIT_MARGIN;

/// The time limit of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The run must have ended by then.
    pub at: Instant,
    /// What the limit is, in words, for messages.
    pub source: &'static str,
}

/// The number of measured durations that count: those of the last jobs.
const RECENT: usize = 128;
/// A duration is expected that this share of jobs, in percent, does not exceed.
const QUANTILE: usize = 90;

/// The times at which a run with a time limit stops, since its beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Deadline {
    /// At this time the processes of jobs that still run are ended.
    jobs_end: Duration,
    /// The time that running jobs have, at least, after the last job was started.
    grace: Duration,
}

impl Deadline {
    /// Makes the deadline of a run that has to be at its end after the time `left`. A short time is divided: a quarter of it, at
    /// most, is for the grace time, and a quarter for the end of processes and the last writes.
    pub(super) fn new(left: Duration, grace: Duration, kill_after: Duration) -> Deadline {
        let quarter = left / 4;
        let reserve = kill_after.saturating_add(TIME_LIMIT_MARGIN).min(quarter);
        Deadline { jobs_end: left - reserve, grace: grace.min(quarter) }
    }

    /// Returns the grace time of running jobs if, at the time `now`, no more jobs are to be started: because the grace time begins,
    /// or because a job of the duration `expected` would not end in time.
    pub(super) fn grace_from(&self, now: Duration, expected: Option<Duration>) -> Option<Duration> {
        let left = self.jobs_end.saturating_sub(now);
        (left <= self.grace.max(expected.unwrap_or_default())).then_some(left)
    }
}

/// The measured durations of the last jobs.
#[derive(Debug, Default)]
pub(super) struct Durations(VecDeque<Duration>);

impl Durations {
    pub(super) fn add(&mut self, duration: Duration) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    /// Returns the duration that few of the last jobs have exceeded; `None` if there were none.
    pub(super) fn expected(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get((sorted.len() * QUANTILE).div_ceil(100).saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_run_stops_when_grace_time_end_of_processes_and_last_writes_just_fit() {
        let deadline = Deadline::new(HOUR, 20 * SECOND, 5 * SECOND);
        let jobs_end = HOUR - 5 * SECOND - TIME_LIMIT_MARGIN;
        assert_eq!(deadline.grace_from(jobs_end - 21 * SECOND, None), None);
        assert_eq!(deadline.grace_from(jobs_end - 20 * SECOND, None), Some(20 * SECOND));
        assert_eq!(deadline.grace_from(jobs_end - 15 * SECOND, Some(SECOND)), Some(15 * SECOND));
        assert_eq!(deadline.grace_from(2 * HOUR, None), Some(Duration::ZERO));
    }

    #[test]
    fn no_job_is_started_that_could_not_end_and_those_that_run_have_all_the_time() {
        let deadline = Deadline::new(HOUR, 20 * SECOND, Duration::ZERO);
        let jobs_end = HOUR - TIME_LIMIT_MARGIN;
        assert_eq!(deadline.grace_from(jobs_end - 601 * SECOND, Some(600 * SECOND)), None);
        assert_eq!(deadline.grace_from(jobs_end - 600 * SECOND, Some(600 * SECOND)), Some(600 * SECOND));
        assert_eq!(deadline.grace_from(Duration::ZERO, Some(2 * HOUR)), Some(jobs_end), "at once, if none can end");
    }

    #[test]
    fn half_of_a_short_time_is_left_for_jobs() {
        let deadline = Deadline::new(4 * SECOND, 20 * SECOND, 5 * SECOND);
        assert_eq!(deadline.grace_from(SECOND, None), None);
        assert_eq!(deadline.grace_from(2 * SECOND, None), Some(SECOND));
        assert_eq!(deadline.grace_from(SECOND, Some(2 * SECOND)), Some(2 * SECOND));
        let over = Deadline::new(Duration::ZERO, 20 * SECOND, 5 * SECOND);
        assert_eq!(over.grace_from(Duration::ZERO, None), Some(Duration::ZERO));
    }

    #[test]
    fn nine_of_ten_recent_jobs_take_no_longer_than_is_expected() {
        let mut durations = Durations::default();
        assert_eq!(durations.expected(), None);
        durations.add(7 * SECOND);
        assert_eq!(durations.expected(), Some(7 * SECOND));
        (1..=10).for_each(|seconds| durations.add(seconds * SECOND));
        assert_eq!(durations.expected(), Some(9 * SECOND), "1 to 10, and another 7");
        (0..RECENT).for_each(|_| durations.add(SECOND));
        assert_eq!(durations.expected(), Some(SECOND), "what is long ago does not count");
    }
}
