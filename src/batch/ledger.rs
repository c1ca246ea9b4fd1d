//! The jobs of a batch that are not settled: under way, or waiting for a retry. Decides which attempt is next and what happens
//! to each job when an attempt ends.
//!
//! The ledger is pure: it reads no clock and no input and writes nothing. [`Ledger::next`] returns the next attempt, or asks for
//! the next job of the source; [`Ledger::on`] takes an event and appends orders for the driver. Every job that was
//! read ends with exactly one order: [`Order::Settle`], [`Order::SettleRun`], [`Order::Cancel`], or [`Order::Leave`], which leaves
//! it to the next run.

// Pure: see clippy.toml.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod counts;
mod messages;
mod numbers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;

use super::job::{Attempt, AttemptEnd, Room, seed_of};
use super::policy::{RetryPolicy, StopPolicy};
use crate::journal::Status;
use numbers::Numbers;

pub(crate) use counts::Counts;
pub(crate) use messages::{Ending, Event, Job, Next, Order, Planned, Run, Time};

/// An unsettled job of which more is kept than its place.
#[derive(Debug)]
struct Kept<W, R> {
    job: Job,
    /// Kept as long as the job may be run again.
    work: Option<W>,
    /// The result of its last attempt, while it waits for the next one.
    last: Option<R>,
    /// The rank that ran its last attempt.
    rank: Option<u32>,
    /// The room that its current attempt has, or the next one.
    room: Room,
    /// The number of attempts that ran out of memory and do not count against the retries.
    uncounted: u32,
    /// How often it is run again if it fails.
    retries: u32,
}

impl<W, R> Kept<W, R> {
    fn new(job: Job, work: Option<W>, retries: u32) -> Self {
        Kept { job, work, last: None, rank: None, room: Room::default(), uncounted: 0, retries }
    }

    /// Returns the number of attempts that count against the retries.
    fn counted(&self) -> u32 {
        self.job.attempt - self.uncounted
    }
}

/// How a job is run again.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// As the retry policy says.
    Retry,
    /// At once, with fewer others beside it, because memory was exhausted.
    WithRoom(Room),
}

/// An attempt, by its index in the stream of attempts.
#[derive(Debug)]
enum Entry<W, R> {
    Settled,
    /// A job of which only the place is kept: it is not run again, and no log entry is written.
    Place(u64),
    Kept(Box<Kept<W, R>>),
}

/// The number of jobs that may wait for a retry: with more, no new jobs are read until some were run.
const WAITING_MAX: usize = 1024;
/// The pause before a retry doubles up to this number of times.
const DOUBLINGS: u32 = 6;

/// All jobs of a batch that are not settled. `W` is the work of an attempt, `R` its result.
#[derive(Debug)]
pub(crate) struct Ledger<W, R> {
    retry: RetryPolicy,
    stop: StopPolicy,
    seed: u64,
    /// The number of jobs, if it is known.
    total: Option<u64>,
    counts: Counts,
    /// The attempts that were handed out, from the index `oldest` on.
    attempts: VecDeque<Entry<W, R>>,
    oldest: u64,
    /// The number of attempts that are under way.
    under_way: u64,
    /// Jobs that wait for a retry, by the time at which they are due.
    waiting: BTreeMap<(Time, u64), Box<Kept<W, R>>>,
    /// The numbers of the jobs of which only the place is kept.
    numbers: Numbers,
    next_place: u64,
    /// The source has no more jobs.
    source_ended: bool,
    /// No more attempts are wanted.
    closed: bool,
    stopped: bool,
    /// A signal has kept jobs from being run.
    cut: bool,
    /// The next run continues this one: a job that it would have tried again is left to the next run, with all its attempts.
    is_resumable: bool,
    /// A job that ran out of memory is run again with more room, beside its retries.
    gives_room: bool,
    most_retries: u32,
}

impl<W: Clone, R: AttemptEnd> Ledger<W, R> {
    /// Makes a ledger without jobs. `seed` is the run's, `total` the number of jobs, if it is known.
    pub(crate) fn new(retry: RetryPolicy, stop: StopPolicy, seed: u64, total: Option<u64>) -> Self {
        Ledger {
            most_retries: retry.retries,
            retry,
            stop,
            seed,
            total,
            counts: Counts::default(),
            attempts: VecDeque::new(),
            oldest: 0,
            under_way: 0,
            waiting: BTreeMap::new(),
            numbers: Numbers::default(),
            next_place: 0,
            source_ended: false,
            closed: false,
            stopped: false,
            cut: false,
            is_resumable: false,
            gives_room: false,
        }
    }

    /// Makes a ledger of a run that the next run can continue: there is a journal.
    pub(crate) fn resumable(self) -> Self {
        Ledger { is_resumable: true, ..self }
    }

    /// Makes a ledger that runs jobs that ran out of memory again, with half of the others beside them, then alone.
    pub(crate) fn giving_room(self, gives_room: bool) -> Self {
        Ledger { gives_room, ..self }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of jobs, if it is known.
    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    pub(crate) fn stops_on_success(&self) -> bool {
        self.stop.on_success
    }

    /// Whether jobs may be cancelled on purpose.
    pub(crate) fn has_stop_policy(&self) -> bool {
        self.stop != StopPolicy::default()
    }

    /// Whether a signal has kept jobs from being run.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut
    }

    /// Whether jobs wait for a retry.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the time at which [`next`](Self::next) has an attempt that waits for a retry.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let (due, _) = self.waiting.first_key_value()?.0;
        Some(*due).filter(|_| !self.closed && !self.stopped)
    }

    /// Whether the source may have more jobs.
    pub(crate) fn has_unread(&self) -> bool {
        !self.source_ended
    }

    /// Returns the next attempt, at the time `now`.
    pub(crate) fn next(&mut self, now: Time) -> Next<W> {
        if self.closed {
            return Next::End;
        }
        if self.stopped {
            self.cut |= !self.source_ended || !self.waiting.is_empty();
            return Next::End;
        }
        if let Some(attempt) = self.next_retry(now) {
            return Next::Attempt(attempt);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Next::Wait;
        }
        if !self.source_ended {
            return Next::Read;
        }
        let may_go_on = !self.waiting.is_empty() || self.runs_again() && self.under_way > 0;
        if may_go_on { Next::Wait } else { Next::End }
    }

    /// Whether any job may be run again.
    fn runs_again(&self) -> bool {
        self.most_retries > 0 || self.gives_room
    }

    fn next_retry(&mut self, now: Time) -> Option<Attempt<W>> {
        let entry = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        let mut kept = entry.remove();
        kept.job.attempt += 1;
        kept.last = None;
        let may_run_again = kept.counted() <= kept.retries || self.gives_room && kept.room.next().is_some();
        let work = if may_run_again { kept.work.clone() } else { kept.work.take() }?;
        let Job { place, number, attempt, .. } = kept.job;
        let (avoid, room) = (kept.rank.take(), kept.room);
        self.push(Entry::Kept(kept));
        Some(Attempt { place, number, attempt, seed: seed_of(self.seed, number), work, avoid, room })
    }

    /// Takes the next job of the source and returns its first attempt.
    pub(crate) fn read(&mut self, planned: Planned<W>) -> Attempt<W> {
        let Planned { number, work, input, retries, read_us, .. } = planned;
        let place = self.next_place;
        self.next_place += 1;
        let retries = retries.max(self.retry.retries);
        self.most_retries = self.most_retries.max(retries);
        let may_retry = retries > 0 || self.gives_room;
        let entry = if may_retry || input.is_some() {
            let job = Job { place, number, attempt: 1, input, read_us };
            Entry::Kept(Box::new(Kept::new(job, may_retry.then(|| work.clone()), retries)))
        } else {
            self.numbers.push(place, number);
            Entry::Place(place)
        };
        self.push(entry);
        Attempt {
            place,
            number,
            attempt: 1,
            seed: seed_of(self.seed, number),
            work,
            avoid: None,
            room: Room::default(),
        }
    }

    /// Takes a job that an earlier run has settled with this status, and returns its place.
    pub(crate) fn restore(&mut self, status: Status) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.counts.add(status, 1);
        self.counts.restored += 1;
        self.closed |= self.stop.on_success && status == Status::Ok;
        place
    }

    fn push(&mut self, entry: Entry<W, R>) {
        self.attempts.push_back(entry);
        self.under_way += 1;
    }

    /// Notes that the source has no more jobs.
    pub(crate) fn end_of_source(&mut self) {
        self.source_ended = true;
    }

    /// Notes that the source has failed: its remaining jobs are unknown, and no more attempts are made.
    pub(crate) fn source_failed(&mut self) {
        self.source_ended = true;
        self.closed = true;
    }

    /// Handles an event at the time `now` and appends the orders that follow from it.
    pub(crate) fn on(&mut self, event: Event<R>, now: Time, orders: &mut Vec<Order<R>>) {
        match event {
            Event::Succeeded { first, count } => self.succeeded(first, count, orders),
            Event::Ended { index, result } => self.ended(index, result, now, orders),
            // An event about a settled job is ignored.
            Event::NotStarted { index } => self.cut |= self.is_under_way(index),
            Event::Stop => self.stopped = true,
            Event::SkipBefore { place } => self.skip_before(place, orders),
        }
    }

    /// Settles consecutive attempts that succeeded.
    fn succeeded(&mut self, first: u64, count: u64, orders: &mut Vec<Order<R>>) {
        let mut run: Option<Run> = None;
        for index in first..first + count {
            let place = match self.take(index) {
                Entry::Place(place) => place,
                Entry::Kept(kept) => kept.job.place,
                Entry::Settled => continue,
            };
            self.counts.add(Status::Ok, 1);
            match &mut run {
                Some(run) if run.is_followed_by(index, place) => run.count += 1,
                _ => orders.extend(run.replace(Run { index, first: place, count: 1 }).map(Order::SettleRun)),
            }
        }
        orders.extend(run.map(Order::SettleRun));
        self.apply_stop_policy(Status::Ok, orders);
    }

    /// Runs the job of an attempt again, or settles it.
    fn ended(&mut self, index: u64, mut result: R, now: Time, orders: &mut Vec<Order<R>>) {
        let status = result.status();
        let job = match self.take(index) {
            Entry::Settled => return,
            Entry::Place(place) => self.job_at(place),
            Entry::Kept(mut kept) => match self.decide(&kept, &result) {
                None => kept.job,
                // After a signal it is not run again: its failure stays in the job log for the next run, or the journal leaves it out.
                Some(_) if self.stopped => {
                    self.cut = true;
                    if self.is_resumable {
                        orders.push(Order::Leave { job: kept.job });
                        return;
                    }
                    kept.job
                }
                Some(again) => {
                    let place = kept.job.place;
                    let pause = self.prepare(&mut kept, again);
                    kept.rank = result.rank();
                    result.drop_output();
                    kept.last = Some(result);
                    self.waiting.insert((now.saturating_add(pause), place), kept);
                    orders.push(Order::Forget { place });
                    return;
                }
            },
        };
        self.settle(job, result, orders);
        self.apply_stop_policy(status, orders);
    }

    /// Decides whether and how a job is run again whose attempt has this result.
    fn decide(&self, kept: &Kept<W, R>, result: &R) -> Option<Again> {
        if kept.work.is_none() || self.closed {
            return None;
        }
        let room = kept.room.next().filter(|_| self.gives_room && result.ran_out_of_memory());
        // The pool itself has tried a job on several ranks before it gives it up as lost: it kills the ranks that run it.
        let kills_ranks = result.status() == Status::Lost && result.rank().is_none();
        let is_retried = self.retry.on.contains(&result.status()) && !kills_ranks;
        let may_retry = kept.counted() <= kept.retries && is_retried;
        room.map(Again::WithRoom).or(may_retry.then_some(Again::Retry))
    }

    /// Prepares a job for its next attempt and returns the pause before it.
    fn prepare(&mut self, kept: &mut Kept<W, R>, again: Again) -> Time {
        self.counts.retried += 1;
        match again {
            Again::Retry => self.retry.pause.saturating_mul(1 << (kept.counted() - 1).min(DOUBLINGS)),
            Again::WithRoom(room) => {
                self.counts.out_of_memory += 1;
                kept.room = room;
                kept.uncounted += 1;
                Time::ZERO
            }
        }
    }

    fn settle(&mut self, job: Job, result: R, orders: &mut Vec<Order<R>>) {
        self.counts.add(result.status(), 1);
        orders.push(Order::Settle { job, result });
    }

    fn apply_stop_policy(&mut self, status: Status, orders: &mut Vec<Order<R>>) {
        if self.closed {
            return;
        }
        let Counts { failed, done, succeeded, .. } = self.counts;
        if status == Status::Ok && self.stop.on_success && succeeded > 0 {
            self.closed = true;
            orders.push(Order::EndAll);
        } else if self.stop.max_failures.is_some_and(|most| most.exceeded(failed, done, self.total)) {
            self.closed = true;
            orders.push(Order::GiveUp);
        }
    }
}

impl<W, R> Ledger<W, R> {
    fn job_at(&self, place: u64) -> Job {
        Job { place, number: self.numbers.get(place), attempt: 1, input: None, read_us: 0 }
    }

    /// Returns of an attempt that is under way the job's number, the attempt's, and the record, if it is kept.
    pub(crate) fn name_of(&self, index: u64) -> Option<(u64, u32, Option<&str>)> {
        match self.attempts.get(usize::try_from(index.checked_sub(self.oldest)?).ok()?)? {
            Entry::Settled => None,
            Entry::Place(place) => Some((self.numbers.get(*place), 1, None)),
            Entry::Kept(kept) => {
                Some((kept.job.number, kept.job.attempt, kept.job.input.as_deref().map(RawValue::get)))
            }
        }
    }

    /// Whether the attempt with this index has no result yet.
    pub(crate) fn is_under_way(&self, index: u64) -> bool {
        let entry = index.checked_sub(self.oldest).and_then(|at| self.attempts.get(usize::try_from(at).ok()?));
        entry.is_some_and(|entry| !matches!(entry, Entry::Settled))
    }

    /// Takes the attempt with this index out of those under way.
    fn take(&mut self, index: u64) -> Entry<W, R> {
        let entry = index.checked_sub(self.oldest).and_then(|at| self.attempts.get_mut(usize::try_from(at).ok()?));
        let Some(entry) = entry.map(|entry| std::mem::replace(entry, Entry::Settled)) else { return Entry::Settled };
        if !matches!(entry, Entry::Settled) {
            self.under_way -= 1;
        }
        while let Some(Entry::Settled) = self.attempts.front() {
            self.attempts.pop_front();
            self.oldest += 1;
        }
        entry
    }

    /// Takes the jobs whose place `is_wanted` accepts, under way or waiting, in the order of their places.
    fn take_jobs(&mut self, is_wanted: impl Fn(u64) -> bool) -> Vec<Kept<W, R>> {
        let mut jobs = Vec::new();
        for index in self.oldest..self.oldest + self.attempts.len() as u64 {
            let at = index.checked_sub(self.oldest).and_then(|at| usize::try_from(at).ok());
            let place = match at.and_then(|at| self.attempts.get(at)) {
                None | Some(Entry::Settled) => continue,
                Some(Entry::Place(place)) => *place,
                Some(Entry::Kept(kept)) => kept.job.place,
            };
            if !is_wanted(place) {
                continue;
            }
            match self.take(index) {
                Entry::Settled => {}
                Entry::Place(place) => jobs.push(Kept::new(self.job_at(place), None, 0)),
                Entry::Kept(kept) => jobs.push(*kept),
            }
        }
        let keys: Vec<_> = self.waiting.keys().filter(|(_, place)| is_wanted(*place)).copied().collect();
        jobs.extend(keys.iter().filter_map(|key| self.waiting.remove(key)).map(|kept| *kept));
        jobs.sort_by_key(|kept| kept.job.place);
        jobs
    }
}

impl<W: Clone, R: AttemptEnd> Ledger<W, R> {
    /// Settles the jobs before `place` that wait for a retry, and leaves the others before it to the next run.
    fn skip_before(&mut self, place: u64, orders: &mut Vec<Order<R>>) {
        let passed = self.take_jobs(|of| of < place);
        self.cut |= !passed.is_empty();
        for Kept { job, last, .. } in passed {
            match last {
                Some(result) if !self.is_resumable => self.settle(job, result, orders),
                Some(_) | None => orders.push(Order::Leave { job }),
            }
        }
    }

    /// Ends the batch: no job stays unsettled. Jobs that wait for a retry get the result of their last attempt.
    pub(crate) fn end(&mut self, ending: Ending, orders: &mut Vec<Order<R>>) {
        self.closed = true;
        for Kept { job, last, .. } in self.take_jobs(|_| true) {
            match (last, ending) {
                (Some(_), Ending::Interrupted) if self.is_resumable => orders.push(Order::Leave { job }),
                (Some(result), _) => self.settle(job, result, orders),
                (None, Ending::Complete) => {
                    self.counts.add(Status::Cancelled, 1);
                    orders.push(Order::Cancel { job });
                }
                (None, Ending::Interrupted) => orders.push(Order::Leave { job }),
            }
        }
    }

    /// Cancels a job that was read only to be cancelled, after the batch was ended.
    pub(crate) fn cancel_unread(&mut self, planned: Planned<W>) -> Job {
        let Planned { number, input, read_us, .. } = planned;
        let place = self.next_place;
        self.next_place += 1;
        self.counts.add(Status::Cancelled, 1);
        Job { place, number, attempt: 1, input, read_us }
    }

    /// Counts `jobs` jobs as cancelled that were never read.
    pub(crate) fn cancel_uncounted(&mut self, jobs: u64) {
        self.counts.add(Status::Cancelled, jobs);
    }
}
