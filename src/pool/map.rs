//! A map as an iterator: it pulls inputs, pushes them into a stream of jobs, and yields the results one at a time.

#[cfg(feature = "program")]
mod journaled;
pub(super) mod order;
mod record;
mod running;
#[cfg(test)]
mod tests;

#[cfg(feature = "program")]
use std::any::type_name;
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

use record::BoxedRecord;
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
    /// The name of the function's type, for the journal.
    #[cfg_attr(not(feature = "program"), expect(dead_code, reason = "only a journal uses it"))]
    function: &'static str,
    #[cfg(feature = "program")]
    journal: Option<std::path::PathBuf>,
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
    /// `function` is the name of the function's type.
    pub(super) fn new(
        pool: &'p Pool,
        builder: Builder,
        context: Result<Bytes, Failure>,
        inputs: X,
        function: &'static str,
    ) -> Self {
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
            function,
            #[cfg(feature = "program")]
            journal: None,
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

    /// Keeps a journal: each result is in this file soon after it has come, whatever ends the run. The next map with the same file
    /// computes only the inputs without a result there, and yields all results. Inputs are recognised by their encoding, so they may be
    /// in another order; jobs that have failed are run again. A journal of another function (by the name of its type), of other
    /// types or of another context is refused: the map then yields one error of kind [`Refused`](JobErrorKind::Refused).
    /// `rankpool journal` shows what such a file contains.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("squares.journal");
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// for _ in 0..2 {
    ///     // The second time nothing is computed.
    ///     let squares: Vec<u64> = pool.map(|x: u64| x * x, 0..5).journal(&file).collect::<Result<_, _>>()?;
    ///     assert_eq!(squares, [0, 1, 4, 9, 16]);
    /// }
    /// # Ok(()) });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "program")]
    pub fn journal(mut self, file: impl Into<std::path::PathBuf>) -> Self
    where
        X::Item: 'static,
    {
        self.journal = Some(file.into());
        self
    }

    #[cfg(feature = "program")]
    fn open_record(&self, context: &[u8]) -> Result<Option<BoxedRecord<X::Item, O>>, Failure> {
        let Some(path) = &self.journal else { return Ok(None) };
        let context = match context.len() {
            0 => "none".to_string(),
            bytes => format!("{bytes} bytes with the hash {:016x}", xxhash_rust::xxh3::xxh3_64(context)),
        };
        let spec = [
            ("function", self.function.to_string()),
            ("input", type_name::<X::Item>().into()),
            ("result", type_name::<O>().into()),
            ("context", context),
        ];
        let spec = spec.map(|(name, value)| (name.to_string(), value)).into();
        Ok(Some(Box::new(journaled::JournaledMap::open(path, &spec)?)))
    }

    #[cfg(not(feature = "program"))]
    fn open_record(&self, _: &[u8]) -> Result<Option<BoxedRecord<X::Item, O>>, Failure> {
        Ok(None)
    }

    /// Opens the stream of jobs. `total` is the number of inputs, if it is known.
    fn start(&mut self, total: Option<u64>) -> Result<Box<RunningMap<X::Item, O>>, Failure> {
        let context = std::mem::replace(&mut self.context, Ok(Bytes::new()))?;
        let record = self.open_record(&context)?;
        let settled = self.progress.is_some().then(|| Arc::new(Settled::default()));
        let reports = Reports { settled: settled.clone(), ..Reports::default() };
        let stream = self.pool.open(self.builder, context, self.policy, self.job_timeout, reports)?;
        let progress = self.progress.take().zip(settled);
        let ticker = progress.and_then(|((progress, name), settled)| {
            progress.start(&name, total, settled, self.pool.core.board.clone())
        });
        let pacer = Pacer::new(self.window, self.pool.threads());
        Ok(RunningMap::new(stream, pacer, self.unordered, record, ticker))
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
        if let Some(value) = running.next_at_hand() {
            return Some(Ok(value));
        }
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
