//! Jobs that were ended from outside: who ends a run may end its jobs, too, and a moment earlier, which is no failure of theirs.
//!
//! Batch systems signal all processes of an allocation, also those of jobs. So a job that a signal has ended is not settled at once:
//! if the run is asked to stop soon after, or was asked before, the job is left to the next run.

use std::collections::VecDeque;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};

use crate::batch::job::{AttemptEnd, AttemptResult};
use crate::batch::policy::OUTSIDE_LIMIT;
use crate::journal::Status;

/// The signals by which runs and their jobs are ended from outside.
const SIGNALS: [i32; 8] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU, SIGKILL];
/// A shell has this exit code, more the number of the signal, if a signal has ended its command.
const SHELL: i32 = 128;

/// Whether an attempt may have been ended from outside.
pub(super) fn may_be_from_outside(result: &AttemptResult) -> bool {
    if result.ran_out_of_memory() {
        return false;
    }
    let cause = result.cause.as_deref();
    let signal = match result.status {
        Status::Lost => return true,
        Status::Signal => cause.and_then(|cause| cause.signal),
        Status::Failed => cause.and_then(|cause| cause.exit).map(|exit| exit - SHELL),
        Status::Ok | Status::Timeout | Status::Spawn | Status::Cancelled => None,
    };
    signal.is_some_and(|signal| SIGNALS.contains(&signal))
}

/// Results of attempts that may have been ended from outside, with the times at which that is decided.
#[derive(Debug, Default)]
pub(super) struct Suspects(VecDeque<(Duration, u64, AttemptResult)>);

impl Suspects {
    /// Adds the result of the attempt with this index, which came at the time `now`.
    pub(super) fn add(&mut self, index: u64, result: AttemptResult, now: Duration) {
        self.0.push_back((now.saturating_add(OUTSIDE_LIMIT), index, result));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the time at which the first one is decided.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.0.front().map(|(due, ..)| *due)
    }

    /// Takes a result that is due at the time `now`.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(u64, AttemptResult)> {
        self.next_due().filter(|due| *due <= now)?;
        self.0.pop_front().map(|(_, index, result)| (index, result))
    }

    /// Takes the index of any of them, because the run is asked to stop.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.0.pop_front().map(|(_, index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::job::{Cause, MEMORY};

    fn ended(status: Status, exit: Option<i32>, signal: Option<i32>) -> AttemptResult {
        AttemptResult::without_output(status, Cause { exit, signal, ..Cause::default() }, None)
    }

    #[test]
    fn a_job_that_a_signal_of_a_batch_system_has_ended_is_suspect_and_one_that_crashed_is_not() {
        for signal in [1, 2, 9, 15] {
            assert!(may_be_from_outside(&ended(Status::Signal, None, Some(signal))), "{signal}");
            assert!(may_be_from_outside(&ended(Status::Failed, Some(128 + signal), None)), "{signal}");
        }
        assert!(may_be_from_outside(&ended(Status::Lost, None, None)));
        let killed = Cause { signal: Some(9), ..Cause::new(MEMORY, "killed for lack of memory") };
        assert!(!may_be_from_outside(&AttemptResult::without_output(Status::Signal, killed, None)));
        for (status, exit, signal) in [
            (Status::Signal, None, Some(11)),
            (Status::Failed, Some(15), None),
            (Status::Failed, Some(1), None),
            (Status::Timeout, None, Some(15)),
            (Status::Ok, None, None),
        ] {
            assert!(!may_be_from_outside(&ended(status, exit, signal)), "{status:?} {exit:?} {signal:?}");
        }
    }

    #[test]
    fn suspects_are_decided_in_their_order_when_their_time_is_over() {
        let (mut suspects, second) = (Suspects::default(), Duration::from_secs(1));
        suspects.add(7, ended(Status::Lost, None, None), second);
        suspects.add(3, ended(Status::Lost, None, None), 2 * second);
        assert_eq!(suspects.next_due(), Some(second + OUTSIDE_LIMIT));
        assert!(suspects.take_due(second).is_none(), "too early");
        assert_eq!(suspects.take_due(second + OUTSIDE_LIMIT).map(|(index, _)| index), Some(7));
        assert_eq!((suspects.take_due(second + OUTSIDE_LIMIT).is_none(), suspects.is_empty()), (true, false));
        assert_eq!((suspects.take(), suspects.take(), suspects.is_empty()), (Some(3), None, true));
    }
}
