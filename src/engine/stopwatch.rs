//! Measures the useful time of a chunk: the time in the function of its jobs alone, without reading inputs and writing results.
//!
//! Two readings of the clock take about 50 ns, which would double the cost of a job of 50 ns. So each long job is measured, and of
//! short ones a sample, such that measuring takes a hundredth of the time. The gaps between measured jobs are random, so that the
//! sample does not follow a pattern in the jobs. A job that is not measured counts as the mean of the last measured ones. The
//! useful time of a chunk is at most its wall time; if the estimate is longer, the excess is carried to the next chunks.
//!
//! A stopwatch belongs to one thread and one map, and is kept from chunk to chunk: a chunk may be a single short job.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Jobs of at least this duration are all measured.
const ALWAYS_NS: f64 = 5_000.0;
/// The largest period: on average, at least one job in this number is measured.
const LARGEST_PERIOD: f64 = 256.0;
/// The largest number of measured jobs whose mean is used for jobs that are not measured.
const MEMORY: u32 = 128;
/// The number of jobs over which the mean duration is smoothed that decides the period.
const SMOOTH: f64 = 64.0;
/// The largest excess of an estimate that is carried to the next chunks.
const CARRIED_NS: u64 = 1_000_000;

/// Measures the function of a map's jobs on one thread.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    clock: fn() -> Instant,
    /// The duration of a reading of the clock, which is part of each measured time.
    clock_ns: u64,
    /// The number of calls until the next measured one, inclusive. 0: that one is under way.
    left: u64,
    /// The number of calls from the last measured one, exclusive, to the next one, inclusive.
    gap: u64,
    /// The number of these calls that were in earlier chunks.
    before: u64,
    /// The start of the call that is being measured.
    begun: Option<Instant>,
    /// On average, one call in this number is measured.
    period: u64,
    /// The mean wall time of a job in the last chunks, with reading its input and writing its result.
    job_ns: f64,
    recent: Recent,
    /// The excess of the estimates of earlier chunks over their wall times. Their jobs were shorter than the mean, so others are
    /// longer.
    carried_ns: u64,
    chunk: Chunk,
    random: u64,
}

/// The calls that were measured last. Each is weighted with the calls before it that were not measured.
#[derive(Debug, Clone, Default)]
struct Recent {
    measured: u32,
    calls: f64,
    ns: f64,
    mean_ns: f64,
}

/// The current chunk.
#[derive(Debug, Clone, Default)]
struct Chunk {
    /// The number of calls up to the last measured one.
    calls: u64,
    measured: u64,
    measured_ns: u64,
}

impl Default for Stopwatch {
    fn default() -> Self {
        static CLOCK_NS: OnceLock<u64> = OnceLock::new();
        Stopwatch::new(Instant::now, *CLOCK_NS.get_or_init(|| cost(Instant::now)))
    }
}

/// Returns the shortest duration of a reading of a clock.
fn cost(clock: fn() -> Instant) -> u64 {
    let reading = || {
        let begin = clock();
        nanos(clock().saturating_duration_since(begin))
    };
    (0..64).map(|_| reading()).min().unwrap_or(0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the period for jobs of this duration.
fn period(job_ns: f64) -> u64 {
    (ALWAYS_NS / job_ns.max(1.0)).ceil().min(LARGEST_PERIOD) as u64
}

impl Stopwatch {
    /// Makes a stopwatch with this clock, whose reading takes `clock_ns`.
    fn new(clock: fn() -> Instant, clock_ns: u64) -> Self {
        Stopwatch {
            clock,
            clock_ns,
            left: 1,
            gap: 1,
            before: 0,
            begun: None,
            period: 1,
            job_ns: 0.0,
            recent: Recent::default(),
            carried_ns: 0,
            chunk: Chunk::default(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Calls the function of a job. If it panics, the caller calls [`stop`](Self::stop).
    #[inline]
    pub(crate) fn time<T>(&mut self, function: impl FnOnce() -> T) -> T {
        self.left -= 1;
        if self.left == 0 {
            self.start();
        }
        let value = function();
        if self.left == 0 {
            self.stop();
        }
        value
    }

    #[cold]
    #[inline(never)]
    fn start(&mut self) {
        self.begun = Some((self.clock)());
    }

    /// Ends the measurement of a call, if one is under way.
    #[cold]
    #[inline(never)]
    pub(crate) fn stop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let ns = nanos((self.clock)().saturating_duration_since(begun)).saturating_sub(self.clock_ns);
        self.chunk.calls += self.gap - self.before;
        self.chunk.measured += 1;
        self.chunk.measured_ns = self.chunk.measured_ns.saturating_add(ns);
        self.recent.add(self.gap, ns);
        // The period grows slowly, because the first jobs may be the only short ones.
        self.period = period(self.job_ns.max(ns as f64)).min(2 * self.period);
        self.before = 0;
        self.draw_gap();
    }

    /// Draws the next call that is measured: on average `period` calls from here.
    fn draw_gap(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.left = 1 + self.random % (2 * self.period - 1);
        self.gap = self.before + self.left;
    }

    /// Whether no call was measured yet.
    #[cfg(test)]
    pub(crate) fn is_new(&self) -> bool {
        self.recent.measured == 0
    }

    /// Ends a chunk with this wall time and returns its useful time.
    pub(crate) fn end_chunk(&mut self, wall_ns: u64) -> u64 {
        let chunk = std::mem::take(&mut self.chunk);
        let since_measured = self.gap - self.left;
        let calls = chunk.calls + since_measured - self.before;
        self.before = since_measured;
        if calls > 0 {
            let mean = wall_ns as f64 / calls as f64;
            self.job_ns += (mean - self.job_ns) * (calls as f64 / SMOOTH).min(1.0);
            // Jobs have become longer, so a gap that was drawn for short ones is too long.
            if self.period > 1 && self.job_ns * (self.period - 1) as f64 >= ALWAYS_NS {
                self.period = period(self.job_ns);
                self.draw_gap();
            }
        }
        let estimated = self.recent.mean_ns * (calls - chunk.measured) as f64;
        let useful_ns = chunk.measured_ns.saturating_add(estimated as u64).saturating_add(self.carried_ns);
        self.carried_ns = useful_ns.saturating_sub(wall_ns).min(CARRIED_NS);
        useful_ns.min(wall_ns)
    }
}

impl Recent {
    /// Adds a measured call with this duration, the first after `calls - 1` that were not measured.
    fn add(&mut self, calls: u64, ns: u64) {
        if self.measured == MEMORY {
            (self.measured, self.calls, self.ns) = (MEMORY / 2, self.calls / 2.0, self.ns / 2.0);
        }
        self.measured += 1;
        self.calls += calls as f64;
        self.ns += calls as f64 * ns as f64;
        self.mean_ns = self.ns / self.calls;
    }
}

#[cfg(test)]
mod tests;
