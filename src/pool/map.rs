//! A map in progress: inputs go out in blocks, results come back in batches, one item at a time is handed on.

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{DEFAULT_POLICY, Opened, Pool, encode_input};
use crate::catch::catch;
use crate::exchange::{BlockBuilder, Command, Delivery};
use crate::failure::{Failure, JobError, JobErrorKind};
use crate::func::{Builder, Value};
use crate::report::{Meter, Progress, Ticker};
use crate::schedule::{ChunkSize, MapId, Policy};
use crate::wire::{self, Frame, Frames};

/// The results of a map, an iterator of `Result<O, JobError>`: in the order of the inputs, or as they come.
///
/// Options are set before the first `next`. Dropping a map early gives up its jobs that have not started.
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
    progress: Option<(Progress, String)>,
    state: State,
    output: PhantomData<fn() -> O>,
}

enum State {
    NotStarted,
    Running(Box<Running>),
    Ended,
}

/// A map that the ranks are working on.
struct Running {
    map: MapId,
    deliveries: Receiver<(MapId, Vec<Delivery>)>,
    advice: Arc<AtomicU64>,
    block: BlockBuilder,
    block_size: usize,
    submitted: u64,
    yielded: u64,
    /// Below this many jobs submitted and not yielded, inputs are pulled again.
    low_water: u64,
    inputs_ended: bool,
    /// The inputs' end was a panic.
    inputs_failed: Option<JobError>,
    /// Blocks that hold jobs not yielded yet: the number of jobs up to their end, and their bytes.
    sent: VecDeque<(u64, usize)>,
    sent_bytes: usize,
    waiting: Waiting,
    waiting_bytes: usize,
    current: Option<Cursor>,
    _ticker: Option<Ticker>,
}

/// Results that were received and not handed on.
enum Waiting {
    Ordered(BTreeMap<u64, Delivery>),
    Unordered(VecDeque<Delivery>),
}

/// A delivery that is being handed on, one job at a time.
struct Cursor {
    delivery: Delivery,
    job: u64,
    left: u64,
    position: usize,
}

/// The largest block of inputs, in jobs and bytes.
const BLOCK_JOBS: usize = 4096;
const BLOCK_BYTES: usize = 1 << 18;
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
        self.policy.chunk = NonZeroU32::new(jobs).map_or(ChunkSize::Auto, ChunkSize::Fixed);
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

    /// Shows how many jobs are finished on standard error, under this name.
    pub fn progress(mut self, progress: Progress, name: impl Into<String>) -> Self {
        self.progress = Some((progress, name.into()));
        self
    }

    fn start(&mut self) -> Result<Box<Running>, Failure> {
        let context = std::mem::replace(&mut self.context, Ok(Bytes::new()))?;
        let total = match self.inputs.size_hint() {
            (low, Some(high)) if low == high => Some(low as u64),
            _ => None,
        };
        let meter = self.progress.is_some().then(|| Arc::new(Meter::default()));
        let Opened { map, deliveries, advice } = self.pool.open(self.builder, context, self.policy, meter.clone())?;
        let ticker =
            self.progress.take().zip(meter).and_then(|((progress, name), meter)| progress.start(&name, total, meter));
        let waiting =
            if self.unordered { Waiting::Unordered(VecDeque::new()) } else { Waiting::Ordered(BTreeMap::new()) };
        Ok(Box::new(Running {
            map,
            deliveries,
            advice,
            block: BlockBuilder::default(),
            block_size: 1,
            submitted: 0,
            yielded: 0,
            low_water: 0,
            inputs_ended: false,
            inputs_failed: None,
            sent: VecDeque::new(),
            sent_bytes: 0,
            waiting,
            waiting_bytes: 0,
            current: None,
            _ticker: ticker,
        }))
    }

    /// Pulls inputs until the window is full, or for a while.
    fn feed(&mut self) -> Result<(), Failure> {
        let State::Running(running) = &mut self.state else { return Ok(()) };
        let window = self.window.unwrap_or_else(|| {
            (WINDOW_PER_QUEUED * running.advice.load(Ordering::Relaxed)).clamp(WINDOW, u64::from(u32::MAX))
        });
        running.low_water = window - window / 4;
        let few = u64::from(2 * self.pool.threads());
        let begin = Instant::now();
        let mut block_begin = begin;
        while !running.inputs_ended {
            let unclaimed = running.submitted - running.yielded;
            let room = window.saturating_sub(unclaimed);
            let heavy = running.sent_bytes + running.waiting_bytes > WINDOW_BYTES && unclaimed >= few;
            if room == 0 || heavy || (running.has_results() && begin.elapsed() > FEED_TIME) {
                break;
            }
            running.fill_block(&mut self.inputs, room);
            running.submit_block(self.pool)?;
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

    /// Waits for results. `None` means that they came.
    fn receive(&mut self, deadline: Option<Instant>) -> Option<JobError> {
        let State::Running(running) = &mut self.state else { return None };
        let received = match deadline {
            None => running.deliveries.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => running.deliveries.recv_deadline(deadline),
        };
        match received {
            Ok((_, deliveries)) => {
                deliveries.into_iter().for_each(|delivery| running.put(delivery));
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                let limit = self.timeout.unwrap_or_default();
                let message = format!("no result came within {} s", limit.as_secs_f64());
                Some(JobError::new(running.yielded, JobErrorKind::Timeout, message))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let error = JobError::of(running.yielded, super::closed());
                self.state = State::Ended;
                Some(error)
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> Option<Result<O, JobError>> {
        self.state = State::Ended;
        Some(Err(JobError::of(0, failure)))
    }
}

impl Running {
    fn has_results(&self) -> bool {
        let waiting = match &self.waiting {
            Waiting::Ordered(waiting) => waiting.contains_key(&self.yielded),
            Waiting::Unordered(waiting) => !waiting.is_empty(),
        };
        waiting || self.current.is_some() || !self.deliveries.is_empty()
    }

    /// Fills a block with at most `room` jobs.
    fn fill_block<X>(&mut self, inputs: &mut X, room: u64)
    where
        X: Iterator,
        X::Item: Value,
    {
        let jobs = self.block_size.min(usize::try_from(room).unwrap_or(usize::MAX));
        let block = &mut self.block;
        let filled = catch(|| {
            while block.count() < jobs && block.bytes() < BLOCK_BYTES {
                match inputs.next() {
                    Some(input) => block.push(|out| encode_input(&input, out)),
                    None => return true,
                }
            }
            false
        });
        match filled {
            Ok(ended) => self.inputs_ended = ended,
            Err(panic) => {
                self.inputs_ended = true;
                let message = format!("the iterator of inputs panicked: {}", panic.message);
                let failure = Failure { kind: JobErrorKind::Input, message, location: panic.location };
                self.inputs_failed = Some(JobError::of(self.submitted + self.block.count() as u64, failure));
            }
        }
    }

    fn submit_block(&mut self, pool: &Pool) -> Result<(), Failure> {
        let jobs = self.block.count();
        if jobs > 0 {
            let bytes = self.block.bytes();
            self.submitted += jobs as u64;
            self.sent.push_back((self.submitted, bytes));
            self.sent_bytes += bytes;
            pool.command(Command::Submit { map: self.map, block: self.block.take() })?;
        }
        if self.inputs_ended {
            pool.command(Command::Close { map: self.map })?;
        }
        Ok(())
    }

    /// Takes in what the master delivered.
    fn put(&mut self, delivery: Delivery) {
        let (first, bytes) = match &delivery {
            Delivery::Done { first, frames, .. } => (*first, frames.len()),
            Delivery::Failed(error) => (error.job, 0),
            Delivery::Unrun { first, .. } => (*first, 0),
            Delivery::Started { .. } => return,
        };
        self.waiting_bytes += bytes;
        match &mut self.waiting {
            Waiting::Ordered(waiting) => drop(waiting.insert(first, delivery)),
            Waiting::Unordered(waiting) => waiting.push_back(delivery),
        }
    }

    /// The next result that can be handed on now.
    fn take<O: Value>(&mut self) -> Option<Result<O, JobError>> {
        if self.current.is_none() {
            let delivery = match &mut self.waiting {
                Waiting::Ordered(waiting) => waiting.remove(&self.yielded)?,
                Waiting::Unordered(waiting) => waiting.pop_front()?,
            };
            self.current = Cursor::new(delivery);
        }
        let cursor = self.current.as_mut()?;
        let item = cursor.take();
        if cursor.left == 0 {
            if let Delivery::Done { frames, .. } = &cursor.delivery {
                self.waiting_bytes -= frames.len();
            }
            self.current = None;
        }
        self.yielded += 1;
        while let Some(&(_, bytes)) = self.sent.front().filter(|(end, _)| *end <= self.yielded) {
            self.sent_bytes -= bytes;
            self.sent.pop_front();
        }
        Some(item)
    }
}

impl Cursor {
    fn new(delivery: Delivery) -> Option<Self> {
        let (job, left) = match &delivery {
            Delivery::Done { first, count, .. } | Delivery::Unrun { first, count, .. } => (*first, *count),
            Delivery::Failed(error) => (error.job, 1),
            Delivery::Started { .. } => return None,
        };
        Some(Cursor { delivery, job, left, position: 0 })
    }

    fn take<O: Value>(&mut self) -> Result<O, JobError> {
        let job = self.job;
        self.job += 1;
        self.left -= 1;
        match &self.delivery {
            Delivery::Done { frames, .. } => {
                let mut rest = Frames::new(&frames[self.position..]);
                let frame = rest.next();
                self.position = frames.len() - rest.rest().len();
                decode_result(job, frame)
            }
            Delivery::Failed(error) => Err((**error).clone()),
            Delivery::Unrun { attempt, failure, .. } => {
                Err(JobError { attempt: *attempt, ..JobError::of(job, failure.clone()) })
            }
            Delivery::Started { .. } => Err(JobError::of(job, super::closed())),
        }
    }
}

/// The value in a result's frame.
pub(super) fn decode_result<O: Value>(job: u64, frame: Result<Frame<'_>, wire::CodecError>) -> Result<O, JobError> {
    let value = match frame {
        Ok(Frame::Value(value)) => wire::decode(value),
        Ok(Frame::Failure(failure)) => return Err(JobError::of(job, wire::decode(failure).unwrap_or_else(garbled))),
        Err(error) => Err(error),
    };
    value.map_err(|error| {
        let message = format!("the result cannot be read as {}: {error}", std::any::type_name::<O>());
        JobError::new(job, JobErrorKind::Decode, message)
    })
}

fn garbled(error: wire::CodecError) -> Failure {
    Failure::new(JobErrorKind::Decode, error.to_string())
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
