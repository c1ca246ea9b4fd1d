//! Where the output of a batch's jobs and the records of them go.
//!
//! Output comes before records: what a record tells of is in the system's hands. Where records tell in which place of the
//! output file a job's output is, what waits too long behind a slow job is written before its turn, so that it survives
//! whatever ends the run; the file is put into order at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::handover::Handover;
use super::job::{AttemptResult, Cause};
use super::ledger::Job;
use super::policy::HOLD;
use super::runners::command::STDOUT;
use crate::console::escaped;
use crate::journal::{JobRecord, Status, begin_line};
use crate::output::{DEFAULT_MEMORY, Failure, Order, Ordered, OutputError, Stream, failure_line};
use crate::report::Ticker;

/// How a job's output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// As the job wrote it. A command that fails says itself why, so that only other failures are written to standard error.
    AsWritten,
    /// One line for each job: its result, or its error. `echo_errors`: errors are written to standard error, too.
    OneForEach { echo_errors: bool },
}

/// Where everything goes.
pub(crate) struct Sinks {
    lines: Lines,
    handover: Handover,
    waiting: Waiting,
    hosts: Vec<String>,
    ticker: Option<Ticker>,
    /// One more than the last settled place.
    end: u64,
    /// Since when finished output has been waiting without a pause.
    blocked: Option<Instant>,
}

/// Output that is not handed on, and what went wrong with pieces of it.
struct Waiting {
    ordered: Ordered,
    trouble: Option<OutputError>,
    /// Jobs of which a piece of output could not be kept.
    torn: BTreeSet<u64>,
    /// Jobs before this place have lost their turn: what they put out comes as it comes.
    passed: u64,
}

impl Sinks {
    /// `hosts` are those of the ranks.
    pub(crate) fn new(lines: Lines, unordered: bool, handover: Handover, hosts: Vec<String>) -> Self {
        let order = if unordered { Order::Settled } else { Order::Places };
        let waiting =
            Waiting { ordered: Ordered::new(order, DEFAULT_MEMORY), trouble: None, torn: BTreeSet::new(), passed: 0 };
        Sinks { lines, handover, waiting, hosts, ticker: None, end: 0, blocked: None }
    }

    /// Takes a piece of output that comes ahead of its job's result.
    pub(super) fn take_part(&mut self, place: u64, stream: u8, bytes: &[u8]) {
        let waiting = &mut self.waiting;
        let stream = if stream == STDOUT { Stream::Out } else { Stream::Err };
        if place < waiting.passed {
            // Nothing is kept for it, and pieces of two jobs must not be mixed.
            waiting.torn.insert(place);
            return;
        }
        if let Err(error) = waiting.ordered.part(place, stream, bytes) {
            waiting.trouble.get_or_insert(error);
            waiting.torn.insert(place);
        }
    }

    /// The file of the records, if there are any.
    pub(crate) fn records(&self) -> Option<&Path> {
        self.handover.records()
    }

    /// Whether records are written.
    pub(super) fn has_records(&self) -> bool {
        self.handover.has_records()
    }

    /// Whether every job leaves something behind, whatever becomes of it.
    pub(super) fn tells_each_job(&self) -> bool {
        self.handover.has_records() || self.has_line_for_each()
    }

    /// Whether the lines of the output answer the records, one by one.
    pub(super) fn has_line_for_each(&self) -> bool {
        matches!(self.lines, Lines::OneForEach { .. })
    }

    /// Whether results of jobs with consecutive places can be taken together: neither records nor places in the file are kept
    /// for each job.
    pub(super) fn takes_runs(&self) -> bool {
        !self.handover.needs_notes()
    }

    /// The number of places that have not been handed on, from the first unsettled one to the last settled one.
    pub(super) fn behind(&self) -> u64 {
        self.waiting.ordered.waiting_places()
    }

    /// One more than the last settled place.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Takes the results of `count` successful jobs with consecutive places, from `first` on, one behind the other, and hands on what
    /// is due.
    pub(super) fn settle_run(&mut self, first: u64, count: u64, lines: &[u8]) -> Result<(), OutputError> {
        self.end = self.end.max(first + count);
        let (waiting, handover) = (&mut self.waiting, &mut self.handover);
        if first < waiting.passed || waiting.ordered.pass_run(first, count) {
            handover.take(Stream::Out, lines)?;
        } else {
            waiting.ordered.settle_run(first, count, lines.to_vec())?;
        }
        waiting.ordered.drain(&mut |_, stream, bytes| handover.take(stream, bytes))
    }

    /// Takes the final result of a job, and hands on what is due.
    pub(super) fn settle(&mut self, job: &Job, mut result: AttemptResult) -> Result<(), OutputError> {
        self.end = self.end.max(job.place + 1);
        let mut out = std::mem::take(&mut result.out).into_vec();
        let mut err = std::mem::take(&mut result.err).into_vec();
        if let Some(cause) = &result.cause {
            add_error(job.number, result.status, cause, self.lines, &mut out, &mut err);
        }
        let mut note = self.handover.note(job.number);
        if self.handover.has_records() {
            if let Some(record) = record(job, &result, &self.hosts) {
                note.extend_from_slice(&begin_line(&record).map_err(|error| self.handover.no_json(error))?);
            }
        }
        self.hand_over(job.place, out, &err, &note)
    }

    /// A job will not come to its end in this run.
    pub(super) fn leave_out(&mut self, job: &Job) {
        if self.has_line_for_each() && job.place < self.end {
            let line = Failure { job: job.number, kind: "stopped", message: "the run was stopped before its end" };
            let note = self.handover.note(job.number);
            // What is wrong with the output shows when it is finished.
            let _ = self.hand_over(job.place, failure_line(line), &[], &note);
        }
    }

    fn hand_over(&mut self, place: u64, out: Vec<u8>, err: &[u8], note: &[u8]) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let trouble = waiting.trouble.take().map_or(Ok(()), Err);
        if waiting.torn.contains(&place) {
            // Its output is not whole, so it counts as not done.
            waiting.ordered.forget_parts(place);
            return trouble;
        }
        if place < waiting.passed {
            for (stream, bytes) in [(Stream::Out, &*out), (Stream::Err, err), (Stream::Note, note), (Stream::Note, &[])]
            {
                self.handover.take(stream, bytes)?;
            }
            return trouble;
        }
        let handover = &mut self.handover;
        let kept = waiting.ordered.settle(place, out, err, note);
        waiting.ordered.drain(&mut |_, stream, bytes| handover.take(stream, bytes))?;
        kept.and(trouble)
    }

    /// What an attempt has written so far counts for nothing: the job is run again.
    pub(super) fn forget(&mut self, place: u64) {
        self.waiting.ordered.forget_parts(place);
    }

    /// Hands everything that is due to the system, and what has waited too long, if it can be told where that is.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        if self.handover.tells_places() && self.has_waited_for(HOLD) {
            self.save()?;
        }
        if let Some(error) = self.waiting.trouble.take() {
            return Err(error);
        }
        let handover = &mut self.handover;
        match &self.ticker {
            Some(ticker) if handover.has_errors() => ticker.aside(|| handover.commit()),
            Some(_) | None => handover.commit(),
        }
    }

    /// Whether outputs have waited for their turn at least so long.
    fn has_waited_for(&mut self, time: Duration) -> bool {
        if !self.waiting.ordered.is_waiting() {
            self.blocked = None;
            return false;
        }
        self.blocked.get_or_insert_with(Instant::now).elapsed() >= time
    }

    /// Whether something is finished that has not been handed on.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.ordered.is_waiting()
    }

    /// Whether what waits can be written before its turn without a loss: the file is put into order later.
    pub(super) fn can_save(&self) -> bool {
        self.handover.tells_places()
    }

    /// Writes what waits before its turn has come.
    pub(super) fn save(&mut self) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let handover = &mut self.handover;
        self.blocked = None;
        waiting.ordered.drain_waiting(&mut |_, stream, bytes| handover.take(stream, bytes))
    }

    /// What shows progress on standard error meanwhile.
    pub(crate) fn show(&mut self, ticker: Option<Ticker>) {
        self.ticker = ticker;
    }

    /// Hands on what waits behind jobs that are not settled. What these put out from now on comes as it comes.
    pub(crate) fn close_gaps(&mut self) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let torn = waiting.ordered.skip_open();
        waiting.torn.extend(torn);
        waiting.passed = waiting.passed.max(self.end);
        let handover = &mut self.handover;
        waiting.ordered.drain(&mut |_, stream, bytes| handover.take(stream, bytes))
    }

    /// Puts other lines in the places of some jobs' lines, see [`Handover::replace_lines`].
    ///
    /// # Errors
    /// If the output cannot be read or written.
    pub(crate) fn replace_lines(&mut self, lines: &BTreeMap<u64, Vec<u8>>) -> Result<(), OutputError> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.can_save() {
            self.save()?;
        }
        self.handover.replace_lines(lines)
    }

    /// What the outputs are called as long as they are not whole: of the jobs' standard output, and of their standard error.
    pub(crate) fn partial_names(&self) -> [Option<PathBuf>; 2] {
        self.handover.partial_names()
    }

    /// Ends all outputs. `whole`: the output is all that was asked for.
    pub(crate) fn finish(mut self, whole: bool) -> Result<(), OutputError> {
        let saved = if self.can_save() { self.save() } else { self.close_gaps() };
        // What is wrong with one output is no reason to keep the others back.
        let finished = self.handover.finish(whole && saved.is_ok());
        saved.and(finished)
    }
}

/// Adds the error of a job to its output.
fn add_error(number: u64, status: Status, cause: &Cause, lines: Lines, out: &mut Vec<u8>, err: &mut Vec<u8>) {
    let Cause { kind, message, traceback, .. } = cause;
    let mut echo = |text: &str| {
        err.extend_from_slice(format!("rankpool: job {number}: {}\n", escaped(text).trim_end()).as_bytes())
    };
    match lines {
        Lines::OneForEach { echo_errors } => {
            *out = failure_line(Failure { job: number, kind, message });
            if echo_errors && status != Status::Cancelled {
                echo(traceback.as_ref().unwrap_or(message));
            }
        }
        Lines::AsWritten => match status {
            Status::Spawn | Status::Timeout | Status::Lost => echo(message),
            Status::Ok | Status::Failed | Status::Signal | Status::Cancelled => {}
        },
    }
}

/// The record of a job, if its input was kept for it.
fn record<'a>(job: &'a Job, result: &'a AttemptResult, hosts: &'a [String]) -> Option<JobRecord<'a>> {
    let cause = result.cause.as_deref();
    let mut record = JobRecord::new(job.number, job.input.as_deref()?, result.status);
    // These have not begun the attempt; all others have, also if it is not known where.
    let has_begun = result.run.is_some() || !matches!(result.status, Status::Spawn | Status::Cancelled);
    record.attempts = if has_begun { job.attempt } else { job.attempt - 1 };
    record.output_bytes = Some(result.output_bytes);
    record.signal = cause.and_then(|cause| cause.signal);
    record.exit = cause.and_then(|cause| cause.exit);
    record.message = cause.map(|cause| cause.message.as_str());
    record.traceback = cause.and_then(|cause| cause.traceback.as_deref());
    if let Some(run) = &result.run {
        record.host = hosts.get(run.rank as usize).map(String::as_str);
        record.rank = Some(run.rank);
        record.slot = Some(run.slot.into());
        record.start = Some(UNIX_EPOCH + Duration::from_micros(run.start));
        record.seconds = Duration::try_from_secs_f64(run.seconds).ok();
        if let Some(usage) = run.usage {
            record.exit = record.exit.or((result.status == Status::Ok).then_some(0));
            record.user = Duration::try_from_secs_f64(usage.user).ok();
            record.system = Duration::try_from_secs_f64(usage.system).ok();
            record.max_rss = Some(usage.max_rss);
        }
    }
    Some(record)
}
