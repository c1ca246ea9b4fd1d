//! How fast jobs are settled and how long the rest takes, from a bounded number of readings of a counter.

use std::collections::VecDeque;
use std::time::Duration;

/// The most readings that are kept. When there are more, every second one is forgotten.
const MOST: usize = 128;
/// A rate is over at least this time, if the run has lasted that long.
const SHORTEST: Duration = Duration::from_secs(10);
/// A rate is over at least this number of jobs, if there were that many.
const FEWEST: u64 = 10;

/// Readings of the number of jobs that were run.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    readings: VecDeque<(Duration, u64)>,
    /// The shortest time from one kept reading to the next.
    step: Duration,
}

impl Pace {
    /// Adds a reading: the number of jobs at this time since the start. Readings that come too fast replace the last one.
    pub(crate) fn add(&mut self, at: Duration, jobs: u64) {
        let kept = self.readings.len();
        let before_last = kept.checked_sub(2).and_then(|index| self.readings.get(index));
        if before_last.is_some_and(|(before, _)| at.saturating_sub(*before) < self.step) {
            self.readings.pop_back();
        }
        self.readings.push_back((at, jobs));
        if self.readings.len() > MOST {
            let first = self.readings.front().map_or(at, |(first, _)| *first);
            self.step = (at.saturating_sub(first) * 2) / MOST as u32;
            let mut index = 0;
            self.readings.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Returns the jobs per second of late: over the last seconds, and over more time if jobs are longer than that.
    pub(crate) fn now(&self) -> Option<f64> {
        self.over(SHORTEST)
    }

    /// Returns the jobs per second over the last half of the run.
    fn steady(&self) -> Option<f64> {
        let (first, last) = (self.readings.front()?.0, self.readings.back()?.0);
        self.over((last.saturating_sub(first) / 2).max(SHORTEST))
    }

    /// Returns the jobs per second over at least this time and `FEWEST` jobs, or over the whole run.
    fn over(&self, time: Duration) -> Option<f64> {
        let (last, jobs) = *self.readings.back()?;
        let is_enough = |(at, before): &&(Duration, u64)| {
            last.saturating_sub(*at) >= time && jobs.saturating_sub(*before) >= FEWEST
        };
        let (first, before) = self.readings.iter().rev().find(is_enough).or(self.readings.front())?;
        let seconds = last.saturating_sub(*first).as_secs_f64();
        (seconds > 0.0).then(|| jobs.saturating_sub(*before) as f64 / seconds)
    }

    /// Whether any job was run.
    pub(crate) fn has_jobs(&self) -> bool {
        self.readings.back().is_some_and(|(_, jobs)| *jobs > 0)
    }

    /// Returns how long this number of jobs takes at the rate of the last half of the run; `None` if no job was run.
    pub(crate) fn time_for(&self, jobs: u64) -> Option<Duration> {
        if jobs == 0 {
            return Some(Duration::ZERO);
        }
        let rate = self.steady().filter(|rate| *rate > 0.0)?;
        Some(Duration::try_from_secs_f64(jobs as f64 / rate).unwrap_or(Duration::MAX))
    }
}

/// Returns a number with three significant digits: `0.0123`, `1.23`, `123`, `1.23 k`, `12.3 M`.
pub(crate) fn three_digits(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    // What would be rounded up to the next unit has that unit.
    let (scale, unit) = UNITS.into_iter().find(|(scale, _)| value >= 0.9995 * scale).unwrap_or((1.0, ""));
    let value = value / scale;
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let digits = (2 - (value * 1.0005).log10().floor() as i32).clamp(0, 8);
    format!("{value:.*}{unit}", digits as usize)
}

/// Returns a rate in the unit that suits it: `1.23 k jobs/s`, `5.00 jobs/min`, `2.50 jobs/h`.
pub(crate) fn rate_in_words(per_second: f64) -> String {
    let (rate, unit) = match per_second {
        rate if rate >= 0.5 || rate <= 0.0 => (rate, "s"),
        rate if rate >= 0.5 / 60.0 => (rate * 60.0, "min"),
        rate => (rate * 3600.0, "h"),
    };
    format!("{} jobs/{unit}", three_digits(rate))
}

/// Returns a time with two units at most: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 02 min`, `2 d 03 h`.
pub(crate) fn time_in_words(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        _ if time < Duration::from_millis(9_950) => format!("{:.1} s", time.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ if seconds < 86_400 * 10_000 => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
        _ => "years".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn is_near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found / expected - 1.0).abs() < 0.05)
    }

    #[test]
    fn a_rate_is_of_late_and_the_time_left_follows_the_last_half_of_the_run() {
        let mut pace = Pace::default();
        assert_eq!((pace.now(), pace.time_for(5)), (None, None));
        let mut jobs = 0;
        for tenth in 0..10_000_u64 {
            // 100 jobs/s, and 10 jobs/s in the last 100 s.
            jobs += if tenth < 9_000 { 10 } else { 1 };
            pace.add(Duration::from_millis(100 * tenth), jobs);
            assert!(pace.readings.len() <= MOST);
        }
        assert!(is_near(pace.now(), 10.0), "{:?}", pace.now());
        let steady = (400.0 * 100.0 + 100.0 * 10.0) / 500.0;
        assert!(
            is_near(pace.time_for(1000).map(|left| 1000.0 / left.as_secs_f64()), steady),
            "{:?}",
            pace.time_for(1000)
        );
    }

    #[test]
    fn the_time_left_grows_when_no_job_ends_and_never_jumps_to_nothing() {
        let mut pace = Pace::default();
        (0..100).for_each(|second| pace.add(seconds(second), second));
        let mut before = pace.time_for(50).unwrap();
        for second in 100..400 {
            pace.add(seconds(second), 99);
            let left = pace.time_for(50).unwrap();
            assert!(left + Duration::from_millis(1) >= before, "at {second} s: {left:?} after {before:?}");
            before = left;
        }
        assert!(before > seconds(150));
    }

    #[test]
    fn long_jobs_have_a_rate_too() {
        let mut pace = Pace::default();
        (0..=3600).for_each(|second| pace.add(seconds(second), second / 600));
        assert!(is_near(pace.now(), 6.0 / 3600.0), "{:?}", pace.now());
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (0.09999, "0.100"),
            (1.0, "1.00"),
            (9.999, "10.0"),
            (99.99, "100"),
            (999.4, "999"),
            (999.9, "1.00 k"),
            (12_345.0, "12.3 k"),
            (1_234_567.0, "1.23 M"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(three_digits(value), text, "{value}");
        }
        for (rate, text) in [(2.0, "2.00 jobs/s"), (0.1, "6.00 jobs/min"), (0.001, "3.60 jobs/h"), (0.0, "0 jobs/s")] {
            assert_eq!(rate_in_words(rate), text);
        }
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (time, text) in [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.6, "1 min 00 s"),
            (200.0, "3 min 20 s"),
            (3_720.0, "1 h 02 min"),
            (183_600.0, "2 d 03 h"),
        ] {
            assert_eq!(time_in_words(Duration::from_secs_f64(time)), text, "{time}");
        }
        assert_eq!(time_in_words(Duration::MAX), "years");
    }
}
