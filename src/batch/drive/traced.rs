//! Adds the attempts that have ended to the trace, if there is one.

use super::Driver;
use crate::batch::job::{AttemptResult, Run, has_failed};
use crate::batch::runners::Runner;
use crate::report::{Ended, short_input};

impl<R: Runner> Driver<'_, R> {
    /// Adds an attempt that is still in the ledger.
    pub(super) fn trace(&mut self, index: u64, result: &AttemptResult) {
        let (Some(trace), Some(run)) = (&mut self.traced, result.run) else { return };
        let Some((job, attempt, input)) = self.ledger.name_of(index) else { return };
        let Run { rank, slot, start_us, seconds, .. } = run;
        let input = input.map(short_input);
        trace.add(Ended {
            rank,
            slot,
            start_ns: start_us.saturating_mul(1000),
            // A number that is too large, or none, becomes the nearest one.
            ns: (seconds * 1e9) as u64,
            job,
            attempt,
            status: result.status,
            has_failed: has_failed(result.status),
            input: input.as_deref(),
        });
    }
}
