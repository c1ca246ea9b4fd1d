//! The numbers of settled jobs of a batch, by their outcome.

use crate::journal::Status;

/// Numbers of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All settled jobs, with the cancelled ones.
    pub done: u64,
    pub succeeded: u64,
    /// Without the cancelled ones.
    pub failed: u64,
    pub cancelled: u64,
    /// Attempts that failed and were followed by another one.
    pub retried: u64,
    /// Those of them that ran out of memory and were followed by one with more room.
    pub out_of_memory: u64,
    /// Settled jobs that an earlier run has settled, by the journal.
    pub restored: u64,
}

impl Counts {
    /// Counts `jobs` settled jobs with this status.
    pub(crate) fn add(&mut self, status: Status, jobs: u64) {
        self.done += jobs;
        match status {
            Status::Ok => self.succeeded += jobs,
            Status::Cancelled => self.cancelled += jobs,
            _ => self.failed += jobs,
        }
    }
}
