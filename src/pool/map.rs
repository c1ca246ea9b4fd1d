//! A map as an iterator: inputs are pulled and pushed into a stream of jobs, results are handed on one at a time.

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
use super::stream::NO_WAKE;
use super::{DEFAULT_POLICY, Input, Pool, Reports};
use crate::engine::board::Settled;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::{Builder, Value};
use crate::engine::schedule::{ChunkSize, Policy};
use crate::report::Progress;

pub(crate) use running::{RunningMap, Turn, Waited};

/// The results of a map, an iterator of `Result<O, JobError>`: in the order of the inputs, or as they come.
///
/// Options are set before the first `next`. Dropping a map early gives up its jobs.
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

    /// Results are handed on as they come, in no particular order.
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// How many jobs travel as one chunk: 0, the default, follows the measured duration of the jobs.
    pub fn chunk_size(mut self, jobs: u32) -> Self {
        self.policy.chunk = match (NonZeroU32::new(jobs), self.policy.chunk) {
            (Some(jobs), _) => ChunkSize::Fixed(jobs),
            (None, ChunkSize::Fixed(_)) => ChunkSize::Auto,
            (None, automatic) => automatic,
        };
        self
    }

    /// At most this many jobs are pulled from the inputs and not yet handed on: 0, the default, follows what keeps the ranks
    /// busy (some thousands, and at most about 256 MiB).
    pub fn window(mut self, jobs: usize) -> Self {
        self.window = jobs as u64;
        self
    }

    /// How often a job that fails is run again before it counts as failed. The default is 0.
    pub fn retries(mut self, times: u32) -> Self {
        self.policy.retries = times;
        self
    }

    /// How long `next` waits for a result. When the time is over it yields an error of kind
    /// [`Timeout`](JobErrorKind::Timeout) that stands for no job; the jobs go on, and so may the caller.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// How long one job may run. One that takes longer fails with an error of kind [`TimedOut`](JobErrorKind::TimedOut); since a
    /// thread cannot be stopped, the job goes on unheard, and another thread takes the place of its own. The rank says so on
    /// standard error. With a limit each job travels alone, whatever the chunk size. Zero is no limit, as is the default.
    pub fn job_timeout(mut self, limit: Duration) -> Self {
        self.job_timeout = Some(limit).filter(|limit| !limit.is_zero());
        self
    }

    /// Shows how many jobs are finished on standard error, under this name.
    pub fn progress(mut self, progress: Progress, name: impl Into<String>) -> Self {
        self.progress = Some((progress, name.into()));
        self
    }

    /// Opens the map for a caller that has the inputs itself, `total` of them if that is known, and never waits for one; the
    /// map's own are not used.
    ///
    /// # Errors
    /// The context cannot be encoded, or the pool does not take the map.
    pub(crate) fn open(mut self, total: Option<u64>) -> Result<Box<RunningMap<X::Item, O>>, Failure> {
        self.start(total, true)
    }

    /// `whole_chunks`: no input is waited for or takes long to make.
    fn start(&mut self, total: Option<u64>, whole_chunks: bool) -> Result<Box<RunningMap<X::Item, O>>, Failure> {
        let context = std::mem::replace(&mut self.context, Ok(Bytes::new()))?;
        let settled = self.progress.is_some().then(|| Arc::new(Settled::default()));
        let reports = Reports { settled: settled.clone(), ..Reports::default() };
        let stream = self.pool.open(self.builder, context, self.policy, self.job_timeout, reports)?;
        let ticker = self
            .progress
            .take()
            .zip(settled)
            .and_then(|((progress, name), settled)| progress.start(&name, total, settled));
        let mut pacer = Pacer::new(self.window, self.pool.threads());
        if let (true, ChunkSize::Fixed(jobs)) = (whole_chunks, self.policy.chunk) {
            pacer = pacer.whole_chunks(jobs.get());
        }
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
            match self.start(total, false) {
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
            match running.wait(deadline, NO_WAKE) {
                Waited::Done => {}
                Waited::Late => return Some(Err(too_late(running.yielded(), self.timeout))),
                Waited::Broken(error) => {
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
