//! Where the output of a batch's jobs and the records of them go.
//!
//! Output comes before records: what a record tells of is in the system's hands. Where records tell in which place of the
//! output file a job's output is, what waits too long behind a slow job is written before its turn, so that it survives
//! whatever ends the run; the file is put into order at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::attempt::{Outcome, Trouble};
use super::handover::Handover;
use super::ledger::Job;
use crate::console::escaped;
use crate::engine::exchange::OutputStream;
use crate::journal::{JobRecord, Status, begin_line};
use crate::output::{DEFAULT_MEMORY, Failure, Ordered, OutputError, OutputOrder, Section, failure_line};
use crate::report::Ticker;

/// What a job leaves in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// What it wrote, be it much or nothing.
    AsWritten,
    /// One line, whatever becomes of it.
    OneForEach,
}

/// How long what is finished waits behind a slow job before it is written all the same.
const HOLD: Duration = Duration::from_millis(200);

/// Where everything goes.
pub(crate) struct Sinks {
    lines: Lines,
    handover: Handover,
    waiting: Waiting,
    hosts: Vec<String>,
    ticker: Option<Ticker>,
    /// Behind the last place that is settled.
    end: u64,
    /// Since when something has waited without a pause.
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
        let order = if unordered { OutputOrder::Settled } else { OutputOrder::Places };
        let waiting =
            Waiting { ordered: Ordered::new(order, DEFAULT_MEMORY), trouble: None, torn: BTreeSet::new(), passed: 0 };
        Sinks { lines, handover, waiting, hosts, ticker: None, end: 0, blocked: None }
    }

    /// Takes a piece of output that comes ahead of its job's result.
    pub(super) fn take_part(&mut self, place: u64, stream: OutputStream, bytes: &[u8]) {
        let waiting = &mut self.waiting;
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

    /// Whether every job leaves something behind, whatever becomes of it.
    pub(super) fn tells_each_job(&self) -> bool {
        self.handover.has_records() || self.lines == Lines::OneForEach
    }

    /// Whether the lines of the output answer the records, one by one.
    pub(super) fn has_line_for_each(&self) -> bool {
        self.lines == Lines::OneForEach
    }

    /// Behind the last place that is settled.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Takes what a job has come to, and hands on what is due.
    pub(super) fn settle<W>(&mut self, job: &Job<W>, mut outcome: Outcome) -> Result<(), OutputError> {
        self.end = self.end.max(job.place + 1);
        let mut out = std::mem::take(&mut outcome.out).into_vec();
        let mut err = std::mem::take(&mut outcome.err).into_vec();
        if let Some(trouble) = &outcome.trouble {
            tell(job.number, outcome.status, trouble, self.lines, &mut out, &mut err);
        }
        let mut note = self.handover.note(job.number);
        if self.handover.has_records() {
            if let Some(record) = record(job, &outcome, &self.hosts) {
                note.extend_from_slice(&begin_line(&record).map_err(|error| self.handover.no_json(error))?);
            }
        }
        self.hand_over(job.place, out, &err, &note)
    }

    /// A job will not come to its end in this run.
    pub(super) fn leave_out<W>(&mut self, job: &Job<W>) {
        if self.lines == Lines::OneForEach && job.place < self.end {
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
            for (section, bytes) in
                [(Section::STDOUT, &*out), (Section::STDERR, err), (Section::Note, note), (Section::Note, &[])]
            {
                self.handover.take(section, bytes)?;
            }
            return trouble;
        }
        let handover = &mut self.handover;
        let kept = waiting.ordered.settle(place, out, err, note);
        waiting.ordered.drain(&mut |_, section, bytes| handover.take(section, bytes))?;
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
        waiting.ordered.drain_waiting(&mut |_, section, bytes| handover.take(section, bytes))
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
        waiting.ordered.drain(&mut |_, section, bytes| handover.take(section, bytes))
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

/// Puts into a job's output what went wrong with it.
fn tell(number: u64, status: Status, trouble: &Trouble, lines: Lines, out: &mut Vec<u8>, err: &mut Vec<u8>) {
    let Trouble { kind, message, traceback, .. } = trouble;
    match lines {
        Lines::OneForEach => {
            *out = failure_line(Failure { job: number, kind, message });
            if status != Status::Cancelled {
                let text = escaped(traceback.as_ref().unwrap_or(message));
                err.extend_from_slice(format!("rankpool: job {number}: {}\n", text.trim_end()).as_bytes());
            }
        }
        // A command that fails says itself why.
        Lines::AsWritten => match status {
            Status::Spawn | Status::Timeout | Status::Lost => {
                err.extend_from_slice(format!("rankpool: job {number}: {}\n", escaped(message)).as_bytes());
            }
            Status::Ok | Status::Failed | Status::Signal | Status::Cancelled => {}
        },
    }
}

fn record<'a, W>(job: &'a Job<W>, outcome: &'a Outcome, hosts: &'a [String]) -> Option<JobRecord<'a>> {
    let trouble = outcome.trouble.as_deref();
    let mut record = JobRecord::new(job.number, job.input.as_deref()?, outcome.status);
    // A rank that is lost had begun it.
    record.attempts = if outcome.status == Status::Lost { job.attempt } else { job.attempt - 1 };
    record.output_bytes = Some(outcome.output_bytes);
    record.signal = trouble.and_then(|trouble| trouble.signal);
    record.exit = trouble.and_then(|trouble| trouble.exit);
    record.message = trouble.map(|trouble| trouble.message.as_str());
    record.traceback = trouble.and_then(|trouble| trouble.traceback.as_deref());
    if let Some(run) = &outcome.run {
        record.attempts = job.attempt;
        record.host = hosts.get(run.rank as usize).map(String::as_str);
        record.rank = Some(run.rank);
        record.slot = Some(run.slot.into());
        record.start = Some(UNIX_EPOCH + Duration::from_micros(run.start));
        record.seconds = Duration::try_from_secs_f64(run.seconds).ok();
        if let Some(usage) = run.usage {
            record.exit = record.exit.or((outcome.status == Status::Ok).then_some(0));
            record.user = Duration::try_from_secs_f64(usage.user).ok();
            record.system = Duration::try_from_secs_f64(usage.system).ok();
            record.max_rss = Some(usage.max_rss);
        }
    }
    Some(record)
}
