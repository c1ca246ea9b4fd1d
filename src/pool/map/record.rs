//! The record of a map's results that outlives the run: what it is asked and told by a running map.

use crate::engine::error::{Failure, JobError};
use crate::pool::pacer::Next;
use crate::pool::stream::Event;

/// Keeps the results of a map, and returns those of an earlier run.
pub(crate) trait Record<I, O> {
    /// Pulls inputs until there is one without a result, which is the next job. Those with results are kept for
    /// [`restored`](Self::restored). [`Next::Later`] if many of them wait to be yielded.
    fn next(&mut self, pull: &mut dyn FnMut() -> Next<I>) -> Next<I>;

    /// Returns the next result of an earlier run, if it comes before the job with index `next`, or `None` for any.
    fn restored(&mut self, next: Option<u64>) -> Option<Result<O, JobError>>;

    /// Keeps the results of an event.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn take(&mut self, event: &Event<O>) -> Result<(), Failure>;

    /// Returns the error that inputs could not be looked up, once.
    fn take_failure(&mut self) -> Option<Failure>;

    /// Returns the index of the input of a job.
    fn input_of(&self, job: u64) -> u64;

    /// Notes that all results were yielded.
    ///
    /// # Errors
    /// If that cannot be kept.
    fn complete(&mut self) -> Result<(), Failure>;
}

/// A record of any kind.
pub(crate) type BoxedRecord<I, O> = Box<dyn Record<I, O>>;
