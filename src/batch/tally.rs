//! What has become of the jobs of a batch so far, and the sentence about it at the end.

use std::path::Path;

use super::attempt::Outcome;
use crate::output::Status;

/// How many failed jobs the end summary names.
const NAMED: usize = 10;

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
    named: Vec<String>,
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
                if self.named.len() < NAMED {
                    let what = outcome.trouble.as_ref().map_or("failed", |trouble| trouble.message.as_str());
                    let first_line = what.lines().next().unwrap_or_default();
                    self.named.push(format!("job {number}: {first_line}"));
                }
            }
        }
    }

    /// Which jobs failed, and how to run them again; `None` if none did.
    pub(crate) fn failures(&self, records: Option<&Path>) -> Option<String> {
        if self.failed == 0 {
            return None;
        }
        let mut text = format!("{} of {} job(s) failed:", self.failed, self.done);
        for named in &self.named {
            text += &format!("\n  {named}");
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
