//! Which ranks may be broken: those on which everything fails while it would not elsewhere.
//!
//! A rank that fails at once is always the first that asks for more, so that without this it eats a batch. It is on trial when
//! so many jobs in a row would hardly have failed on a rank that is like the others. Then it gets one job at a time, the next
//! one only when others have done some in the meantime; a single success acquits it. When every rank is on trial, it is the jobs.

use std::collections::BTreeMap;

use super::event::RankId;

/// A rank is put on trial if what it did had at most this chance (as 1 / 2^bits) on a rank like the others.
const DOUBT_BITS: u32 = 10;
/// No rank is put on trial for fewer failures than this.
const STREAK_MIN: u64 = 3;
/// More than this many in a row say no more.
const STREAK_MAX: u64 = 1024;
/// How many jobs others must have done before a rank on trial gets its next one; after each that fails, twice as many.
const PAUSE_MIN: u64 = 8;
const PAUSE_MAX: u64 = 64;
/// Beyond this many jobs, older ones count half.
const MEMORY: u64 = 256;

/// What one rank has on its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Record {
    /// Jobs that failed there since the last one that did not.
    streak: u64,
    trial: Option<Trial>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Trial {
    /// When the next job may be dealt, counted in jobs that others have done.
    next: u64,
    pause: u64,
}

/// The records of all ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Health {
    /// Only of ranks whose last job failed.
    records: BTreeMap<RankId, Record>,
    /// Jobs of late that did not fail, and those that failed between them.
    good: u64,
    bad: u64,
    /// All jobs that did not fail.
    done: u64,
}

impl Health {
    /// Takes in how many jobs of a chunk went well on a rank, and how many failed.
    pub(super) fn judge(&mut self, rank: RankId, good: u64, bad: u64) {
        self.done = self.done.saturating_add(good);
        if good > 0 {
            let before = self.records.remove(&rank).map_or(0, |record| record.streak);
            self.good = self.good.saturating_add(good);
            self.bad = self.bad.saturating_add(before).saturating_add(bad);
            while self.good.saturating_add(self.bad) > MEMORY {
                (self.good, self.bad) = (self.good / 2, self.bad / 2);
            }
            if before.saturating_add(bad) > 0 {
                self.reconsider();
            }
        } else if bad > 0 {
            let mut record = self.records.get(&rank).copied().unwrap_or_default();
            record.streak = record.streak.saturating_add(bad);
            if record.trial.is_some() || self.is_doubtful(record.streak) {
                let pause = record.trial.map_or(PAUSE_MIN, |trial| (trial.pause * 2).min(PAUSE_MAX));
                record.trial = Some(Trial { next: self.done.saturating_add(pause), pause });
            }
            self.records.insert(rank, record);
        }
    }

    /// Jobs fail elsewhere, too: maybe more often than it seemed when a rank was put on trial.
    fn reconsider(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        for record in records.values_mut().filter(|record| record.trial.is_some()) {
            record.trial = record.trial.filter(|_| self.is_doubtful(record.streak));
        }
        self.records = records;
    }

    /// Whether so many failures in a row would be a rare chance, by how often jobs fail on ranks that do not only fail.
    fn is_doubtful(&self, streak: u64) -> bool {
        const ONE: u64 = 1 << 40;
        let mut chance = ONE;
        for _ in 0..streak.min(STREAK_MAX) {
            chance = chance / (self.good + self.bad + 2) * (self.bad + 1);
        }
        streak >= STREAK_MIN && chance <= ONE >> DOUBT_BITS
    }

    pub(super) fn is_on_trial(&self, rank: RankId) -> bool {
        self.records.get(&rank).is_some_and(|record| record.trial.is_some())
    }

    /// Whether no rank's last job failed.
    pub(super) fn is_spotless(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a rank on trial may have its next job.
    pub(super) fn may_try(&self, rank: RankId) -> bool {
        let trial = self.records.get(&rank).and_then(|record| record.trial);
        trial.is_none_or(|trial| trial.next <= self.done)
    }

    /// A rank is gone.
    pub(super) fn forget(&mut self, rank: RankId) {
        self.records.remove(&rank);
    }
}
