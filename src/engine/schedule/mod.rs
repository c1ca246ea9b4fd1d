//! The scheduler: takes events and returns actions that say which rank runs which jobs next.
//!
//! Decides the size of chunks, which rank gets a chunk, how many chunks a rank holds in advance, when queued work is recalled
//! from a rank that has too much, what happens to failed jobs and to the jobs of a lost rank, and when a job's outcome
//! is final. Leaves to others everything that takes time or can fail: payloads, messages, clocks, deciding that a rank
//! is lost, opening and closing maps. There are no clocks, no I/O and no errors here; the same events give the same
//! actions, on any machine. An event about something that is over (a late answer of a lost rank, a map that was
//! released) is ignored, since messages cross.
//!
//! * `event`: the events and actions.
//! * `chunks`: chunks by their ids. `queue`: the queued jobs of a map. `pace`: the duration of jobs and the size of chunks. `ranks`: the state of the ranks.
//!   `health`: which ranks may be broken. `suspects`: which jobs may be the cause when ranks are lost.
//! * this file: the handler of each event. `assign`: assignments and recalls. `check`: the invariants.
//! * `sim`: a simulated cluster around the scheduler, which checks and measures it.

// Pure: see clippy.toml. Every event and every action is matched by name.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod assign;
mod check;
mod chunks;
mod event;
#[cfg(test)]
mod exhaustive;
mod health;
mod pace;
mod queue;
mod ranks;
#[doc(hidden)]
pub mod sim;
mod suspects;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) use chunks::ChunkMap;
pub use event::{Action, ChunkId, ChunkSize, Event, MapId, Outcome, Policy, RankId};
use pace::{Expected, Pace};
use queue::{Queue, Range};
use ranks::Ranks;
use suspects::SUSPECT;

/// A job that was lost with its rank this many times is not assigned again: it is the cause of the losses, see `suspects`.
const LOSSES_MAX: u32 = 4;

/// A job that was given back this many times is not recalled again, so that whatever ranks and estimates do, a job is
/// assigned at most `1 + retries + LOSSES_MAX - 1 + RECALLS_MAX` times. Each recall divides the rest of a chunk by at least twice
/// the number of threads, so a chunk of several jobs needs few recalls; the others are for a job that waits behind one endless
/// job after another.
const RECALLS_MAX: u32 = 8;

/// The largest number of orders (assignments and recalls) that a job may cause: two for each time it is assigned.
fn orders_per_job(retries: u32) -> u64 {
    2 * (u64::from(retries) + u64::from(LOSSES_MAX) + u64::from(RECALLS_MAX))
}

/// A chunk in flight, as [`Schedule::chunk`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment {
    /// The rank that holds the chunk.
    pub rank: RankId,
    /// The map of its jobs.
    pub map: MapId,
    /// The index of the first job.
    pub first: u64,
    /// The number of jobs, without those that were given back.
    pub count: u32,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// A chunk in flight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Chunk {
    rank: RankId,
    map: MapId,
    jobs: Range,
    /// Estimated duration in ns.
    work: u64,
    recall: Recall,
    /// How often its rank has said that jobs of it are delayed.
    delays: u32,
}

impl Chunk {
    /// Returns whether the chunk may be recalled for an idle thread.
    fn is_recallable(&self) -> bool {
        self.recall == Recall::Never && self.jobs.recalls < RECALLS_MAX
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Recall {
    Never,
    Asked,
    Answered,
}

/// A map that has not been released.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Map {
    function: i64,
    retries: u32,
    pace: Pace,
    queue: Queue,
    /// Queued jobs that were lost [`SUSPECT`] times or more; they are not in `queue`.
    suspects: Queue,
    submitted: u64,
    settled: u64,
    /// Jobs held by ranks; `submitted` is the sum of the settled, the queued and the held jobs.
    held: u64,
    /// Assignments and recalls of its jobs so far; each has at most one answer.
    orders: u64,
    closed: bool,
    abandoned: bool,
}

/// The scheduler with all of its state. It has no clock, so clones and comparisons are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schedule {
    maps: BTreeMap<MapId, Map>,
    /// Maps with queued jobs, in the order in which they are served.
    serving: VecDeque<MapId>,
    /// Maps with queued suspects.
    suspected: BTreeSet<MapId>,
    chunks: ChunkMap<Chunk>,
    next_chunk: u64,
    /// Chunks with jobs that wait behind a long one, to be recalled for the next idle thread.
    delayed: BTreeSet<ChunkId>,
    /// By function: the duration of the jobs of its earlier maps.
    expected: BTreeMap<i64, Expected>,
    /// Whether some queued jobs may have been given back by a rank.
    given_back: bool,
    ranks: Ranks,
    draining: bool,
    driver_left: bool,
}

impl Schedule {
    /// Returns a scheduler without ranks and maps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles an event and appends the actions that follow from it, to be carried out in order.
    pub fn handle(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Joined { rank, threads } => {
                self.ranks.join(rank, threads.get());
            }
            Event::Opened { map, policy, function } => self.opened(map, policy, function),
            Event::Submitted { map, count, avoid } => self.submitted(map, count, avoid, out),
            Event::Closed { map } => self.closed(map, out),
            Event::Abandoned { map } => self.abandoned(map, out),
            Event::CancelAsked { map, job } => self.cancel_asked(map, job, out),
            Event::Finished { rank, chunk, busy, failed, failed_results } => {
                self.finished(rank, chunk, busy, failed, failed_results, out);
            }
            Event::Returned { rank, chunk, kept } => self.returned(rank, chunk, kept, out),
            Event::Delayed { rank, chunk } => self.delayed(rank, chunk),
            Event::Lost { rank } => self.lost(rank, out),
            Event::Draining => self.drain(out),
            Event::DriverLeft => self.driver_left = true,
            Event::Quiet => self.recall_when_quiet(out),
        }
        self.assign_suspects(out);
        self.assign_queued(out);
        self.recall_for_idle_threads(out);
        self.dismiss(out);
    }

    /// Returns whether the run is over: the driver has left and every map is released, so every rank was dismissed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.driver_left && self.maps.is_empty()
    }

    /// Returns a chunk in flight; `None` once it is finished, given back or lost.
    #[must_use]
    pub fn chunk(&self, chunk: ChunkId) -> Option<Assignment> {
        let chunk = self.chunks.get(chunk)?;
        Some(Assignment {
            rank: chunk.rank,
            map: chunk.map,
            first: chunk.jobs.first,
            count: u32::try_from(chunk.jobs.count).unwrap_or(u32::MAX),
            attempt: chunk.jobs.failures.saturating_add(1),
        })
    }

    /// Returns the number of threads of present ranks that hold no job.
    #[must_use]
    pub fn idle_threads(&self) -> u64 {
        self.ranks.idle()
    }

    /// Returns whether more threads are idle than recalls are unanswered, while ranks hold chunks: only then can
    /// [`Event::Quiet`] cause an action.
    #[must_use]
    pub fn has_slack(&self) -> bool {
        !self.chunks.is_empty() && self.ranks.idle() > self.ranks.unanswered()
    }

    /// Returns whether jobs wait for a rank with credit.
    #[must_use]
    pub fn has_queued(&self) -> bool {
        !self.serving.is_empty()
    }

    /// Returns the number of a map's jobs that no rank holds.
    #[must_use]
    pub fn queued(&self, map: MapId) -> u64 {
        self.maps.get(&map).map_or(0, |map| map.queue.len() + map.suspects.len())
    }

    /// Returns how many jobs of a map should be queued so that ranks are never short of work and chunks get their full size:
    /// twice the number that all threads may need at once. The pool bounds it by the memory that the inputs may take.
    #[must_use]
    pub fn queue_target(&self, map: MapId) -> u64 {
        let threads = self.ranks.threads().max(1);
        let jobs = self.maps.get(&map).map_or(1, |map| map.pace.full_chunk_jobs(threads));
        threads.saturating_mul(2).saturating_mul(jobs.max(2))
    }

    fn opened(&mut self, id: MapId, policy: Policy, function: i64) {
        if self.is_finished() {
            return;
        }
        self.maps.entry(id).or_insert_with(|| Map {
            retries: policy.retries,
            function,
            pace: Pace::new(policy.chunk, self.expected.get(&function).copied()),
            queue: Queue::default(),
            suspects: Queue::default(),
            submitted: 0,
            settled: 0,
            held: 0,
            orders: 0,
            closed: false,
            abandoned: false,
        });
    }

    fn submitted(&mut self, id: MapId, count: u64, avoid: Option<RankId>, out: &mut Vec<Action>) {
        let Some(map) = self.maps.get_mut(&id) else { return };
        let first = map.submitted;
        let count = count.min(u64::MAX - first);
        if count == 0 {
            return;
        }
        map.submitted += count;
        self.requeue(id, Range { first, count, failures: 0, losses: 0, recalls: 0, split: false, avoid }, false, out);
    }

    fn closed(&mut self, id: MapId, out: &mut Vec<Action>) {
        if let Some(map) = self.maps.get_mut(&id) {
            map.closed = true;
            self.release_if_over(id, out);
        }
    }

    fn abandoned(&mut self, id: MapId, out: &mut Vec<Action>) {
        if let Some(map) = self.maps.get_mut(&id) {
            map.abandoned = true;
            self.settle_queue(id, out);
            self.recall_unstarted(Some(id), out);
            self.release_if_over(id, out);
        }
    }

    fn cancel_asked(&mut self, id: MapId, job: u64, out: &mut Vec<Action>) {
        let Some(map) = self.maps.get_mut(&id) else { return };
        let Some(job) = map.queue.take(job).or_else(|| map.suspects.take(job)) else { return };
        if map.queue.is_empty() {
            self.serving.retain(|other| *other != id);
        }
        if map.suspects.is_empty() {
            self.suspected.remove(&id);
        }
        self.settle(id, &job, Outcome::Cancelled, job.runs(), out);
        self.release_if_over(id, out);
    }

    fn finished(
        &mut self,
        rank: RankId,
        id: ChunkId,
        busy: u64,
        failed: Vec<u32>,
        failed_results: u32,
        out: &mut Vec<Action>,
    ) {
        let Some(Chunk { map: map_id, jobs, .. }) = self.take_chunk(rank, id) else {
            return;
        };
        let Some(map) = self.maps.get_mut(&map_id) else { return };
        let failures = (failed.len() as u64).saturating_add(u64::from(failed_results)).min(jobs.count);
        // Jobs that fail at once would make the estimate for the others too short.
        if failures < jobs.count {
            map.pace.learn(busy, jobs.count);
        }
        self.ranks.record_results(rank, jobs.count - failures, failures);
        let attempt = jobs.failures.saturating_add(1);
        let again = attempt <= map.retries && !map.abandoned && !self.draining;
        if failed.is_empty() {
            self.settle(map_id, &jobs, Outcome::Done, attempt, out);
            return self.release_if_over(map_id, out);
        }

        for (has_failed, at, end) in runs(jobs.count, failed) {
            let part = Range { first: jobs.first + at, count: end - at, ..jobs };
            if !has_failed {
                self.settle(map_id, &part, Outcome::Done, attempt, out);
            } else if !again {
                self.settle(map_id, &part, Outcome::Failed, attempt, out);
            } else {
                // Each in a chunk of its own, since one of them may fail again.
                for first in part.first..part.end() {
                    let again = Range { first, count: 1, failures: attempt, avoid: Some(rank), ..jobs };
                    self.requeue(map_id, again, false, out);
                }
            }
        }
        self.release_if_over(map_id, out);
    }

    fn returned(&mut self, rank: RankId, id: ChunkId, kept: u32, out: &mut Vec<Action>) {
        let kept = u64::from(kept);
        let Some(chunk) = self.chunks.get_mut(id) else { return };
        if chunk.rank != rank || chunk.recall != Recall::Asked {
            return;
        }
        let (map_id, jobs) = (chunk.map, chunk.jobs);
        if kept == 0 {
            self.take_chunk(rank, id);
        } else {
            let kept = kept.min(jobs.count);
            let work = chunk.work / jobs.count * kept;
            let less = chunk.work - work;
            chunk.work = work;
            chunk.jobs.count = kept;
            chunk.recall = Recall::Answered;
            self.ranks.update(rank, |rank| {
                rank.work = rank.work.saturating_sub(less);
                rank.unanswered -= 1;
            });
            if let Some(map) = self.maps.get_mut(&map_id) {
                map.held -= jobs.count - kept;
            }
        }
        if kept < jobs.count {
            let (first, count, recalls) = (jobs.first + kept, jobs.count - kept, jobs.recalls.saturating_add(1));
            let back = Range { first, count, recalls, ..jobs };
            self.requeue(map_id, back, true, out);
            self.release_if_over(map_id, out);
        }
    }

    fn drain(&mut self, out: &mut Vec<Action>) {
        if !self.draining {
            self.draining = true;
            self.settle_queues(out);
            self.recall_unstarted(None, out);
        }
    }

    /// Removes a chunk from its rank and from the chunks in flight; `None` if `rank` does not hold it.
    fn take_chunk(&mut self, rank: RankId, id: ChunkId) -> Option<Chunk> {
        self.chunks.get(id).filter(|chunk| chunk.rank == rank)?;
        let chunk = self.chunks.remove(id)?;
        self.delayed.remove(&id);
        self.ranks.update(rank, |rank| {
            rank.held.remove(id);
            rank.recallable.remove(&id);
            rank.work = rank.work.saturating_sub(chunk.work);
            rank.unanswered -= u64::from(chunk.recall == Recall::Asked);
        });
        if let Some(map) = self.maps.get_mut(&chunk.map) {
            map.held -= chunk.jobs.count;
        }
        Some(chunk)
    }

    /// Queues jobs that no rank holds, or settles them if they will not be assigned.
    fn requeue(&mut self, id: MapId, jobs: Range, in_front: bool, out: &mut Vec<Action>) {
        let outcome = if jobs.losses >= SUSPECT { self.unassignable_suspects(id) } else { self.unassignable(id) };
        if let Some(outcome) = outcome {
            self.settle(id, &jobs, outcome, jobs.runs(), out);
            return;
        }
        let Some(map) = self.maps.get_mut(&id) else { return };
        if jobs.losses >= SUSPECT {
            self.suspected.insert(id);
            map.suspects.push_front(jobs);
            return;
        }
        if map.queue.is_empty() {
            self.serving.push_back(id);
        }
        self.given_back |= jobs.recalls > 0;
        if in_front {
            map.queue.push_front(jobs);
        } else {
            map.queue.push_back(jobs);
        }
    }

    /// Returns the outcome of a map's jobs, except suspects, if they are not assigned any more.
    fn unassignable(&self, id: MapId) -> Option<Outcome> {
        let abandoned = self.maps.get(&id).is_some_and(|map| map.abandoned);
        unassignable(abandoned, self.draining, self.ranks.is_stranded())
    }

    /// Settles the queued jobs of a map that are not assigned any more.
    fn settle_queue(&mut self, id: MapId, out: &mut Vec<Action>) {
        if self.unassignable_suspects(id).is_some() {
            self.settle_suspects(id, out);
        }
        let outcome = self.unassignable(id);
        let Some(map) = self.maps.get_mut(&id).filter(|_| outcome.is_some()) else { return };
        let queue = std::mem::take(&mut map.queue);
        self.serving.retain(|other| *other != id);
        for jobs in queue.ranges() {
            self.settle(id, jobs, outcome.unwrap_or(Outcome::Cancelled), jobs.runs(), out);
        }
    }

    fn settle_queues(&mut self, out: &mut Vec<Action>) {
        for id in self.maps.keys().copied().collect::<Vec<_>>() {
            self.settle_queue(id, out);
            self.release_if_over(id, out);
        }
    }

    fn settle(&mut self, id: MapId, jobs: &Range, outcome: Outcome, attempt: u32, out: &mut Vec<Action>) {
        if let Some(map) = self.maps.get_mut(&id) {
            map.settled += jobs.count;
            out.push(Action::Settle { map: id, first: jobs.first, count: jobs.count, outcome, attempt });
        }
    }

    fn release_if_over(&mut self, id: MapId, out: &mut Vec<Action>) {
        let over = |map: &Map| (map.closed || map.abandoned) && map.settled == map.submitted;
        let Some(map) = self.maps.get(&id).filter(|map| over(map)) else { return };
        if let Some(expected) = map.pace.expected() {
            self.expected.insert(map.function, expected);
        }
        self.maps.remove(&id);
        out.push(Action::Release { map: id });
    }

    fn dismiss(&mut self, out: &mut Vec<Action>) {
        if self.is_finished() {
            for rank in self.ranks.present().map(|(rank, _)| rank).collect::<Vec<_>>() {
                self.ranks.dismiss(rank);
                out.push(Action::Dismiss { rank });
            }
        }
    }
}

/// Splits `0 .. count` into maximal runs `(failed, start, end)`. Offsets that are out of range, and repetitions, are ignored.
fn runs(count: u64, failed: Vec<u32>) -> Vec<(bool, u64, u64)> {
    let failed: BTreeSet<u64> = failed.into_iter().map(u64::from).filter(|job| *job < count).collect();
    let mut runs: Vec<(bool, u64, u64)> = Vec::new();
    let mut end = 0;
    for job in failed {
        match runs.last_mut() {
            Some(last) if job == end => last.2 = job + 1,
            _ => {
                if job > end {
                    runs.push((false, end, job));
                }
                runs.push((true, job, job + 1));
            }
        }
        end = job + 1;
    }
    if end < count {
        runs.push((false, end, count));
    }
    runs
}

/// Returns the outcome of jobs that are not assigned any more; `None` if they still are.
fn unassignable(abandoned: bool, draining: bool, stranded: bool) -> Option<Outcome> {
    if abandoned {
        Some(Outcome::Cancelled)
    } else if draining {
        Some(Outcome::Stopped)
    } else if stranded {
        Some(Outcome::Lost)
    } else {
        None
    }
}
