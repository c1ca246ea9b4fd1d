//! An exhaustive search of tiny worlds: tries every possible next step in every reachable state.
//!
//! Links keep the order of messages; all else may happen in any order: threads end jobs, messages arrive, the driver acts,
//! ranks are lost. Each state is visited once, so that the search ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;

use super::{Action, ChunkId, ChunkSize, Event, MapId, Outcome, Policy, RankId, Schedule};

const MAP: MapId = MapId(0);

/// A chunk that a rank holds; its first `started` jobs were started, or if those are more, its first `pulled` ones were taken up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Work {
    chunk: ChunkId,
    count: u32,
    started: u32,
    pulled: u32,
    failed: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Rank {
    threads: usize,
    /// The chunks in the order of arrival; those with a started job are on a thread.
    work: Vec<Work>,
    inbox: VecDeque<Action>,
    outbox: VecDeque<Event>,
    alive: bool,
    reported_lost: bool,
    dismissed: bool,
}

/// The state of a world: all that the next steps depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    schedule: Schedule,
    ranks: Vec<Rank>,
    /// The driver's next events, in order.
    script: VecDeque<Event>,
    /// Events that may happen once, at any time.
    surprises: BTreeSet<Event>,
    settled: BTreeMap<u64, Outcome>,
    submitted: u64,
    released: bool,
    /// The number of jobs that may still fail.
    failures: u32,
    /// How often all jobs of a chunk that runs may still be taken up.
    pulls: u32,
    /// The duration of a job (ns).
    busy: u64,
}

impl State {
    fn new(threads: &[u32], policy: Policy, batches: &[u64], failures: u32, surprises: &[Event]) -> Self {
        let rank = |(id, threads): (u32, &u32)| {
            let joined = Event::Joined { rank: RankId(id), threads: NonZeroU32::new(*threads).unwrap() };
            let (work, inbox, outbox) = (Vec::new(), VecDeque::new(), VecDeque::from([joined]));
            Rank {
                threads: *threads as usize,
                work,
                inbox,
                outbox,
                alive: true,
                reported_lost: false,
                dismissed: false,
            }
        };
        let mut script = VecDeque::from([Event::Opened { map: MAP, policy, function: 0 }]);
        script.extend(batches.iter().map(|count| Event::Submitted { map: MAP, count: *count, avoid: None }));
        script.extend([Event::Closed { map: MAP }, Event::DriverLeft]);
        Self {
            schedule: Schedule::new(),
            ranks: (0..).zip(threads).map(rank).collect(),
            script,
            surprises: surprises.iter().cloned().collect(),
            settled: BTreeMap::new(),
            submitted: 0,
            released: false,
            failures,
            pulls: 0,
            busy: 10_000_000,
        }
    }

    /// Returns the same state with jobs that take `busy` ns.
    fn with_jobs_of(self, busy: u64) -> Self {
        Self { busy, ..self }
    }

    /// Returns the same state with jobs that are taken up before they are started.
    fn with_pulls(self, pulls: u32) -> Self {
        Self { pulls, ..self }
    }

    fn handle(&mut self, event: &Event) {
        if let Event::Submitted { count, .. } = event {
            if !self.released {
                self.submitted += count;
            }
        } else if let Event::Lost { rank } = event {
            let rank = &mut self.ranks[rank.0 as usize];
            (rank.alive, rank.reported_lost) = (false, true);
        }
        let mut actions = Vec::new();
        self.schedule.handle(event.clone(), &mut actions);
        self.schedule.check();
        for action in actions {
            match action {
                Action::Assign { rank, .. } | Action::Recall { rank, .. } => {
                    let rank = &mut self.ranks[rank.0 as usize];
                    assert!(
                        !rank.reported_lost && !rank.dismissed && !self.released,
                        "{action:?} to a rank that is gone"
                    );
                    rank.inbox.push_back(action);
                }
                Action::Settle { first, count, outcome, .. } => {
                    for job in first..first + count {
                        assert!(self.settled.insert(job, outcome).is_none(), "job {job} settles twice");
                    }
                }
                Action::Release { .. } => {
                    assert!(!self.released && self.settled.len() as u64 == self.submitted, "released early");
                    self.released = true;
                }
                Action::Dismiss { rank } => {
                    let rank = &mut self.ranks[rank.0 as usize];
                    assert!(!rank.reported_lost && !rank.dismissed && self.released, "dismissed early or twice");
                    rank.dismissed = true;
                }
            }
        }
    }

    /// Returns all states that may come next.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut branch = |change: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            next.push(state);
        };
        if !self.script.is_empty() {
            branch(&|state| {
                let event = state.script.pop_front().unwrap();
                state.handle(&event);
            });
        }
        if self.schedule.has_slack() {
            branch(&|state| state.handle(&Event::Quiet));
        }
        for event in &self.surprises {
            branch(&|state| {
                state.surprises.remove(event);
                state.handle(event);
            });
        }
        for (id, rank) in self.ranks.iter().enumerate() {
            if !rank.outbox.is_empty() {
                branch(&|state| {
                    let event = state.ranks[id].outbox.pop_front().unwrap();
                    state.handle(&event);
                });
            }
            if !rank.alive {
                continue;
            }
            if !rank.inbox.is_empty() {
                branch(&|state| state.ranks[id].receive(u32::try_from(id).unwrap()));
            }
            for index in 0..rank.work.len().min(rank.threads) {
                branch(&|state| state.ranks[id].advance(id, index, false, state.busy));
                if self.failures > 0 && rank.work[index].started > 0 {
                    branch(&|state| {
                        state.failures -= 1;
                        state.ranks[id].advance(id, index, true, state.busy);
                    });
                }
                let Work { chunk, count, started, pulled, .. } = rank.work[index];
                if started > 0 && started < count && pulled == 0 && self.pulls > 0 {
                    branch(&|state| {
                        state.pulls -= 1;
                        state.ranks[id].work[index].pulled = count;
                    });
                } else if started < pulled {
                    branch(&|state| {
                        state.ranks[id].work[index].pulled = 0;
                        let rank = RankId(u32::try_from(id).unwrap());
                        state.ranks[id].outbox.push_back(Event::Delayed { rank, chunk });
                    });
                }
            }
        }
        next
    }
}

impl Rank {
    fn receive(&mut self, me: u32) {
        match self.inbox.pop_front().unwrap() {
            Action::Assign { chunk, count, .. } => {
                self.work.push(Work { chunk, count, started: 0, pulled: 0, failed: Vec::new() });
            }
            Action::Recall { chunk, .. } => {
                if let Some(work) = self.work.iter_mut().find(|work| work.chunk == chunk) {
                    work.count = work.count.min(work.started.max(work.pulled));
                    self.outbox.push_back(Event::Returned { rank: RankId(me), chunk, kept: work.count });
                }
                self.work.retain(|work| work.count > 0);
            }
            Action::Settle { .. } | Action::Release { .. } | Action::Dismiss { .. } => {
                unreachable!("these are not sent to ranks")
            }
        }
    }

    /// Lets a thread end the job that it runs, if any, and start the next one or report the chunk as finished.
    fn advance(&mut self, me: usize, index: usize, fails: bool, busy: u64) {
        let work = &mut self.work[index];
        if fails {
            work.failed.push(work.started - 1);
        }
        if work.started < work.count {
            work.started += 1;
            return;
        }
        let Work { chunk, count, failed, .. } = self.work.remove(index);
        let rank = RankId(u32::try_from(me).unwrap());
        self.outbox.push_back(Event::Finished {
            rank,
            chunk,
            busy: u64::from(count) * busy,
            failed,
            failed_results: 0,
        });
    }
}

/// Visits all states and returns their number. Asserts that in a state without a next one the run is finished.
fn search(start: State) -> usize {
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        let next = state.next();
        if next.is_empty() {
            assert!(state.schedule.is_finished() && state.released, "quiet but not finished: {state:#?}");
            assert_eq!(state.settled.len() as u64, state.submitted);
            assert!(state.ranks.iter().all(|rank| rank.reported_lost || rank.dismissed));
        }
        for state in next {
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
        assert!(seen.len() < 2_000_000, "the search does not end");
    }
    seen.len()
}

fn policy(chunk: u32, retries: u32) -> Policy {
    let chunk = NonZeroU32::new(chunk).map_or(ChunkSize::Auto, ChunkSize::Fixed);
    Policy { chunk, retries }
}

const LOST: Event = Event::Lost { rank: RankId(1) };
const ABANDONED: Event = Event::Abandoned { map: MAP };
const CANCEL: Event = Event::CancelAsked { map: MAP, job: 2 };

#[test]
fn every_interleaving_of_recalls_ends_well() {
    assert!(search(State::new(&[1, 1], policy(0, 0), &[4], 0, &[])) > 100);
    assert!(search(State::new(&[1, 2], policy(2, 0), &[4, 2], 0, &[])) > 100);
}

#[test]
fn every_interleaving_of_short_jobs_ends_well() {
    assert!(search(State::new(&[2], policy(0, 0), &[3, 4], 0, &[]).with_jobs_of(1_000)) > 100);
    assert!(search(State::new(&[1, 1], policy(0, 0), &[3, 2], 0, &[]).with_jobs_of(1_000)) > 100);
}

#[test]
fn every_interleaving_of_delayed_jobs_ends_well() {
    assert!(search(State::new(&[1, 1], policy(3, 0), &[4], 0, &[]).with_pulls(2)) > 100);
    assert!(search(State::new(&[2], policy(3, 1), &[3], 1, &[]).with_pulls(2)) > 100);
    assert!(search(State::new(&[1, 1], policy(2, 0), &[3], 0, &[LOST]).with_pulls(1)) > 100);
    assert!(search(State::new(&[1, 1], policy(2, 0), &[3], 0, &[ABANDONED]).with_pulls(1)) > 100);
}

#[test]
fn every_interleaving_with_failures_ends_well() {
    assert!(search(State::new(&[1, 1], policy(2, 1), &[3], 3, &[])) > 100);
    assert!(search(State::new(&[2], policy(0, 2), &[2, 1], 3, &[])) > 100);
}

#[test]
fn every_interleaving_with_a_lost_rank_ends_well() {
    assert!(search(State::new(&[1, 1], policy(2, 0), &[3], 0, &[LOST])) > 100);
    assert!(search(State::new(&[1, 1], policy(0, 1), &[3], 1, &[LOST])) > 100);
    let all = [LOST, Event::Lost { rank: RankId(0) }, Event::Lost { rank: RankId(2) }];
    let mut start = State::new(&[1, 1, 1], policy(2, 0), &[2], 0, &all);
    // All ranks have joined, so that the run does not wait for one that is lost before.
    for rank in 0..3 {
        let joined = start.ranks[rank].outbox.pop_front().unwrap();
        start.handle(&joined);
    }
    assert!(search(start) > 100);
}

#[test]
fn every_interleaving_with_cancelling_and_abandoning_ends_well() {
    assert!(search(State::new(&[1, 1], policy(1, 1), &[4], 1, &[CANCEL])) > 100);
    assert!(search(State::new(&[1, 1], policy(2, 1), &[2, 1], 1, &[ABANDONED])) > 100);
    assert!(search(State::new(&[1, 1], policy(2, 0), &[3], 0, &[ABANDONED, LOST])) > 100);
}

#[test]
fn every_interleaving_with_draining_ends_well() {
    assert!(search(State::new(&[1, 1], policy(0, 1), &[3], 1, &[Event::Draining])) > 100);
    assert!(search(State::new(&[1, 1], policy(2, 0), &[2, 1], 0, &[Event::Draining, LOST])) > 100);
}
