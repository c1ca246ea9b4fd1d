//! A map in progress: inputs go out in blocks, results come back in batches, one item at a time is handed on.

mod running;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Select, never};

use super::{DEFAULT_POLICY, Pool};
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{Command, Delivery, OutputPart};
use crate::engine::func::{Builder, Value};
use crate::engine::meter::Meter;
use crate::engine::schedule::{ChunkSize, Policy};
use crate::report::Progress;

pub(super) use running::decode_result;
use running::{Avoid, Running};

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
    window: Option<u64>,
    timeout: Option<Duration>,
    job_timeout: Option<Duration>,
    progress: Option<(Progress, String)>,
    pause: Option<Pause>,
    on_part: Option<OnPart<'p>>,
    avoid: Option<Avoid<X::Item>>,
    state: State,
    output: PhantomData<fn() -> O>,
}

/// Who gets the pieces of output that jobs send ahead of their results: the jobs' two marks, and bytes.
type OnPart<'p> = Box<dyn FnMut(u64, u8, Bytes) + Send + 'p>;

/// How an iterator of inputs says that it has none at the moment.
pub(crate) struct Pause {
    /// Set by an iterator that returns `None` and is to be asked again.
    pub paused: Arc<AtomicBool>,
    /// Says that it is time to ask again.
    pub wake: Receiver<()>,
}

enum State {
    NotStarted,
    Running(Box<Running>),
    Ended,
}

/// The largest block of inputs, in jobs.
const BLOCK_JOBS: usize = 4096;
/// A block that took longer than this to fill is followed by a smaller one: the inputs are what the ranks wait for.
const BLOCK_TIME: Duration = Duration::from_micros(500);
/// How long inputs are pulled on while there are results to hand on.
const FEED_TIME: Duration = Duration::from_millis(1);
/// The automatic window, in jobs: at least so many, and so many times what the ranks hold.
const WINDOW: u64 = 4096;
const WINDOW_PER_QUEUED: u64 = 4;
/// Encoded inputs and results of a map that are kept on rank 0 before it stops pulling inputs.
const WINDOW_BYTES: usize = 256 << 20;

impl<'p, X, O> Map<'p, X, O>
where
    X: Iterator,
    X::Item: Value,
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
            window: None,
            timeout: None,
            job_timeout: pool.job_timeout,
            progress: None,
            pause: None,
            on_part: None,
            avoid: None,
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

    /// Chunks are larger than others, unless a size is asked for.
    pub(super) fn coarse(mut self) -> Self {
        self.policy.chunk = ChunkSize::Coarse;
        self
    }

    /// At most this many jobs are pulled from the inputs and not yet handed on: 0, the default, follows what keeps the ranks
    /// busy (some thousands, and at most about 256 MiB).
    pub fn window(mut self, jobs: usize) -> Self {
        self.window = (jobs > 0).then_some(jobs as u64);
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

    /// The inputs may pause: results are handed on meanwhile.
    pub(crate) fn pausing(mut self, pause: Pause) -> Self {
        self.pause = Some(pause);
        self
    }

    /// Hands on the pieces of output that jobs send ahead of their results (`rank::send_part`).
    pub(crate) fn on_part(mut self, on_part: impl FnMut(u64, u8, Bytes) + Send + 'p) -> Self {
        self.on_part = Some(Box::new(on_part));
        self
    }

    /// Inputs may name a rank that is not to have them, if there is another one.
    pub(crate) fn avoiding(mut self, avoid: Avoid<X::Item>) -> Self {
        self.avoid = Some(avoid);
        self
    }

    fn start(&mut self) -> Result<Box<Running>, Failure> {
        let context = std::mem::replace(&mut self.context, Ok(Bytes::new()))?;
        let total = match self.inputs.size_hint() {
            (low, Some(high)) if low == high => Some(low as u64),
            _ => None,
        };
        let meter = self.progress.is_some().then(|| Arc::new(Meter::default()));
        let opened = self.pool.open(self.builder, context, self.policy, self.job_timeout, meter.clone())?;
        let ticker =
            self.progress.take().zip(meter).and_then(|((progress, name), meter)| progress.start(&name, total, meter));
        Ok(Running::new(opened, self.unordered, ticker))
    }

    /// Pulls inputs until the window is full, or for a while.
    fn feed(&mut self) -> Result<(), Failure> {
        let State::Running(running) = &mut self.state else { return Ok(()) };
        let window = self.window.unwrap_or_else(|| {
            (WINDOW_PER_QUEUED * running.advice.load(Ordering::Relaxed)).clamp(WINDOW, u64::from(u32::MAX))
        });
        running.low_water = window - window / 4;
        let few = u64::from(2 * self.pool.threads());
        // Inputs that may pause are there or not, so that a full chunk of a size that was asked for is never waited for.
        let whole = match self.policy.chunk {
            ChunkSize::Fixed(jobs) if self.pause.is_some() => jobs.get() as usize,
            ChunkSize::Fixed(_) | ChunkSize::Auto | ChunkSize::Coarse => 1,
        };
        let begin = Instant::now();
        let mut block_begin = begin;
        while !running.inputs_ended {
            let unclaimed = running.submitted - running.yielded;
            let room = window.saturating_sub(unclaimed);
            let heavy = running.sent_bytes + running.waiting_bytes > WINDOW_BYTES && unclaimed >= few;
            if room == 0 || heavy || (running.has_results() && begin.elapsed() > FEED_TIME) {
                break;
            }
            let jobs = running.block_size.next_multiple_of(whole);
            running.fill_block(&mut self.inputs, jobs.min(usize::try_from(room).unwrap_or(usize::MAX)), self.avoid);
            let paused = self.pause.as_ref().is_some_and(|pause| pause.paused.swap(false, Ordering::Relaxed));
            running.inputs_ended &= !paused;
            running.submit_block(self.pool)?;
            if paused {
                break;
            }
            let now = Instant::now();
            running.block_size = if now - block_begin > BLOCK_TIME {
                (running.block_size / 2).max(1)
            } else {
                (running.block_size * 2).min(BLOCK_JOBS)
            };
            block_begin = now;
        }
        Ok(())
    }

    /// Waits for results, or for inputs that have paused. `None` means that they came.
    fn receive(&mut self, deadline: Option<Instant>) -> Option<JobError> {
        let State::Running(running) = &mut self.state else { return None };
        if let Some(pause) = &mut self.pause {
            if !wait_for_either(&running.deliveries, pause, deadline) {
                return None;
            }
        }
        let received = match deadline {
            None => running.deliveries.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => running.deliveries.recv_deadline(deadline),
        };
        match received {
            Ok((_, deliveries)) => {
                for delivery in deliveries {
                    match delivery {
                        Delivery::Part(part) => take_part(self.pool, self.on_part.as_mut(), part),
                        delivery => running.put(delivery),
                    }
                }
                // Pieces of output may come without a pause.
                let is_late = !running.has_results() && deadline.is_some_and(|deadline| deadline <= Instant::now());
                is_late.then(|| too_late(running.yielded, self.timeout))
            }
            Err(RecvTimeoutError::Timeout) => Some(too_late(running.yielded, self.timeout)),
            Err(RecvTimeoutError::Disconnected) => {
                let error = JobError::of(running.yielded, super::closed());
                self.state = State::Ended;
                Some(error)
            }
        }
    }

    /// Gives up the jobs that no thread has begun; those that run may end. Their results, and what became of the others, still
    /// come.
    pub(crate) fn deal_no_more(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.inputs_ended = true;
            // A pool that has ended shows when the results run out.
            let _ = self.pool.command(Command::GiveUp { map: running.map });
        }
    }

    /// Results are not kept back any longer for those of earlier jobs: these are errors of kind `Stopped` now.
    pub(crate) fn wait_no_longer(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.passes = true;
        }
    }

    fn fail(&mut self, failure: Failure) -> Option<Result<O, JobError>> {
        self.state = State::Ended;
        Some(Err(JobError::of(0, failure)))
    }
}

/// Waits until there are results, inputs are to be asked again, or the time is over. False: it is the inputs' turn.
fn wait_for_either<T>(deliveries: &Receiver<T>, pause: &mut Pause, deadline: Option<Instant>) -> bool {
    let mut select = Select::new();
    let results = select.recv(deliveries);
    select.recv(&pause.wake);
    let ready = match deadline {
        None => select.ready(),
        Some(deadline) => match select.ready_deadline(deadline) {
            Ok(ready) => ready,
            Err(_) => return true,
        },
    };
    if ready == results {
        return true;
    }
    if pause.wake.try_recv().is_err_and(|error| error.is_disconnected()) {
        // Nobody will call again, which is no reason to look all the time.
        pause.wake = never();
    }
    false
}

fn too_late(job: u64, limit: Option<Duration>) -> JobError {
    let message = format!("no result came within {} s", limit.unwrap_or_default().as_secs_f64());
    JobError::new(job, JobErrorKind::Timeout, message)
}

fn take_part(pool: &Pool, on_part: Option<&mut OnPart<'_>>, part: OutputPart) {
    let OutputPart { job, stream, bytes, rank, part } = part;
    if let Some(on_part) = on_part {
        on_part(job, stream, bytes);
    }
    // A pool that has ended shows when the results run out.
    let _ = pool.command(Command::Took { rank, part });
}

impl<X, O> Iterator for Map<'_, X, O>
where
    X: Iterator,
    X::Item: Value,
    O: Value,
{
    type Item = Result<O, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let State::NotStarted = self.state {
            match self.start() {
                Ok(running) => self.state = State::Running(running),
                Err(failure) => return self.fail(failure),
            }
        }
        let mut deadline = None;
        loop {
            let State::Running(running) = &mut self.state else { return None };
            if let Some(item) = running.take() {
                let hungry = running.submitted - running.yielded < running.low_water && !running.inputs_ended;
                if hungry {
                    // A pool that has ended shows when the results run out.
                    let _ = self.feed();
                }
                return Some(item);
            }
            if let Err(failure) = self.feed() {
                return self.fail(failure);
            }
            let State::Running(running) = &mut self.state else { return None };
            if running.inputs_ended && running.submitted == running.yielded {
                let failed = running.inputs_failed.take();
                self.state = State::Ended;
                return failed.map(Err);
            }
            if deadline.is_none() {
                deadline = self.timeout.and_then(|limit| Instant::now().checked_add(limit));
            }
            if let Some(error) = self.receive(deadline) {
                return Some(Err(error));
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

impl<X: Iterator, O> Drop for Map<'_, X, O> {
    fn drop(&mut self) {
        if let State::Running(running) = &self.state {
            let _ = self.pool.command(Command::Abandon { map: running.map });
        }
    }
}
