//! The future of one submitted job.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Pool;
use super::future::{Callback, JobState, Status, check_wait, run_callback};
use super::stream::Encoded;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::schedule::MapId;

/// The future of one job: pending, then running, then done; or cancelled before it ran.
///
/// Clones are handles of the same job. Each may wait for the result, any number of times; it is decoded anew each time. Dropping a
/// handle does not cancel its job. As a [`Future`], it can be awaited by any executor.
#[must_use = "a handle is the only way to the job's result"]
pub struct JobHandle<O> {
    pool: Pool,
    map: MapId,
    job: u64,
    state: Arc<JobState>,
    output: PhantomData<fn() -> O>,
}

impl<O> Clone for JobHandle<O> {
    fn clone(&self) -> Self {
        let JobHandle { pool, map, job, state, .. } = self;
        JobHandle { pool: pool.clone(), map: *map, job: *job, state: state.clone(), output: PhantomData }
    }
}

impl<O> fmt::Debug for JobHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.state.lock() {
            Status::Open { running: false, .. } => "pending",
            Status::Open { running: true, .. } => "running",
            Status::Done(Ok(_)) => "done",
            Status::Done(Err(_)) => "failed",
        };
        write!(f, "JobHandle({}, {state})", self.job)
    }
}

impl<O: Value> JobHandle<O> {
    pub(super) fn new(pool: Pool, map: MapId, job: u64, state: Arc<JobState>) -> Self {
        JobHandle { pool, map, job, state, output: PhantomData }
    }

    fn read(&self, result: Result<Encoded, JobError>) -> Result<O, JobError> {
        result.and_then(|encoded| encoded.decode(self.job))
    }

    /// Waits for the job's end, and returns what `take` takes of its result.
    fn wait_and<T>(&self, take: impl FnOnce(&mut Result<Encoded, JobError>) -> T) -> Result<T, JobError> {
        let mut status = self.state.lock();
        loop {
            if let Status::Done(result) = &mut *status {
                return Ok(take(result));
            }
            check_wait().map_err(|message| JobError::new(self.job, JobErrorKind::Refused, message))?;
            status = self.state.changed.wait(status).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the end of a job that has no other handle, and takes its result: a large list is not copied.
    pub(super) fn into_result(self) -> Result<O, JobError> {
        let taken = Err(JobError::new(self.job, JobErrorKind::Refused, "its result was taken"));
        let result = self.wait_and(|result| std::mem::replace(result, taken))?;
        self.read(result)
    }

    /// Waits for the job's end.
    ///
    /// # Errors
    /// The job's failure. [`Refused`](JobErrorKind::Refused) if the job has not ended and this is called in a job or a callback,
    /// where the wait might never end.
    pub fn wait(&self) -> Result<O, JobError> {
        let result = self.wait_and(|result| result.clone())?;
        self.read(result)
    }

    /// Waits for the job's end, at most for `limit`. `None` when the time is over; the job goes on.
    pub fn wait_timeout(&self, limit: Duration) -> Option<Result<O, JobError>> {
        let deadline = Instant::now().checked_add(limit);
        let mut status = self.state.lock();
        loop {
            if let Status::Done(result) = &*status {
                let result = result.clone();
                drop(status);
                return Some(self.read(result));
            }
            let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            status = self.state.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `callback` with this handle when the job has ended: at once if it has, otherwise on a thread of the pool. Callbacks run
    /// one after the other, in the order in which they were added, so none should take long. A callback that panics is reported and
    /// does not stop the others.
    pub fn on_done(&self, callback: impl FnOnce(JobHandle<O>) + Send + 'static)
    where
        O: 'static,
    {
        let handle = self.clone();
        let callback: Callback = Box::new(move || callback(handle));
        if let Status::Open { callbacks, .. } = &mut *self.state.lock() {
            callbacks.push(callback);
            return;
        }
        run_callback(callback);
    }
}

impl<O> JobHandle<O> {
    /// Returns whether the job has ended: with a result, with an error, or cancelled.
    pub fn is_done(&self) -> bool {
        matches!(*self.state.lock(), Status::Done(_))
    }

    /// Returns whether a rank has the job and its end is not known here.
    pub fn is_running(&self) -> bool {
        matches!(*self.state.lock(), Status::Open { running: true, .. })
    }

    /// Returns whether the job was cancelled before it ran.
    pub fn is_cancelled(&self) -> bool {
        matches!(&*self.state.lock(), Status::Done(Err(error)) if error.kind == JobErrorKind::Cancelled)
    }

    /// Returns the job's number among those of the same function that were submitted to this pool, from 0.
    pub fn job(&self) -> u64 {
        self.job
    }

    /// Cancels the job if no rank has it yet. Returns true if the job is cancelled, by this or an earlier call; false if a rank has
    /// it or it has ended.
    pub fn cancel(&self) -> bool {
        if self.is_done() {
            return self.is_cancelled();
        }
        let cancelled = self.pool.cancel(self.map, self.job);
        if cancelled {
            let message = "cancelled before it started";
            self.state.settle(Err(JobError::new(self.job, JobErrorKind::Cancelled, message)));
        }
        cancelled || self.is_cancelled()
    }

    pub(super) fn state(&self) -> &Arc<JobState> {
        &self.state
    }
}

impl<O: Value> Future for JobHandle<O> {
    type Output = Result<O, JobError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut *self.state.lock() {
            Status::Done(result) => result.clone(),
            Status::Open { wakers, .. } => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                return Poll::Pending;
            }
        };
        Poll::Ready(self.read(result))
    }
}
