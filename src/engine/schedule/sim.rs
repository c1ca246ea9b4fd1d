//! A simulated cluster around the scheduler: one thread, one seed, no real clock.
//!
//! It replaces the master, the ranks and the driver: ranks have threads, links have latencies, jobs have durations that are drawn
//! from the seed, and ranks and jobs fail. It decides nothing about scheduling. The same world gives the same trace, on
//! any machine with the same `ln`. `draw` makes worlds from seeds, `judge` checks the scheduler's guarantees,
//! `report` measures its performance. Public so that the benches `simulate` and `parts` reach it; not part of the crate's API.

mod draw;
mod judge;
mod rank;
pub mod report;
#[cfg(test)]
mod tests;
mod world;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;

use super::{Action, Event, MapId, Outcome, RankId, Schedule};
use judge::Judge;
use rank::{Order, Rank, Reply};
pub use world::{Fate, MICRO, MILLI, MapPlan, Mix, RankPlan, World};
use world::{draw_from, mix};

/// The result of a simulated run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Hash of all events and actions with their times.
    pub trace: u64,
    /// The time at which the last job was settled (ns).
    pub makespan: u64,
    /// The time that threads spent in jobs (ns).
    pub busy: u64,
    /// The number of jobs that each rank ran.
    pub jobs_of_rank: Vec<u64>,
    /// The number of messages between master and ranks.
    pub messages: u64,
    /// The number of recalls among them.
    pub recalls: u64,
    /// The number of ranks that a job has killed.
    pub killed: u64,
    /// Final outcomes, by map and job (only if judged).
    pub outcomes: Vec<Vec<Option<Outcome>>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// An event reaches the master.
    MasterEvent(Event),
    /// An order arrives at a rank.
    Arrived(RankId, Order),
    /// A thread of a rank ends a chunk, unless the chunk was cut in the meantime.
    Ended {
        rank: RankId,
        thread: usize,
        generation: u64,
    },
    Joins(RankId),
    Dies(RankId),
    /// The driver opens, feeds or closes a map.
    Drives(MapId),
}

/// The driver's side of a map.
#[derive(Clone, Debug, Default)]
struct Driven {
    opened: bool,
    submitted: u64,
    settled: u64,
    over: bool,
}

/// After this time without events the scheduler gets [`Event::Quiet`] (ns).
const QUIET: u64 = MILLI;

/// A run in progress.
struct Sim<'a> {
    world: &'a World,
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Step)>>,
    schedule: Schedule,
    actions: Vec<Action>,
    ranks: Vec<Rank>,
    driven: Vec<Driven>,
    driver_left: bool,
    /// The time of the last event, and whether it was another one than [`Event::Quiet`].
    last_event: u64,
    active: bool,
    /// The time at which the master has handled all events so far.
    master_free: u64,
    judge: Option<Judge<'a>>,
    trace: DefaultHasher,
    /// The largest number of jobs that are submitted in one event.
    block: u64,
    /// All events so far, if they are asked for.
    events: Option<Vec<Event>>,
    makespan: u64,
    messages: u64,
    recalls: u64,
    killed: u64,
}

/// Runs a world to its end.
///
/// # Panics
///
/// If the world is judged and the scheduler breaks a guarantee.
#[must_use]
pub fn run(world: &World) -> Run {
    let mut sim = Sim::new(world);
    sim.run();
    if let Some(judge) = &sim.judge {
        judge.quiet(&sim.schedule);
    }
    Run {
        trace: sim.trace.finish(),
        makespan: sim.makespan,
        busy: sim.ranks.iter().map(|rank| rank.busy).sum(),
        jobs_of_rank: sim.ranks.iter().map(|rank| rank.jobs).collect(),
        messages: sim.messages,
        recalls: sim.recalls,
        killed: sim.killed,
        outcomes: sim.judge.map(Judge::into_outcomes).unwrap_or_default(),
    }
}

/// Runs a world to its end and returns the events that its scheduler has handled, which give the same actions again. Jobs are
/// submitted in blocks of at most `block`.
#[must_use]
pub fn events(world: &World, block: u64) -> Vec<Event> {
    let mut sim = Sim { block: block.max(1), events: Some(Vec::new()), ..Sim::new(world) };
    sim.run();
    sim.events.unwrap_or_default()
}

impl<'a> Sim<'a> {
    fn new(world: &'a World) -> Self {
        let mut sim = Self {
            world,
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            schedule: Schedule::new(),
            actions: Vec::new(),
            ranks: world.ranks.iter().map(|plan| Rank::new(plan.clone())).collect(),
            driven: vec![Driven::default(); world.maps.len()],
            driver_left: false,
            last_event: 0,
            active: false,
            master_free: 0,
            judge: world.judged.then(|| Judge::new(world)),
            trace: DefaultHasher::new(),
            block: u64::MAX,
            events: None,
            makespan: 0,
            messages: 0,
            recalls: 0,
            killed: 0,
        };
        for (id, plan) in (0..).map(RankId).zip(&world.ranks) {
            sim.at(plan.joins, Step::Joins(id));
            match plan.fate {
                Fate::Stays => {}
                Fate::Dies { at, reported } => {
                    sim.at(at, Step::Dies(id));
                    sim.at(reported, Step::MasterEvent(Event::Lost { rank: id }));
                }
                Fate::Stalls { reported, .. } => sim.at(reported, Step::MasterEvent(Event::Lost { rank: id })),
            }
        }
        for (id, plan) in (0..).map(MapId).zip(&world.maps) {
            if !world.in_a_row || id == MapId(0) {
                sim.at(plan.opens, Step::Drives(id));
            }
            if let Some(at) = plan.abandoned {
                sim.at(at.max(plan.opens), Step::Drives(id));
            }
            for (at, job) in &plan.cancels {
                sim.at(*at, Step::MasterEvent(Event::CancelAsked { map: id, job: *job }));
            }
        }
        if let Some(at) = world.drains {
            sim.at(at, Step::MasterEvent(Event::Draining));
        }
        sim
    }

    fn run(&mut self) {
        let mut steps = 0_u64;
        while let Some(Reverse((now, sequence, step))) = self.heap.pop() {
            let quiet = self.last_event + QUIET;
            if self.active && now > quiet && self.schedule.has_slack() {
                self.heap.push(Reverse((now, sequence, step)));
                (self.now, self.active) = (quiet, false);
                self.handle(Event::Quiet);
                continue;
            }
            self.now = now;
            self.step(step);
            steps += 1;
            assert!(!self.world.judged || steps < 2_000_000, "the run does not come to an end");
        }
    }

    fn at(&mut self, time: u64, step: Step) {
        self.sequence += 1;
        self.heap.push(Reverse((time.max(self.now), self.sequence, step)));
    }

    fn step(&mut self, step: Step) {
        if self.world.judged {
            (self.now, &step).hash(&mut self.trace);
        }
        match step {
            Step::MasterEvent(event) => self.handle(event),
            Step::Arrived(id, order) => {
                let rank = &mut self.ranks[id.0 as usize];
                let replies = rank.take(order, self.now, self.world);
                self.reply(id, replies);
            }
            Step::Ended { rank: id, thread, generation } => {
                let rank = &mut self.ranks[id.0 as usize];
                let replies = rank.end(thread, generation, self.now, self.world);
                self.reply(id, replies);
            }
            Step::Joins(id) => {
                let threads = NonZeroU32::new(self.world.ranks[id.0 as usize].threads).expect("threads");
                self.reply(id, vec![Reply::Send(Event::Joined { rank: id, threads })]);
            }
            Step::Dies(id) => self.ranks[id.0 as usize].alive = false,
            Step::Drives(map) => self.drive(map),
        }
    }

    fn latency(&self) -> u64 {
        let (least, most) = self.world.latency;
        least + draw_from(&[self.world.seed, 3, self.sequence]) % (most - least + 1)
    }

    /// Turns a rank's replies into events. Messages of a rank that lives arrive in order, after a latency.
    fn reply(&mut self, id: RankId, replies: Vec<Reply>) {
        for reply in replies {
            let arrives = self.now + self.latency();
            let rank = &mut self.ranks[id.0 as usize];
            match reply {
                Reply::Send(mut event) if rank.alive => {
                    if let Event::Joined { rank, .. } | Event::Finished { rank, .. } | Event::Returned { rank, .. } =
                        &mut event
                    {
                        *rank = id;
                    }
                    let stalled = match rank.plan.fate {
                        Fate::Stalls { at, until, .. } if self.now >= at => until,
                        Fate::Stays | Fate::Dies { .. } | Fate::Stalls { .. } => 0,
                    };
                    rank.last_sent = arrives.max(rank.last_sent).max(stalled);
                    let arrives = rank.last_sent;
                    self.messages += 1;
                    self.at(arrives, Step::MasterEvent(event));
                }
                Reply::Send(_) => {}
                Reply::Wake { at, thread, generation } => {
                    self.at(at, Step::Ended { rank: id, thread, generation });
                }
                Reply::Die => {
                    rank.alive = false;
                    self.killed += 1;
                    self.at(self.now + MILLI, Step::MasterEvent(Event::Lost { rank: id }));
                }
            }
        }
    }

    /// Lets the master handle one event and carry out the actions, one service time each.
    fn handle(&mut self, event: Event) {
        if let Some(judge) = &mut self.judge {
            judge.before(&event);
        }
        (self.last_event, self.active) = (self.now, event != Event::Quiet);
        if let Some(events) = &mut self.events {
            events.push(event.clone());
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.schedule.handle(event.clone(), &mut actions);
        self.master_free = self.master_free.max(self.now) + self.world.service;
        if let Some(judge) = &mut self.judge {
            actions.hash(&mut self.trace);
            judge.after(&event, &actions);
            // The check takes time in proportion to the size of the state.
            if judge.held() < 100 || self.sequence % 16 == 0 {
                self.schedule.check();
            }
        }
        for action in actions.drain(..) {
            match action {
                Action::Assign { rank, chunk, map, first, count, attempt } => {
                    self.send(rank, Order::Run { chunk, map, first, count, attempt });
                }
                Action::Recall { rank, chunk } => {
                    self.recalls += 1;
                    self.send(rank, Order::Recall(chunk));
                }
                Action::Settle { map, count, .. } => {
                    self.makespan = self.now;
                    let driven = &mut self.driven[usize::try_from(map.0).expect("a map")];
                    driven.settled += count;
                    if !driven.over {
                        self.at(self.now + MICRO, Step::Drives(map));
                    }
                }
                Action::Release { map: MapId(map) } if self.world.in_a_row => {
                    let next = MapId(map + 1);
                    if let Some(plan) = self.world.maps.get(usize::try_from(next.0).expect("a map")) {
                        self.at(self.now + plan.opens, Step::Drives(next));
                    }
                }
                Action::Release { .. } | Action::Dismiss { .. } => {}
            }
        }
        self.actions = actions;
    }

    fn send(&mut self, id: RankId, order: Order) {
        self.master_free += self.world.service;
        self.messages += 1;
        let arrives = self.master_free + self.latency();
        let rank = &mut self.ranks[id.0 as usize];
        rank.last_received = rank.last_received.max(arrives);
        let arrives = rank.last_received;
        self.at(arrives, Step::Arrived(id, order));
    }

    /// Lets the driver open a map, fill its window, and close or abandon it. After the last map the driver leaves.
    fn drive(&mut self, id: MapId) {
        let plan = self.world.plan(id);
        let index = usize::try_from(id.0).expect("a map");
        let driven = &mut self.driven[index];
        let mut events = Vec::new();
        if !driven.opened {
            driven.opened = true;
            events.push(Event::Opened { map: id, policy: plan.policy, function: plan.function });
        }
        if !driven.over {
            let room = plan.window.saturating_sub(driven.submitted - driven.settled);
            let mut count = room.min(plan.jobs - driven.submitted);
            while count > 0 {
                let block = count.min(self.block);
                count -= block;
                driven.submitted += block;
                events.push(Event::Submitted { map: id, count: block, avoid: None });
            }
            if plan.abandoned.is_some_and(|at| at <= self.now) {
                driven.over = true;
                events.push(Event::Abandoned { map: id });
            } else if driven.submitted == plan.jobs {
                driven.over = true;
                events.push(Event::Closed { map: id });
            }
        }
        if !self.driver_left && self.driven.iter().all(|driven| driven.over) {
            self.driver_left = true;
            events.push(Event::DriverLeft);
        }
        for event in events {
            self.handle(event);
        }
    }
}
