//! How long the jobs of a map take, and how many of them travel together.
//!
//! Works on durations that the shell measured; integers only, so that a run can be replayed on any machine.

use std::num::NonZeroU64;

use super::event::ChunkSize;
use super::roster::Gain;

/// A chunk should keep a thread busy at least this long (ns): a message costs the master and the worker a few
/// microseconds each, so that 2 ms keeps the cost of travelling well below one percent.
pub(super) const CHUNK_TIME: u64 = 2_000_000;

/// The same where another process is asked for the results (ns). With each chunk it runs dry for about 80 µs, while two threads
/// wake each other.
const COARSE_CHUNK_TIME: u64 = 50_000_000;

/// Chunk time asked for per thread of the pool (ns). The master handles `threads / chunk time` chunks a second, so
/// that 4 µs per thread bounds it to 250 000 chunks a second however many threads there are.
const CHUNK_TIME_PER_THREAD: u64 = 4_000;

/// No chunk is planned for longer than this (ns): results should keep coming in.
const CHUNK_TIME_MAX: u64 = 1_000_000_000;

/// Near the end of the queue chunks shrink, but not below this much work (ns), or the messages would cost more than
/// the better balance gains.
const CHUNK_TIME_MIN: u64 = 100_000;

/// The same per thread of the pool (ns), so that the master keeps up with small chunks for all. On 16 384 ranks and
/// jobs of 1 ms this saves a fifth of the messages; 1 µs leaves half of them, but lets stragglers run 40 % longer.
const CHUNK_TIME_MIN_PER_THREAD: u64 = 250;

/// A chunk is fetched back for an idle thread if that brings at least this much work (ns): the messages and the wait
/// for them take a good part of it. With 1 ms, a slow rank keeps a pool waiting for chunks of a few milliseconds.
const RECALL_TIME: u64 = 500_000;

/// The same per thread of the pool (ns): when all are idle at once, the master has a message each way to handle for
/// each of them. Without it, 16 384 ranks at the end of a map of 10 µs jobs send three times as many messages as with
/// it, and forty times as many if chunks may not get smaller than 1 µs per thread: the same chunks go to and fro.
///
/// A chunk that runs is cut only if it has twice this, so that what is dealt again is cut into smaller chunks: they
/// have at least `CHUNK_TIME_MIN`, a quarter of this or less. That is why recalls come to an end.
const RECALL_TIME_PER_THREAD: u64 = 1_000;

/// No chunk has more jobs than this: its answer must stay a message of reasonable size.
pub(super) const CHUNK_JOBS_MAX: u64 = 16_384;

/// While durations are being learned, a finished chunk lets the next ones be this many times larger.
const GROWTH: u64 = 8;

/// A job of unknown duration counts as this long (ns): longer than the horizon of a rank's credit, so that no rank
/// hoards jobs that may be hours long, and long enough to be worth fetching back.
pub(super) const UNKNOWN_JOB: u64 = 4_000_000;

/// No estimate of a chunk is longer than this (ns, about three days), so that sums of them stay far from overflow.
const ESTIMATE_MAX: u64 = 1 << 48;

/// No chunk kept a thread busy for longer than this (ns, about a year), so that it can be counted in 1/256 ns.
const BUSY_MAX: u64 = 1 << 55;

/// Fixed-point: durations of jobs are kept in 1/256 ns, since a job may take a few nanoseconds.
const FRACTION_BITS: u32 = 8;

/// The mean duration of a job of a function in earlier maps, in 1/256 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Expected(NonZeroU64);

/// What is known about the duration of a map's jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pace {
    chunk: ChunkSize,
    /// Mean duration of a job in 1/256 ns, an exponentially weighted average over chunks; 0 is unknown.
    mean: u64,
    /// No chunk is larger while durations are being learned.
    limit: u64,
}

impl Pace {
    /// `expected` is what an earlier pace of the same function said. It lets the first chunks be as large as one finished chunk
    /// would: no larger, since other inputs may take much longer.
    pub(super) fn new(chunk: ChunkSize, expected: Option<Expected>) -> Self {
        match expected {
            Some(Expected(mean)) => Self { chunk, mean: mean.get(), limit: GROWTH },
            None => Self { chunk, mean: 0, limit: 1 },
        }
    }

    /// What later maps of the same function may expect.
    pub(super) fn expected(&self) -> Option<Expected> {
        NonZeroU64::new(self.mean).map(Expected)
    }

    /// Takes in that `count` jobs kept a thread busy for `busy` ns.
    pub(super) fn learn(&mut self, busy: u64, count: u64) {
        let sample = ((busy.min(BUSY_MAX) << FRACTION_BITS) / count.max(1)).max(1);
        self.mean = match self.mean {
            0 => sample,
            // Jobs that got much longer must show at once: chunks that are too long hurt, too short ones only cost.
            mean if sample / 4 > mean => mean / 2 + sample / 2,
            mean => mean - mean / 8 + sample / 8,
        }
        .max(1);
        self.limit = (self.limit * GROWTH).min(CHUNK_JOBS_MAX);
    }

    /// The estimated duration in ns of a chunk of `count` jobs. While durations are being learned, a chunk counts as a
    /// full one at least, lest a rank is flooded with small chunks a moment before they would have been large.
    pub(super) fn estimate(&self, count: u64, threads: u64) -> u64 {
        let work = self.duration(count);
        let learning = self.is_automatic() && self.limit < self.jobs_in(self.chunk_time(threads));
        if learning { work.max(CHUNK_TIME) } else { work }
    }

    /// The mean duration in ns of this number of jobs, as far as it is known.
    fn duration(&self, jobs: u64) -> u64 {
        let mean = if self.mean == 0 { UNKNOWN_JOB << FRACTION_BITS } else { self.mean };
        let duration = (u128::from(mean) * u128::from(jobs)) >> FRACTION_BITS;
        u64::try_from(duration).unwrap_or(u64::MAX).min(ESTIMATE_MAX)
    }

    /// The work that a recall of a chunk of `jobs` jobs would bring back, if it waits and if it runs; 0 if it is not worth it. By
    /// the same durations as the sizes of chunks, without the floor of [`Self::estimate`]: jobs that are so short that
    /// they are dealt in one chunk are not worth a recall.
    pub(super) fn gain(&self, jobs: u64, threads: u64) -> Gain {
        let work = self.duration(jobs);
        let worth = |gain: u64| if gain >= recall_time(threads) { gain } else { 0 };
        // A chunk of a size asked for is not cut, and of one that runs a thread is halfway through on average.
        let cut = work / jobs.max(1) * jobs.saturating_sub(1) / 2;
        let running = if self.is_automatic() && jobs > 1 { worth(cut) } else { 0 };
        Gain { waiting: worth(work), running }
    }

    /// How many jobs a chunk should have when `queued` are there for a pool of `threads` threads.
    pub(super) fn chunk_jobs(&self, queued: u64, threads: u64) -> u64 {
        match self.chunk {
            ChunkSize::Fixed(jobs) => u64::from(jobs.get()),
            ChunkSize::Auto | ChunkSize::Coarse => {
                let share = queued.div_ceil(threads.saturating_mul(2).max(1));
                self.full_chunk_jobs(threads).min(share.max(self.jobs_in(least_time(threads))))
            }
        }
    }

    /// How many jobs a chunk should have when `jobs` jobs were recalled because nothing happened: one of them may block the others.
    /// However short they are, a second recall makes smaller chunks.
    pub(super) fn parted_chunk_jobs(&self, jobs: u64, queued: u64, threads: u64) -> u64 {
        let size = self.chunk_jobs(queued, threads);
        if self.is_automatic() { size.min(jobs.div_ceil(threads.saturating_mul(2).max(1))) } else { size }
    }

    /// How many jobs a chunk has while the queue is long.
    pub(super) fn full_chunk_jobs(&self, threads: u64) -> u64 {
        match self.chunk {
            ChunkSize::Fixed(jobs) => u64::from(jobs.get()),
            ChunkSize::Auto | ChunkSize::Coarse => self.jobs_in(self.chunk_time(threads)).min(self.limit),
        }
    }

    pub(super) fn is_automatic(&self) -> bool {
        !matches!(self.chunk, ChunkSize::Fixed(_))
    }

    /// How long a chunk should keep a thread busy in a pool of `threads` threads, in ns.
    fn chunk_time(&self, threads: u64) -> u64 {
        let least = if self.chunk == ChunkSize::Coarse { COARSE_CHUNK_TIME } else { CHUNK_TIME };
        threads.saturating_mul(CHUNK_TIME_PER_THREAD).clamp(least, CHUNK_TIME_MAX)
    }

    /// How many jobs take about `time` ns: at least one, and one when durations are unknown.
    fn jobs_in(&self, time: u64) -> u64 {
        (time << FRACTION_BITS).checked_div(self.mean).unwrap_or(1).clamp(1, CHUNK_JOBS_MAX)
    }
}

/// How much work a chunk should have at least near the end of the queue, in ns.
fn least_time(threads: u64) -> u64 {
    threads.saturating_mul(CHUNK_TIME_MIN_PER_THREAD).clamp(CHUNK_TIME_MIN, CHUNK_TIME_MAX)
}

/// How much work makes a recall worth it, in ns.
fn recall_time(threads: u64) -> u64 {
    threads.saturating_mul(RECALL_TIME_PER_THREAD).max(RECALL_TIME)
}
