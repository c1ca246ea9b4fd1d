//! Lost ranks, and suspects: jobs that were lost with their ranks more than once, so that one of them may be the cause.
//!
//! The first loss of a job is taken for bad luck: nodes fail. Its chunk is divided into pieces of about the square root of its size,
//! which are assigned as usual, to other ranks than rank 0 if there are any. A job that is lost a second time is a suspect. Suspects
//! are assigned one by one to ranks that hold nothing else: first several at once on the threads of a rank, about the square root
//! of their number, then, after a third loss, alone. So a job that kills its rank is found after [`LOSSES_MAX`](super::LOSSES_MAX) ranks
//! at most, and a job that happened to be near it is never settled as lost. Suspects never run on rank 0, with which the run
//! would end: if no other rank is left, they are settled as lost.

use super::event::{Action, MapId, Outcome, RankId};
use super::queue::Range;
use super::{LOSSES_MAX, Schedule};

/// A job that was lost this many times is a suspect.
pub(super) const SUSPECT: u32 = 2;

/// The master's process; its end is the end of the run.
pub(super) const MASTER: RankId = RankId(0);

/// Returns the square root, rounded up.
pub(super) fn root(number: u64) -> u64 {
    let root = number.isqrt();
    root + u64::from(root * root < number)
}

impl Schedule {
    /// Handles the loss of a rank.
    pub(super) fn lost(&mut self, rank: RankId, out: &mut Vec<Action>) {
        let is_cause = self.holds_one_suspect(rank);
        let held = self.ranks.lose(rank);
        let mut touched = Vec::new();
        // From the last to the first, so that at the front of the queue they are in order again.
        for id in held.iter().rev().copied() {
            let Some(chunk) = self.chunks.remove(id) else { continue };
            self.delayed.remove(&id);
            let Some(map) = self.maps.get_mut(&chunk.map) else {
                continue;
            };
            map.held -= chunk.jobs.count;
            let jobs = Range { losses: chunk.jobs.losses.saturating_add(1), avoid: Some(MASTER), ..chunk.jobs };
            if is_cause || jobs.losses >= LOSSES_MAX {
                self.settle(chunk.map, &jobs, Outcome::Lost, jobs.runs(), out);
            } else {
                self.requeue(chunk.map, jobs, true, out);
            }
            touched.push(chunk.map);
        }
        if self.ranks.is_stranded_but(MASTER) {
            self.settle_queues(out);
        }
        for map in touched {
            self.release_if_over(map, out);
        }
    }

    /// Assigns suspects to ranks that hold nothing else, and reserves such ranks: as long as suspects wait, at least one rank gets no
    /// other jobs.
    pub(super) fn assign_suspects(&mut self, out: &mut Vec<Action>) {
        while let Some((map, rank)) = self.next_suspect() {
            self.ranks.set_reserved(rank, true);
            self.assign_suspect(map, rank, out);
        }
        let waiting = !self.suspected.is_empty();
        for rank in self.ranks.reserved() {
            if !waiting && self.suspects_on(rank).is_none() {
                self.ranks.set_reserved(rank, false);
            }
        }
        if waiting && self.ranks.reserved().is_empty() {
            let least = self.ranks.present().filter(|(id, _)| *id != MASTER).min_by_key(|(_, rank)| rank.work);
            if let Some(id) = least.map(|(id, _)| id) {
                self.ranks.set_reserved(id, true);
            }
        }
    }

    /// Returns the next suspect's map, and the rank that gets it now.
    pub(super) fn next_suspect(&self) -> Option<(MapId, RankId)> {
        let map = *self.suspected.first()?;
        let losses = self.maps.get(&map)?.suspects.front()?.losses;
        let fits = |id: RankId, threads: u64, held: u64| match self.suspects_on(id) {
            _ if held == 0 => true,
            Some(level) => level == losses && losses + 1 < LOSSES_MAX && held < root(threads),
            None => false,
        };
        let ranks = || self.ranks.present().filter(|(id, _)| *id != MASTER);
        let fitting = ranks().filter(|(id, rank)| fits(*id, rank.threads, rank.held.len() as u64));
        // The one with the fewest suspects, so that as many as possible are alone.
        Some((map, fitting.min_by_key(|(_, rank)| rank.held.len())?.0))
    }

    /// Returns how often the suspects were lost that a rank holds; `None` if it holds none.
    pub(super) fn suspects_on(&self, rank: RankId) -> Option<u32> {
        let first = self.ranks.get(rank)?.held.get(0)?;
        let losses = self.chunks.get(first)?.jobs.losses;
        (losses >= SUSPECT).then_some(losses)
    }

    /// Returns whether a rank holds one job and nothing else, so that this job is the cause if the rank dies.
    pub(super) fn holds_one_suspect(&self, rank: RankId) -> bool {
        self.suspects_on(rank).is_some() && self.ranks.get(rank).is_some_and(|rank| rank.held.len() == 1)
    }

    /// Settles the suspects that no rank may run.
    pub(super) fn settle_suspects(&mut self, id: MapId, out: &mut Vec<Action>) {
        let Some(map) = self.maps.get_mut(&id) else { return };
        let suspects = std::mem::take(&mut map.suspects);
        let outcome = self.unassignable_suspects(id).unwrap_or(Outcome::Cancelled);
        self.suspected.remove(&id);
        for jobs in suspects.ranges() {
            self.settle(id, jobs, outcome, jobs.runs(), out);
        }
    }

    /// Returns the outcome of a map's suspects if they are not assigned any more.
    pub(super) fn unassignable_suspects(&self, id: MapId) -> Option<Outcome> {
        let abandoned = self.maps.get(&id).is_some_and(|map| map.abandoned);
        super::unassignable(abandoned, self.draining, self.ranks.is_stranded_but(MASTER))
    }
}
