//! The driver of a batch: what becomes of each outcome, until there are no more or it is enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, Outcome};
use super::ledger::{Job, Ledger};
use super::limits::Limits;
use super::sinks::Sinks;
use super::stopping::Stopping;
use super::tally::Tally;
use super::trickle::Trickle;
use crate::engine::board::Settled;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::schedule::RankId;
use crate::journal::Status;
use crate::output::OutputError;
use crate::pool::{Event, HandedOn, JobStream, Pacer};

/// How long no result must come for the written ones to be handed to the system, and how often the clock is looked at for
/// jobs that wait to be run again.
const PAUSE: Duration = Duration::from_millis(100);
/// After this time from a signal no job may be left: the run is ended from outside a moment later.
const GRACE: Duration = Duration::from_secs(9);

/// How long running jobs are waited for after a signal while others are finished behind them, where what is written cannot be
/// put into order later. Open MPI's `mpiexec` kills its ranks a second after it has passed a signal on.
const BRIEF: Duration = Duration::from_millis(300);

/// Up to this many jobs whose records were never read are cancelled one by one, each with a record.
const CANCELLED_SINGLY: u64 = 1_000_000;

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

impl End {
    fn broken(failure: Failure) -> End {
        End::Broken(JobError::of(0, failure))
    }
}

/// A batch while it runs.
pub(crate) struct Batch<'b, W> {
    pub ledger: &'b mut Ledger<W>,
    pub limits: &'b Limits,
    pub stopping: &'b Stopping,
    pub sinks: &'b mut Sinks,
    pub meter: Arc<Settled>,
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

/// The attempts of a batch that are under way.
type Attempts<W> = JobStream<Attempt<W>, Outcome>;

impl<W: Value + Clone> Batch<'_, W> {
    /// Runs the batch to its end with a stream for its attempts, if that could be opened.
    pub(crate) fn run(&mut self, attempts: Result<Attempts<W>, Failure>, pacer: Pacer) -> End {
        let end = match attempts {
            // What still runs at the end is given up with the stream.
            Ok(mut attempts) => self.take_events(&mut attempts, pacer).unwrap_or_else(|end| end),
            Err(failure) => End::broken(failure),
        };
        self.conclude(end)
    }

    /// Pushes attempts while there is room and takes events, until all attempts are settled, or for as long as it makes sense:
    /// the error is why it does not.
    fn take_events(&mut self, attempts: &mut Attempts<W>, mut pacer: Pacer) -> Result<End, End> {
        let mut trickle = Trickle::new();
        let mut deadline = None;
        loop {
            self.feed(attempts, &mut pacer)?;
            let until = *deadline.get_or_insert_with(|| Instant::now() + PAUSE);
            let wake = self.ledger.wake().filter(|_| pacer.lacks_input());
            match attempts.next(Some(until), wake).map_err(End::broken)? {
                Event::Done(outcomes) => {
                    for outcome in outcomes {
                        self.take_result(outcome, attempts, &mut trickle)?;
                    }
                    deadline = None;
                }
                Event::Failed(error) => {
                    self.take_result(Err(*error), attempts, &mut trickle)?;
                    deadline = None;
                }
                Event::Unrun(errors) => {
                    for error in errors {
                        self.take_result(Err(error), attempts, &mut trickle)?;
                    }
                    deadline = None;
                }
                Event::Part(part) => self.sinks.take_part(part.job, part.stream, &part.bytes),
                Event::Started { .. } | Event::Wake | Event::Idle => {}
                Event::Ended => break,
            }
            // Pieces of output and inputs may come without a pause.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.pause()?;
                deadline = None;
            }
        }
        if let Some(panic) = pacer.take_panic() {
            return Err(End::Broken(panic));
        }
        Ok(if self.ledger.was_cut() { End::Stopped } else { End::Whole })
    }

    /// Pushes attempts, unless there are enough.
    fn feed(&mut self, attempts: &mut Attempts<W>, pacer: &mut Pacer) -> Result<(), End> {
        let is_ready = attempts.is_ready();
        if is_ready && !pacer.is_hungry(attempts.unsettled()) {
            return Ok(());
        }
        let handed_on = HandedOn { jobs: attempts.pushed() - attempts.unsettled(), kept_bytes: 0, is_ready };
        let fed = pacer.feed(attempts, handed_on, || {
            self.ledger.next(self.stopping).map(|attempt| {
                let avoid = attempt.avoid.map(RankId);
                (attempt, avoid)
            })
        });
        match fed {
            // If the pool has ended, there may still be outcomes; then receiving reports it.
            Err(failure) if !is_ready => Err(End::broken(failure)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Hands on what is due, because no outcome has come for a while or a signal has ended the run.
    fn pause(&mut self) -> Result<(), End> {
        if self.stopping.since().is_some_and(|since| since.elapsed() > self.grace()) {
            return Err(End::Stopped);
        }
        self.hand_on().map_err(End::Sink)
    }

    /// Takes the result of an attempt.
    fn take_result(
        &mut self,
        result: Result<Outcome, JobError>,
        attempts: &mut Attempts<W>,
        trickle: &mut Trickle,
    ) -> Result<(), End> {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) if error.kind == JobErrorKind::Stopped => {
                self.ledger.give_back(error.job);
                return self.pause();
            }
            Err(error) => outcome_of(error).map_err(End::Broken)?,
        };
        match self.settle(outcome).map_err(End::Sink)? {
            Verdict::EndAll => return Err(End::Whole),
            Verdict::Enough => {
                self.ledger.close();
                // If the pool has ended, receiving reports it.
                let _ = attempts.give_up();
            }
            Verdict::GoOn => {}
        }
        if trickle.is_due(self.tally.done) { self.hand_on().map_err(End::Sink) } else { Ok(()) }
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
            let passed = self.ledger.give_up_before(self.sinks.end());
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

    /// Runs the job of an outcome again, or settles it.
    fn settle(&mut self, outcome: Outcome) -> Result<Verdict, OutputError> {
        let Some(job) = self.ledger.take(outcome.index) else { return Ok(Verdict::GoOn) };
        let (job, outcome) = if self.limits.retry_on.contains(&outcome.status) {
            let place = job.place;
            match self.ledger.run_again(job, outcome, self.limits.retry_pause) {
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
        let mut rest = self.ledger.take_rest();
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
        if self.sinks.tells_each_job() && unread <= CANCELLED_SINGLY {
            loop {
                let Some(job) = self.ledger.take_unread() else { break };
                self.cancel(&job);
                if self.stopping.since().is_some() {
                    return End::Stopped;
                }
            }
        } else if self.ledger.has_unread() {
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

/// The outcome of an attempt that has none because the pool could not run it.
///
/// # Errors
/// The error is not about this attempt alone.
fn outcome_of(error: JobError) -> Result<Outcome, JobError> {
    let (status, kind) = match error.kind {
        JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input => return Err(error),
        JobErrorKind::Cancelled => (Status::Cancelled, "cancelled"),
        JobErrorKind::Lost => (Status::Lost, "lost"),
        _ => (Status::Spawn, "spawn"),
    };
    Ok(Outcome::unrun(error.job, status, kind, error.message))
}
