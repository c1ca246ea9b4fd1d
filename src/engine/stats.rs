//! What a run has done so far, in numbers.

use std::time::Duration;

/// What one rank has done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankStats {
    /// The rank's number.
    pub rank: u32,
    /// Its host.
    pub host: String,
    /// The threads it computes with: 0 for a dedicated master.
    pub threads: u32,
    /// Jobs that it has run, failed ones too.
    pub jobs: u64,
    /// Those of them that failed there, also if they were run again elsewhere.
    pub failed: u64,
    /// Useful time: what its threads have spent in the functions of jobs alone, all threads added up. Measured for jobs of 5 µs
    /// and more, estimated from some of them for shorter ones. For jobs that a worker program answers it is
    /// [`on_chunks`](Self::on_chunks).
    pub busy: Duration,
    /// What its threads have spent on chunks, all threads added up: useful time, and the reading of inputs and the writing of
    /// results.
    pub on_chunks: Duration,
    /// Messages from the master to this rank.
    pub messages_to: u64,
    /// Bytes from the master to this rank.
    pub bytes_to: u64,
    /// Messages from this rank to the master.
    pub messages_from: u64,
    /// Bytes from this rank to the master.
    pub bytes_from: u64,
    /// When the rank was lost, counted from when all ranks were there; `None` if it was not.
    pub lost: Option<Duration>,
}

impl RankStats {
    /// The part of this rank's threads' wall time that was useful (see [`busy`](Self::busy)), from 0 to 1.
    pub fn busy_fraction(&self, wall: Duration) -> f64 {
        let offered = wall.as_secs_f64() * f64::from(self.threads);
        if offered > 0.0 { self.busy.as_secs_f64() / offered } else { 0.0 }
    }
}

/// A rank with fewer jobs than this is not said to fail.
const FAILING: u64 = 3;

/// What a run has done so far.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Jobs that are settled: they have a result or have failed for good.
    pub jobs: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// From the first job's dispatch to the last result.
    pub wall: Duration,
    /// When a signal asked for the end, counted from when all ranks were there; `None` if none did.
    pub stop_requested: Option<Duration>,
    /// Every rank, in order.
    pub ranks: Vec<RankStats>,
}

impl Stats {
    /// All compute threads of the run.
    pub fn threads(&self) -> u32 {
        self.ranks.iter().map(|rank| rank.threads).sum()
    }

    /// The ranks on which every job failed while jobs succeeded elsewhere, in words.
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

    /// Settled jobs per second of wall time.
    pub fn jobs_per_second(&self) -> f64 {
        let wall = self.wall.as_secs_f64();
        if wall > 0.0 { self.jobs as f64 / wall } else { 0.0 }
    }

    /// The part of all threads' wall time that was useful (see [`RankStats::busy`]), from 0 to 1.
    pub fn efficiency(&self) -> f64 {
        let offered = self.wall.as_secs_f64() * f64::from(self.threads());
        let busy: Duration = self.ranks.iter().map(|rank| rank.busy).sum();
        if offered > 0.0 { busy.as_secs_f64() / offered } else { 0.0 }
    }
}
