//! The statistics of a run.

use std::time::Duration;

/// The statistics of one rank.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankStats {
    /// The rank's number.
    pub rank: u32,
    /// Its host.
    pub host: String,
    /// The number of its compute threads: 0 for a dedicated master.
    pub threads: u32,
    /// The number of jobs that it has run, failed ones included.
    pub jobs: u64,
    /// The number of jobs that failed there, also if they were run again elsewhere.
    pub failed: u64,
    /// Useful time: the time that its threads have spent in the functions of jobs alone, summed over threads. Measured for jobs
    /// of 5 µs and more, estimated from a sample for shorter ones. For jobs that a worker program answers it is
    /// [`on_chunks`](Self::on_chunks).
    pub busy: Duration,
    /// The time that its threads have spent on chunks, summed over threads: useful time, and the time for reading inputs and
    /// writing results.
    pub on_chunks: Duration,
    /// The number of messages from the master to this rank.
    pub messages_to: u64,
    /// The number of bytes from the master to this rank.
    pub bytes_to: u64,
    /// The number of messages from this rank to the master.
    pub messages_from: u64,
    /// The number of bytes from this rank to the master.
    pub bytes_from: u64,
    /// The time at which the rank was lost, from the start of the run with all ranks; `None` if it was not lost.
    pub lost: Option<Duration>,
}

impl RankStats {
    /// Returns the part of this rank's threads' wall time that was useful (see [`busy`](Self::busy)), from 0 to 1.
    pub fn busy_fraction(&self, wall: Duration) -> f64 {
        let offered = wall.as_secs_f64() * f64::from(self.threads);
        if offered > 0.0 { self.busy.as_secs_f64() / offered } else { 0.0 }
    }
}

/// A rank with fewer jobs than this is not reported as failing.
const FAILING: u64 = 3;

/// The statistics of a run so far.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of settled jobs: they have a result or have failed after all retries.
    pub jobs: u64,
    /// The number of settled jobs that failed.
    pub failed: u64,
    /// The time from the first job's dispatch to the last result.
    pub wall: Duration,
    /// The time at which a signal asked for the end, from the start of the run with all ranks; `None` if there was no signal.
    pub stop_requested: Option<Duration>,
    /// Every rank, in order.
    pub ranks: Vec<RankStats>,
}

impl Stats {
    /// Returns the number of compute threads of the run.
    pub fn threads(&self) -> u32 {
        self.ranks.iter().map(|rank| rank.threads).sum()
    }

    /// Returns a sentence for each rank on which every job failed while jobs succeeded elsewhere.
    pub fn failing_ranks(&self) -> Vec<String> {
        let fails = |rank: &&RankStats| rank.jobs >= FAILING && rank.failed == rank.jobs;
        if self.ranks.iter().all(|rank| rank.failed == rank.jobs) {
            return Vec::new();
        }
        let words = |rank: &RankStats| {
            let RankStats { rank, host, jobs, failed, .. } = rank;
            format!("rank {rank} on {host}: {failed} of {jobs} jobs failed there")
        };
        self.ranks.iter().filter(fails).map(words).collect()
    }

    /// Returns the mean time that a thread spent on a job, with the reading of its input and the writing of its result; `None` if no
    /// job was run.
    pub(crate) fn mean_job(&self) -> Option<Duration> {
        let jobs: u64 = self.ranks.iter().map(|rank| rank.jobs).sum();
        let total: Duration = self.ranks.iter().map(|rank| rank.on_chunks).sum();
        (jobs > 0).then(|| total.div_f64(jobs as f64))
    }

    /// Returns the number of settled jobs per second of wall time.
    pub fn jobs_per_second(&self) -> f64 {
        let wall = self.wall.as_secs_f64();
        if wall > 0.0 { self.jobs as f64 / wall } else { 0.0 }
    }

    /// Returns the part of all threads' wall time that was useful (see [`RankStats::busy`]), from 0 to 1.
    pub fn efficiency(&self) -> f64 {
        let offered = self.wall.as_secs_f64() * f64::from(self.threads());
        let busy: Duration = self.ranks.iter().map(|rank| rank.busy).sum();
        if offered > 0.0 { busy.as_secs_f64() / offered } else { 0.0 }
    }
}
