//! The ranks: what each of them holds, which of them can take more, and which has work to spare.
//!
//! Keeps the two orders that the dealing looks at first, so that the next rank is found in logarithmic time however
//! many there are. Who gets what is decided in `deal`.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{ChunkId, RankId};

/// A rank may hold this many chunks per thread, however long they are: one that runs and one that waits, so that no
/// thread waits for the master.
pub(super) const CREDIT_CHUNKS: u64 = 2;

/// A rank may hold more chunks while they add up to less than this much work per thread (ns): the time that passes
/// from a thread's answer to the arrival of the next chunk, when the master sleeps between two looks at the network.
pub(super) const CREDIT_TIME: u64 = 4_000_000;

/// A rank never holds more chunks per thread than this, lest a stall or a loss takes too much with it.
pub(super) const CREDIT_CHUNKS_MAX: u64 = 1_024;

/// Where a rank is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Status {
    Present,
    Lost,
    Dismissed,
}

/// The work that a recall of a chunk would bring back, in ns of one thread; 0 if it is not worth it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Gain {
    /// If no thread has begun the chunk.
    pub(super) waiting: u64,
    /// If a thread is somewhere in it.
    pub(super) running: u64,
}

/// One rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rank {
    pub(super) status: Status,
    pub(super) threads: u64,
    /// Assigned and not finished, in the order of assignment, which is the order in which the rank starts them.
    pub(super) held: BTreeSet<ChunkId>,
    /// Those of them that were not recalled, may be, and are worth it while they wait.
    pub(super) recallable: BTreeMap<ChunkId, Gain>,
    /// Recalls that it has not answered.
    pub(super) unanswered: u64,
    /// Estimated duration of what it holds, in ns of one thread.
    pub(super) work: u64,
    spare_key: Option<(bool, u64)>,
    donor_key: Option<u64>,
    idle: u64,
}

impl Rank {
    fn new(status: Status, threads: u64) -> Self {
        Self {
            status,
            threads,
            held: BTreeSet::new(),
            recallable: BTreeMap::new(),
            unanswered: 0,
            work: 0,
            spare_key: None,
            donor_key: None,
            idle: 0,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.status == Status::Present
    }

    fn chunks(&self) -> u64 {
        self.held.len() as u64
    }

    fn has_credit(&self) -> bool {
        let short = self.work / self.threads < CREDIT_TIME && self.chunks() < CREDIT_CHUNKS_MAX * self.threads;
        self.is_present() && (self.chunks() < CREDIT_CHUNKS * self.threads || short)
    }

    /// Whether a chunk has probably not been started: as many as there are threads were there before it.
    fn is_waiting(&self, chunk: ChunkId) -> bool {
        let threads = usize::try_from(self.threads).unwrap_or(usize::MAX);
        self.chunks() > self.threads && self.held.iter().nth(threads).is_some_and(|first| *first <= chunk)
    }

    /// The chunk to recall, if one is worth it: the last one that waits, or else the last one that is worth it while it runs.
    fn donation(&self) -> Option<ChunkId> {
        let (last, _) = self.recallable.last_key_value()?;
        if self.is_waiting(*last) {
            return Some(*last);
        }
        // No more of them than threads are left.
        self.recallable.iter().rev().find(|(_, gain)| gain.running > 0).map(|(chunk, _)| *chunk)
    }
}

/// All ranks ever heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Roster {
    ranks: BTreeMap<RankId, Rank>,
    /// Ranks with credit: those with an idle thread first, then those with the least work per thread.
    spare: BTreeSet<(bool, u64, RankId)>,
    /// Ranks with a chunk worth recalling, by work per thread.
    donors: BTreeSet<(u64, RankId)>,
    threads: u64,
    idle: u64,
    present: u64,
    joined: bool,
    unanswered: u64,
}

impl Roster {
    pub(super) fn get(&self, rank: RankId) -> Option<&Rank> {
        self.ranks.get(&rank)
    }

    /// Threads of all present ranks.
    pub(super) fn threads(&self) -> u64 {
        self.threads
    }

    /// Threads of present ranks that hold nothing for them.
    pub(super) fn idle(&self) -> u64 {
        self.idle
    }

    /// Recalls that no rank has answered.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// There were ranks, and all of them are lost.
    pub(super) fn is_stranded(&self) -> bool {
        self.joined && self.present == 0
    }

    /// The rank that the next chunk goes to.
    pub(super) fn next(&self) -> Option<RankId> {
        self.spare.first().map(|key| key.2)
    }

    /// The chunk to recall, and the rank that has it: the one with the most work among those that have one to give back.
    pub(super) fn donation(&self) -> Option<(RankId, ChunkId)> {
        let id = self.donors.last()?.1;
        Some((id, self.ranks.get(&id)?.donation()?))
    }

    /// Whether a chunk is only worth a recall because nobody knows how long it waits.
    pub(super) fn is_cheap(&self, rank: RankId, chunk: ChunkId) -> bool {
        let gain = self.ranks.get(&rank).and_then(|rank| rank.recallable.get(&chunk));
        gain.is_none_or(|gain| gain.waiting.max(gain.running) <= 1)
    }

    /// Present ranks in the order of their ids.
    pub(super) fn present(&self) -> impl Iterator<Item = (RankId, &Rank)> {
        self.ranks.iter().filter(|(_, rank)| rank.is_present()).map(|(id, rank)| (*id, rank))
    }

    /// A rank is there. False if it was heard of before.
    pub(super) fn join(&mut self, id: RankId, threads: u32) -> bool {
        if self.ranks.contains_key(&id) {
            return false;
        }
        let threads = u64::from(threads);
        self.ranks.insert(id, Rank::new(Status::Present, threads));
        self.threads += threads;
        self.present += 1;
        self.joined = true;
        self.update(id, |_| ());
        true
    }

    /// A rank is gone, or was never there: it will not be believed if it comes. Returns what it held.
    pub(super) fn lose(&mut self, id: RankId) -> BTreeSet<ChunkId> {
        let mut held = BTreeSet::new();
        self.ranks.entry(id).or_insert_with(|| Rank::new(Status::Lost, 1));
        self.leave(id, Status::Lost);
        self.update(id, |rank| {
            held = std::mem::take(&mut rank.held);
            rank.recallable.clear();
            rank.unanswered = 0;
            rank.work = 0;
        });
        held
    }

    /// A rank is sent away; it holds nothing.
    pub(super) fn dismiss(&mut self, id: RankId) {
        self.leave(id, Status::Dismissed);
        self.update(id, |_| ());
    }

    fn leave(&mut self, id: RankId, status: Status) {
        if let Some(rank) = self.ranks.get_mut(&id) {
            if rank.is_present() {
                self.threads -= rank.threads;
                self.present -= 1;
            }
            rank.status = status;
        }
    }

    /// Changes what a rank holds and puts it where it then belongs in the orders.
    pub(super) fn update(&mut self, id: RankId, change: impl FnOnce(&mut Rank)) {
        let Some(rank) = self.ranks.get_mut(&id) else { return };
        let unanswered = rank.unanswered;
        change(rank);
        self.unanswered = self.unanswered - unanswered + rank.unanswered;

        let load = rank.work / rank.threads;
        let idle = if rank.is_present() { rank.threads.saturating_sub(rank.chunks()) } else { 0 };
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
        let donor_key = (rank.is_present() && rank.donation().is_some()).then_some(load);
        if rank.donor_key != donor_key {
            if let Some(load) = rank.donor_key {
                self.donors.remove(&(load, id));
            }
            self.donors.extend(donor_key.map(|load| (load, id)));
            rank.donor_key = donor_key;
        }
    }

    /// Takes in what a recall of a chunk is worth by now, and says whether it is still the one to recall from its rank.
    pub(super) fn reconsider(&mut self, id: RankId, chunk: ChunkId, now: Gain) -> bool {
        self.update(id, |rank| match rank.recallable.get_mut(&chunk) {
            Some(_) if now.waiting == 0 => drop(rank.recallable.remove(&chunk)),
            Some(gain) => *gain = now,
            None => {}
        });
        self.ranks.get(&id).is_some_and(|rank| rank.donation() == Some(chunk))
    }

    /// Asserts what must hold between the fields.
    pub(super) fn check(&self) {
        let present = || self.ranks.values().filter(|rank| rank.is_present());
        assert_eq!(self.threads, present().map(|rank| rank.threads).sum::<u64>(), "threads");
        assert_eq!(self.present, present().count() as u64, "present ranks");
        assert_eq!(self.unanswered, present().map(|rank| rank.unanswered).sum::<u64>(), "unanswered recalls");
        let idle = present().map(|rank| rank.threads.saturating_sub(rank.chunks())).sum::<u64>();
        assert_eq!(self.idle, idle, "idle threads");
        for (id, rank) in &self.ranks {
            assert!(rank.is_present() || rank.held.is_empty(), "{id:?} is gone and holds chunks");
            assert!(rank.recallable.keys().all(|chunk| rank.held.contains(chunk)), "{id:?} recallable");
            assert!(rank.unanswered <= (rank.held.len() - rank.recallable.len()) as u64, "{id:?} unanswered");
            assert!(rank.chunks() <= CREDIT_CHUNKS_MAX * rank.threads, "{id:?} holds too much");
            let spare = rank.has_credit().then_some((rank.chunks() >= rank.threads, rank.work / rank.threads));
            assert_eq!(rank.spare_key, spare, "{id:?} key");
            let donor = (rank.is_present() && rank.donation().is_some()).then_some(rank.work / rank.threads);
            assert_eq!(rank.donor_key, donor, "{id:?} donor");
        }
        let spare = self.ranks.iter().filter_map(|(id, rank)| rank.spare_key.map(|key| (key.0, key.1, *id)));
        assert_eq!(self.spare, spare.collect(), "ranks with credit");
        let donors = self.ranks.iter().filter_map(|(id, rank)| rank.donor_key.map(|key| (key, *id)));
        assert_eq!(self.donors, donors.collect(), "donors");
    }
}
