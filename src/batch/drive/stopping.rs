//! What the driver does when the run is being stopped, or has to be: by a signal, or because its time limit is near.

use std::time::Duration;

use super::outside::may_be_from_outside;
use super::{Attempts, Driver, End};
use crate::batch::deadline::Deadline;
use crate::batch::job::AttemptResult;
use crate::batch::ledger;
use crate::batch::policy::{STOP_MARGIN, TURN_LIMIT_AFTER_SIGNAL};
use crate::batch::runners::Runner;
use crate::engine::stop;
use crate::journal::Status;
use crate::output::OutputError;
use crate::pool::Pool;

/// The time limit of a batch.
pub(crate) struct TimeLimit<'b> {
    pub deadline: Deadline,
    /// What the limit is, in words.
    pub source: &'static str,
    /// The time that running jobs have after a signal.
    pub grace: Duration,
    pub of: &'b dyn Limited,
}

/// A run that has a time limit.
pub(crate) trait Limited {
    /// Asks for the end of the run, with this grace time for running jobs.
    fn stop(&self, grace: Duration);

    /// Whether a signal has asked for the end of the run.
    fn is_signalled(&self) -> bool;

    /// Returns the mean duration of the jobs so far, for results that do not say how long they took.
    fn mean_job(&self) -> Option<Duration>;
}

/// The run of a pool, with the time that processes have to end after TERM.
pub(crate) struct PoolRun<'b> {
    pub pool: &'b Pool,
    pub kill_after: Duration,
}

impl PoolRun<'_> {
    /// Has the engine wait for as long as the driver does, with this grace time for running jobs.
    pub(crate) fn grant(&self, grace: Duration) {
        self.pool.grant_after_stop(grace.saturating_add(self.kill_after).saturating_add(STOP_MARGIN));
    }
}

impl Limited for PoolRun<'_> {
    fn stop(&self, grace: Duration) {
        self.grant(grace);
        self.pool.stop();
    }

    fn is_signalled(&self) -> bool {
        stop::was_signalled()
    }

    fn mean_job(&self) -> Option<Duration> {
        self.pool.stats()?.mean_job()
    }
}

impl<R: Runner> Driver<'_, R> {
    /// Stops the run, as a signal does, if the time limit leaves no time for more jobs.
    pub(super) fn check_time_limit(&mut self) {
        let Some(TimeLimit { deadline, source, grace, of }) = &self.time_limit else { return };
        if let Some(since) = (self.stop_requested)() {
            // Jobs may have got a long time, because none could be started any more. A signal says that there is less.
            if self.out_of_time.is_some() && of.is_signalled() {
                self.grace = self.grace.min(since.elapsed().saturating_add(*grace));
                self.time_limit = None;
            }
            return;
        }
        if self.out_of_time.is_some() {
            return;
        }
        let expected = self.durations.expected().or_else(|| of.mean_job());
        if let Some(grace) = deadline.grace_from(self.now(), expected) {
            of.stop(grace);
            (self.grace, self.out_of_time) = (grace, Some(*source));
        }
    }

    /// Takes the result of an attempt. One that may have been ended from outside is kept for a moment.
    pub(super) fn settle(&mut self, index: u64, result: AttemptResult, attempts: &mut Attempts<R>) -> Result<(), End> {
        if let Some(run) = result.run.filter(|_| self.time_limit.is_some() && result.status == Status::Ok) {
            self.durations.add(Duration::try_from_secs_f64(run.seconds).unwrap_or_default());
        }
        if !may_be_from_outside(&result) {
            return self.pass_on(index, result, attempts);
        }
        self.suspects.add(index, result, self.now());
        self.decide_on_suspects(attempts)
    }

    /// Leaves attempts that were ended from outside to the next run, if the run is being stopped, and settles the others in time.
    pub(super) fn decide_on_suspects(&mut self, attempts: &mut Attempts<R>) -> Result<(), End> {
        if self.suspects.is_empty() {
            return Ok(());
        }
        if (self.stop_requested)().is_some() {
            while let Some(index) = self.suspects.take() {
                self.notify_ledger(ledger::Event::NotStarted { index });
            }
        }
        let now = self.now();
        while let Some((index, result)) = self.suspects.take_due(now) {
            self.pass_on(index, result, attempts)?;
        }
        Ok(())
    }

    /// Writes the output whose turn it is; after a signal, all finished output.
    pub(super) fn write_finished(&mut self) -> Result<(), OutputError> {
        if let Some(since) = (self.stop_requested)() {
            if !self.sinks.is_waiting() {
                // All finished output is written.
            } else if self.sinks.can_write_early() {
                self.sinks.write_early()?;
            } else if since.elapsed() >= TURN_LIMIT_AFTER_SIGNAL && self.must_save_at_once() {
                self.write_past_unsettled()?;
            }
        }
        self.sinks.flush()
    }

    /// Whether finished output is to be written past the jobs that still run. Where each job has its line, their results would have
    /// no place any more when they end: so only if the ranks may be killed before that. What is in a journal is saved.
    fn must_save_at_once(&self) -> bool {
        let is_killed_soon = self.deadly_launcher && self.out_of_time.is_none() && !stop::last_was_harmless();
        self.sinks.journal_name().is_none() && (is_killed_soon || !self.sinks.has_line_for_each())
    }

    /// Writes finished output, past the jobs that are not settled.
    fn write_past_unsettled(&mut self) -> Result<(), OutputError> {
        if self.sinks.has_line_for_each() {
            let mut orders = std::mem::take(&mut self.orders);
            let event = ledger::Event::SkipBefore { place: self.sinks.end() };
            self.ledger.on(event, Duration::ZERO, &mut orders);
            orders.drain(..).try_for_each(|order| self.execute(order))?;
            self.orders = orders;
        }
        self.sinks.close_gaps()
    }
}
