//! The jobs of a batch that are not settled: read, under way, or waiting to be run again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_bytes::ByteBuf;
use serde_json::value::RawValue;

use super::job::{Attempt, Outcome, seed_of};
use super::source::Intake;
use super::stopping::Stopping;
use crate::input::InputError;
use crate::pool::Next;

/// A job as it was read.
pub(crate) struct Planned<W> {
    /// The place of its record in the input, from 1.
    pub number: u64,
    pub work: W,
    /// Its record as JSON, if the records of the run will tell it.
    pub input: Option<Box<RawValue>>,
}

/// A job that is not settled.
pub(crate) struct Job<W> {
    /// Its place in the output, from 0.
    pub place: u64,
    pub number: u64,
    /// How often it has been run, with the attempt under way.
    pub attempt: u32,
    pub input: Option<Box<RawValue>>,
    /// Kept only if it may be run again.
    work: Option<W>,
    /// What its last attempt came to, while it waits for the next one.
    last: Option<Outcome>,
}

impl<W> Job<W> {
    /// What a job came to that waits to be run again and will not be.
    pub(super) fn take_last(&mut self) -> Option<Outcome> {
        self.last.take()
    }
}

/// All jobs of a batch that are not settled.
pub(crate) struct Ledger<W> {
    intake: Intake<Result<Planned<W>, InputError>>,
    seed: u64,
    /// How often a job that fails is run again.
    retries: u32,
    /// By the time at which they are due.
    waiting: BTreeMap<(Instant, u64), Job<W>>,
    /// By their index in the map.
    under_way: HashMap<u64, Job<W>>,
    next_index: u64,
    next_place: u64,
    /// There is nothing more to read.
    read: bool,
    /// The last attempt that was asked for has to be read first.
    awaits_input: bool,
    /// No more jobs are wanted.
    closed: bool,
    /// The jobs were cut off by a signal: there may have been more.
    cut: bool,
    /// The map was told that a signal has ended the run.
    stopped: bool,
    /// What ended the reading.
    fault: Option<InputError>,
}

/// So many jobs that wait to be run again are enough to have in memory: no new ones are read before some of them had their turn.
const WAITING_MAX: usize = 1024;
/// The pause before a job is run again doubles each time, up to this many times.
const DOUBLINGS: u32 = 6;

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl<W> Ledger<W> {
    pub(crate) fn new(intake: Intake<Result<Planned<W>, InputError>>, seed: u64, retries: u32) -> Self {
        Ledger {
            intake,
            seed,
            retries,
            waiting: BTreeMap::new(),
            under_way: HashMap::new(),
            next_index: 0,
            next_place: 0,
            read: false,
            awaits_input: false,
            closed: false,
            cut: false,
            stopped: false,
            fault: None,
        }
    }

    /// No more jobs are wanted.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether a signal has kept jobs from being run.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut
    }

    /// What ended the reading early.
    pub(crate) fn take_fault(&mut self) -> Option<InputError> {
        self.fault.take()
    }

    /// The job of an attempt that has come to an end.
    pub(crate) fn take(&mut self, index: u64) -> Option<Job<W>> {
        self.under_way.remove(&index)
    }

    /// An attempt was not begun, because a signal has ended the run.
    pub(crate) fn give_back(&mut self, index: u64) {
        self.cut |= self.under_way.contains_key(&index);
    }

    /// Runs a job again, after a pause that grows with its attempts; gives both back if it had all of them.
    pub(crate) fn run_again(
        &mut self,
        mut job: Job<W>,
        outcome: Outcome,
        pause: Duration,
    ) -> Option<(Job<W>, Outcome)> {
        if job.attempt > self.retries || self.closed {
            return Some((job, outcome));
        }
        if self.stopped {
            // Nobody asks for jobs any more: this one had fewer attempts than it was promised.
            self.cut = true;
            return Some((job, outcome));
        }
        job.last = Some(Outcome { out: ByteBuf::new(), err: ByteBuf::new(), ..outcome });
        let now = Instant::now();
        let pause = pause.saturating_mul(1 << (job.attempt - 1).min(DOUBLINGS));
        // A time that clocks do not reach is as good as never.
        let due = now.checked_add(pause).unwrap_or(now + NEVER);
        self.waiting.insert((due, job.place), job);
        None
    }

    /// All jobs that are under way or wait, in the order of the input; they are forgotten.
    pub(crate) fn take_rest(&mut self) -> Vec<Job<W>> {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let mut rest: Vec<_> = waiting.chain(std::mem::take(&mut self.under_way).into_values()).collect();
        rest.sort_by_key(|job| job.place);
        rest
    }

    /// The jobs before this place that are under way or wait, in the order of the input: a signal has ended the run, and what is
    /// finished behind them does not wait for them any longer.
    pub(crate) fn give_up_before(&mut self, place: u64) -> Vec<Job<W>> {
        let under_way: Vec<u64> =
            self.under_way.iter().filter(|(_, job)| job.place < place).map(|(index, _)| *index).collect();
        let waiting: Vec<_> = self.waiting.keys().filter(|(_, of)| *of < place).copied().collect();
        let mut jobs: Vec<_> = under_way.iter().filter_map(|index| self.under_way.remove(index)).collect();
        jobs.extend(waiting.iter().filter_map(|key| self.waiting.remove(key)));
        jobs.sort_by_key(|job| job.place);
        self.cut |= !jobs.is_empty();
        jobs
    }

    /// What has something when it is worth asking for an attempt again, if inputs are what is missing.
    pub(crate) fn wake(&self) -> Option<&Receiver<Result<Planned<W>, InputError>>> {
        self.intake.wake().filter(|_| self.awaits_input)
    }

    /// Whether there may be jobs that were never started.
    pub(crate) fn has_unread(&self) -> bool {
        !self.read && self.fault.is_none()
    }

    /// The next job that was never started, if it can be had at once.
    pub(crate) fn take_unread(&mut self) -> Option<Job<W>> {
        while !self.read {
            match self.intake.next() {
                Next::Item(Ok(planned)) => return Some(self.admit(planned).0),
                Next::Item(Err(_)) | Next::Later | Next::End => self.read = true,
            }
        }
        None
    }

    fn admit(&mut self, planned: Planned<W>) -> (Job<W>, W) {
        let Planned { number, work, input } = planned;
        let place = self.next_place;
        self.next_place += 1;
        (Job { place, number, attempt: 1, input, work: None, last: None }, work)
    }
}

impl<W: Clone> Ledger<W> {
    /// The next attempt, without waiting for it.
    pub(crate) fn next(&mut self, stopping: &Stopping) -> Next<Attempt<W>> {
        self.awaits_input = false;
        if self.closed {
            return Next::End;
        }
        if stopping.since().is_some() {
            self.stopped = true;
            self.cut |= !self.read || !self.waiting.is_empty();
            return Next::End;
        }
        if let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
            let mut job = entry.remove();
            job.attempt += 1;
            let avoid = job.last.take().and_then(|last| last.run).map(|run| run.rank);
            if let Some(work) = job.work.take() {
                return Next::Item(Attempt { avoid, ..self.start(job, work) });
            }
        }
        if self.waiting.len() >= WAITING_MAX {
            return Next::Later;
        }
        if !self.read {
            match self.intake.next() {
                Next::Item(Ok(planned)) => {
                    let (job, work) = self.admit(planned);
                    return Next::Item(self.start(job, work));
                }
                Next::Item(Err(fault)) => {
                    self.fault = Some(fault);
                    self.closed = true;
                    return Next::End;
                }
                Next::Later => {
                    self.awaits_input = true;
                    return Next::Later;
                }
                Next::End => self.read = true,
            }
        }
        let may_go_on = !self.waiting.is_empty() || self.retries > 0 && !self.under_way.is_empty();
        if may_go_on { Next::Later } else { Next::End }
    }

    fn start(&mut self, mut job: Job<W>, work: W) -> Attempt<W> {
        job.work = (job.attempt <= self.retries).then(|| work.clone());
        let index = self.next_index;
        self.next_index += 1;
        let Job { place, number, attempt, .. } = job;
        self.under_way.insert(index, job);
        Attempt { index, place, number, attempt, seed: seed_of(self.seed, number), work, avoid: None }
    }
}
