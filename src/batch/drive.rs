//! The driver of a batch: what becomes of each outcome, until there are no more or it is enough.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::Outcome;
use super::ledger::{Feed, Job, Ledger};
use super::limits::Limits;
use super::sinks::Sinks;
use super::stopping::Stopping;
use super::tally::Tally;
use super::trickle::Trickle;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::meter::Meter;
use crate::engine::schedule::RankId;
use crate::journal::Status;
use crate::output::OutputError;
use crate::pool::Map;

/// How long no result must come for the written ones to be handed to the system, and how often the clock is looked at for
/// jobs that wait to be run again.
const PAUSE: Duration = Duration::from_millis(100);
/// After this time from a signal no job may be left: the run is ended from outside a moment later.
const GRACE: Duration = Duration::from_secs(9);

/// How long running jobs are waited for after a signal while others are finished behind them, where what is written cannot be
/// put into order later. Open MPI's `mpiexec` kills its ranks a second after it has passed a signal on.
const BRIEF: Duration = Duration::from_millis(300);

/// So many jobs that were never looked at are told of one by one.
const TOLD: u64 = 1_000_000;

/// Why a batch is over.
#[derive(Debug)]
pub(crate) enum End {
    /// All jobs are settled, or it was enough.
    Whole,
    /// A signal.
    Stopped,
    /// Results cannot be handed on.
    Sink(OutputError),
    /// The pool has failed.
    Broken(JobError),
}

/// A batch while it runs.
pub(crate) struct Batch<'b, W> {
    pub ledger: &'b RefCell<Ledger<W>>,
    pub limits: &'b Limits,
    pub stopping: &'b Stopping,
    pub sinks: &'b mut Sinks,
    pub meter: Arc<Meter>,
    /// How many jobs there are, if that is known.
    pub total: Option<u64>,
    pub tally: Tally,
}

/// Whether to go on with a batch.
enum Verdict {
    GoOn,
    /// No new jobs; what runs may end.
    Enough,
    /// What runs is ended, too.
    EndAll,
}

impl<'b, W: Value + Clone> Batch<'b, W> {
    /// Runs the map that `start` makes of the attempts, to its end.
    pub(crate) fn run<'p>(
        &mut self,
        chunk: u32,
        window: usize,
        start: impl FnOnce(Feed<'b, W>) -> Map<'p, Feed<'b, W>, Outcome>,
    ) -> End {
        let feed = Feed::new(self.ledger, self.stopping);
        let pause = feed.pause();
        let parts = self.sinks.parts();
        let mut map = start(feed)
            .unordered()
            .chunk_size(chunk)
            .window(window)
            .timeout(PAUSE)
            .pausing(pause)
            .avoiding(|attempt| attempt.avoid.map(RankId))
            .on_part(move |place, stream, bytes| parts.take(place, stream, &bytes));
        let end = self.take_results(&mut map);
        // Ends what still runs.
        drop(map);
        self.conclude(end)
    }

    fn take_results(&mut self, map: &mut Map<'_, Feed<'b, W>, Outcome>) -> End {
        let mut trickle = Trickle::new();
        let mut enough = false;
        while let Some(result) = map.next() {
            let outcome = match result {
                Ok(outcome) => outcome,
                Err(error) => match self.outcome_of(error) {
                    Ok(Some(outcome)) => outcome,
                    Ok(None) => {
                        if self.stopping.since().is_some_and(|since| since.elapsed() > self.grace()) {
                            return End::Stopped;
                        }
                        if let Err(error) = self.hand_on() {
                            return End::Sink(error);
                        }
                        continue;
                    }
                    Err(error) => return End::Broken(error),
                },
            };
            match self.settle(outcome) {
                Err(error) => return End::Sink(error),
                Ok(Verdict::EndAll) => return End::Whole,
                Ok(Verdict::Enough) if !enough => {
                    enough = true;
                    self.ledger.borrow_mut().close();
                    map.deal_no_more();
                }
                Ok(Verdict::Enough | Verdict::GoOn) => {}
            }
            if trickle.is_due(self.tally.done) {
                if let Err(error) = self.hand_on() {
                    return End::Sink(error);
                }
            }
        }
        if self.ledger.borrow().was_cut() { End::Stopped } else { End::Whole }
    }

    /// Hands on what is due; after a signal, all that is finished.
    fn hand_on(&mut self) -> Result<(), OutputError> {
        if let Some(since) = self.stopping.since() {
            if !self.sinks.is_waiting() {
                // Nothing is held back.
            } else if self.sinks.can_save() {
                self.sinks.save()?;
            } else if since.elapsed() >= BRIEF {
                self.pass_by()?;
            }
        }
        self.sinks.flush()
    }

    /// Hands on what is finished, past the jobs that are not.
    fn pass_by(&mut self) -> Result<(), OutputError> {
        if self.sinks.has_line_for_each() {
            let passed = self.ledger.borrow_mut().give_up_before(self.sinks.end());
            for mut job in passed {
                match job.take_last() {
                    Some(outcome) => self.account(&job, outcome)?,
                    None => self.sinks.leave_out(&job),
                }
            }
        }
        self.sinks.close_gaps()
    }

    /// How long running jobs are waited for after a signal. Then they are asked to end, which may take them a while, too.
    fn grace(&self) -> Duration {
        GRACE.saturating_sub(self.limits.kill_after).max(Duration::from_secs(1))
    }

    /// What an attempt without outcome comes to; `None` if there is none to settle.
    fn outcome_of(&mut self, error: JobError) -> Result<Option<Outcome>, JobError> {
        let unrun = |status, kind| Ok(Some(Outcome::unrun(error.job, status, kind, error.message.clone())));
        match error.kind {
            JobErrorKind::Timeout => Ok(None),
            JobErrorKind::Stopped => {
                self.ledger.borrow_mut().give_back(error.job);
                Ok(None)
            }
            JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input => Err(error),
            JobErrorKind::Cancelled => unrun(Status::Cancelled, "cancelled"),
            JobErrorKind::Lost => unrun(Status::Lost, "lost"),
            _ => unrun(Status::Spawn, "spawn"),
        }
    }

    /// Runs the job of an outcome again, or settles it.
    fn settle(&mut self, outcome: Outcome) -> Result<Verdict, OutputError> {
        let Some(job) = self.ledger.borrow_mut().take(outcome.index) else { return Ok(Verdict::GoOn) };
        let (job, outcome) = if self.limits.retry_on.contains(&outcome.status) {
            let place = job.place;
            match self.ledger.borrow_mut().run_again(job, outcome, self.limits.retry_pause) {
                None => {
                    self.tally.again += 1;
                    self.sinks.forget(place);
                    return Ok(Verdict::GoOn);
                }
                Some(both) => both,
            }
        } else {
            (job, outcome)
        };
        let status = outcome.status;
        self.account(&job, outcome)?;
        let Tally { failed, done, .. } = self.tally;
        Ok(match (status, self.limits.max_failures) {
            (Status::Ok, _) if self.limits.stop_on_success => Verdict::EndAll,
            (_, Some(most)) if most.exceeded(failed, done, self.total) => Verdict::Enough,
            _ => Verdict::GoOn,
        })
    }

    /// A job has come to its end.
    fn account(&mut self, job: &Job<W>, outcome: Outcome) -> Result<(), OutputError> {
        let failed = !matches!(outcome.status, Status::Ok | Status::Cancelled);
        self.tally.count(job.number, &outcome);
        self.meter.add(1, u64::from(failed));
        self.sinks.settle(job, outcome)
    }

    /// Accounts for the jobs that were not run to their end; gives the end that it is then.
    fn conclude(&mut self, end: End) -> End {
        let mut rest = self.ledger.borrow_mut().take_rest();
        // What is wrong with a sink shows when it is finished.
        rest.retain_mut(|job| match job.take_last() {
            Some(outcome) => {
                let _ = self.account(job, outcome);
                false
            }
            None => true,
        });
        match end {
            End::Whole => {
                for job in rest {
                    self.cancel(&job);
                }
                // Those that were never looked at are accounted for, too, if there is an end to them.
                let deliberate = self.limits.stop_on_success || self.limits.max_failures.is_some();
                if let Some(total) = self.total.filter(|_| deliberate) {
                    return self.cancel_unread(total);
                }
            }
            // What did not come to its end is run when the batch is run again.
            End::Stopped | End::Broken(_) => rest.iter().for_each(|job| self.sinks.leave_out(job)),
            End::Sink(_) => {}
        }
        end
    }

    /// Cancels the jobs that were never looked at: each by itself only where each leaves something behind, because they may be
    /// billions.
    fn cancel_unread(&mut self, total: u64) -> End {
        let unread = total.saturating_sub(self.tally.done);
        if self.sinks.tells_each_job() && unread <= TOLD {
            loop {
                let next = self.ledger.borrow_mut().take_unread();
                let Some(job) = next else { break };
                self.cancel(&job);
                if self.stopping.since().is_some() {
                    return End::Stopped;
                }
            }
        } else if self.ledger.borrow().has_unread() {
            self.tally.cancel(unread);
        }
        End::Whole
    }

    fn cancel(&mut self, job: &Job<W>) {
        let outcome = Outcome::unrun(0, Status::Cancelled, "cancelled", "it was enough before its turn came".into());
        self.tally.count(job.number, &outcome);
        // What it has written so far depends on the moment at which it was ended.
        self.sinks.forget(job.place);
        // What is wrong with a sink shows when it is finished.
        let _ = self.sinks.settle(job, outcome);
    }
}
