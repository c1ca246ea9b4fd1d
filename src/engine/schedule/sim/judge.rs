//! The oracles: the scheduler's guarantees, checked from outside.
//!
//! Follows the scheduler's events and actions with a record for each job, and asserts the guarantees at each step.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Mix, World};
use crate::engine::schedule::{Action, ChunkId, ChunkSize, Event, MapId, Outcome, RankId, Schedule};

#[derive(Clone, Default)]
struct Job {
    outcome: Option<Outcome>,
    holder: Option<ChunkId>,
    failures: u32,
    losses: u32,
    /// The number of times it was assigned.
    assignments: u32,
    given_back: bool,
    /// Whether a rank was lost that held this job and nothing else, after the job had been lost twice.
    is_cause: bool,
}

/// The most times that a job may be assigned, beside its retries: once, after three losses, and after eight recalls.
const ASSIGNMENTS_MAX: u32 = 12;

#[derive(Default)]
struct Map {
    jobs: Vec<Job>,
    /// Jobs that are neither held nor settled.
    queued: u64,
    settled: u64,
    closed: bool,
    abandoned: bool,
    released: bool,
}

struct Held {
    rank: RankId,
    map: MapId,
    jobs: Range<u64>,
    recalled: bool,
    returned: bool,
}

#[derive(Default)]
struct Rank {
    threads: u64,
    chunks: u64,
    /// The chunks that hold a job that was lost twice.
    suspects: u64,
    lost: bool,
    dismissed: bool,
    /// Jobs that failed on it in a row.
    streak: usize,
}

/// The jobs of the `Finished` that is being handled: those that succeeded and those that failed.
#[derive(Default)]
struct Answer {
    map: Option<MapId>,
    good: BTreeSet<u64>,
    bad: BTreeSet<u64>,
}

/// The state of a run as seen from outside the scheduler.
pub(super) struct Judge<'a> {
    world: &'a World,
    maps: BTreeMap<MapId, Map>,
    ranks: BTreeMap<RankId, Rank>,
    chunks: BTreeMap<ChunkId, Held>,
    answer: Answer,
    draining: bool,
    driver_left: bool,
    /// Whether every job takes longer than `CREDIT_TIME`, so that ranks hold at most two chunks per thread.
    all_long: bool,
}

impl<'a> Judge<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let long =
            |mix: Mix| matches!(mix, Mix::Constant(time) | Mix::Bimodal { short: time, .. } if time >= 5_000_000);
        Self {
            world,
            maps: BTreeMap::new(),
            ranks: BTreeMap::new(),
            chunks: BTreeMap::new(),
            answer: Answer::default(),
            draining: false,
            driver_left: false,
            all_long: world.maps.iter().all(|map| long(map.mix)),
        }
    }

    /// Returns the number of chunks in flight.
    pub(super) fn held(&self) -> usize {
        self.chunks.len()
    }

    fn present(&self, rank: RankId) -> bool {
        self.ranks.get(&rank).is_some_and(|rank| !rank.lost && !rank.dismissed)
    }

    fn stranded(&self) -> bool {
        let joined = self.ranks.values().any(|rank| rank.threads > 0);
        joined && self.ranks.keys().all(|rank| !self.present(*rank))
    }

    /// Marks these jobs of a map as no longer held by a rank and applies `change` to each.
    fn free(&mut self, map: MapId, jobs: Range<u64>, change: impl Fn(u64, &mut Job)) {
        let map = self.maps.get_mut(&map).expect("a chunk's map");
        for index in jobs {
            let job = &mut map.jobs[usize::try_from(index).expect("an index")];
            assert!(job.holder.take().is_some(), "job {index} was held");
            map.queued += 1;
            change(index, job);
        }
    }

    /// Records an event before the scheduler handles it.
    pub(super) fn before(&mut self, event: &Event) {
        self.answer = Answer::default();
        match event {
            Event::Joined { rank, threads } => {
                let joined = Rank { threads: u64::from(threads.get()), ..Rank::default() };
                self.ranks.entry(*rank).or_insert(joined);
            }
            Event::Opened { map, .. } => {
                self.maps.insert(*map, Map::default());
            }
            Event::Submitted { map, count, .. } => {
                let map = self.maps.get_mut(map).expect("an open map");
                let len = map.jobs.len() + usize::try_from(*count).expect("a count");
                map.jobs.resize(len, Job::default());
                map.queued += count;
            }
            Event::Closed { map } => self.maps.get_mut(map).expect("an open map").closed = true,
            Event::Abandoned { map } => self.maps.get_mut(map).expect("an open map").abandoned = true,
            Event::CancelAsked { .. } | Event::Delayed { .. } | Event::Quiet => {}
            Event::Finished { rank, chunk, failed, .. } => self.finished(*rank, *chunk, failed),
            Event::Returned { rank, chunk, kept } => self.returned(*rank, *chunk, u64::from(*kept)),
            Event::Lost { rank } => self.lost(*rank),
            Event::Draining => self.draining = true,
            Event::DriverLeft => self.driver_left = true,
        }
    }

    fn finished(&mut self, rank: RankId, chunk: ChunkId, failed: &[u32]) {
        if !self.present(rank) {
            return;
        }
        let held = self.chunks.remove(&chunk).expect("a rank finishes a chunk that it holds, once");
        assert_eq!(held.rank, rank);
        let holder = self.ranks.get_mut(&rank).expect("a rank");
        holder.chunks -= 1;
        // Suspects are never there together with other jobs.
        holder.suspects = holder.suspects.saturating_sub(1);
        let bad: BTreeSet<u64> = failed.iter().map(|offset| held.jobs.start + u64::from(*offset)).collect();
        assert!(bad.iter().all(|job| held.jobs.contains(job)), "the failed jobs are among those that were kept");
        self.free(held.map, held.jobs.clone(), |index, job| job.failures += u32::from(bad.contains(&index)));
        let good = held.jobs.clone().filter(|job| !bad.contains(job)).collect();
        let good: BTreeSet<u64> = good;
        let rank = self.ranks.get_mut(&rank).expect("a rank");
        rank.streak = if good.is_empty() { rank.streak + bad.len() } else { 0 };
        self.answer = Answer { map: Some(held.map), good, bad };
    }

    fn returned(&mut self, rank: RankId, chunk: ChunkId, kept: u64) {
        if !self.present(rank) {
            return;
        }
        let held = self.chunks.get_mut(&chunk).expect("a rank gives back a chunk that it holds");
        assert!(held.recalled && !held.returned);
        held.returned = true;
        let (map, back) = (held.map, held.jobs.start + kept..held.jobs.end);
        held.jobs.end = back.start;
        if kept == 0 {
            self.chunks.remove(&chunk);
            self.ranks.get_mut(&rank).expect("a rank").chunks -= 1;
        }
        self.free(map, back, |_, job| job.given_back = true);
    }

    fn lost(&mut self, id: RankId) {
        let rank = self.ranks.entry(id).or_default();
        rank.lost = true;
        (rank.chunks, rank.suspects) = (0, 0);
        let (lost, kept) = std::mem::take(&mut self.chunks).into_iter().partition(|(_, held)| held.rank == id);
        self.chunks = kept;
        let lost: BTreeMap<ChunkId, Held> = lost;
        let alone = lost.values().map(|held| held.jobs.end - held.jobs.start).sum::<u64>() == 1;
        for held in lost.into_values() {
            self.free(held.map, held.jobs, |_, job| {
                job.is_cause |= alone && job.losses >= 2;
                job.losses += 1;
            });
        }
    }

    /// Checks the scheduler's actions for an event.
    pub(super) fn after(&mut self, event: &Event, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Assign { rank, chunk, map, first, count, attempt } => {
                    self.assigned(*rank, *chunk, *map, *first..*first + u64::from(*count), *attempt);
                }
                Action::Recall { rank, chunk } => {
                    assert!(self.present(*rank), "{rank:?} is gone");
                    let held = self.chunks.get_mut(chunk).expect("a chunk that is held");
                    assert!(held.rank == *rank && !held.recalled, "{chunk:?} was recalled");
                    held.recalled = true;
                }
                Action::Settle { map, first, count, outcome, attempt } => {
                    for job in *first..*first + *count {
                        self.settled(event, *map, job, *outcome, *attempt);
                    }
                }
                Action::Release { map } => {
                    let map = self.maps.get_mut(map).expect("a map");
                    assert!((map.closed || map.abandoned) && !map.released, "release");
                    assert_eq!(map.settled, map.jobs.len() as u64, "all jobs are settled");
                    map.released = true;
                }
                Action::Dismiss { rank } => {
                    assert!(self.present(*rank), "{rank:?} is gone");
                    assert!(self.driver_left && self.maps.values().all(|map| map.released), "dismissed early");
                    self.ranks.get_mut(rank).expect("a rank").dismissed = true;
                }
            }
        }
        for job in &self.answer.good {
            let map = &self.maps[&self.answer.map.expect("an answer's map")];
            let outcome = map.jobs[usize::try_from(*job).expect("an index")].outcome;
            assert_eq!(outcome, Some(Outcome::Done), "job {job} is done");
        }
        // A job that has failed may wait for another rank, and a rank on which all jobs fail waits for others. While a job that
        // was given back waits for an idle thread, all jobs do.
        let is_back = |job: &Job| job.outcome.is_none() && job.holder.is_none() && job.given_back;
        let most = if self.maps.values().any(|map| map.jobs.iter().any(is_back)) { 1 } else { 2 };
        // A job that was lost may wait for another rank than rank 0.
        let waits = |job: &&Job| job.outcome.is_none() && job.holder.is_none() && job.failures == 0 && job.losses == 0;
        // Suspects need ranks of their own.
        let suspected =
            self.maps.values().flat_map(|map| &map.jobs).any(|job| job.outcome.is_none() && job.losses >= 2);
        let present = || self.ranks.iter().filter(|(id, _)| self.present(**id));
        if self.maps.values().any(|map| map.queued > 0 && map.jobs.iter().find(waits).is_some()) {
            for (id, rank) in present().filter(|(id, rank)| rank.streak < 3 && (!suspected || id.0 == 0)) {
                assert!(rank.chunks >= most * rank.threads, "{id:?} could take more while jobs wait");
            }
        }
        if self.maps.values().any(|map| map.queued > 0) && present().next().is_some() {
            assert!(present().any(|(_, rank)| rank.chunks > 0), "jobs wait and no rank has any");
        }
    }

    fn assigned(&mut self, rank: RankId, chunk: ChunkId, id: MapId, jobs: Range<u64>, attempt: u32) {
        assert!(self.present(rank), "{rank:?} is gone");
        assert!(!jobs.is_empty() && !self.draining);
        let policy = self.world.plan(id).policy;
        assert!(attempt >= 1 && attempt <= policy.retries.saturating_add(1), "attempt {attempt}");
        let map = self.maps.get_mut(&id).expect("a map");
        assert!(!map.abandoned && !map.released);
        // A rank has at most 8 threads, so that at most 3 suspects are there at the same time.
        let (mut suspects, mut most) = (0, 3);
        for index in jobs.clone() {
            let job = &mut map.jobs[usize::try_from(index).expect("an index")];
            assert!(job.outcome.is_none() && job.holder.is_none(), "job {index} is assigned again");
            assert_eq!(job.failures + 1, attempt, "job {index}");
            assert!(job.losses < 4 && !job.is_cause, "job {index} was lost too often");
            if job.losses >= 2 {
                assert!(rank.0 > 0 && jobs.end - jobs.start == 1, "job {index} is a suspect");
            }
            suspects += u64::from(job.losses >= 2);
            most = most.min(if job.losses >= 3 { 1 } else { 3 });
            job.assignments += 1;
            assert!(
                job.assignments <= ASSIGNMENTS_MAX.saturating_add(policy.retries),
                "job {index} is assigned too often"
            );
            job.holder = Some(chunk);
            map.queued -= 1;
        }
        if let ChunkSize::Fixed(size) = policy.chunk {
            assert!(jobs.end - jobs.start <= u64::from(size.get()), "a chunk is larger than its fixed size");
        }
        let holder = self.ranks.get_mut(&rank).expect("a rank");
        holder.chunks += 1;
        holder.suspects += suspects;
        assert!(
            holder.suspects == 0 || holder.suspects == holder.chunks && holder.chunks <= most,
            "{rank:?} holds suspects and others"
        );
        let credit = if self.all_long { 2 } else { 1_024 };
        assert!(holder.chunks <= credit * holder.threads, "{rank:?} holds more than its credit");
        let held = Held { rank, map: id, jobs, recalled: false, returned: false };
        assert!(self.chunks.insert(chunk, held).is_none(), "{chunk:?} is used twice");
    }

    fn settled(&mut self, event: &Event, id: MapId, index: u64, outcome: Outcome, attempt: u32) {
        let stranded = self.stranded();
        let only_master = self.ranks.keys().all(|rank| rank.0 == 0 || !self.present(*rank));
        let retries = self.world.plan(id).policy.retries;
        let map = self.maps.get_mut(&id).expect("a map");
        let job = &mut map.jobs[usize::try_from(index).expect("an index")];
        assert!(!map.released && job.outcome.is_none(), "job {index} settles twice");
        assert!(job.holder.is_none(), "job {index} settles as {outcome:?} while a rank has it");
        let answered = self.answer.map == Some(id);
        let ran = job.failures + job.losses;
        match outcome {
            Outcome::Done => {
                assert!(answered && self.answer.good.contains(&index), "job {index} has no result");
                assert_eq!(attempt, job.failures + 1);
            }
            Outcome::Failed => {
                assert!(answered && self.answer.bad.contains(&index), "job {index} has no failure");
                assert!(job.failures > retries || map.abandoned || self.draining, "job {index} has retries left");
                assert_eq!(attempt, job.failures);
            }
            Outcome::Lost => {
                let found = job.losses >= 4 || job.is_cause;
                let allowed = stranded || found || (only_master && job.losses >= 2);
                assert!(allowed && attempt == ran, "job {index} is lost");
            }
            Outcome::Cancelled => {
                let asked = *event == Event::CancelAsked { map: id, job: index };
                assert!((asked || map.abandoned) && attempt == ran, "job {index} is cancelled");
            }
            Outcome::Stopped => assert!(self.draining && attempt == ran, "job {index} is stopped"),
        }
        job.outcome = Some(outcome);
        map.queued -= 1;
        map.settled += 1;
    }

    /// Checks at the end, when no event is left, that the run is finished.
    pub(super) fn quiet(&self, schedule: &Schedule) {
        // Jobs wait for the first rank, for ever if every rank was lost before it joined; the master then ends the run.
        if self.ranks.values().all(|rank| rank.threads == 0) {
            return;
        }
        assert!(self.driver_left, "the driver waits for ever");
        for (id, map) in &self.maps {
            let open = map.jobs.iter().position(|job| job.outcome.is_none());
            assert!(map.released, "{id:?} is not released, job {open:?} is not settled");
        }
        for id in self.ranks.keys() {
            assert!(!self.present(*id), "{id:?} was not dismissed");
        }
        assert!(schedule.is_finished());
    }

    pub(super) fn into_outcomes(self) -> Vec<Vec<Option<Outcome>>> {
        let outcomes = |map: Map| map.jobs.into_iter().map(|job| job.outcome).collect();
        self.maps.into_values().map(outcomes).collect()
    }
}
