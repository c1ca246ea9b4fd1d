//! The first look at all jobs: when the first one began and the last one ended, and which ranks, slots and hosts there were.

use std::collections::{BTreeMap, HashMap};

use super::timeline::Range;
use crate::journal::job::Job;

/// With more ranks, those that appear last are not told apart.
const MOST_RANKS: usize = 1 << 16;
/// More slots of a rank than this are not believed.
const MOST_SLOTS: u64 = 1 << 10;
/// Pauses behind more runs than this are shown.
const MOST_RUNS: usize = 1 << 12;
/// With more hosts, those that appear last are not told apart.
const MOST_HOSTS: usize = 1 << 14;

/// What is known of a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RankSeen {
    /// Its slots: the first and the last one.
    pub slots: (u64, u64),
    /// Its host, as an index of [`Survey::hosts`].
    pub host: Option<usize>,
}

impl RankSeen {
    pub(crate) fn slot_count(&self) -> u64 {
        self.slots.1 - self.slots.0 + 1
    }
}

/// What the first look has found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    pub(super) first_us: Option<u64>,
    pub(super) last_us: Option<u64>,
    /// When runs began and ended, as far as their entries say.
    pub(super) runs: Vec<Option<(u64, u64)>>,
    /// Jobs with a start and a duration.
    pub timed: u64,
    pub jobs: u64,
    pub ranks: BTreeMap<u32, RankSeen>,
    pub hosts: Vec<String>,
    pub(super) by_host: HashMap<String, usize>,
}

impl Survey {
    pub(crate) fn add(&mut self, job: &Job<'_>) {
        self.jobs += 1;
        if let Some((start, end)) = job.span_us() {
            self.timed += 1;
            self.see(start);
            self.see(end);
        }
        let Some(rank) = job.fields.rank else { return };
        let host = job.host().and_then(|host| self.host(&host));
        let slot = job.fields.slot.unwrap_or(1);
        let is_new = !self.ranks.contains_key(&rank);
        if is_new && self.ranks.len() >= MOST_RANKS {
            return;
        }
        let seen = self.ranks.entry(rank).or_insert(RankSeen { slots: (slot, slot), host });
        let (first, last) = (seen.slots.0.min(slot), seen.slots.1.max(slot));
        if last - first < MOST_SLOTS {
            seen.slots = (first, last);
        }
    }

    /// Extends the time to this moment.
    pub(crate) fn see(&mut self, us: u64) {
        self.first_us = Some(self.first_us.map_or(us, |first| first.min(us)));
        self.last_us = Some(self.last_us.map_or(us, |last| last.max(us)));
        if let Some(run) = self.runs.last_mut() {
            *run = Some(run.map_or((us, us), |(first, last)| (first.min(us), last.max(us))));
        }
    }

    /// Begins with the entries of another run.
    pub(crate) fn begin_run(&mut self) {
        if self.runs.len() < MOST_RUNS {
            self.runs.push(None);
        }
    }

    /// Returns the time of all runs, without long pauses between them.
    pub(crate) fn range(&self) -> Option<Range> {
        let range = Range::new(self.first_us?, self.last_us?);
        let mut runs: Vec<_> = self.runs.iter().flatten().copied().collect();
        runs.sort_unstable();
        let mut pauses = Vec::new();
        let Some((_, mut end)) = runs.first().copied() else { return Some(range) };
        for (first, last) in runs {
            if first > end {
                pauses.push((end, first));
            }
            end = end.max(last);
        }
        let paused: u64 = pauses.iter().map(|(from, to)| to - from).sum();
        Some(if paused > range.us() / 20 { range.without(&pauses) } else { range })
    }

    /// Returns the index of a host; `None` if there are too many.
    fn host(&mut self, name: &str) -> Option<usize> {
        if let Some(index) = self.by_host.get(name) {
            return Some(*index);
        }
        if self.hosts.len() >= MOST_HOSTS {
            return None;
        }
        self.by_host.insert(name.to_string(), self.hosts.len());
        self.hosts.push(name.to_string());
        Some(self.hosts.len() - 1)
    }

    /// Returns the number of slots that have run a job, as far as ranks say.
    pub(crate) fn slots(&self) -> u64 {
        self.ranks.values().map(RankSeen::slot_count).sum()
    }

    /// Returns the greatest number of slots on one host.
    pub(crate) fn most_slots_on_host(&self) -> u64 {
        let mut by_host: HashMap<usize, u64> = HashMap::new();
        for (host, slots) in self.ranks.values().filter_map(|rank| Some((rank.host?, rank.slot_count()))) {
            *by_host.entry(host).or_default() += slots;
        }
        by_host.values().copied().max().unwrap_or(0)
    }
}
