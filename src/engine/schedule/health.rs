//! Detects ranks that may be broken: ranks on which all jobs fail while jobs succeed on others.
//!
//! A rank on which jobs fail at once is always the first that is out of work, so that without this module it would get most of
//! the jobs of a batch. A rank is put on trial when the number of jobs that failed on it in a row would be improbable on a rank
//! that is like the others. Then it gets one job at a time, and the next one only when other ranks have done some jobs in the
//! meantime; a single success ends the trial. When every rank is on trial, the jobs are at fault.

use std::collections::BTreeMap;

use super::event::RankId;

/// A rank is put on trial if its failures in a row had at most this probability (as 1 / 2^bits) on a rank like the others.
const DOUBT_BITS: u32 = 10;
/// No rank is put on trial for fewer failures than this.
const STREAK_MIN: u64 = 3;
/// More failures in a row than this do not change the result.
const STREAK_MAX: u64 = 1024;
/// The number of jobs that others must have done before a rank on trial gets its next one; it doubles after each failure.
const PAUSE_MIN: u64 = 8;
const PAUSE_MAX: u64 = 64;
/// When the counts of recent jobs exceed this number, they are halved.
const MEMORY: u64 = 256;

/// The failures of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Record {
    /// Jobs that failed in a row.
    streak: u64,
    trial: Option<Trial>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Trial {
    /// The rank gets its next job when [`Health::done`] has reached this number.
    next: u64,
    pause: u64,
}

/// The records of all ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Health {
    /// The records of the ranks whose last job failed.
    records: BTreeMap<RankId, Record>,
    /// Recent jobs that succeeded, and recent jobs that failed on ranks where others succeeded.
    succeeded: u64,
    failed: u64,
    /// All jobs that succeeded.
    done: u64,
}

impl Health {
    /// Records that `succeeded` jobs of a chunk succeeded on a rank and `failed` jobs failed.
    pub(super) fn record_results(&mut self, rank: RankId, succeeded: u64, failed: u64) {
        self.done = self.done.saturating_add(succeeded);
        if succeeded > 0 {
            let before = self.records.remove(&rank).map_or(0, |record| record.streak);
            self.succeeded = self.succeeded.saturating_add(succeeded);
            self.failed = self.failed.saturating_add(before).saturating_add(failed);
            while self.succeeded.saturating_add(self.failed) > MEMORY {
                (self.succeeded, self.failed) = (self.succeeded / 2, self.failed / 2);
            }
            if before.saturating_add(failed) > 0 {
                self.end_unjustified_trials();
            }
        } else if failed > 0 {
            let mut record = self.records.get(&rank).copied().unwrap_or_default();
            record.streak = record.streak.saturating_add(failed);
            if record.trial.is_some() || self.is_doubtful(record.streak) {
                let pause = record.trial.map_or(PAUSE_MIN, |trial| (trial.pause * 2).min(PAUSE_MAX));
                record.trial = Some(Trial { next: self.done.saturating_add(pause), pause });
            }
            self.records.insert(rank, record);
        }
    }

    /// Ends trials that are no longer justified, because jobs fail on other ranks more often than was known before.
    fn end_unjustified_trials(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        for record in records.values_mut().filter(|record| record.trial.is_some()) {
            record.trial = record.trial.filter(|_| self.is_doubtful(record.streak));
        }
        self.records = records;
    }

    /// Returns whether `streak` failures in a row would be improbable, given the share of failures on ranks where jobs succeed.
    fn is_doubtful(&self, streak: u64) -> bool {
        const ONE: u64 = 1 << 40;
        let mut chance = ONE;
        for _ in 0..streak.min(STREAK_MAX) {
            chance = chance / (self.succeeded + self.failed + 2) * (self.failed + 1);
        }
        streak >= STREAK_MIN && chance <= ONE >> DOUBT_BITS
    }

    pub(super) fn is_on_trial(&self, rank: RankId) -> bool {
        self.records.get(&rank).is_some_and(|record| record.trial.is_some())
    }

    /// Returns whether no rank's last job failed.
    pub(super) fn is_spotless(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns whether a rank may get its next job: true unless it is on trial and other ranks have done too few jobs.
    pub(super) fn may_try(&self, rank: RankId) -> bool {
        let trial = self.records.get(&rank).and_then(|record| record.trial);
        trial.is_none_or(|trial| trial.next <= self.done)
    }

    /// Drops the record of a rank that is gone.
    pub(super) fn forget(&mut self, rank: RankId) {
        self.records.remove(&rank);
    }
}
