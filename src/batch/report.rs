//! What has become of the jobs of a batch so far, and the sentence about it at the end.

use std::collections::BTreeMap;
use std::path::Path;

use super::job::Outcome;
use crate::console::shortened;
use crate::journal::Status;

/// How many failed jobs the end summary names.
const NAMED: usize = 10;

/// How many bytes are said of each.
const LONGEST: usize = 500;

/// What has become of the jobs so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub done: u64,
    pub succeeded: u64,
    /// Without the cancelled ones.
    pub failed: u64,
    pub cancelled: u64,
    /// Attempts that were run again.
    pub again: u64,
    /// The first failed jobs, by number.
    named: BTreeMap<u64, String>,
}

impl Tally {
    /// Counts a job that is settled.
    pub(crate) fn count(&mut self, number: u64, outcome: &Outcome) {
        self.done += 1;
        match outcome.status {
            Status::Ok => self.succeeded += 1,
            Status::Cancelled => self.cancelled += 1,
            _ => {
                self.failed += 1;
                if self.named.len() < NAMED || self.named.last_key_value().is_some_and(|(last, _)| number < *last) {
                    let what = outcome.trouble.as_ref().map_or("failed", |trouble| trouble.message.as_str());
                    let line = what.lines().next().unwrap_or_default().to_string();
                    self.named.insert(number, shortened(line, LONGEST));
                    if self.named.len() > NAMED {
                        self.named.pop_last();
                    }
                }
            }
        }
    }

    /// A job that was counted as a success is none.
    pub(crate) fn take_back(&mut self, number: u64, message: String) {
        self.done -= 1;
        self.succeeded -= 1;
        self.count(number, &Outcome::unrun(0, Status::Failed, "surplus", message));
    }

    /// Counts jobs that were given up before anybody looked at them.
    pub(crate) fn cancel(&mut self, jobs: u64) {
        self.done += jobs;
        self.cancelled += jobs;
    }

    /// That jobs were given up; `None` if none were.
    pub(crate) fn given_up(&self) -> Option<String> {
        let why = if self.succeeded > 0 && self.failed == 0 { "one has succeeded" } else { "it was enough" };
        (self.cancelled > 0).then(|| format!("{} job(s) were cancelled when {why}", self.cancelled))
    }

    /// Which jobs failed, and how to run them again; `None` if none did.
    pub(crate) fn failures(&self, records: Option<&Path>) -> Option<String> {
        if self.failed == 0 {
            return None;
        }
        let mut text = format!("{} of {} job(s) failed:", self.failed, self.done - self.cancelled);
        for (number, what) in &self.named {
            text += &format!("\n  job {number}: {what}");
        }
        let more = self.failed - self.named.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failed_jobs_are_named_in_order() {
        let mut tally = Tally::default();
        for number in (1..=30).rev() {
            tally.count(number, &Outcome::unrun(0, Status::Failed, "failed", format!("exit code {number}\nmore")));
        }
        let said = tally.failures(None).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "30 of 30 job(s) failed:");
        assert_eq!((lines[1], lines[10]), ("  job 1: exit code 1", "  job 10: exit code 10"));
        assert_eq!(lines[11], "  and 20 more");
        assert!(tally.failures(Some(Path::new("r.jsonl"))).unwrap().ends_with("add: --only-failed r.jsonl"));
        assert_eq!(Tally::default().failures(None), None);
    }

    #[test]
    fn cancelled_jobs_are_not_failures() {
        let mut tally = Tally::default();
        tally.count(1, &Outcome::unrun(0, Status::Cancelled, "cancelled", String::new()));
        assert_eq!((tally.failed, tally.cancelled, tally.failures(None)), (0, 1, None));
        assert_eq!(tally.given_up().unwrap(), "1 job(s) were cancelled when it was enough");
    }
}
