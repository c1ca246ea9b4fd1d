//! Simulated worlds for the ledger: jobs that fail in many ways, a pool, a source and sinks that fail, signals, lost ranks, and
//! runs that are killed and started again. One seed is one world, on one thread.
//!
//! The judge keeps its own account of each job and asserts: every job that was read ends with exactly one order, or the run was killed;
//! attempts follow the retry policy; nothing counts as done in the next run whose output was not handed over; a world in
//! which nothing is under way and nothing waits has ended.

mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::value::RawValue;

use super::job::{Attempt, Room};
use super::ledger::{self, Counts, Ending, Event, Ledger, Next, Order, Planned};
use super::policy::StopPolicy;
use crate::journal::Status;
use world::{Result, SECOND, UnderWay, World};

/// More steps than any world needs.
const MOST_STEPS: u32 = 20_000;

/// The judge's account of a job in one run.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    attempts: u32,
    is_under_way: bool,
    /// The earliest time of the next attempt.
    due: Duration,
    ends: u32,
    /// The room of its next attempt, and how many attempts do not count against the retries.
    room: Room,
    uncounted: u32,
    /// Whether its last attempt ran out of memory and is to be followed by one with more room.
    wants_room: bool,
}

/// One run of a world, until it ends or is killed.
struct Run<'w> {
    world: &'w World,
    random: &'w mut ChaCha8Rng,
    ledger: Ledger<u64, Result>,
    /// The records that this run reads.
    source: VecDeque<u64>,
    under_way: Vec<UnderWay>,
    /// The numbers of the jobs by the indexes of their attempts.
    attempts: Vec<u64>,
    now: Duration,
    seen: BTreeMap<u64, Seen>,
    /// The numbers of the jobs by their places.
    places: Vec<u64>,
    /// Settled jobs whose output was not handed over yet, and those whose output was.
    settled: Vec<(u64, Status)>,
    handed_over: Vec<(u64, Status)>,
    /// The jobs in the journal, and those that this run has taken from it.
    journal: BTreeMap<u64, Status>,
    restored: Vec<(u64, Status)>,
    left: u64,
    stopped: bool,
    gave_up: bool,
    /// The stop policy has ended the run.
    enough: bool,
    fault: bool,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
enum End {
    Killed,
    SinkFailed,
    Stopped,
    Complete,
}

impl<'w> Run<'w> {
    /// Makes a run of the jobs that no earlier run has done.
    fn new(world: &'w World, random: &'w mut ChaCha8Rng, done: &BTreeSet<u64>, journal: BTreeMap<u64, Status>) -> Self {
        let is_read = |number: &u64| world.journaled || !done.contains(number);
        let source: VecDeque<u64> = (1..=world.jobs).filter(is_read).collect();
        let total = world.knows_total.then_some(source.len() as u64);
        let ledger = Ledger::new(world.retry.clone(), world.stop, 7, total).giving_room(world.gives_room);
        Run {
            ledger: if world.journaled { ledger.resumable() } else { ledger },
            world,
            random,
            source,
            under_way: Vec::new(),
            attempts: Vec::new(),
            now: Duration::ZERO,
            seen: BTreeMap::new(),
            places: Vec::new(),
            settled: Vec::new(),
            handed_over: Vec::new(),
            journal,
            restored: Vec::new(),
            left: 0,
            stopped: false,
            gave_up: false,
            enough: false,
            fault: false,
        }
    }

    fn run(&mut self) -> End {
        let mut closed = false;
        for step in 0..MOST_STEPS {
            self.ledger.check();
            if self.world.kill == Some(step) {
                if self.random.random() {
                    // Between the journal and the outputs.
                    self.write_journal();
                }
                return End::Killed;
            }
            if self.world.sink_fails == Some(step) {
                return self.end(End::SinkFailed);
            }
            if self.world.signal == Some(step) {
                self.signal();
            }
            closed = closed || self.push();
            if closed && self.under_way.is_empty() {
                let end = if self.ledger.was_cut() { End::Stopped } else { End::Complete };
                return self.end(end);
            }
            if self.random.random_bool(0.5) {
                self.hand_over();
            }
            if self.step() {
                return self.end(End::Complete);
            }
            if self.stopped && self.random.random_bool(0.1) {
                let place = self.places.len() as u64 / 2;
                self.notify(Event::SkipBefore { place });
            }
        }
        panic!("the run does not end");
    }

    /// Writes the entries of settled jobs; a cancelled job has none.
    fn write_journal(&mut self) {
        if self.world.journaled {
            let settled = self.settled.iter().filter(|(_, status)| *status != Status::Cancelled);
            self.journal.extend(settled.copied());
        }
    }

    fn hand_over(&mut self) {
        self.write_journal();
        self.handed_over.append(&mut self.settled);
    }

    fn signal(&mut self) {
        self.stopped = true;
        self.notify(Event::Stop);
    }

    /// Pushes attempts while there is room. Returns true if there are no more.
    fn push(&mut self) -> bool {
        while self.under_way.len() < self.world.window {
            match self.ledger.next(self.now) {
                Next::Attempt(attempt) => self.start(&attempt),
                Next::Wait => return false,
                Next::End => return true,
                Next::Read if self.random.random_range(0..100) < self.world.pauses => return false,
                Next::Read => match self.source.pop_front() {
                    None => self.ledger.end_of_source(),
                    Some(number) if self.world.bad_record == Some(number) => {
                        self.fault = true;
                        self.ledger.source_failed();
                    }
                    Some(number) => {
                        self.places.push(number);
                        if let Some(status) = self.journal.get(&number) {
                            assert_eq!(self.ledger.restore(*status) as usize, self.places.len() - 1);
                            self.restored.push((number, *status));
                            continue;
                        }
                        let input = self.world.recorded.then(|| RawValue::from_string("1".into()).unwrap());
                        let attempt = self.ledger.read(Planned::new(number, number, input, 0));
                        assert_eq!((attempt.number, attempt.work), (number, number));
                        self.start(&attempt);
                    }
                },
            }
        }
        false
    }

    fn start(&mut self, attempt: &Attempt<u64>) {
        let Attempt { number, attempt, room, .. } = *attempt;
        assert!(!self.stopped && !self.gave_up, "nothing is started any more");
        let seen = self.seen.entry(number).or_default();
        seen.attempts += 1;
        assert_eq!((seen.attempts, seen.is_under_way, seen.ends), (attempt, false, 0), "job {number}");
        assert_eq!(room, seen.room, "job {number}");
        let (uncounted, counted) = (seen.uncounted, attempt - seen.uncounted);
        assert!(counted <= self.world.retry.retries + 1 && uncounted <= 2 && self.now >= seen.due);
        (seen.is_under_way, seen.wants_room) = (true, false);
        self.under_way.push(UnderWay { index: self.attempts.len() as u64, number, attempt, room, uncounted });
        self.attempts.push(number);
    }

    /// Makes an event in the pool, or lets time pass. Returns true if the ledger ends the batch.
    fn step(&mut self) -> bool {
        if self.under_way.is_empty() || self.random.random_bool(0.2) {
            // Time passes: at least to the next retry if there is nothing else.
            let due = self.ledger.next_due().filter(|_| self.under_way.is_empty());
            self.now = due.map_or(self.now + SECOND / 2, |due| due.max(self.now));
            return false;
        }
        let at = self.random.random_range(0..self.under_way.len());
        let of = self.under_way.remove(at);
        let UnderWay { index, number, room, .. } = of;
        let result = self.world.result(of);
        let is_plain = result.status == Status::Ok && !self.world.recorded && !self.world.stop.on_success;
        let wants_room = result.out_of_memory && self.world.gives_room && room.next().is_some();
        let seen = self.seen.entry(number).or_default();
        (seen.is_under_way, seen.wants_room) = (false, wants_room);
        if self.stopped && self.random.random_bool(0.3) {
            return self.notify(Event::NotStarted { index });
        }
        if is_plain && self.random.random_bool(0.7) {
            let count = self.take_successors(index);
            return self.notify(Event::Succeeded { first: index, count });
        }
        self.notify(Event::Ended { index, result })
    }

    /// Takes the attempts after this one that succeed, too. Returns their number, with this one.
    fn take_successors(&mut self, index: u64) -> u64 {
        let mut count = 1;
        while let Some(at) = self.under_way.iter().position(|other| other.index == index + count) {
            let UnderWay { number, .. } = self.under_way[at];
            if self.world.result(self.under_way[at]).status != Status::Ok {
                break;
            }
            self.under_way.remove(at);
            self.seen.entry(number).or_default().is_under_way = false;
            count += 1;
        }
        count
    }

    /// Passes an event to the ledger and carries out its orders. Returns true if it ends the batch.
    fn notify(&mut self, event: Event<Result>) -> bool {
        let mut orders = Vec::new();
        self.ledger.on(event, self.now, &mut orders);
        self.take(orders)
    }

    fn take(&mut self, orders: Vec<Order<Result>>) -> bool {
        let mut ends = false;
        for order in orders {
            assert!(!ends, "nothing follows the end");
            match order {
                Order::Settle { job, result } => {
                    assert_eq!((self.places[job.place as usize], result.number), (job.number, job.number));
                    assert_eq!((job.attempt, job.input.is_some()), (result.attempt, self.world.recorded));
                    self.settle(job.number, result.status, result.has_output);
                }
                Order::SettleRun(ledger::Run { index, first, count }) => {
                    assert!(count > 0 && !self.world.recorded);
                    for at in 0..count {
                        let number = self.places[(first + at) as usize];
                        assert_eq!(self.attempts[(index + at) as usize], number, "results are those of their jobs");
                        self.settle(number, Status::Ok, true);
                    }
                }
                Order::Forget { place } => {
                    let seen = self.seen.entry(self.places[place as usize]).or_default();
                    if seen.wants_room {
                        (seen.room, seen.due) = (seen.room.next().expect("there is one"), self.now);
                        seen.uncounted += 1;
                    } else {
                        let pauses = seen.attempts - seen.uncounted - 1;
                        seen.due = self.now + self.world.retry.pause * (1 << pauses.min(6));
                    }
                }
                Order::Cancel { job } => self.settle(job.number, Status::Cancelled, true),
                Order::Leave { job } => {
                    self.left += 1;
                    self.end_of(job.number);
                }
                Order::GiveUp => {
                    let Counts { failed, done, .. } = self.ledger.counts();
                    let most = self.world.stop.max_failures.expect("there is a limit");
                    assert!(most.exceeded(failed, done, self.total()));
                    (self.gave_up, self.enough) = (true, true);
                }
                Order::EndAll => ends = true,
            }
        }
        ends
    }

    fn settle(&mut self, number: u64, status: Status, has_output: bool) {
        let Seen { attempts, uncounted, wants_room, .. } = self.seen[&number];
        let may_retry = attempts - uncounted <= self.world.retry.retries && self.world.retry.on.contains(&status);
        let may_retry = (may_retry || wants_room) && !self.stopped && !self.gave_up && !self.fault;
        assert!(!may_retry || !has_output, "job {number} has more attempts");
        assert!(!self.journal.contains_key(&number), "job {number} is settled already");
        self.end_of(number);
        self.settled.push((number, status));
    }

    fn end_of(&mut self, number: u64) {
        let seen = self.seen.entry(number).or_default();
        seen.ends += 1;
        assert_eq!(seen.ends, 1, "job {number} has one end");
    }

    /// Ends the run and judges it.
    fn end(&mut self, end: End) -> End {
        let ending = match end {
            End::Complete => Ending::Complete,
            End::SinkFailed | End::Stopped | End::Killed => Ending::Interrupted,
        };
        let mut orders = Vec::new();
        let running = self.under_way.len();
        self.ledger.end(ending, &mut orders);
        self.gave_up = true;
        self.take(orders);
        self.ledger.check();
        assert!(self.seen.values().all(|seen| seen.ends == 1), "every job that was read has an end");
        let counts = self.ledger.counts();
        assert_eq!(counts.done, (self.settled.len() + self.handed_over.len() + self.restored.len()) as u64);
        assert_eq!(counts.restored, self.restored.len() as u64);
        if end != End::SinkFailed {
            self.hand_over();
        }
        let ok =
            self.handed_over.iter().chain(&self.restored).filter(|(_, status)| *status == Status::Ok).count() as u64;
        match end {
            End::Complete if self.world.stop.on_success && counts.succeeded > 0 => assert!(ok > 0),
            End::Complete if self.enough || self.fault => {}
            End::Complete => {
                assert_eq!((counts.cancelled, self.left, running), (0, 0, 0));
                assert!(self.source.is_empty(), "all jobs were read");
            }
            End::Stopped => assert!(self.stopped),
            End::SinkFailed | End::Killed => {}
        }
        end
    }

    fn has_success(&self) -> bool {
        self.world.stop.on_success && self.ledger.counts().succeeded > 0
    }

    fn total(&self) -> Option<u64> {
        self.world.knows_total.then(|| (self.source.len() + self.places.len()) as u64)
    }
}

/// Runs a world until it is complete: runs that are killed or stopped are started again. With a journal that may happen again and
/// again; without one it happens once.
fn simulate(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World::draw(&mut random);
    let (mut done, mut journal) = (BTreeSet::new(), BTreeMap::new());
    let mut accidents = 5;
    loop {
        let mut run = Run::new(&world, &mut random, &done, std::mem::take(&mut journal));
        let end = run.run();
        let before = done.len();
        let ok = run.handed_over.iter().filter(|(_, status)| *status == Status::Ok).map(|(number, _)| *number);
        let ok: Vec<u64> = ok.collect();
        let (restored, handed_over) = (run.restored.len(), run.handed_over.len());
        journal = std::mem::take(&mut run.journal);
        // (With a journal, only what is in it is done: output that was handed over is written again.)
        let new = ok.iter().filter(|_| !world.journaled).copied().chain(ok_of(&journal));
        done.extend(new);
        assert!(world.journaled || done.len() == before + ok.len(), "no job is done twice");
        if end == End::Complete {
            assert!(!world.journaled || restored + handed_over == run.places.len() || run.enough || run.has_success());
            break;
        }
        accidents -= 1;
        let again = world.journaled && accidents > 0;
        let mut drawn = || (again && random.random_bool(0.5)).then(|| random.random_range(0..120));
        (world.signal, world.kill, world.sink_fails) = (drawn(), drawn(), drawn());
    }
    let World { jobs, ref retry, ref failures, bad_record, stop, journaled, .. } = world;
    if bad_record.is_none_or(|bad| bad > jobs) && stop == StopPolicy::default() {
        let is_done = |number: &u64| match failures.get(number) {
            _ if world.is_too_large(*number) => false,
            Some((times, status)) => *times <= retry.retries && retry.on.contains(status),
            None => true,
        };
        assert_eq!(done, (1..=jobs).filter(is_done).collect(), "all jobs that can succeed have");
        if journaled {
            let status = |number: u64| match failures.get(&number) {
                _ if is_done(&number) => Status::Ok,
                _ if world.is_too_large(number) => Status::Signal,
                failure => failure.expect("it fails").1,
            };
            let expected: BTreeMap<u64, Status> = (1..=jobs).map(|number| (number, status(number))).collect();
            assert_eq!(journal, expected, "the outcome is that of an undisturbed run");
        }
    }
}

fn ok_of(journal: &BTreeMap<u64, Status>) -> impl Iterator<Item = u64> + '_ {
    journal.iter().filter(|(_, status)| **status == Status::Ok).map(|(number, _)| *number)
}

#[test]
fn every_world_keeps_its_promises() {
    let variable = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("the variable is a number"));
    let (first, count) = match variable("SEED") {
        Some(seed) => (seed, 1),
        None => (0, 10_000 * variable("WORLDS").unwrap_or(1)),
    };
    for seed in first..first + count {
        let world = std::panic::catch_unwind(|| simulate(seed));
        assert!(world.is_ok(), "world {seed}: repeat it with SEED={seed}");
    }
}
