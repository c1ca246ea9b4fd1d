//! A map that the ranks are working on: its stream of jobs, the results that are not yet yielded, and the pace of its inputs.

use std::time::Instant;

use super::order::Order;
use super::record::BoxedRecord;
use crate::engine::error::{Failure, JobError};
use crate::engine::func::Value;
use crate::pool::Input;
use crate::pool::pacer::{HandedOn, Next, Pacer};
use crate::pool::stream::{Event, JobStream, NO_WAKE};
use crate::report::Ticker;

/// A map that the ranks are working on. Its user calls [`turn`](Self::turn) and [`wait`](Self::wait).
pub(crate) struct RunningMap<I, O> {
    stream: JobStream<I, O>,
    order: Order<O>,
    pacer: Pacer,
    record: Option<BoxedRecord<I, O>>,
    _ticker: Option<Ticker>,
}

/// The result of [`RunningMap::turn`].
pub(crate) enum Turn<O> {
    /// The next result.
    Item(Result<O, JobError>),
    /// There is no result yet: call [`RunningMap::wait`].
    Wait,
    /// All results were yielded. The error is the panic that ended the inputs.
    Over(Option<JobError>),
    /// The pool has ended.
    Broken(Failure),
}

/// The reason why [`RunningMap::wait`] has ended.
pub(crate) enum MapWaited {
    /// Results came.
    Done,
    /// The deadline has passed.
    Late,
    /// The pool has ended.
    Broken(JobError),
}

impl<I: Input, O: Value> RunningMap<I, O> {
    pub(super) fn new(
        stream: JobStream<I, O>,
        pacer: Pacer,
        unordered: bool,
        record: Option<BoxedRecord<I, O>>,
        ticker: Option<Ticker>,
    ) -> Box<Self> {
        Box::new(RunningMap { stream, order: Order::new(unordered), pacer, record, _ticker: ticker })
    }

    /// Returns the next result if it is a value that is at hand, and nothing else is to be done with it, as for most results. Otherwise
    /// the caller calls [`turn`](Self::turn).
    #[inline]
    pub(crate) fn next_at_hand(&mut self) -> Option<O> {
        let left = self.stream.pushed().saturating_sub(self.order.yielded() + 1);
        let feeds = !self.stream.is_closed() && self.pacer.is_hungry(left);
        if feeds || self.record.is_some() { None } else { self.order.take_value() }
    }

    /// Pulls inputs and returns a result, if there is one, without waiting.
    pub(crate) fn turn(&mut self, pull: &mut impl FnMut() -> Next<I>) -> Turn<O> {
        loop {
            if let Some(item) = self.take_restored() {
                return Turn::Item(item);
            }
            if let Some(item) = self.order.take() {
                let item = item.map_err(|error| self.of_input(error));
                if self.pacer.is_hungry(self.stream.pushed() - self.order.yielded()) {
                    // If the pool has ended, receiving reports it.
                    let _ = self.feed(pull);
                }
                return Turn::Item(item);
            }
            let Some(event) = self.stream.next_received() else { break };
            if let Err(failure) = self.put(event) {
                return Turn::Broken(failure);
            }
        }
        if let Err(failure) = self.feed(pull) {
            return Turn::Broken(failure);
        }
        if let Some(item) = self.take_restored() {
            return Turn::Item(item);
        }
        if self.stream.is_closed() && self.stream.pushed() == self.order.yielded() {
            let panic = self.pacer.take_panic();
            return match self.record.as_mut().filter(|_| panic.is_none()).map(|record| record.complete()) {
                Some(Err(failure)) => Turn::Broken(failure),
                Some(Ok(())) | None => Turn::Over(panic),
            };
        }
        Turn::Wait
    }

    /// Returns the next result of an earlier run, if it is its turn.
    fn take_restored(&mut self) -> Option<Result<O, JobError>> {
        let next = self.order.is_ordered().then(|| self.order.yielded());
        self.record.as_mut()?.restored(next)
    }

    /// Names the input of a job in its error: with a record not every input is a job.
    fn of_input(&self, error: JobError) -> JobError {
        let job = self.record.as_ref().map_or(error.job, |record| record.input_of(error.job));
        JobError { job, ..error }
    }

    fn put(&mut self, event: Event<O>) -> Result<(), Failure> {
        let kept = self.record.as_mut().map_or(Ok(()), |record| record.take(&event));
        self.order.put(event);
        kept
    }

    fn feed(&mut self, pull: &mut impl FnMut() -> Next<I>) -> Result<(), Failure> {
        let handed_on =
            HandedOn { jobs: self.order.yielded(), kept_bytes: self.order.bytes(), is_ready: self.order.is_ready() };
        let Some(record) = &mut self.record else {
            return self.pacer.feed(&mut self.stream, handed_on, || pull().map(|input| (input, None)));
        };
        self.pacer.feed(&mut self.stream, handed_on, || record.next(pull).map(|input| (input, None)))?;
        record.take_failure().map_or(Ok(()), Err)
    }

    /// Waits for the next event until `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> MapWaited {
        match self.stream.next(deadline, NO_WAKE) {
            Ok(Event::Idle) => MapWaited::Late,
            Ok(event) => match self.put(event) {
                Ok(()) => MapWaited::Done,
                Err(failure) => MapWaited::Broken(JobError::of(self.order.yielded(), failure)),
            },
            Err(failure) => MapWaited::Broken(JobError::of(self.order.yielded(), failure)),
        }
    }

    /// Returns the number of results yielded so far.
    pub(crate) fn yielded(&self) -> u64 {
        self.order.yielded()
    }
}
