//! When a batch is run no further: too many failures, or a first success; and what is run again.

use std::time::Duration;

use crate::journal::Status;

/// How many jobs may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxFailures {
    Jobs(u64),
    /// From 0 to 1: of the jobs of the input, or, where their number is not known, of those that are done.
    Share(f64),
}

/// Of so few jobs a share says nothing.
const FEW: u64 = 20;

impl MaxFailures {
    /// Whether so many failures are too many.
    pub(crate) fn exceeded(self, failed: u64, done: u64, total: Option<u64>) -> bool {
        match self {
            MaxFailures::Jobs(most) => failed > most,
            MaxFailures::Share(share) => {
                let of = total.unwrap_or(if done < FEW { u64::MAX } else { done });
                failed as f64 > share * of as f64
            }
        }
    }
}

/// What is done about failures.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    /// How often a job that fails is run again.
    pub retries: u32,
    /// After which ends.
    pub retry_on: Vec<Status>,
    /// How long before the first time; each further time the pause is twice as long.
    pub retry_pause: Duration,
    /// How long processes may take to end after TERM.
    pub kill_after: Duration,
    pub max_failures: Option<MaxFailures>,
    /// The first job that succeeds is all that is wanted.
    pub stop_on_success: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_failures_is_exceeded_by_one_more() {
        let most = MaxFailures::Jobs(2);
        assert!(!most.exceeded(2, 100, None));
        assert!(most.exceeded(3, 3, Some(100)));
        assert!(MaxFailures::Jobs(0).exceeded(1, 1, None));
    }

    #[test]
    fn a_share_is_of_all_jobs_or_of_many_that_are_done() {
        let tenth = MaxFailures::Share(0.1);
        assert!(!tenth.exceeded(10, 10, Some(100)));
        assert!(tenth.exceeded(11, 11, Some(100)));
        assert!(!tenth.exceeded(5, 5, None), "five jobs are no sample");
        assert!(tenth.exceeded(3, 20, None));
    }
}
