//! A map that the ranks are working on: a stream of jobs, the results that are not handed on, and the pace between them.

use std::time::Instant;

use super::order::Order;
use crate::engine::error::{Failure, JobError};
use crate::engine::func::Value;
use crate::pool::Input;
use crate::pool::pacer::{HandedOn, Next, Pacer};
use crate::pool::stream::{Event, JobStream, NO_WAKE};
use crate::report::Ticker;

/// A map that the ranks are working on. Its user gives it inputs and waits for it.
pub(crate) struct RunningMap<I, O> {
    stream: JobStream<I, O>,
    order: Order<O>,
    pacer: Pacer,
    _ticker: Option<Ticker>,
}

/// What a map has for its user.
pub(crate) enum Turn<O> {
    /// The next result.
    Item(Result<O, JobError>),
    /// There is nothing before [`RunningMap::wait`].
    Wait,
    /// All jobs are handed on. The error is the panic that ended the inputs.
    Over(Option<JobError>),
    /// The pool has ended.
    Broken(Failure),
}

/// Why a map waits no more.
pub(crate) enum Waited {
    /// Something has happened.
    Done,
    /// The deadline has passed.
    Late,
    /// The pool has ended.
    Broken(JobError),
}

impl<I: Input, O: Value> RunningMap<I, O> {
    pub(super) fn new(stream: JobStream<I, O>, pacer: Pacer, unordered: bool, ticker: Option<Ticker>) -> Box<Self> {
        Box::new(RunningMap { stream, order: Order::new(unordered), pacer, _ticker: ticker })
    }

    /// Hands on a result and pulls inputs, each with a rank to avoid, without waiting.
    pub(crate) fn turn(&mut self, pull: &mut impl FnMut() -> Next<I>) -> Turn<O> {
        loop {
            if let Some(item) = self.order.take() {
                if self.pacer.is_hungry(self.stream.pushed() - self.order.yielded()) {
                    // If the pool has ended, receiving reports it.
                    let _ = self.feed(pull);
                }
                return Turn::Item(item);
            }
            let Some(event) = self.stream.next_received() else { break };
            self.order.put(event);
        }
        if let Err(failure) = self.feed(pull) {
            return Turn::Broken(failure);
        }
        if self.stream.is_closed() && self.stream.pushed() == self.order.yielded() {
            return Turn::Over(self.pacer.take_panic());
        }
        Turn::Wait
    }

    fn feed(&mut self, pull: &mut impl FnMut() -> Next<I>) -> Result<(), Failure> {
        let handed_on =
            HandedOn { jobs: self.order.yielded(), kept_bytes: self.order.bytes(), is_ready: self.order.is_ready() };
        self.pacer.feed(&mut self.stream, handed_on, || pull().map(|input| (input, None)))
    }

    /// Waits for the next event until `deadline`.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Waited {
        match self.stream.next(deadline, NO_WAKE) {
            Ok(Event::Idle) => Waited::Late,
            Ok(event) => {
                self.order.put(event);
                Waited::Done
            }
            Err(failure) => Waited::Broken(JobError::of(self.order.yielded(), failure)),
        }
    }

    /// The number of jobs handed on.
    pub(crate) fn yielded(&self) -> u64 {
        self.order.yielded()
    }
}
