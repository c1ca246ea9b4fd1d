//! The loop of a batch: pushes attempts while the stream has room, takes the next event, and carries out the ledger's orders,
//! until all jobs are settled or the batch is stopped.

mod client;
mod conclusion;
mod flush_timer;
mod naming;
mod outside;
mod stopping;
mod traced;

use std::thread;
use std::time::{Duration, Instant};

use super::deadline::Durations;
use super::job::{AttemptResult, Cause, has_failed};
use super::ledger::{self, Counts, Ending, Ledger, Order, Planned, Run};
use super::policy::FLUSH_PAUSE;
use super::recorder::Restored;
use super::report::FailedJobs;
use super::runners::Runner;
use super::sinks::Sinks;
use super::source::Source;
use crate::engine::board::{Board, Settled};
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::schedule::RankId;
use crate::engine::wire;
use crate::input::InputError;
use crate::output::OutputError;
use crate::pool::{Event, HandedOn, JobStream, Next, Pacer, Results};
use crate::report::{Names, Needs, Trace};
use flush_timer::FlushTimer;
use naming::Naming;
use outside::Suspects;
#[cfg(test)]
use stopping::Limited;
pub(crate) use stopping::{PoolRun, TimeLimit};

/// Up to this number, jobs that were never read are cancelled one by one, each with a log entry.
const CANCELLED_SINGLY: u64 = 1_000_000;

/// This number of jobs is restored from the journal before the driver looks at events again.
const RESTORED_AT_ONCE: u32 = 4096;

/// The reason for the end of a batch.
#[derive(Debug)]
pub(crate) enum End {
    /// All jobs are settled, or the stop policy ended the batch.
    Complete,
    /// A signal has ended the batch.
    Stopped,
    /// A sink has failed.
    Sink(OutputError),
    /// The pool has failed.
    Broken(JobError),
}

impl End {
    fn broken(failure: Failure) -> End {
        End::Broken(JobError::of(0, failure))
    }

    fn ending(&self) -> Ending {
        if matches!(self, End::Complete) { Ending::Complete } else { Ending::Interrupted }
    }
}

/// A batch while it runs.
pub(crate) struct Driver<'b, R: Runner> {
    runner: &'b R,
    source: Source<Result<Planned<R::Work>, InputError>>,
    ledger: Ledger<R::Work, AttemptResult>,
    sinks: &'b mut Sinks,
    stop_requested: &'b dyn Fn() -> Option<Instant>,
    settled: &'b Settled,
    grace: Duration,
    deadly_launcher: bool,
    most_behind: u64,
    /// Whether there is a job log, so that results contain where and when the attempt ran.
    logged: bool,
    /// Whether consecutive results go to the sinks together, without a look at each.
    joins_results: bool,
    began: Instant,
    /// Whether the next attempt waits for its record to be read.
    awaits_input: bool,
    /// Whether jobs are read that an earlier run has settled, and there may be more of them.
    is_restoring: bool,
    restored: Restored,
    /// The error of a journal or an output while jobs were restored.
    restore_error: Option<OutputError>,
    /// The error that ended the source.
    fault: Option<InputError>,
    failed: FailedJobs,
    needs: Needs,
    suspects: Suspects,
    time_limit: Option<TimeLimit<'b>>,
    durations: Durations,
    naming: Option<Naming<'b>>,
    traced: Option<Trace>,
    /// Which time limit has stopped the run, if one has.
    out_of_time: Option<&'static str>,
    orders: Vec<Order<AttemptResult>>,
    lines: Vec<u8>,
}

/// The end of a batch, with its counts.
#[derive(Debug)]
pub(crate) struct Driven {
    pub end: End,
    pub counts: Counts,
    pub failed: FailedJobs,
    pub needs: Needs,
    pub traced: Option<Trace>,
    /// Which time limit has stopped the run, if one has.
    pub out_of_time: Option<&'static str>,
    /// The number of jobs that were not run to their end, if it is known.
    pub left: Option<u64>,
    /// The error that ended the source.
    pub fault: Option<InputError>,
}

/// The attempts of a batch that are under way.
type Attempts<R> = JobStream<<R as Runner>::Input, <R as Runner>::Output>;

/// The parts of a [`Driver`].
pub(crate) struct Parts<'b, R: Runner> {
    pub runner: &'b R,
    pub source: Source<Result<Planned<R::Work>, InputError>>,
    pub ledger: Ledger<R::Work, AttemptResult>,
    pub sinks: &'b mut Sinks,
    /// Returns the moment at which a signal asked for the end of the run.
    pub stop_requested: &'b dyn Fn() -> Option<Instant>,
    /// The counter for the display of progress.
    pub settled: &'b Settled,
    /// The time that running jobs have after a request to stop.
    pub grace: Duration,
    /// Whether the launcher kills its ranks a moment after a signal.
    pub deadly_launcher: bool,
    /// The names of running jobs for the live view, and the board that has their indexes.
    pub names: Option<(&'b Board, &'b Names)>,
    pub traced: Option<Trace>,
    pub time_limit: Option<TimeLimit<'b>>,
    /// With this number of settled jobs behind the first unsettled one, no more jobs are read: each takes some memory.
    pub most_behind: u64,
}

impl<'b, R: Runner> Driver<'b, R> {
    pub(crate) fn new(parts: Parts<'b, R>) -> Self {
        let Parts {
            runner,
            source,
            ledger,
            sinks,
            stop_requested,
            settled,
            grace,
            deadly_launcher,
            names,
            traced,
            time_limit,
            most_behind,
        } = parts;
        Driver {
            logged: sinks.has_log() || traced.is_some(),
            joins_results: runner.has_plain_results()
                && sinks.takes_runs()
                && traced.is_none()
                && !ledger.stops_on_success(),
            runner,
            source,
            ledger,
            sinks,
            stop_requested,
            settled,
            grace,
            deadly_launcher,
            most_behind,
            began: Instant::now(),
            awaits_input: false,
            is_restoring: false,
            restored: Restored::default(),
            restore_error: None,
            fault: None,
            failed: FailedJobs::default(),
            needs: Needs::default(),
            suspects: Suspects::default(),
            time_limit,
            durations: Durations::default(),
            naming: names.map(|(board, names)| Naming::new(board, names)),
            traced,
            out_of_time: None,
            orders: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Runs the batch to its end on the stream of attempts, which may have failed to open.
    pub(crate) fn run(mut self, attempts: Result<Attempts<R>, Failure>, pacer: Pacer) -> Driven {
        let end = match attempts {
            // Dropping the stream cancels the jobs that still run.
            Ok(mut attempts) => self.take_events(&mut attempts, pacer).unwrap_or_else(|end| end),
            Err(failure) => End::broken(failure),
        };
        let end = self.conclude(end);
        let counts = self.ledger.counts();
        let left = self.ledger.total().map(|total| total.saturating_sub(counts.done));
        let Driver { failed, needs, traced, out_of_time, fault, .. } = self;
        Driven { end, counts, failed, needs, traced, out_of_time, left, fault }
    }

    fn now(&self) -> ledger::Time {
        self.began.elapsed()
    }

    /// Pushes attempts and takes events until all attempts are settled. An earlier end is returned as an error.
    fn take_events(&mut self, attempts: &mut Attempts<R>, mut pacer: Pacer) -> Result<End, End> {
        let mut timer = FlushTimer::new();
        let mut pause_ends = None;
        self.check_time_limit();
        loop {
            self.decide_on_suspects(attempts)?;
            self.feed(attempts, &mut pacer)?;
            let until = *pause_ends.get_or_insert_with(|| Instant::now() + FLUSH_PAUSE);
            // A retry that is already due waits for room, which an event makes.
            let due = self.ledger.next_due().into_iter().chain(self.suspects.next_due()).min();
            let due = due.and_then(|due| self.began.checked_add(due));
            let due = due.filter(|due| *due > Instant::now());
            let deadline = if self.is_restoring { Instant::now() } else { due.map_or(until, |due| due.min(until)) };
            let wake = self.source.wake().filter(|_| self.awaits_input && pacer.lacks_input());
            match attempts.next(Some(deadline), wake).map_err(End::broken)? {
                Event::Done(results) => {
                    self.take_results(results, attempts)?;
                    pause_ends = None;
                }
                Event::Early(results) => self.take_results(results, attempts)?,
                Event::Failed(error) => {
                    self.take_failure(*error, attempts)?;
                    pause_ends = None;
                }
                Event::Unrun(errors) => {
                    errors.into_iter().try_for_each(|error| self.take_failure(error, attempts))?;
                    pause_ends = None;
                }
                Event::Part(part) => self.sinks.take_part(part.job, part.stream, &part.bytes),
                Event::Started { .. } | Event::Wake | Event::Idle => {}
                Event::Ended if self.suspects.is_empty() => break,
                Event::Ended => thread::sleep(deadline.saturating_duration_since(Instant::now())),
            }
            if !self.serve_client(attempts.target()).map_err(End::Sink)? {
                return Ok(End::Complete);
            }
            // Events that settle no job may come without a pause.
            if pause_ends.is_some_and(|until| until <= Instant::now()) {
                self.handle_pause()?;
                pause_ends = None;
            } else if timer.take_due(self.ledger.counts().done) {
                self.check_time_limit();
                self.name_running();
                self.write_finished().map_err(End::Sink)?;
            }
        }
        match pacer.take_panic() {
            Some(panic) => Err(End::Broken(panic)),
            None if self.ledger.was_cut() => Ok(End::Stopped),
            None => Ok(End::Complete),
        }
    }

    /// Pushes attempts while the stream has room.
    fn feed(&mut self, attempts: &mut Attempts<R>, pacer: &mut Pacer) -> Result<(), End> {
        let is_ready = attempts.is_ready();
        if is_ready && !pacer.is_hungry(attempts.unsettled()) {
            return Ok(());
        }
        if self.out_of_time.is_some() || (self.stop_requested)().is_some() {
            self.notify_ledger(ledger::Event::Stop);
        }
        let handed_on = HandedOn { jobs: attempts.pushed() - attempts.unsettled(), kept_bytes: 0, is_ready };
        let now = if self.ledger.has_waiting() { self.now() } else { Duration::ZERO };
        let runner = self.runner;
        let fed = pacer.feed(attempts, handed_on, || {
            self.next_attempt(now).map(|attempt| {
                let avoid = attempt.avoid.map(RankId);
                (runner.input(attempt), avoid)
            })
        });
        if let Some(error) = self.restore_error.take() {
            return Err(End::Sink(error));
        }
        match fed {
            // If the pool has ended, there may still be results; receiving reports the end after them.
            Err(failure) if !is_ready => Err(End::broken(failure)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Returns the next attempt, if it is there without waiting.
    fn next_attempt(&mut self, now: ledger::Time) -> Next<super::Attempt<R::Work>> {
        (self.awaits_input, self.is_restoring) = (false, false);
        let mut restored = 0;
        loop {
            if restored == RESTORED_AT_ONCE || self.restore_error.is_some() {
                self.is_restoring = true;
                return Next::Later;
            }
            match self.ledger.next(now) {
                ledger::Next::Attempt(attempt) => return Next::Item(attempt),
                ledger::Next::Wait => return Next::Later,
                ledger::Next::End => return Next::End,
                // Retries go on: the others may be behind one of them.
                ledger::Next::Read if self.sinks.behind() > self.most_behind => return Next::Later,
                ledger::Next::Read => {}
            }
            match self.source.next() {
                Next::Item(Ok(planned)) => match self.restore(planned) {
                    Some(planned) => return Next::Item(self.ledger.read(planned)),
                    None => restored += 1,
                },
                Next::Item(Err(fault)) => {
                    self.fault = Some(fault);
                    self.ledger.source_failed();
                }
                Next::Later => {
                    self.awaits_input = true;
                    return Next::Later;
                }
                Next::End => self.ledger.end_of_source(),
            }
        }
    }

    /// Settles a job that an earlier run has settled, by the journal. Otherwise returns it.
    fn restore(&mut self, planned: Planned<R::Work>) -> Option<Planned<R::Work>> {
        let restored = &mut self.restored;
        let found = self.sinks.find_settled(planned.content, planned.number, restored);
        let status = match found {
            Ok(None) => return Some(planned),
            Ok(Some(status)) => status,
            Err(error) => {
                self.restore_error = Some(error);
                return None;
            }
        };
        let place = self.ledger.restore(status);
        let failed = has_failed(status);
        if failed {
            self.failed.add(planned.number, restored.cause().as_ref());
        }
        self.settled.add_restored(u64::from(failed));
        let job =
            ledger::Job { place, number: planned.number, attempt: 1, input: planned.input, read_us: planned.read_us };
        self.restore_error = self.sinks.restore(&job, status, restored).err();
        None
    }

    /// Passes an event to the ledger that no orders follow from.
    fn notify_ledger(&mut self, event: ledger::Event<AttemptResult>) {
        self.ledger.on(event, Duration::ZERO, &mut self.orders);
    }

    /// Writes finished output, because no event has come for a while or a signal ends the run.
    fn handle_pause(&mut self) -> Result<(), End> {
        self.check_time_limit();
        self.name_running();
        if (self.stop_requested)().is_some_and(|since| since.elapsed() > self.grace) {
            return Err(End::Stopped);
        }
        self.write_finished().map_err(End::Sink)
    }

    /// Takes the results of consecutive attempts.
    fn take_results(&mut self, mut results: Results<R::Output>, attempts: &mut Attempts<R>) -> Result<(), End> {
        if !self.joins_results {
            let message = results.message();
            while let Some((index, value)) = results.next_value() {
                // Its result has come early.
                if !self.ledger.is_under_way(index) {
                    continue;
                }
                let read =
                    |value: &[u8]| wire::with_message(&message, || self.runner.result(index, value, self.logged));
                let result = value.and_then(|value| read(&value));
                match result {
                    Ok(result) => self.settle(index, result, attempts)?,
                    Err(error) => self.take_failure(error, attempts)?,
                }
            }
            return Ok(());
        }
        let (first, count) = (results.job(), results.len());
        self.ledger.on(ledger::Event::Succeeded { first, count }, Duration::ZERO, &mut self.orders);
        let mut orders = std::mem::take(&mut self.orders);
        for order in orders.drain(..) {
            let Order::SettleRun(Run { index, first, count }) = order else {
                self.follow(order, attempts)?;
                continue;
            };
            self.lines.clear();
            // Results before the run are those of jobs that were settled otherwise.
            while results.job() < index + count {
                let Some((of, line)) = results.next_value() else { break };
                if of >= index {
                    self.lines.extend_from_slice(&line.map_err(End::Broken)?);
                }
            }
            self.settled.add(count, 0);
            self.sinks.settle_run(first, count, &self.lines).map_err(End::Sink)?;
        }
        // Following an order adds none; the memory is used again.
        self.orders = orders;
        Ok(())
    }

    /// Takes the error of an attempt that has no result.
    fn take_failure(&mut self, error: JobError, attempts: &mut Attempts<R>) -> Result<(), End> {
        let index = error.job;
        if error.kind == JobErrorKind::Stopped {
            self.notify_ledger(ledger::Event::NotStarted { index });
            return self.handle_pause();
        }
        if matches!(error.kind, JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input) {
            // The error is not about this attempt alone.
            return Err(End::Broken(error));
        }
        let (status, kind) = self.runner.status(error.kind);
        let result = AttemptResult::without_output(status, Cause::new(&kind, error.message), None);
        self.settle(index, result, attempts)
    }

    /// Passes the result of an attempt to the ledger and carries out its orders.
    fn pass_on(&mut self, index: u64, result: AttemptResult, attempts: &mut Attempts<R>) -> Result<(), End> {
        self.trace(index, &result);
        let now = if has_failed(result.status) { self.now() } else { Duration::ZERO };
        let mut orders = std::mem::take(&mut self.orders);
        self.ledger.on(ledger::Event::Ended { index, result }, now, &mut orders);
        for order in orders.drain(..) {
            self.follow(order, attempts)?;
        }
        self.orders = orders;
        Ok(())
    }

    /// Carries out an order about a job or about the batch.
    fn follow(&mut self, order: Order<AttemptResult>, attempts: &mut Attempts<R>) -> Result<(), End> {
        match order {
            Order::GiveUp => {
                // If the pool has ended, receiving reports that.
                let _ = attempts.give_up();
                Ok(())
            }
            Order::EndAll => Err(End::Complete),
            order => self.execute(order).map_err(End::Sink),
        }
    }

    /// Carries out an order about a job.
    fn execute(&mut self, order: Order<AttemptResult>) -> Result<(), OutputError> {
        match order {
            Order::Settle { job, result } => {
                let failed = has_failed(result.status);
                if failed {
                    self.failed.add(job.number, result.cause.as_deref());
                }
                self.settled.add(1, u64::from(failed));
                result.run.and_then(|run| run.usage).iter().for_each(|usage| self.needs.add(usage.max_rss));
                self.sinks.settle(&job, result)
            }
            Order::Cancel { job } => {
                // Its output so far depends on the moment at which it was ended.
                self.sinks.forget(job.place);
                self.sinks.settle(&job, conclusion::cancelled())
            }
            Order::Leave { job } => {
                self.sinks.leave_out(&job);
                Ok(())
            }
            Order::Forget { place } => {
                self.sinks.forget(place);
                Ok(())
            }
            Order::SettleRun(_) | Order::GiveUp | Order::EndAll => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
