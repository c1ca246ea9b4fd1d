//! A simulated rank: its threads take chunks in the order of arrival and run their jobs one after another.

use std::collections::VecDeque;

use super::{RankPlan, World};
use crate::engine::schedule::{ChunkId, Event, MapId, RankId};

/// A message from the master to a rank.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Order {
    Run { chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32 },
    Recall(ChunkId),
}

/// An effect of a message or of the end of a chunk on a rank.
pub(super) enum Reply {
    /// A message to the master; [`Sim::reply`](super::Sim::reply) fills in the sender's id.
    Send(Event),
    /// A thread ends its chunk at this time.
    Wake { at: u64, thread: usize, generation: u64 },
    /// The rank is gone.
    Die,
}

#[derive(Clone, Copy)]
struct Work {
    chunk: ChunkId,
    map: MapId,
    first: u64,
    count: u32,
    attempt: u32,
}

struct Running {
    work: Work,
    started: u64,
    generation: u64,
    broken: bool,
}

/// A rank and its chunks.
pub(super) struct Rank {
    pub(super) plan: RankPlan,
    pub(super) alive: bool,
    /// The arrival times of the last message each way: links keep the order of messages.
    pub(super) last_sent: u64,
    pub(super) last_received: u64,
    /// The time spent in jobs that ended, in ns.
    pub(super) busy: u64,
    /// The number of jobs that ended here.
    pub(super) jobs: u64,
    waiting: VecDeque<Work>,
    threads: Vec<Option<Running>>,
    generation: u64,
}

/// The duration of a job that fails at once (ns).
const BROKEN: u64 = 100_000;

/// A placeholder; [`Sim::reply`](super::Sim::reply) fills in the rank's id.
const ME: RankId = RankId(0);

impl Rank {
    pub(super) fn new(plan: RankPlan) -> Self {
        let threads = (0..plan.threads).map(|_| None).collect();
        let waiting = VecDeque::new();
        Self { plan, alive: true, last_sent: 0, last_received: 0, busy: 0, jobs: 0, waiting, threads, generation: 0 }
    }

    fn is_broken(&self, time: u64) -> bool {
        (self.plan.broken.0..self.plan.broken.1).contains(&time)
    }

    /// Returns the duration of the first `count` jobs of a chunk on this rank.
    fn time(&self, work: Work, count: u32, begins: u64, world: &World) -> u64 {
        if self.is_broken(begins) {
            return u64::from(count) * BROKEN;
        }
        let jobs = work.first..work.first + u64::from(count);
        jobs.map(|job| world.duration(work.map, job) * self.plan.slowness / 100).sum()
    }

    pub(super) fn take(&mut self, order: Order, now: u64, world: &World) -> Vec<Reply> {
        if !self.alive {
            return Vec::new();
        }
        match order {
            Order::Run { chunk, map, first, count, attempt } => {
                self.waiting.push_back(Work { chunk, map, first, count, attempt });
                match self.threads.iter().position(Option::is_none) {
                    Some(thread) => self.start(thread, now + self.plan.waking, world),
                    None => Vec::new(),
                }
            }
            Order::Recall(chunk) => self.recall(chunk, now, world),
        }
    }

    /// Lets a thread take the next chunk and start it at the time `begins`.
    fn start(&mut self, thread: usize, begins: u64, world: &World) -> Vec<Reply> {
        let Some(work) = self.waiting.pop_front() else {
            return Vec::new();
        };
        let poison = world.plan(work.map).poison;
        if poison.is_some_and(|job| job >= work.first && job - work.first < u64::from(work.count)) {
            return vec![Reply::Die];
        }
        self.generation += 1;
        let generation = self.generation;
        self.threads[thread] = Some(Running { work, started: begins, generation, broken: self.is_broken(begins) });
        vec![Reply::Wake { at: begins + self.time(work, work.count, begins, world), thread, generation }]
    }

    pub(super) fn end(&mut self, thread: usize, generation: u64, now: u64, world: &World) -> Vec<Reply> {
        if !self.alive || self.threads[thread].as_ref().is_none_or(|running| running.generation != generation) {
            return Vec::new();
        }
        let Some(Running { work, started, broken, .. }) = self.threads[thread].take() else {
            return Vec::new();
        };
        let busy = now - started;
        self.busy += busy;
        self.jobs += u64::from(work.count);
        let fails = |offset: &u32| broken || world.fails(work.map, work.first + u64::from(*offset), work.attempt);
        let failed = (0..work.count).filter(fails).collect();
        let mut replies =
            vec![Reply::Send(Event::Finished { rank: ME, chunk: work.chunk, busy, failed, failed_results: 0 })];
        replies.extend(self.start(thread, now, world));
        replies
    }

    fn recall(&mut self, chunk: ChunkId, now: u64, world: &World) -> Vec<Reply> {
        if let Some(place) = self.waiting.iter().position(|work| work.chunk == chunk) {
            self.waiting.remove(place);
            return vec![Reply::Send(Event::Returned { rank: ME, chunk, kept: 0 })];
        }
        let running = |running: &Option<Running>| running.as_ref().is_some_and(|running| running.work.chunk == chunk);
        let Some(thread) = self.threads.iter().position(running) else {
            return Vec::new();
        };
        let Some(Running { mut work, started, broken, .. }) = self.threads[thread].take() else {
            return Vec::new();
        };
        if now < started {
            // The recall has overtaken the start.
            let mut replies = vec![Reply::Send(Event::Returned { rank: ME, chunk, kept: 0 })];
            replies.extend(self.start(thread, started, world));
            return replies;
        }
        let mut kept = 1;
        let mut ends = started + self.time(work, 1, started, world);
        while kept < work.count && ends <= now {
            ends = started + self.time(work, kept + 1, started, world);
            kept += 1;
        }
        work.count = kept;
        self.generation += 1;
        let generation = self.generation;
        self.threads[thread] = Some(Running { work, started, generation, broken });
        let wake = Reply::Wake { at: ends, thread, generation };
        vec![Reply::Send(Event::Returned { rank: ME, chunk, kept }), wake]
    }
}
