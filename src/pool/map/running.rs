//! A map that the ranks are working on: inputs on their way out, results that came and were not handed on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::Receiver;

use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{BlockBuilder, Command, Delivery};
use crate::engine::func::Value;
use crate::engine::schedule::{MapId, RankId};
use crate::engine::wire::{self, Frame, Frames};
use crate::pool::{Opened, Pool, closed, encode_input};
use crate::report::Ticker;

/// The largest block of inputs, in bytes.
const BLOCK_BYTES: usize = 1 << 18;

/// Says which rank is not to have an input, if there is another one.
pub(super) type Avoid<I> = fn(&I) -> Option<RankId>;

/// A map that the ranks are working on.
pub(super) struct Running {
    pub map: MapId,
    pub deliveries: Receiver<(MapId, Vec<Delivery>)>,
    pub advice: Arc<AtomicU64>,
    block: BlockBuilder,
    pub block_size: usize,
    pub submitted: u64,
    pub yielded: u64,
    /// Below this many jobs submitted and not yielded, inputs are pulled again.
    pub low_water: u64,
    pub inputs_ended: bool,
    /// Results that are there are not kept back for those of earlier jobs.
    pub passes: bool,
    /// The inputs' end was a panic.
    pub inputs_failed: Option<JobError>,
    /// Blocks that hold jobs not yielded yet: the number of jobs up to their end, and their bytes.
    sent: VecDeque<(u64, usize)>,
    pub sent_bytes: usize,
    waiting: Waiting,
    pub waiting_bytes: usize,
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

impl Running {
    pub fn new(opened: Opened, unordered: bool, ticker: Option<Ticker>) -> Box<Running> {
        let Opened { map, deliveries, advice } = opened;
        let waiting = if unordered { Waiting::Unordered(VecDeque::new()) } else { Waiting::Ordered(BTreeMap::new()) };
        Box::new(Running {
            map,
            deliveries,
            advice,
            block: BlockBuilder::default(),
            block_size: 1,
            submitted: 0,
            yielded: 0,
            low_water: 0,
            inputs_ended: false,
            passes: false,
            inputs_failed: None,
            sent: VecDeque::new(),
            sent_bytes: 0,
            waiting,
            waiting_bytes: 0,
            current: None,
            _ticker: ticker,
        })
    }

    pub fn has_results(&self) -> bool {
        let waiting = match &self.waiting {
            Waiting::Ordered(waiting) => waiting.contains_key(&self.yielded),
            Waiting::Unordered(waiting) => !waiting.is_empty(),
        };
        waiting || self.current.is_some() || !self.deliveries.is_empty()
    }

    /// Fills a block with so many jobs, if they are not too large.
    pub fn fill_block<X>(&mut self, inputs: &mut X, jobs: usize, avoid: Option<Avoid<X::Item>>)
    where
        X: Iterator,
        X::Item: Value,
    {
        let block = &mut self.block;
        let filled = catch(|| {
            while block.count() < jobs && block.bytes() < BLOCK_BYTES {
                match inputs.next() {
                    Some(input) => {
                        block.push(|out| encode_input(&input, out));
                        if let Some(rank) = avoid.and_then(|avoid| avoid(&input)) {
                            block.avoid(rank);
                        }
                    }
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

    pub fn submit_block(&mut self, pool: &Pool) -> Result<(), Failure> {
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
    pub fn put(&mut self, delivery: Delivery) {
        let (first, bytes) = match &delivery {
            Delivery::Done { first, frames, .. } => (*first, frames.len()),
            Delivery::Failed(error) => (error.job, 0),
            Delivery::Unrun { first, .. } => (*first, 0),
            Delivery::Started { .. } | Delivery::Part(_) => return,
        };
        if matches!(self.waiting, Waiting::Ordered(_)) && first < self.yielded {
            // It was passed by.
            return;
        }
        self.waiting_bytes += bytes;
        match &mut self.waiting {
            Waiting::Ordered(waiting) => drop(waiting.insert(first, delivery)),
            Waiting::Unordered(waiting) => waiting.push_back(delivery),
        }
    }

    /// Whether there are results of later jobs than the next one.
    fn is_behind(&self) -> bool {
        matches!(&self.waiting, Waiting::Ordered(waiting) if !waiting.is_empty())
    }

    /// The next result that can be handed on now.
    pub fn take<O: Value>(&mut self) -> Option<Result<O, JobError>> {
        if self.current.is_none() {
            let delivery = match &mut self.waiting {
                Waiting::Ordered(waiting) => waiting.remove(&self.yielded),
                Waiting::Unordered(waiting) => waiting.pop_front(),
            };
            self.current = delivery.and_then(Cursor::new);
        }
        let passes = self.passes && self.is_behind();
        let item = match &mut self.current {
            Some(cursor) => {
                let item = cursor.take();
                if cursor.left == 0 {
                    if let Delivery::Done { frames, .. } = &cursor.delivery {
                        self.waiting_bytes -= frames.len();
                    }
                    self.current = None;
                }
                item
            }
            None if passes => {
                Err(JobError::new(self.yielded, JobErrorKind::Stopped, "the run was stopped before its end"))
            }
            None => return None,
        };
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
            Delivery::Started { .. } | Delivery::Part(_) => return None,
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
            Delivery::Started { .. } | Delivery::Part(_) => Err(JobError::of(job, closed())),
        }
    }
}

/// The value in a result's frame.
pub(in crate::pool) fn decode_result<O: Value>(
    job: u64,
    frame: Result<Frame<'_>, wire::CodecError>,
) -> Result<O, JobError> {
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
