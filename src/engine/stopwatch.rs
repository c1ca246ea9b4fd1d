//! How much of a chunk's time goes into the function of its jobs alone. Reading the inputs and writing the results is work, too,
//! but not what the user came for.
//!
//! Two readings of the clock take some 50 ns, which a job of 50 ns must not pay. So a long job is always measured, and of short
//! ones only so many that measuring takes a hundredth of the time. The gaps between them are drawn, so that a pattern in the jobs
//! does not meet one in the gaps. A job that is not measured counts as much as the mean of those that were measured last. A chunk is
//! never said to be useful for longer than it took; what its estimate was too long is left for the next chunks.
//!
//! A stopwatch belongs to one thread and one map. It stays from chunk to chunk: a chunk may be a single short job.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// From this length on, every job is measured.
const ALWAYS_NS: f64 = 5_000.0;
/// At least one of so many jobs is measured, on average.
const LARGEST_PERIOD: f64 = 256.0;
/// The mean for jobs that are not measured is that of at most so many that were.
const MEMORY: u32 = 128;
/// The mean duration of a job, which decides how many are measured, is that of about so many jobs.
const SMOOTH: f64 = 64.0;
/// What a chunk leaves for the next ones, at most, if its estimate was longer than the chunk.
const CARRIED_NS: u64 = 1_000_000;

/// Measures the function of a map's jobs on one thread.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    clock: fn() -> Instant,
    /// What a reading of the clock takes, which is in each measured time.
    clock_ns: u64,
    /// How many calls are left until the next one that is measured, itself included. 0: that one is under way.
    left: u64,
    /// How many calls there are from the last one that was measured to the next one, which is included.
    gap: u64,
    /// How many of these were in chunks before this one.
    before: u64,
    /// When the call that is measured began.
    begun: Option<Instant>,
    /// One of so many calls is measured, on average.
    period: u64,
    /// How long a job of the last chunks was on average, with all that is done for it.
    job_ns: f64,
    recent: Recent,
    /// By how much the estimates of earlier chunks were longer than these chunks. Their jobs were shorter than the mean, so that
    /// others are longer.
    carried_ns: u64,
    chunk: Chunk,
    random: u64,
}

/// The calls that were measured last. Each stands for those that were not measured before it, too.
#[derive(Debug, Clone, Default)]
struct Recent {
    measured: u32,
    calls: f64,
    ns: f64,
    mean_ns: f64,
}

/// The chunk at hand.
#[derive(Debug, Clone, Default)]
struct Chunk {
    /// The calls up to the one that was measured last.
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

/// What a reading of a clock takes at least.
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

/// One of how many jobs of this length is to be measured.
fn period(job_ns: f64) -> u64 {
    (ALWAYS_NS / job_ns.max(1.0)).ceil().min(LARGEST_PERIOD) as u64
}

impl Stopwatch {
    /// With this clock, a reading of which takes so long.
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

    /// Calls the function of a job. If that panics, [`stop`](Self::stop) is to be called.
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

    /// The call has ended.
    #[cold]
    #[inline(never)]
    pub(crate) fn stop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let ns = nanos((self.clock)().saturating_duration_since(begun)).saturating_sub(self.clock_ns);
        self.chunk.calls += self.gap - self.before;
        self.chunk.measured += 1;
        self.chunk.measured_ns = self.chunk.measured_ns.saturating_add(ns);
        self.recent.add(self.gap, ns);
        // Growing slowly: the first jobs may be the only short ones.
        self.period = period(self.job_ns.max(ns as f64)).min(2 * self.period);
        self.before = 0;
        self.draw_gap();
    }

    /// Draws which call is measured next: one that is the period from here, on average.
    fn draw_gap(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.left = 1 + self.random % (2 * self.period - 1);
        self.gap = self.before + self.left;
    }

    /// Whether nothing was measured yet.
    #[cfg(test)]
    pub(crate) fn is_new(&self) -> bool {
        self.recent.measured == 0
    }

    /// A chunk that has taken so long is over. The answer is how much of that was in the function of its jobs.
    pub(crate) fn end_chunk(&mut self, wall_ns: u64) -> u64 {
        let chunk = std::mem::take(&mut self.chunk);
        let since_measured = self.gap - self.left;
        let calls = chunk.calls + since_measured - self.before;
        self.before = since_measured;
        if calls > 0 {
            let mean = wall_ns as f64 / calls as f64;
            self.job_ns += (mean - self.job_ns) * (calls as f64 / SMOOTH).min(1.0);
            // Jobs have become longer: the gap that was drawn for short ones does not hold any more.
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
    /// A call of this length was measured, the first after `calls - 1` that were not.
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
