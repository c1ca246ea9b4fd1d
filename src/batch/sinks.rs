//! Takes the final results of jobs and hands their output and their entries of the job log to the writers, in the order of places.
//!
//! Output is flushed before the entry that describes it. If entries contain the places of outputs, output that waits too long
//! behind a slow job is written out of order, so that it survives whatever ends the run; the file is put into order at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{self, ClientSink};
use super::handover::Handover;
use super::job::{AttemptResult, Cause, micros_of};
use super::ledger::{Counts, Job};
use super::policy::TURN_LIMIT;
use super::recorder::{Recorder, Restored};
use crate::console::{self, escaped};
use crate::engine::exchange::OutputStream;
use crate::journal::{JobEntry, Spec, Status, begin_line};
use crate::output::{DEFAULT_MEMORY, ErrorLine, Ordered, OutputError, OutputOrder, Section, error_line};
use crate::report::Ticker;

/// The form in which a job's output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// As the job wrote it. A command that fails writes the reason itself, so only other failures are written to standard error.
    AsWritten,
    /// One line for each job: its result, or its error. `echo_errors`: errors are written to standard error, too.
    OneForEach { echo_errors: bool },
}

/// The destinations of a batch's results.
pub(crate) struct Sinks {
    lines: Lines,
    /// The journal: what it has is durable, whatever happens to the outputs.
    recorder: Option<Recorder>,
    handover: Handover,
    waiting: Waiting,
    hosts: Vec<String>,
    ticker: Option<Ticker>,
    /// The script that takes the results.
    client: Option<ClientSink>,
    /// One more than the last settled place.
    end: u64,
    /// Since when finished output has been waiting without a pause.
    blocked: Option<Instant>,
}

/// Output that is not handed on yet, and the first error of keeping it.
struct Waiting {
    ordered: Ordered,
    error: Option<OutputError>,
    /// Jobs of which a piece of output was lost.
    incomplete: BTreeSet<u64>,
    /// Jobs before this place are no longer waited for: their output is written when they are settled.
    passed: u64,
}

impl Sinks {
    /// Makes sinks without results. `hosts` are those of the ranks.
    pub(crate) fn new(
        lines: Lines,
        unordered: bool,
        recorder: Option<Recorder>,
        handover: Handover,
        hosts: Vec<String>,
    ) -> Self {
        let order = if unordered { OutputOrder::Settled } else { OutputOrder::Places };
        let waiting = Waiting {
            ordered: Ordered::new(order, DEFAULT_MEMORY),
            error: None,
            incomplete: BTreeSet::new(),
            passed: 0,
        };
        Sinks { lines, recorder, handover, waiting, hosts, ticker: None, client: None, end: 0, blocked: None }
    }

    /// Takes a piece of output that comes ahead of its job's result.
    pub(super) fn take_part(&mut self, place: u64, stream: OutputStream, bytes: &[u8]) {
        let waiting = &mut self.waiting;
        if let Some(Err(error)) = self.recorder.as_mut().map(|recorder| recorder.take_part(place, stream, bytes)) {
            waiting.error.get_or_insert(error);
        }
        if place < waiting.passed {
            // Nothing is kept for this job any more, and pieces of two jobs must not be mixed.
            waiting.incomplete.insert(place);
            return;
        }
        if let Err(error) = waiting.ordered.part(place, stream, bytes) {
            waiting.error.get_or_insert(error);
            waiting.incomplete.insert(place);
        }
    }

    /// Returns the path of the job log, if it is a regular file.
    pub(crate) fn log_path(&self) -> Option<&Path> {
        self.handover.log_path()
    }

    /// Returns the name of the journal for messages, if it can be continued.
    pub(super) fn journal_name(&self) -> Option<Arc<str>> {
        let journal = self.recorder.as_ref()?.journal();
        journal.is_there().then(|| journal.name().clone())
    }

    /// Returns what the journal has saved and cost, if there is one.
    pub(super) fn journal_note(&self, counts: Counts) -> Option<String> {
        let journal = self.recorder.as_ref()?.journal();
        let (name, disk) = (journal.name(), journal.disk());
        let restored = match counts.restored {
            0 => String::new(),
            restored => format!("{restored} of {} job(s) were settled already; ", counts.done),
        };
        let (kib, waited) = (disk.bytes.div_ceil(1024), disk.waited.as_secs_f64());
        Some(format!("the journal {name}: {restored}{kib} KiB written, {waited:.3} s spent waiting for the disk"))
    }

    /// Whether there is a job log.
    pub(super) fn has_log(&self) -> bool {
        self.handover.has_log()
    }

    /// Whether every job, also a cancelled one, leaves a line in the output or an entry in the job log.
    pub(super) fn writes_each_job(&self) -> bool {
        self.handover.has_log() || self.has_line_for_each()
    }

    /// Whether the output has one line for each record.
    pub(super) fn has_line_for_each(&self) -> bool {
        matches!(self.lines, Lines::OneForEach { .. })
    }

    /// Whether results of jobs with consecutive places can be taken together: there is no job log, and places in the file are not
    /// kept.
    pub(super) fn takes_runs(&self) -> bool {
        !self.handover.needs_notes()
    }

    /// Returns the number of places from the first unsettled one to the last settled one.
    pub(super) fn behind(&self) -> u64 {
        self.waiting.ordered.waiting_places()
    }

    /// Returns one more than the last settled place.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Takes the results of `count` successful jobs with consecutive places, from `first` on, joined in `lines`, and hands on the
    /// output whose turn it is.
    pub(super) fn settle_run(&mut self, first: u64, count: u64, lines: &[u8]) -> Result<(), OutputError> {
        self.end = self.end.max(first + count);
        if let Some(recorder) = &mut self.recorder {
            recorder.settle_run(first, lines)?;
        }
        let (waiting, handover) = (&mut self.waiting, &mut self.handover);
        if first < waiting.passed || waiting.ordered.pass_run(first, count) {
            handover.write(Section::STDOUT, lines)?;
        } else {
            waiting.ordered.settle_run(first, count, lines.to_vec())?;
        }
        waiting.ordered.drain(&mut |_, section, bytes| handover.write(section, bytes))
    }

    /// Takes the final result of a job, and hands on the output whose turn it is.
    pub(super) fn settle(&mut self, job: &Job, mut result: AttemptResult) -> Result<(), OutputError> {
        self.end = self.end.max(job.place + 1);
        if let Some(client) = &mut self.client {
            client.settle(job, &result);
            if !self.handover.has_log() && self.recorder.is_none() {
                return Ok(());
            }
        }
        let mut out =
            client::kept(&mut result).map_err(|error| OutputError::from_io(&"the result of a call".into(), error))?;
        let mut err = std::mem::take(&mut result.err).into_vec();
        if let Some(cause) = result.cause.as_ref().filter(|_| self.client.is_none()) {
            add_error(job.number, result.status, cause, self.lines, &mut out, &mut err);
        }
        let mut note = self.handover.note(job.number);
        if self.handover.has_log() || self.recorder.is_some() {
            let line = entry(job, &result, &self.hosts).map(|entry| begin_line(&entry)).transpose();
            let line = line.map_err(|error| self.handover.entry_error(error))?.unwrap_or_default();
            if let Some(recorder) = &mut self.recorder {
                recorder.settle(job.place, result.status, &line, &out, &err)?;
            }
            if self.client.is_some() {
                out.clear();
            }
            if self.handover.has_log() {
                note.extend_from_slice(&line);
            }
        }
        self.hand_over(job.place, out, &err, &note)
    }

    /// Looks for the next job, which was read from the source, in the journal. If an earlier run has settled it, returns its status,
    /// and the rest of its entry in `restored`.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) fn find_settled(
        &mut self,
        content: u128,
        number: u64,
        restored: &mut Restored,
    ) -> Result<Option<Status>, OutputError> {
        self.recorder.as_mut().map_or(Ok(None), |recorder| recorder.take(content, number, restored))
    }

    /// Takes a job that an earlier run has settled, and hands on the output whose turn it is.
    ///
    /// # Errors
    /// If the journal cannot be read, or writing fails.
    pub(super) fn restore(&mut self, job: &Job, status: Status, restored: &Restored) -> Result<(), OutputError> {
        self.end = self.end.max(job.place + 1);
        for number in &restored.parts {
            let Some(recorder) = &mut self.recorder else { break };
            if let Some((stream, bytes)) = recorder.part(*number)? {
                self.waiting.ordered.part(job.place, stream, bytes)?;
            }
        }
        let mut note = self.handover.note(job.number);
        let mut out = restored.out.clone();
        if let Some(client) = &mut self.client {
            client.restore(job, status, &out);
            out.clear();
        }
        if self.handover.has_log() {
            match (begin_of(&restored.description, job.number), job.input.as_deref()) {
                (Some(line), _) => note.extend_from_slice(&line),
                (None, Some(input)) => {
                    let line = begin_line(&JobEntry::new(job.number, input, status));
                    note.extend_from_slice(&line.map_err(|error| self.handover.entry_error(error))?);
                }
                (None, None) => {}
            }
        }
        self.hand_over(job.place, out, &restored.err, &note)
    }

    /// Writes the error line of a job that is left to the next run, if lines of later jobs were written.
    pub(super) fn leave_out(&mut self, job: &Job) {
        if self.has_line_for_each() && job.place < self.end {
            let line = ErrorLine { job: job.number, kind: "stopped", message: "the run was stopped before its end" };
            let note = self.handover.note(job.number);
            // An error of the output is reported again when it is finished.
            let _ = self.hand_over(job.place, error_line(line), &[], &note);
        }
    }

    fn hand_over(&mut self, place: u64, out: Vec<u8>, err: &[u8], note: &[u8]) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let earlier = waiting.error.take().map_or(Ok(()), Err);
        if waiting.incomplete.contains(&place) {
            // Without an entry, the job is run again by --only-failed.
            waiting.ordered.forget_parts(place);
            return earlier;
        }
        if place < waiting.passed {
            for (section, bytes) in
                [(Section::STDOUT, &*out), (Section::STDERR, err), (Section::Note, note), (Section::Note, &[])]
            {
                self.handover.write(section, bytes)?;
            }
            return earlier;
        }
        let handover = &mut self.handover;
        let kept = waiting.ordered.settle(place, out, err, note);
        waiting.ordered.drain(&mut |_, section, bytes| handover.write(section, bytes))?;
        kept.and(earlier)
    }

    /// Drops the output of the job's attempt so far, because the job is run again.
    pub(super) fn forget(&mut self, place: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.forget(place);
        }
        self.waiting.ordered.forget_parts(place);
    }

    /// Flushes the outputs. Output that has waited too long is written out of order first, if entries contain places.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        self.recorder.as_mut().map_or(Ok(()), Recorder::flush)?;
        if self.handover.has_output_places() && self.has_waited_for(TURN_LIMIT) {
            self.write_early()?;
        }
        if let Some(error) = self.waiting.error.take() {
            return Err(error);
        }
        let handover = &mut self.handover;
        if self.ticker.is_some() && handover.has_errors() {
            console::aside(|| handover.commit())
        } else {
            handover.commit()
        }
    }

    /// Whether outputs have waited for their turn for at least this time.
    fn has_waited_for(&mut self, time: Duration) -> bool {
        if !self.waiting.ordered.is_waiting() {
            self.blocked = None;
            return false;
        }
        self.blocked.get_or_insert_with(Instant::now).elapsed() >= time
    }

    /// Whether finished output waits for its turn.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.ordered.is_waiting()
    }

    /// Whether waiting output can be written out of order, because the file can be put into order later.
    pub(super) fn can_write_early(&self) -> bool {
        self.handover.has_output_places()
    }

    /// Writes all waiting output out of order.
    pub(super) fn write_early(&mut self) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let handover = &mut self.handover;
        self.blocked = None;
        waiting.ordered.drain_waiting(&mut |_, section, bytes| handover.write(section, bytes))
    }

    /// Has a script take the results. They are not written to the output.
    pub(super) fn set_client(&mut self, client: ClientSink) {
        self.client = Some(client);
    }

    /// Sends the script its results, after the journal and the job log have them. `target`: see [`ClientSink::send`].
    ///
    /// # Errors
    /// If journal or job log cannot be written: then nothing is sent.
    pub(super) fn send_to_client(&mut self, target: u64) -> Result<(), OutputError> {
        let has_results = self.client.as_ref().is_some_and(ClientSink::has_results);
        if has_results && (self.recorder.is_some() || self.handover.has_log()) {
            self.flush()?;
        }
        if let Some(client) = &mut self.client {
            client.send(target);
        }
        Ok(())
    }

    /// Returns the script that takes the results.
    pub(super) fn client(&mut self) -> Option<&mut ClientSink> {
        self.client.as_mut()
    }

    /// Sets the display of progress that must be out of the way when standard error is written; `None` ends it.
    pub(crate) fn set_progress(&mut self, ticker: Option<Ticker>) {
        self.ticker = ticker;
    }

    /// Hands on all waiting output, past the jobs that are not settled. Their output is written when they are settled.
    pub(crate) fn close_gaps(&mut self) -> Result<(), OutputError> {
        let waiting = &mut self.waiting;
        let incomplete = waiting.ordered.skip_open();
        waiting.incomplete.extend(incomplete);
        waiting.passed = waiting.passed.max(self.end);
        let handover = &mut self.handover;
        waiting.ordered.drain(&mut |_, section, bytes| handover.write(section, bytes))
    }

    /// Replaces the lines of some jobs by other ones, see [`Handover::replace_lines`].
    ///
    /// # Errors
    /// If the output cannot be read or written.
    pub(crate) fn replace_lines(&mut self, lines: &BTreeMap<u64, Vec<u8>>) -> Result<(), OutputError> {
        if lines.is_empty() {
            return Ok(());
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.replace(lines)?;
        }
        if self.can_write_early() {
            self.write_early()?;
        }
        self.handover.replace_lines(lines)
    }

    /// Returns the names of the unfinished outputs: of the jobs' standard output, and of their standard error.
    pub(crate) fn partial_names(&self) -> [Option<PathBuf>; 2] {
        self.handover.partial_names()
    }

    /// Writes what the run has counted to the journal, if there is one.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn add_statistics(&mut self, fields: &Spec) -> Result<(), OutputError> {
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.add_statistics(fields))
    }

    /// Finishes all outputs, and closes the journal. `counts`: the output is complete, with these numbers of jobs.
    pub(crate) fn finish(mut self, counts: Option<Counts>) -> Result<(), OutputError> {
        let durable = self.recorder.as_mut().map_or(Ok(()), Recorder::sync);
        let written = if self.can_write_early() { self.write_early() } else { self.close_gaps() };
        // An error of one output does not keep the others from being finished.
        let finished = self.handover.finish(counts.is_some() && written.is_ok());
        let result = durable.and(written).and(finished);
        let closed = self.recorder.map_or(Ok(()), |recorder| recorder.close(counts.filter(|_| result.is_ok())));
        result.and(closed)
    }
}

/// Returns the beginning of the line of a job log from the description of a job in the journal, with this number; `None` if there
/// is no description.
fn begin_of(description: &[u8], number: u64) -> Option<Vec<u8>> {
    let rest = description.strip_prefix(b"{\"number\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some([format!("{{\"number\":{number}").as_bytes(), &rest[digits..]].concat())
}

/// Adds the error of a job to its output.
fn add_error(number: u64, status: Status, cause: &Cause, lines: Lines, out: &mut Vec<u8>, err: &mut Vec<u8>) {
    let Cause { kind, message, traceback, .. } = cause;
    let mut echo = |text: &str| {
        err.extend_from_slice(format!("rankpool: job {number}: {}\n", escaped(text).trim_end()).as_bytes())
    };
    match lines {
        Lines::OneForEach { echo_errors } => {
            *out = error_line(ErrorLine { job: number, kind, message });
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

/// Returns the log entry of a job, if its input was kept for it.
fn entry<'a>(job: &'a Job, result: &'a AttemptResult, hosts: &'a [String]) -> Option<JobEntry<'a>> {
    let cause = result.cause.as_deref();
    let mut entry = JobEntry::new(job.number, job.input.as_deref()?, result.status);
    // Without a run, only these two statuses mean that the attempt has not begun.
    let has_begun = result.run.is_some() || !matches!(result.status, Status::Spawn | Status::Cancelled);
    entry.attempts = if has_begun { job.attempt } else { job.attempt - 1 };
    entry.output_bytes = Some(result.output_bytes);
    entry.signal = cause.and_then(|cause| cause.signal);
    entry.exit = cause.and_then(|cause| cause.exit);
    entry.message = cause.map(|cause| cause.message.as_str());
    entry.traceback = cause.and_then(|cause| cause.traceback.as_deref());
    if let Some(run) = &result.run {
        entry.host = hosts.get(run.rank as usize).map(String::as_str);
        entry.rank = Some(run.rank);
        entry.slot = Some(run.slot.into());
        entry.start = Some(UNIX_EPOCH + Duration::from_micros(run.start_us));
        entry.duration = Duration::try_from_secs_f64(run.seconds).ok();
        entry.queued = (job.read_us > 0).then(|| Duration::from_micros(run.start_us.saturating_sub(job.read_us)));
        let end_us = run.start_us.saturating_add((run.seconds.max(0.0) * 1e6) as u64);
        entry.returned = Some(Duration::from_micros(micros_of(SystemTime::now()).saturating_sub(end_us)));
        if let Some(usage) = run.usage {
            entry.exit = entry.exit.or((result.status == Status::Ok).then_some(0));
            entry.user = Duration::try_from_secs_f64(usage.user).ok();
            entry.system = Duration::try_from_secs_f64(usage.system).ok();
            entry.max_rss = Some(usage.max_rss);
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests;
