//! The end of a batch: every job that was read, or is counted, is settled or left to the next run.

use super::{CANCELLED_SINGLY, Driver, End};
use crate::batch::job::{AttemptResult, Cause};
use crate::batch::ledger::Order;
use crate::batch::runners::Runner;
use crate::journal::Status;
use crate::pool::Next;

impl<R: Runner> Driver<'_, R> {
    /// Ends the batch: no job stays unsettled in the ledger. Returns the final end.
    pub(super) fn conclude(&mut self, end: End) -> End {
        let mut orders = Vec::new();
        self.ledger.end(end.ending(), &mut orders);
        for order in orders {
            if matches!((&end, &order), (End::Sink(_), Order::Leave { .. })) {
                continue;
            }
            // The error of a sink is reported again when the sink is finished.
            let _ = self.execute(order);
        }
        match end {
            // Jobs that were never read are counted as cancelled, too, if their number is known.
            End::Complete if self.ledger.has_stop_policy() => self.cancel_unread(),
            end => end,
        }
    }

    /// Cancels the jobs that were never read: one by one only if each leaves a line or a log entry, because they may be billions.
    fn cancel_unread(&mut self) -> End {
        let Some(total) = self.ledger.total() else { return End::Complete };
        let unread = total.saturating_sub(self.ledger.counts().done);
        if self.sinks.writes_each_job() && unread <= CANCELLED_SINGLY {
            while let Next::Item(Ok(planned)) = self.source.next() {
                let job = self.ledger.cancel_unread(planned);
                let _ = self.sinks.settle(&job, cancelled());
                if (self.stop_requested)().is_some() {
                    return End::Stopped;
                }
            }
        } else if self.ledger.has_unread() {
            self.ledger.cancel_uncounted(unread);
        }
        End::Complete
    }
}

/// Makes the result of a job that was not run to its end because of the stop policy.
pub(super) fn cancelled() -> AttemptResult {
    AttemptResult::without_output(
        Status::Cancelled,
        Cause::new("cancelled", "the batch was stopped before its turn"),
        None,
    )
}
