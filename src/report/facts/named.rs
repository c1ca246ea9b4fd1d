//! The jobs that a report names: the slowest ones, the first failed ones, and how many failed for which reason.

use std::collections::HashMap;

use crate::console::{in_one_line, shortened};
use crate::journal::Status;
use crate::journal::job::Job;

/// The most slowest jobs and the most failed jobs.
const NAMED: usize = 20;
/// The most reasons that are told apart.
const MOST_REASONS: usize = 64;
/// The most bytes of a message, and of a record where it is shown.
const LONGEST: usize = 500;
/// The most lines of standard error.
const LINES: usize = 5;
/// A longer record is not kept, so that the memory is bounded.
const LONGEST_INPUT: usize = 64 << 10;

/// A job that a report names.
#[derive(Debug, Clone)]
pub(crate) struct NamedJob {
    pub number: u64,
    pub status: Status,
    pub seconds: Option<f64>,
    /// The record as JSON, if it is not too long.
    pub input: Option<Box<str>>,
    /// The record in one line, shortened.
    pub shown_input: String,
    pub host: Option<String>,
    pub rank: Option<u32>,
    pub slot: Option<u64>,
    pub attempts: Option<u32>,
    pub message: Option<String>,
    /// The last lines of its standard error, if it has failed.
    pub stderr: Option<String>,
    /// The command that runs it again.
    pub command: Option<String>,
}

impl NamedJob {
    /// Returns the last line of its standard error, unless the message says the same.
    pub(crate) fn last_words(&self) -> Option<&str> {
        let line = self.stderr.as_ref()?.lines().next_back()?.trim();
        let is_said = self.message.as_ref().is_some_and(|message| message.contains(line) || line.ends_with(&**message));
        Some(line).filter(|line| !line.is_empty() && !is_said)
    }

    fn new(job: &Job<'_>) -> NamedJob {
        NamedJob {
            number: job.number,
            status: job.status,
            seconds: job.ns.map(|ns| ns as f64 / 1e9),
            input: job.fields.input.map(|input| input.get()).filter(|text| text.len() <= LONGEST_INPUT).map(Into::into),
            shown_input: job.fields.input.map_or_else(String::new, |input| shown(input.get())),
            host: job.host().map(|host| host.into_owned()),
            rank: job.fields.rank,
            slot: job.fields.slot,
            attempts: job.fields.attempts,
            message: job.message().map(|message| shortened(message.into_owned(), LONGEST)),
            stderr: stderr_of(job),
            command: None,
        }
    }
}

/// Returns a text in one line that is not too long.
fn shown(text: &str) -> String {
    let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    in_one_line(&text[..end]) + if end < text.len() { "…" } else { "" }
}

/// Returns the last lines of the standard error of a job that has failed.
fn stderr_of(job: &Job<'_>) -> Option<String> {
    Some(job.stderr).filter(|bytes| job.has_failed() && !bytes.trim_ascii().is_empty()).map(last_lines)
}

/// Returns the last lines of an output.
fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LONGEST)..]);
    let lines: Vec<_> = text.trim_end().lines().rev().take(LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Why jobs failed.
#[derive(Debug, Clone)]
pub(crate) struct Reason {
    pub status: Status,
    /// The first line of the message, without its numbers being told apart.
    pub message: String,
    pub jobs: u64,
    /// The first one of them.
    pub first: u64,
    /// The last lines of its standard error.
    pub stderr: Option<String>,
}

/// The jobs that are named.
#[derive(Debug, Default)]
pub(crate) struct Named {
    slowest: Vec<(u64, NamedJob)>,
    failed: Vec<NamedJob>,
    reasons: HashMap<(Status, String), Reason>,
    /// The number of failed jobs for other reasons than those.
    pub other_reasons: u64,
}

impl Named {
    pub(crate) fn add(&mut self, job: &Job<'_>) {
        if let Some(ns) = job.ns {
            let is_slow = self.slowest.len() < NAMED || self.slowest.last().is_some_and(|(least, _)| ns > *least);
            if is_slow {
                let at = self.slowest.partition_point(|(other, _)| *other >= ns);
                self.slowest.insert(at, (ns, NamedJob::new(job)));
                self.slowest.truncate(NAMED);
            }
        }
        if !job.has_failed() {
            return;
        }
        if self.failed.len() < NAMED || self.failed.last().is_some_and(|last| job.number < last.number) {
            let at = self.failed.partition_point(|other| other.number <= job.number);
            self.failed.insert(at, NamedJob::new(job));
            self.failed.truncate(NAMED);
        }
        let message = job.message().unwrap_or_default();
        // Messages that differ in their numbers only are one reason.
        let line = shortened(message.lines().next().unwrap_or_default().to_string(), LONGEST);
        let key = (job.status, without_numbers(&line, job.status));
        let is_known = self.reasons.contains_key(&key);
        if !is_known && self.reasons.len() >= MOST_REASONS {
            self.other_reasons += 1;
            return;
        }
        let new = Reason { status: job.status, message: line, jobs: 0, first: u64::MAX, stderr: None };
        let reason = self.reasons.entry(key).or_insert(new);
        reason.jobs += 1;
        if job.number < reason.first {
            (reason.first, reason.stderr) = (job.number, stderr_of(job));
        }
    }

    pub(crate) fn slowest(&self) -> impl Iterator<Item = &NamedJob> {
        self.slowest.iter().map(|(_, job)| job)
    }

    /// Returns the failed jobs with the lowest numbers.
    pub(crate) fn failed(&self) -> &[NamedJob] {
        &self.failed
    }

    /// Returns the reasons, the most frequent ones first.
    pub(crate) fn reasons(&self) -> Vec<&Reason> {
        let mut reasons: Vec<_> = self.reasons.values().collect();
        reasons.sort_by(|a, b| b.jobs.cmp(&a.jobs).then(a.first.cmp(&b.first)));
        reasons
    }
}

/// Returns what messages of one reason have in common. The exit code of a command is a reason of its own.
fn without_numbers(line: &str, status: Status) -> String {
    if status == Status::Failed && line.starts_with("exit code ") {
        return line.into();
    }
    let mut common = String::with_capacity(line.len());
    for character in line.chars() {
        let shown = if character.is_ascii_digit() { '0' } else { character };
        if shown != '0' || !common.ends_with('0') {
            common.push(shown);
        }
    }
    common
}
