//! What a batch has done: its exit code, and the messages about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Options;
use super::job::Cause;
use super::ledger::Counts;
use crate::console;
use crate::console::shortened;
use crate::engine::stats::Stats;
use crate::journal::Status;
use crate::launch::ExitCode;
use crate::output::{JsonLines, OutputError};
use crate::report::Summary;

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

    /// Says which jobs failed and how to run them again; `None` if none did.
    fn message(&self, counts: Counts, records: Option<&Path>) -> Option<String> {
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
        text += &match records {
            Some(path) => format!("\nTo run just those again, add: --only-failed {}", path.display()),
            None => {
                "\n--records FILE would have kept what is needed to run just those again (--only-failed FILE)".into()
            }
        };
        Some(text)
    }
}

/// What a batch has done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub counts: Counts,
    failed: FailedJobs,
    /// Errors and warnings, in the order in which they are shown.
    messages: Vec<String>,
    /// Messages that `--quiet` suppresses.
    notes: Vec<String>,
    /// Errors that are shown behind the summary.
    last_words: Vec<String>,
    code: Option<ExitCode>,
    /// The reader of the output has gone away: nothing else is reported.
    silent: bool,
    /// The records, if they are a file.
    records: Option<PathBuf>,
    /// One job was to succeed, and one has: failures do not matter.
    has_success: bool,
    summary: Option<Summary>,
}

impl Report {
    pub(super) fn new(counts: Counts, failed: FailedJobs) -> Self {
        Report { counts, failed, ..Report::default() }
    }

    /// The exit code that the run should end with.
    pub(crate) fn code(&self) -> ExitCode {
        self.code.unwrap_or(ExitCode::Success)
    }

    pub(super) fn set_code(&mut self, code: ExitCode) {
        self.code = Some(code);
    }

    pub(super) fn add(&mut self, message: impl ToString) {
        self.messages.push(message.to_string());
    }

    /// Counts a job that was counted as a success as a failed one.
    pub(super) fn take_back(&mut self, number: u64, cause: &Cause) {
        self.counts.done -= 1;
        self.counts.succeeded -= 1;
        self.counts.add(Status::Failed, 1);
        self.failed.add(number, Some(cause));
    }

    pub(super) fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    pub(super) fn set_records(&mut self, records: Option<PathBuf>, has_success: bool) {
        (self.records, self.has_success) = (records, has_success);
    }

    /// Adds what is to be said of failed and cancelled jobs and of the ranks, and writes the summary to its file.
    pub(super) fn add_outcome(&mut self, options: &Options, stats: Option<Stats>, file: Option<JsonLines>) {
        if !self.has_success {
            self.messages.extend(self.failed.message(self.counts, self.records.as_deref()));
        }
        if self.counts.cancelled > 0 {
            let why =
                if self.has_success { "one has succeeded (--stop-on-success)" } else { "--max-failures was reached" };
            self.notes.push(format!("{} job(s) were cancelled: {why}", self.counts.cancelled));
        }
        // A pool that has failed has no numbers.
        let Some(mut stats) = stats else { return };
        (stats.jobs, stats.failed) = (self.counts.done - self.counts.cancelled, self.counts.failed);
        self.messages.extend(stats.failing_ranks());
        let summary = Summary::new(&options.name, &stats);
        if let Err(error) = file.map_or(Ok(()), |file| write_summary(file, &summary)) {
            if !error.is_closed() {
                self.last_words.push(error.to_string());
                self.code = self.code.filter(|code| *code != ExitCode::Success).or(Some(ExitCode::Failure));
            }
        }
        self.summary = Some(summary);
    }

    /// Shows everything on standard error; `quiet`: errors and warnings only.
    pub(crate) fn show(&self, quiet: bool) {
        self.messages.iter().for_each(console::complain);
        if !quiet {
            self.notes.iter().for_each(console::complain);
            if let Some(summary) = &self.summary {
                let mut text = Vec::new();
                // Writing into memory cannot fail.
                let _ = summary.write_text(&mut text);
                console::say(&String::from_utf8_lossy(&text));
            }
        }
        self.last_words.iter().for_each(console::complain);
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
        let message = failed.message(counts, None).unwrap();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines[0], "30 of 30 job(s) failed:");
        assert_eq!((lines[1], lines[10]), ("  job 1: exit code 1", "  job 10: exit code 10"));
        assert_eq!(lines[11], "  and 20 more");
        assert!(failed.message(counts, Some(Path::new("r.jsonl"))).unwrap().ends_with("add: --only-failed r.jsonl"));
        assert_eq!(FailedJobs::default().message(Counts::default(), None), None);
    }

    #[test]
    fn cancelled_jobs_are_not_failures() {
        let mut counts = Counts::default();
        counts.add(Status::Cancelled, 1);
        assert_eq!((counts.failed, counts.cancelled, FailedJobs::default().message(counts, None)), (0, 1, None));
    }

    #[test]
    fn a_success_that_is_taken_back_is_a_failure() {
        let mut counts = Counts::default();
        counts.add(Status::Ok, 2);
        let mut report = Report::new(counts, FailedJobs::default());
        report.take_back(2, &Cause::new("surplus", "one line too much"));
        assert_eq!((report.counts.done, report.counts.succeeded, report.counts.failed), (2, 1, 1));
        let message = report.failed.message(report.counts, None).unwrap();
        assert!(message.starts_with("1 of 2 job(s) failed:\n  job 2: one line too much\n"));
    }
}
