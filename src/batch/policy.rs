//! When a failed job is run again, and when a batch is stopped before its end; and the batch's time limits.
//!
//! | limit | who waits for what | must be |
//! |---|---|---|
//! | [`FLUSH_PAUSE`] | the driver for the next event, before it flushes outputs | short for people |
//! | [`FLUSH_PERIOD`] | the driver with flushing while results keep coming | short for people |
//! | [`TURN_LIMIT`] | finished output for an earlier job, before it is written out of order | above the flush times |
//! | [`TURN_LIMIT_AFTER_SIGNAL`] | after a signal: finished output for an earlier job, where no order can be restored later and the launcher may kill the ranks | below the second after which Open MPI's `mpiexec` kills its ranks |
//! | [`OUTSIDE_LIMIT`] | a job that a signal has ended, or a worker that cannot be started, for a request to stop the run, before it counts as failed | short for people, long for signals to all processes of a node |
//! | `--grace`, [`GRACE`] | after a request to stop: the driver for running jobs | – |
//! | `--kill-after` | a process group for its end after TERM, before KILL | – |
//! | `--time-limit`, [`TIME_LIMIT_MARGIN`] | before the time limit of a run: its last writes, and the ends of its ranks | of a short time limit, at most a quarter is kept for them and for `--kill-after` |
//! | [`TIME_LIMIT_QUESTION`] | the start of a run for the batch system's answer when the allocation ends | below [`JOIN`](crate::engine::limits::JOIN) |
//! | [`LEFT_BEHIND`] | the end of a run for built-in functions that are no longer wanted | below [`STOP_MARGIN`] |
//! | [`STOP_MARGIN`] | the engine, when both are over: the end of processes that were killed, and the driver's last writes | long enough for a slow disk |
//! | [`FIRST_WORKER_LIMIT`] | the start of a run for the import and setup of the first worker | below [`JOIN`](crate::engine::limits::JOIN), the time that rank 0 waits for the other ranks |
//! | [`BUSY_WORKER_LIMIT`] | the end of a batch for workers that still answer; all ranks together twice that | long enough for a chunk |

use std::time::Duration;

use crate::journal::Status;

/// Outputs are flushed when no event has come for this time.
pub(crate) const FLUSH_PAUSE: Duration = Duration::from_millis(100);
/// Outputs are flushed at least this often while results come without a pause.
pub(crate) const FLUSH_PERIOD: Duration = Duration::from_millis(200);
/// After this time, finished output behind a slow job is written before its turn, if the file can be put into order later.
pub(crate) const TURN_LIMIT: Duration = Duration::from_millis(200);
/// After a signal, finished output behind a running job is written after this time, if no order can be restored later.
pub(crate) const TURN_LIMIT_AFTER_SIGNAL: Duration = Duration::from_millis(300);
/// A job that was ended by a signal is left to the next run if the run is asked to stop within this time.
pub(crate) const OUTSIDE_LIMIT: Duration = Duration::from_millis(500);
/// After a request to stop, the driver waits this long for running jobs, unless `--grace` sets another time.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// After that, and after the time that processes have to end after TERM, the driver and the ranks have this time to end.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(10);
/// A run with a time limit has this time for its last writes and for the ends of its ranks.
pub(crate) const TIME_LIMIT_MARGIN: Duration = Duration::from_secs(10);
/// Built-in functions that are no longer wanted, and cannot be ended, have this time before the run ends without them.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// The batch system has this time to say when the allocation ends. After it the run begins without a time limit.
pub(crate) const TIME_LIMIT_QUESTION: Duration = Duration::from_secs(5);
/// The first worker has this time for its import and setup. After it the run begins without knowing whether they succeed.
pub(crate) const FIRST_WORKER_LIMIT: Duration = Duration::from_secs(60);
/// At the end of a batch, busy workers have this time before their answers are checked. All ranks together have twice this time.
pub(crate) const BUSY_WORKER_LIMIT: Duration = Duration::from_secs(60);

/// Limits on failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxFailures {
    /// A number of jobs.
    Jobs(u64),
    /// From 0 to 1: a share of the jobs of the input, or, if their number is not known, of the settled jobs.
    Share(f64),
}

/// Below this number of settled jobs a share of them is not used.
const FEW: u64 = 20;

impl MaxFailures {
    /// Whether `failed` failures exceed the limit, with `done` settled jobs and `total` jobs in all.
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

/// The rules by which failed jobs are run again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RetryPolicy {
    /// The number of times that a failed job is run again.
    pub retries: u32,
    /// The statuses that are retried.
    pub on: Vec<Status>,
    /// The pause before the first retry of a job; it doubles with each further one.
    pub pause: Duration,
}

/// The conditions under which no more jobs are started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct StopPolicy {
    /// More failures than this stop the batch.
    pub max_failures: Option<MaxFailures>,
    /// The first job that succeeds stops the batch.
    pub on_success: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::JOIN;

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

    #[test]
    fn the_time_limits_are_in_order() {
        assert!(FLUSH_PAUSE <= FLUSH_PERIOD && FLUSH_PERIOD <= TURN_LIMIT && TURN_LIMIT < TURN_LIMIT_AFTER_SIGNAL);
        assert!(
            TURN_LIMIT_AFTER_SIGNAL < Duration::from_secs(1),
            "mpiexec kills a second after it has passed a signal on"
        );
        assert!(FIRST_WORKER_LIMIT < JOIN && TIME_LIMIT_QUESTION < JOIN && LEFT_BEHIND < STOP_MARGIN);
        assert!(STOP_MARGIN > Duration::from_secs(2), "killed processes have 2 s to end");
    }
}
