//! The duration of a map's jobs, and the number of jobs in a chunk.
//!
//! Works on durations that the ranks measured, with integers only, so that a run can be replayed on any machine.

use std::num::NonZeroU64;

use super::event::ChunkSize;
use super::ranks::Gain;

/// A chunk should keep a thread busy at least this long (ns): a message costs the master and the rank a few
/// microseconds each, so 2 ms keep the share of the messages well below one percent.
pub(super) const CHUNK_TIME: u64 = 2_000_000;

/// As `CHUNK_TIME`, for jobs that another process answers (ns). That process is out of work for about 80 µs after each chunk,
/// while two threads wake each other.
const COARSE_CHUNK_TIME: u64 = 50_000_000;

/// A chunk should take at least this time for each thread of the pool (ns). The master handles `threads / chunk time` chunks a
/// second, so 4 µs per thread bound that to 250 000 chunks a second, however many threads there are.
const CHUNK_TIME_PER_THREAD: u64 = 4_000;

/// No chunk is planned for longer than this (ns): results should keep coming in.
const CHUNK_TIME_MAX: u64 = 1_000_000_000;

/// Near the end of the queue chunks shrink, but not below this work (ns), or the messages would cost more than
/// the better balance gains.
const CHUNK_TIME_MIN: u64 = 100_000;

/// As `CHUNK_TIME_MIN`, for each thread of the pool (ns), so that the master keeps up with small chunks for all threads. With
/// 16 384 ranks and jobs of 1 ms this saves a fifth of the messages; 1 µs saves half of them, but the last chunks then take 40 %
/// longer.
const CHUNK_TIME_MIN_PER_THREAD: u64 = 250;

/// A chunk is recalled for an idle thread if that brings at least this much work (ns): the messages and the wait
/// for them take a good part of it. With 1 ms, a pool waits for a slow rank that holds chunks of a few milliseconds.
const RECALL_TIME: u64 = 500_000;

/// As `RECALL_TIME`, for each thread of the pool (ns): when all threads are idle at once, the master has to handle a message each
/// way for each of them. Without this limit, 16 384 ranks at the end of a map of 10 µs jobs send three times as many messages, and
/// forty times as many if chunks may not get smaller than 1 µs per thread: the same chunks are sent back and forth.
///
/// A chunk that runs is cut only if it has twice this work, so that the jobs given back make smaller chunks: these
/// have at least `CHUNK_TIME_MIN`, a quarter of this limit or less. That is why recalls terminate.
const RECALL_TIME_PER_THREAD: u64 = 1_000;

/// No chunk has more jobs than this: its answer must stay a message of reasonable size.
pub(super) const CHUNK_JOBS_MAX: u64 = 16_384;

/// While durations are being learned, each finished chunk allows the next ones to be this many times larger.
const GROWTH: u64 = 8;

/// The assumed duration of a job of unknown duration (ns): at least `CREDIT_TIME`, so that no rank holds many jobs that may take
/// hours, and long enough to be worth a recall.
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

/// The estimated duration of a map's jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pace {
    chunk: ChunkSize,
    /// Mean duration of a job in 1/256 ns, an exponentially weighted average over chunks; 0 if it is unknown.
    mean: u64,
    /// The largest number of jobs in a chunk while durations are being learned.
    limit: u64,
}

impl Pace {
    /// Returns the estimate for a new map. `expected` comes from an earlier map of the same function. It allows the first chunks
    /// to be as large as after two finished chunks, and no larger, since other inputs may take much longer: then these jobs wait
    /// behind each other until the scheduler notices that nothing happens.
    pub(super) fn new(chunk: ChunkSize, expected: Option<Expected>) -> Self {
        match expected {
            Some(Expected(mean)) => Self { chunk, mean: mean.get(), limit: GROWTH * GROWTH },
            None => Self { chunk, mean: 0, limit: 1 },
        }
    }

    /// Returns the estimate for later maps of the same function.
    pub(super) fn expected(&self) -> Option<Expected> {
        NonZeroU64::new(self.mean).map(Expected)
    }

    /// Updates the estimate: `count` jobs kept a thread busy for `busy` ns.
    pub(super) fn learn(&mut self, busy: u64, count: u64) {
        let sample = ((busy.min(BUSY_MAX) << FRACTION_BITS) / count.max(1)).max(1);
        self.mean = match self.mean {
            0 => sample,
            // Much longer jobs must change the estimate at once: chunks that are too long unbalance the ranks, while chunks that
            // are too short only cost messages.
            mean if sample / 4 > mean => mean / 2 + sample / 2,
            mean => mean - mean / 8 + sample / 8,
        }
        .max(1);
        self.limit = (self.limit * GROWTH).min(CHUNK_JOBS_MAX);
    }

    /// Returns the estimated duration in ns of a chunk of `count` jobs. While durations are being learned, it is at least that of
    /// a full chunk, so that a rank is not given many small chunks just before chunks become large.
    pub(super) fn estimate(&self, count: u64, threads: u64) -> u64 {
        let work = self.duration(count);
        let learning = self.is_automatic() && self.limit < self.jobs_in(self.chunk_time(threads));
        if learning { work.max(CHUNK_TIME) } else { work }
    }

    /// Returns the estimated duration of `jobs` jobs in ns.
    fn duration(&self, jobs: u64) -> u64 {
        let mean = if self.mean == 0 { UNKNOWN_JOB << FRACTION_BITS } else { self.mean };
        let duration = (u128::from(mean) * u128::from(jobs)) >> FRACTION_BITS;
        u64::try_from(duration).unwrap_or(u64::MAX).min(ESTIMATE_MAX)
    }

    /// Returns the work that a recall of a chunk of `jobs` jobs would bring back, if the chunk waits and if it runs. Uses the same
    /// durations as the sizes of chunks, without the minimum of [`Self::estimate`]: jobs that are short enough to travel in one
    /// chunk are not worth a recall.
    pub(super) fn gain(&self, jobs: u64, threads: u64) -> Gain {
        let work = self.duration(jobs);
        let worth = |gain: u64| if gain >= recall_time(threads) { gain } else { 0 };
        // Chunks of a fixed size are not cut; of a chunk that runs, half is left on average.
        let cut = work / jobs.max(1) * jobs.saturating_sub(1) / 2;
        let running = if self.is_automatic() && jobs > 1 { worth(cut) } else { 0 };
        Gain { waiting: worth(work), running }
    }

    /// Returns the size of the next chunk when `queued` jobs are left for a pool of `threads` threads.
    pub(super) fn chunk_jobs(&self, queued: u64, threads: u64) -> u64 {
        match self.chunk {
            ChunkSize::Fixed(jobs) => u64::from(jobs.get()),
            ChunkSize::Auto | ChunkSize::Coarse => {
                let share = queued.div_ceil(threads.saturating_mul(2).max(1));
                self.full_chunk_jobs(threads).min(share.max(self.jobs_in(least_time(threads))))
            }
        }
    }

    /// Returns the size of the next chunk from a range of `jobs` jobs that were recalled because nothing happened: one of them may
    /// block the others. However short the jobs are, each such recall makes smaller chunks.
    pub(super) fn split_chunk_jobs(&self, jobs: u64, queued: u64, threads: u64) -> u64 {
        let size = self.chunk_jobs(queued, threads);
        if self.is_automatic() { size.min(jobs.div_ceil(threads.saturating_mul(2).max(1))) } else { size }
    }

    /// Returns the size of a chunk while the queue is long.
    pub(super) fn full_chunk_jobs(&self, threads: u64) -> u64 {
        match self.chunk {
            ChunkSize::Fixed(jobs) => u64::from(jobs.get()),
            ChunkSize::Auto | ChunkSize::Coarse => self.jobs_in(self.chunk_time(threads)).min(self.limit),
        }
    }

    pub(super) fn is_automatic(&self) -> bool {
        !matches!(self.chunk, ChunkSize::Fixed(_))
    }

    /// Returns the time in ns that a chunk should keep a thread busy in a pool of `threads` threads.
    fn chunk_time(&self, threads: u64) -> u64 {
        let least = if self.chunk == ChunkSize::Coarse { COARSE_CHUNK_TIME } else { CHUNK_TIME };
        threads.saturating_mul(CHUNK_TIME_PER_THREAD).clamp(least, CHUNK_TIME_MAX)
    }

    /// Returns the number of jobs that take about `time` ns: at least one, and one when durations are unknown.
    fn jobs_in(&self, time: u64) -> u64 {
        (time << FRACTION_BITS).checked_div(self.mean).unwrap_or(1).clamp(1, CHUNK_JOBS_MAX)
    }
}

/// Returns the least work of a chunk near the end of the queue, in ns.
fn least_time(threads: u64) -> u64 {
    threads.saturating_mul(CHUNK_TIME_MIN_PER_THREAD).clamp(CHUNK_TIME_MIN, CHUNK_TIME_MAX)
}

/// Returns the least work that is worth a recall, in ns.
fn recall_time(threads: u64) -> u64 {
    threads.saturating_mul(RECALL_TIME_PER_THREAD).max(RECALL_TIME)
}
