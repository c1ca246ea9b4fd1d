//! The report on a batch: its exit code, and the messages at its end.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Options;
use super::job::Cause;
use super::ledger::Counts;
use crate::console;
use crate::console::shortened;
use crate::engine::stats::Stats;
use crate::journal::Status;
use crate::launch::ExitCode;
use crate::output::{JsonLines, OutputError, Writer};
use crate::report::{Needs, Summary, Trace};

/// The number of failed jobs that the report names.
const NAMED: usize = 10;

/// The number of bytes of each failed job's message that are shown.
const LONGEST: usize = 500;

/// The failed jobs with the lowest numbers, each with its message.
#[derive(Debug, Default)]
pub(crate) struct FailedJobs(BTreeMap<u64, String>);

impl FailedJobs {
    pub(crate) fn add(&mut self, number: u64, cause: Option<&Cause>) {
        let FailedJobs(named) = self;
        if named.len() >= NAMED && named.last_key_value().is_some_and(|(last, _)| number > *last) {
            return;
        }
        let message = cause.map_or("failed", |cause| cause.message.as_str());
        let line = message.lines().next().unwrap_or_default().to_string();
        named.insert(number, shortened(line, LONGEST));
        if named.len() > NAMED {
            named.pop_last();
        }
    }

    /// Returns which jobs failed and how to run them again, by a journal or a job log; `None` if none failed.
    fn message(&self, counts: Counts, has_journal: bool, job_log: Option<&Path>) -> Option<String> {
        if counts.failed == 0 {
            return None;
        }
        let mut text = format!("{} of {} job(s) failed:", counts.failed, counts.done - counts.cancelled);
        for (number, message) in &self.0 {
            text += &format!("\n  job {number}: {message}");
        }
        let more = counts.failed - self.0.len() as u64;
        if more > 0 {
            text += &format!("\n  and {more} more");
        }
        text += &match job_log {
            _ if has_journal => "\nTo run the failed jobs again, add: --resume --retry-failed".into(),
            Some(path) => format!("\nTo run only the failed jobs again, add: --only-failed {}", path.display()),
            None => "\nWith --records FILE, the failed jobs alone can be run again (--only-failed FILE)".into(),
        };
        Some(text)
    }
}

/// The report on a batch.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub counts: Counts,
    failed: FailedJobs,
    needs: Needs,
    /// Errors and warnings, in the order in which they are shown.
    messages: Vec<String>,
    /// Messages that `--quiet` suppresses.
    notes: Vec<String>,
    /// Errors that are shown behind the summary.
    final_errors: Vec<String>,
    code: Option<ExitCode>,
    /// Whether the reader of the output has gone away: then nothing is reported.
    silent: bool,
    /// The job log, if it is a file.
    job_log: Option<PathBuf>,
    /// Whether a job has succeeded with --stop-on-success: then failures do not matter.
    has_success: bool,
    summary: Option<Summary>,
}

impl Report {
    pub(super) fn new(counts: Counts, failed: FailedJobs, needs: Needs) -> Self {
        Report { counts, failed, needs, ..Report::default() }
    }

    /// Returns the exit code of the run.
    pub(crate) fn code(&self) -> ExitCode {
        self.code.unwrap_or(ExitCode::Success)
    }

    pub(super) fn set_code(&mut self, code: ExitCode) {
        self.code = Some(code);
    }

    pub(super) fn add(&mut self, message: impl ToString) {
        self.messages.push(message.to_string());
    }

    /// Counts a job as failed that was counted as successful.
    pub(super) fn recount_as_failed(&mut self, number: u64, cause: &Cause) {
        self.counts.done -= 1;
        self.counts.succeeded -= 1;
        self.counts.add(Status::Failed, 1);
        self.failed.add(number, Some(cause));
    }

    /// Adds a note about the journal, if there is one.
    pub(super) fn add_journal(&mut self, note: Option<String>) {
        self.notes.extend(note);
    }

    pub(super) fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    pub(super) fn set_job_log(&mut self, job_log: Option<PathBuf>, has_success: bool) {
        (self.job_log, self.has_success) = (job_log, has_success);
    }

    /// Adds the messages about failed and cancelled jobs and about ranks, and writes the summary to its file.
    pub(super) fn add_outcome(&mut self, options: &Options, stats: Option<Stats>, file: Option<JsonLines>) {
        if !self.has_success {
            self.messages.extend(self.failed.message(self.counts, options.journal.is_some(), self.job_log.as_deref()));
        }
        if self.counts.cancelled > 0 {
            let why = if self.has_success {
                "a job has succeeded (--stop-on-success)"
            } else {
                "more jobs have failed than --max-failures allows"
            };
            self.notes.push(format!("{} job(s) were cancelled: {why}", self.counts.cancelled));
        }
        // A pool that has failed has no statistics.
        let Some(mut stats) = stats else { return };
        // Jobs that an earlier run has settled took none of the time of this one.
        stats.jobs = self.counts.done - self.counts.cancelled - self.counts.restored;
        stats.failed = self.counts.failed;
        self.messages.extend(stats.failing_ranks());
        let summary = Summary::new(&options.name, &stats).with_memory(&self.needs, self.counts.out_of_memory);
        if let Err(error) = file.map_or(Ok(()), |file| write_summary(file, &summary)) {
            if !error.is_closed() {
                self.final_errors.push(error.to_string());
                self.code = self.code.filter(|code| *code != ExitCode::Success).or(Some(ExitCode::Failure));
            }
        }
        self.summary = Some(summary);
    }

    /// Writes the trace, and reports what it does not show one by one.
    pub(super) fn add_trace(&mut self, mut file: Writer, trace: &Trace) {
        let name = file.name().clone();
        let mut lines = BufWriter::new(ToWriter(&mut file));
        let written = trace.write(&mut lines).and_then(|()| lines.flush());
        drop(lines);
        // An error of the writer is reported again when it is finished.
        let finished = file.finish();
        if let Some(error) =
            finished.err().map(|error| error.to_string()).or(written.err().map(|error| error.to_string()))
        {
            self.final_errors.push(error);
            self.code = self.code.filter(|code| *code != ExitCode::Success).or(Some(ExitCode::Failure));
        }
        self.notes.extend(trace.note().map(|note| format!("the trace {name}: {note}")));
    }

    /// Shows everything on standard error; `quiet`: errors and warnings only.
    pub(crate) fn show(&self, quiet: bool) {
        self.messages.iter().for_each(console::eprint_error);
        if !quiet {
            self.notes.iter().for_each(console::eprint_error);
            if let Some(summary) = &self.summary {
                let mut text = Vec::new();
                // Writing into memory cannot fail.
                let _ = summary.write_text(&mut text);
                console::eprint(&String::from_utf8_lossy(&text));
            }
        }
        self.final_errors.iter().for_each(console::eprint_error);
    }
}

/// A writer of an output as one of the standard library.
struct ToWriter<'w>(&'w mut Writer);

impl Write for ToWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_summary(mut file: JsonLines, summary: &Summary) -> Result<(), OutputError> {
    file.write(summary)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failed_jobs_are_named_in_order() {
        let (mut failed, mut counts) = (FailedJobs::default(), Counts::default());
        for number in (1..=30).rev() {
            failed.add(number, Some(&Cause::new("failed", format!("exit code {number}\nmore"))));
            counts.add(Status::Failed, 1);
        }
        let message = failed.message(counts, false, None).unwrap();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines[0], "30 of 30 job(s) failed:");
        assert_eq!((lines[1], lines[10]), ("  job 1: exit code 1", "  job 10: exit code 10"));
        assert_eq!(lines[11], "  and 20 more");
        let log = Some(Path::new("r.jsonl"));
        assert!(failed.message(counts, false, log).unwrap().ends_with("add: --only-failed r.jsonl"));
        assert!(failed.message(counts, true, log).unwrap().ends_with("add: --resume --retry-failed"));
        assert_eq!(FailedJobs::default().message(Counts::default(), false, None), None);
    }

    #[test]
    fn cancelled_jobs_are_not_failures() {
        let mut counts = Counts::default();
        counts.add(Status::Cancelled, 1);
        assert_eq!((counts.failed, counts.cancelled, FailedJobs::default().message(counts, false, None)), (0, 1, None));
    }

    #[test]
    fn a_success_that_is_recounted_is_a_failure() {
        let mut counts = Counts::default();
        counts.add(Status::Ok, 2);
        let mut report = Report::new(counts, FailedJobs::default(), Needs::default());
        report.recount_as_failed(2, &Cause::new("surplus", "one line too much"));
        assert_eq!((report.counts.done, report.counts.succeeded, report.counts.failed), (2, 1, 1));
        let message = report.failed.message(report.counts, false, None).unwrap();
        assert!(message.starts_with("1 of 2 job(s) failed:\n  job 2: one line too much\n"));
    }
}
