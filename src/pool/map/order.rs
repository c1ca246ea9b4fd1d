//! The results of a map that were received and not yet yielded: in the order of the inputs, or in the order of arrival.

use std::collections::{BTreeMap, VecDeque};

use crate::engine::error::JobError;
use crate::engine::func::Value;
use crate::pool::stream::{Event, Results, Unrun};

/// The received results; it yields one at a time.
pub(crate) struct Order<O> {
    waiting: Waiting<O>,
    /// The jobs whose results are yielded now.
    current: Option<Settled<O>>,
    /// The number of results yielded so far; if they are in order, the index of the next job.
    yielded: u64,
    /// The encoded size of the results that are kept.
    bytes: usize,
}

enum Waiting<O> {
    /// The key is the first job.
    Ordered(BTreeMap<u64, Settled<O>>),
    Unordered(VecDeque<Settled<O>>),
}

/// Consecutive jobs that are settled.
enum Settled<O> {
    Done(Results<O>),
    Failed(Box<JobError>),
    Unrun(Unrun),
}

impl<O> Settled<O> {
    fn first(&self) -> u64 {
        match self {
            Settled::Done(results) => results.job(),
            Settled::Failed(error) => error.job,
            Settled::Unrun(unrun) => unrun.job(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Settled::Done(results) => results.bytes(),
            Settled::Failed(_) | Settled::Unrun(_) => 0,
        }
    }
}

impl<O> Order<O> {
    pub fn new(unordered: bool) -> Order<O> {
        let waiting = if unordered { Waiting::Unordered(VecDeque::new()) } else { Waiting::Ordered(BTreeMap::new()) };
        Order { waiting, current: None, yielded: 0, bytes: 0 }
    }

    /// Returns whether results are yielded in the order of the inputs.
    pub fn is_ordered(&self) -> bool {
        matches!(self.waiting, Waiting::Ordered(_))
    }

    /// Returns the number of results yielded so far.
    pub fn yielded(&self) -> u64 {
        self.yielded
    }

    /// Returns the encoded size of the results that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether a result can be yielded now.
    pub fn is_ready(&self) -> bool {
        let is_next_there = match &self.waiting {
            Waiting::Ordered(waiting) => waiting.contains_key(&self.yielded),
            Waiting::Unordered(waiting) => !waiting.is_empty(),
        };
        is_next_there || self.current.is_some()
    }

    /// Adds the results of an event.
    pub fn put(&mut self, event: Event<O>) {
        let settled = match event {
            Event::Done(results) => Settled::Done(results),
            Event::Failed(error) => Settled::Failed(error),
            Event::Unrun(unrun) => Settled::Unrun(unrun),
            Event::Early(_) | Event::Started { .. } | Event::Part(_) | Event::Idle | Event::Wake | Event::Ended => {
                return;
            }
        };
        let first = settled.first();
        let bytes = settled.bytes();
        match &mut self.waiting {
            Waiting::Ordered(_) if first == self.yielded && self.current.is_none() => self.current = Some(settled),
            Waiting::Ordered(waiting) => drop(waiting.insert(first, settled)),
            Waiting::Unordered(waiting) => waiting.push_back(settled),
        }
        self.bytes += bytes;
    }
}

impl<O: Value> Order<O> {
    /// Returns the next result that can be yielded now.
    pub fn take(&mut self) -> Option<Result<O, JobError>> {
        loop {
            if let Some(item) = self.take_current() {
                self.yielded += 1;
                return Some(item);
            }
            self.current = match &mut self.waiting {
                Waiting::Ordered(waiting) => waiting.remove(&self.yielded),
                Waiting::Unordered(waiting) => waiting.pop_front(),
            };
            self.current.as_ref()?;
        }
    }

    /// As [`take`](Self::take), but only for a value that is not the last of those that came together.
    #[inline]
    pub fn take_value(&mut self) -> Option<O> {
        let Some(Settled::Done(results)) = &mut self.current else { return None };
        let value = results.next_unless_last()?;
        self.yielded += 1;
        Some(value)
    }

    fn take_current(&mut self) -> Option<Result<O, JobError>> {
        let (item, is_last) = match &mut self.current {
            None => return None,
            Some(Settled::Done(results)) => (results.next(), results.is_empty()),
            Some(Settled::Unrun(unrun)) => (unrun.next().map(Err), unrun.is_empty()),
            Some(Settled::Failed(_)) => {
                let Some(Settled::Failed(error)) = self.current.take() else { return None };
                return Some(Err(*error));
            }
        };
        if is_last {
            self.bytes -= self.current.take().map_or(0, |settled| settled.bytes());
        }
        item
    }
}
