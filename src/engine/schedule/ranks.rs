//! The state of the ranks: the chunks that each one holds, which ranks can take more, and which have chunks to give back.
//!
//! Keeps the ranks with credit and the ranks with recallable chunks in order, so that the next rank is found in logarithmic
//! time, however many there are. Assignments and recalls are decided in `assign`.

use std::collections::{BTreeMap, BTreeSet};

use super::chunks::Held;
use super::event::{ChunkId, RankId};
use super::health::Health;

/// A rank may hold this many chunks per thread, however long they are: one that runs and one that waits, so that no
/// thread has to wait for the master.
pub(super) const CREDIT_CHUNKS: u64 = 2;

/// A rank may hold more chunks while they add up to less than this much work per thread (ns): the longest time from a thread's
/// answer to the arrival of the next chunk, when the master sleeps between two polls of the network.
pub(super) const CREDIT_TIME: u64 = 4_000_000;

/// A rank never holds more chunks per thread than this, so that a stalled or lost rank does not delay too many jobs.
pub(super) const CREDIT_CHUNKS_MAX: u64 = 1_024;

/// Whether a rank can be given work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Presence {
    Present,
    Lost,
    Dismissed,
}

/// The work that a recall of a chunk would bring back, in ns of one thread; 0 if that is too little for a recall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Gain {
    /// If no thread has begun the chunk.
    pub(super) waiting: u64,
    /// If a thread runs it.
    pub(super) running: u64,
}

/// One rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rank {
    pub(super) status: Presence,
    pub(super) threads: u64,
    /// The chunks that are assigned and not finished, in the order of assignment, which is the order in which the rank starts them.
    pub(super) held: Held,
    /// The held chunks that may be recalled and that are worth a recall while they wait.
    pub(super) recallable: BTreeMap<ChunkId, Gain>,
    /// Recalls that the rank has not answered.
    pub(super) unanswered: u64,
    /// Estimated duration of the held chunks, in ns of one thread.
    pub(super) work: u64,
    /// Whether the rank gets no further job now because it is on trial, see [`Health`].
    held_back: bool,
    /// Whether the rank gets only suspects, see [`suspects`](super::suspects).
    pub(super) reserved: bool,
    spare_key: Option<(bool, u64)>,
    donor_key: Option<u64>,
    idle: u64,
}

impl Rank {
    fn new(status: Presence, threads: u64) -> Self {
        Self {
            status,
            threads,
            held: Held::default(),
            recallable: BTreeMap::new(),
            unanswered: 0,
            work: 0,
            held_back: false,
            reserved: false,
            spare_key: None,
            donor_key: None,
            idle: 0,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.status == Presence::Present
    }

    fn chunks(&self) -> u64 {
        self.held.len() as u64
    }

    /// Returns whether the rank may be given jobs that are no suspects.
    fn is_open(&self) -> bool {
        self.is_present() && !self.held_back && !self.reserved
    }

    /// Returns the number of threads that have no chunk and may be given one.
    fn out_of_work(&self) -> u64 {
        if self.is_open() { self.threads.saturating_sub(self.chunks()) } else { 0 }
    }

    fn has_credit(&self) -> bool {
        let short = self.work / self.threads < CREDIT_TIME && self.chunks() < CREDIT_CHUNKS_MAX * self.threads;
        self.is_open() && (self.chunks() < CREDIT_CHUNKS * self.threads || short)
    }

    /// Returns whether a chunk has probably not been started: as many earlier chunks are held as there are threads.
    fn is_waiting(&self, chunk: ChunkId) -> bool {
        if self.chunks() > self.threads && self.held.last() == Some(chunk) {
            return true;
        }
        let threads = usize::try_from(self.threads).unwrap_or(usize::MAX);
        self.chunks() > self.threads && self.held.get(threads).is_some_and(|first| first <= chunk)
    }

    /// Returns the chunk to recall, if one is worth it: the last one that waits, or else the last one that is worth a recall while
    /// it runs.
    fn recall_candidate(&self) -> Option<ChunkId> {
        let (last, _) = self.recallable.last_key_value()?;
        if self.is_waiting(*last) {
            return Some(*last);
        }
        // At most as many chunks run as there are threads.
        self.recallable.iter().rev().find(|(_, gain)| gain.running > 0).map(|(chunk, _)| *chunk)
    }

    /// Returns the rank's key in the order of the ranks that have a chunk to give back.
    fn donor_key(&self) -> Option<u64> {
        self.recall_candidate().filter(|_| self.is_present()).map(|_| self.work / self.threads)
    }
}

/// All ranks that have joined or were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ranks {
    ranks: BTreeMap<RankId, Rank>,
    /// Ranks with credit: first those with an idle thread, then those with the least work per thread.
    spare: BTreeSet<(bool, u64, RankId)>,
    /// Ranks with a chunk worth recalling, by work per thread.
    donors: BTreeSet<(u64, RankId)>,
    threads: u64,
    idle: u64,
    present: u64,
    joined: bool,
    unanswered: u64,
    health: Health,
    /// Present ranks that get only suspects.
    reserved: BTreeSet<RankId>,
    /// Present ranks that are on trial.
    on_trial: BTreeSet<RankId>,
}

impl Ranks {
    pub(super) fn get(&self, rank: RankId) -> Option<&Rank> {
        self.ranks.get(&rank)
    }

    /// Returns the number of threads of all present ranks.
    pub(super) fn threads(&self) -> u64 {
        self.threads
    }

    /// Returns the number of threads of present ranks that have no chunk.
    pub(super) fn idle(&self) -> u64 {
        self.idle
    }

    /// Returns the number of recalls that have not been answered.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Returns whether ranks have joined and all of them are lost.
    pub(super) fn is_stranded(&self) -> bool {
        self.joined && self.present == 0
    }

    /// Returns whether ranks have joined and none but `rank`, or not even that, is present.
    pub(super) fn is_stranded_but(&self, rank: RankId) -> bool {
        let counts = self.ranks.get(&rank).is_some_and(Rank::is_present);
        self.joined && self.present == u64::from(counts)
    }

    /// Returns the ranks that get only suspects.
    pub(super) fn reserved(&self) -> Vec<RankId> {
        self.reserved.iter().copied().collect()
    }

    /// Sets whether a rank gets only suspects.
    pub(super) fn set_reserved(&mut self, id: RankId, reserved: bool) {
        if reserved {
            self.reserved.insert(id);
        } else {
            self.reserved.remove(&id);
        }
        self.update(id, |rank| rank.reserved = reserved);
    }

    /// Returns the rank that gets the next chunk.
    pub(super) fn next(&self) -> Option<RankId> {
        self.next_but(None)
    }

    /// Returns the rank that gets the next chunk if it must not be `avoid`.
    pub(super) fn next_but(&self, avoid: Option<RankId>) -> Option<RankId> {
        self.spare.iter().map(|key| key.2).find(|rank| Some(*rank) != avoid)
    }

    /// Returns whether a rank has a thread without work.
    pub(super) fn is_idle(&self, rank: RankId) -> bool {
        self.get(rank).is_some_and(|rank| rank.idle > 0)
    }

    /// Returns whether there is another rank that gets jobs as usual.
    pub(super) fn has_other(&self, rank: RankId) -> bool {
        let present = self.ranks.get(&rank).is_some_and(Rank::is_present);
        let counts = present && !(self.is_divided() && self.on_trial.contains(&rank));
        self.working() > u64::from(counts)
    }

    /// Returns whether a rank gets one job at a time, as a test whether it works.
    pub(super) fn is_on_trial(&self, rank: RankId) -> bool {
        self.is_divided() && self.on_trial.contains(&rank)
    }

    /// Returns whether some ranks are on trial and others are not. If all are, none is held back.
    fn is_divided(&self) -> bool {
        let tried = self.on_trial.len() as u64;
        tried > 0 && tried < self.present
    }

    /// Returns the number of ranks that get jobs as usual.
    fn working(&self) -> u64 {
        if self.is_divided() { self.present - self.on_trial.len() as u64 } else { self.present }
    }

    /// Records that `succeeded` jobs of a chunk succeeded on a rank and `failed` jobs failed.
    pub(super) fn record_results(&mut self, id: RankId, succeeded: u64, failed: u64) {
        if self.get(id).is_some_and(Rank::is_present) {
            let before = self.is_divided();
            let changes_nothing = failed == 0 && self.health.is_spotless();
            self.health.record_results(id, succeeded, failed);
            if !changes_nothing {
                self.update_trial(id, before, succeeded > 0);
            }
        }
    }

    /// Updates whether a rank is on trial. Also updates all other ranks on trial if the answer of `is_divided` has changed since
    /// `was_divided`, or if they may get their next job (`others`).
    fn update_trial(&mut self, id: RankId, was_divided: bool, others: bool) {
        let tried = if others { self.on_trial.clone() } else { BTreeSet::new() };
        let changes = if self.health.is_on_trial(id) && self.get(id).is_some_and(Rank::is_present) {
            self.on_trial.insert(id);
            true
        } else {
            self.on_trial.remove(&id)
        };
        if changes {
            self.update(id, |_| ());
        }
        if was_divided != self.is_divided() || others {
            for id in self.on_trial.iter().copied().collect::<Vec<_>>() {
                if !self.health.is_on_trial(id) {
                    self.on_trial.remove(&id);
                }
            }
            let again: Vec<_> = tried.into_iter().chain(self.on_trial.iter().copied()).collect();
            again.into_iter().for_each(|id| self.update(id, |_| ()));
        }
    }

    /// Returns the chunk to recall and its rank: the rank with the most work among those that have a chunk to give back.
    pub(super) fn recall_candidate(&self) -> Option<(RankId, ChunkId)> {
        let id = self.donors.last()?.1;
        Some((id, self.ranks.get(&id)?.recall_candidate()?))
    }

    /// Returns the present ranks in the order of their ids.
    pub(super) fn present(&self) -> impl Iterator<Item = (RankId, &Rank)> {
        self.ranks.iter().filter(|(_, rank)| rank.is_present()).map(|(id, rank)| (*id, rank))
    }

    /// Adds a rank. Returns false if it has joined or was lost before.
    pub(super) fn join(&mut self, id: RankId, threads: u32) -> bool {
        if self.ranks.contains_key(&id) {
            return false;
        }
        let threads = u64::from(threads);
        let was_divided = self.is_divided();
        self.ranks.insert(id, Rank::new(Presence::Present, threads));
        self.threads += threads;
        self.present += 1;
        self.joined = true;
        self.update(id, |_| ());
        // Ranks on trial can now be compared with this one.
        self.update_trial(id, was_divided, true);
        true
    }

    /// Marks a rank as lost, also one that has not joined yet: it cannot join later. Returns the chunks that it held.
    pub(super) fn lose(&mut self, id: RankId) -> Held {
        let mut held = Held::default();
        let was_divided = self.is_divided();
        self.ranks.entry(id).or_insert_with(|| Rank::new(Presence::Lost, 1));
        self.leave(id, Presence::Lost);
        self.reserved.remove(&id);
        self.update(id, |rank| {
            held = std::mem::take(&mut rank.held);
            rank.recallable.clear();
            rank.reserved = false;
            rank.unanswered = 0;
            rank.work = 0;
        });
        self.health.forget(id);
        self.update_trial(id, was_divided, true);
        held
    }

    /// Marks a rank, which holds no chunk, as dismissed.
    pub(super) fn dismiss(&mut self, id: RankId) {
        let was_divided = self.is_divided();
        self.leave(id, Presence::Dismissed);
        self.health.forget(id);
        self.update(id, |_| ());
        self.update_trial(id, was_divided, true);
    }

    fn leave(&mut self, id: RankId, status: Presence) {
        if let Some(rank) = self.ranks.get_mut(&id) {
            if rank.is_present() {
                self.threads -= rank.threads;
                self.present -= 1;
            }
            rank.status = status;
        }
    }

    /// Changes the state of a rank and updates its keys in the two orders.
    pub(super) fn update(&mut self, id: RankId, change: impl FnOnce(&mut Rank)) {
        let is_tried = self.is_on_trial(id);
        let Some(rank) = self.ranks.get_mut(&id) else { return };
        let unanswered = rank.unanswered;
        change(rank);
        rank.held_back = is_tried && (rank.chunks() > 0 || !self.health.may_try(id));
        self.unanswered = self.unanswered - unanswered + rank.unanswered;

        let load = rank.work / rank.threads;
        let idle = rank.out_of_work();
        self.idle = self.idle - rank.idle + idle;
        rank.idle = idle;
        let spare_key = rank.has_credit().then_some((idle == 0, load));
        if rank.spare_key != spare_key {
            if let Some((busy, load)) = rank.spare_key {
                self.spare.remove(&(busy, load, id));
            }
            self.spare.extend(spare_key.map(|(busy, load)| (busy, load, id)));
            rank.spare_key = spare_key;
        }
        let donor_key = rank.donor_key();
        if rank.donor_key != donor_key {
            if let Some(load) = rank.donor_key {
                self.donors.remove(&(load, id));
            }
            self.donors.extend(donor_key.map(|load| (load, id)));
            rank.donor_key = donor_key;
        }
    }

    /// Updates the gain of recalling a chunk and returns whether it is still the chunk to recall from its rank.
    pub(super) fn update_gain(&mut self, id: RankId, chunk: ChunkId, now: Gain) -> bool {
        self.update(id, |rank| match rank.recallable.get_mut(&chunk) {
            Some(_) if now.waiting == 0 => drop(rank.recallable.remove(&chunk)),
            Some(gain) => *gain = now,
            None => {}
        });
        self.ranks.get(&id).is_some_and(|rank| rank.recall_candidate() == Some(chunk))
    }

    /// Asserts the invariants of the fields.
    pub(super) fn check(&self) {
        let present = || self.ranks.values().filter(|rank| rank.is_present());
        assert_eq!(self.threads, present().map(|rank| rank.threads).sum::<u64>(), "threads");
        assert_eq!(self.present, present().count() as u64, "present ranks");
        assert_eq!(self.unanswered, present().map(|rank| rank.unanswered).sum::<u64>(), "unanswered recalls");
        let idle = present().map(Rank::out_of_work).sum::<u64>();
        assert_eq!(self.idle, idle, "idle threads");
        for (id, rank) in &self.ranks {
            assert!(rank.is_present() || rank.held.is_empty(), "{id:?} is gone and holds chunks");
            assert!(rank.recallable.keys().all(|chunk| rank.held.contains(*chunk)), "{id:?} recallable");
            assert!(rank.unanswered <= (rank.held.len() - rank.recallable.len()) as u64, "{id:?} unanswered");
            assert!(rank.chunks() <= CREDIT_CHUNKS_MAX * rank.threads, "{id:?} holds too much");
            let spare = rank.has_credit().then_some((rank.out_of_work() == 0, rank.work / rank.threads));
            assert_eq!(rank.spare_key, spare, "{id:?} key");
            assert_eq!(rank.donor_key, rank.donor_key(), "{id:?} donor");
            assert_eq!(self.on_trial.contains(id), rank.is_present() && self.health.is_on_trial(*id), "{id:?} trial");
            let held_back = self.is_on_trial(*id) && (rank.chunks() > 0 || !self.health.may_try(*id));
            assert_eq!(rank.held_back, held_back, "{id:?} is held back");
        }
        let all = self.present > 0 && self.ranks.values().all(|rank| !rank.is_present() || rank.held_back);
        assert!(!all, "all ranks are held back");
        let reserved = self.ranks.iter().filter(|(_, rank)| rank.reserved).map(|(id, _)| *id).collect();
        assert!(self.reserved == reserved && reserved.iter().all(|id| self.ranks[id].is_present()), "reserved ranks");
        let spare = self.ranks.iter().filter_map(|(id, rank)| rank.spare_key.map(|key| (key.0, key.1, *id)));
        assert_eq!(self.spare, spare.collect(), "ranks with credit");
        let donors = self.ranks.iter().filter_map(|(id, rank)| rank.donor_key.map(|key| (key, *id)));
        assert_eq!(self.donors, donors.collect(), "donors");
    }
}
