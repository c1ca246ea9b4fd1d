//! A map as an iterator: it pulls inputs, pushes them into a stream of jobs, and yields the results one at a time.

mod order;
mod running;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pacer::{Next, Pacer};
use super::{DEFAULT_POLICY, Input, Pool, Reports};
use crate::engine::board::Settled;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::{Builder, Value};
use crate::engine::schedule::{ChunkSize, Policy};
use crate::report::Progress;

use running::{MapWaited, RunningMap, Turn};

/// An iterator of the results of a map, `Result<O, JobError>`: in the order of the inputs, or in the order of arrival.
///
/// Options are set before the first `next`. Dropping a map early cancels its jobs.
#[must_use = "a map is lazy: it does nothing until it is iterated"]
pub struct Map<'p, X: Iterator, O> {
    pool: &'p Pool,
    builder: Builder,
    context: Result<Bytes, Failure>,
    inputs: X,
    policy: Policy,
    unordered: bool,
    window: u64,
    timeout: Option<Duration>,
    job_timeout: Option<Duration>,
    progress: Option<(Progress, String)>,
    state: State<X::Item, O>,
    output: PhantomData<fn() -> O>,
}

enum State<I, O> {
    NotStarted,
    Running(Box<RunningMap<I, O>>),
    Ended,
}

impl<'p, X, O> Map<'p, X, O>
where
    X: Iterator,
    X::Item: Input,
    O: Value,
{
    pub(super) fn new(pool: &'p Pool, builder: Builder, context: Result<Bytes, Failure>, inputs: X) -> Self {
        Map {
            pool,
            builder,
            context,
            inputs,
            policy: DEFAULT_POLICY,
            unordered: false,
            window: 0,
            timeout: None,
            job_timeout: pool.job_timeout,
            progress: None,
            state: State::NotStarted,
            output: PhantomData,
        }
    }

    /// Yields results in the order of their arrival.
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// Sets the number of jobs that travel as one chunk: 0, the default, follows the measured duration of the jobs.
    pub fn chunk_size(mut self, jobs: u32) -> Self {
        self.policy.chunk = match (NonZeroU32::new(jobs), self.policy.chunk) {
            (Some(jobs), _) => ChunkSize::Fixed(jobs),
            (None, ChunkSize::Fixed(_)) => ChunkSize::Auto,
            (None, automatic) => automatic,
        };
        self
    }

    /// Sets the largest number of jobs whose inputs are pulled and whose results are not yet yielded: 0, the default, follows the
    /// number that keeps the ranks busy (some thousands, and at most about 256 MiB).
    pub fn window(mut self, jobs: usize) -> Self {
        self.window = jobs as u64;
        self
    }

    /// Sets how many times a failing job is run again before it counts as failed. The default is 0.
    pub fn retries(mut self, times: u32) -> Self {
        self.policy.retries = times;
        self
    }

    /// Sets how long `next` waits for a result. When the time is over, it yields an error of kind
    /// [`Timeout`](JobErrorKind::Timeout) that belongs to no job; the jobs go on, and the caller may call `next` again.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sets a time limit for each job. A job that takes longer fails with an error of kind [`TimedOut`](JobErrorKind::TimedOut).
    /// Since a thread cannot be stopped, the job runs on and its result is dropped; a new thread replaces its thread, and the rank
    /// logs that on standard error. With a limit each chunk has one job, whatever the chunk size. Zero, the default, is no limit.
    pub fn job_timeout(mut self, limit: Duration) -> Self {
        self.job_timeout = Some(limit).filter(|limit| !limit.is_zero());
        self
    }

    /// Shows the number of finished jobs on standard error, under this name.
    pub fn progress(mut self, progress: Progress, name: impl Into<String>) -> Self {
        self.progress = Some((progress, name.into()));
        self
    }

    /// Opens the stream of jobs. `total` is the number of inputs, if it is known.
    fn start(&mut self, total: Option<u64>) -> Result<Box<RunningMap<X::Item, O>>, Failure> {
        let context = std::mem::replace(&mut self.context, Ok(Bytes::new()))?;
        let settled = self.progress.is_some().then(|| Arc::new(Settled::default()));
        let reports = Reports { settled: settled.clone(), ..Reports::default() };
        let stream = self.pool.open(self.builder, context, self.policy, self.job_timeout, reports)?;
        let progress = self.progress.take().zip(settled);
        let ticker = progress.and_then(|((progress, name), settled)| progress.start(&name, total, settled));
        let pacer = Pacer::new(self.window, self.pool.threads());
        Ok(RunningMap::new(stream, pacer, self.unordered, ticker))
    }

    fn fail(&mut self, failure: Failure) -> Option<Result<O, JobError>> {
        self.state = State::Ended;
        Some(Err(JobError::of(0, failure)))
    }
}

fn too_late(job: u64, limit: Option<Duration>) -> JobError {
    let message = format!("no result came within {} s", limit.unwrap_or_default().as_secs_f64());
    JobError::new(job, JobErrorKind::Timeout, message)
}

impl<X, O> Iterator for Map<'_, X, O>
where
    X: Iterator,
    X::Item: Input,
    O: Value,
{
    type Item = Result<O, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let State::NotStarted = self.state {
            let total = match self.inputs.size_hint() {
                (low, Some(high)) if low == high => Some(low as u64),
                _ => None,
            };
            match self.start(total) {
                Ok(running) => self.state = State::Running(running),
                Err(failure) => return self.fail(failure),
            }
        }
        let State::Running(running) = &mut self.state else { return None };
        let mut pull = || self.inputs.next().map_or(Next::End, Next::Item);
        let mut deadline = None;
        loop {
            match running.turn(&mut pull) {
                Turn::Item(item) => return Some(item),
                Turn::Wait => {}
                Turn::Over(panic) => {
                    self.state = State::Ended;
                    return panic.map(Err);
                }
                Turn::Broken(failure) => return self.fail(failure),
            }
            if deadline.is_none() {
                deadline = self.timeout.and_then(|limit| Instant::now().checked_add(limit));
            }
            match running.wait(deadline) {
                MapWaited::Done => {}
                MapWaited::Late => return Some(Err(too_late(running.yielded(), self.timeout))),
                MapWaited::Broken(error) => {
                    self.state = State::Ended;
                    return Some(Err(error));
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.state {
            State::NotStarted => self.inputs.size_hint(),
            State::Running(_) => (0, None),
            State::Ended => (0, Some(0)),
        }
    }
}
