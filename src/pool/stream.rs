//! An open map: jobs are pushed one by one, and their results come out as events.
//!
//! Nothing here waits for inputs, keeps results in order or decides how many jobs should be pushed: the users of a
//! [`JobStream`] do that, each in its own way.

mod results;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::vec;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, bounded};

use super::{Input, closed, encode_input};
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{BlockBuilder, Command, Delivery, OutputPart};
use crate::engine::schedule::{MapId, RankId};
use crate::engine::transport::Doorbell;
use crate::engine::wire::Lists;

pub(super) use results::Encoded;
pub(crate) use results::{Results, Unrun};

/// A block of inputs is full when it has this many bytes.
const BLOCK_BYTES: usize = 1 << 18;
/// A block of inputs is full when it has this many jobs.
pub(super) const BLOCK_JOBS: usize = 4096;

/// The argument `wake` of [`JobStream::next`] if only events are waited for.
pub(crate) const NO_WAKE: Option<&Receiver<()>> = None;

/// The connection to the master.
#[derive(Clone)]
pub(super) struct Link {
    pub commands: Sender<Command>,
    pub master: Doorbell,
}

impl Link {
    /// Sends the master a command; an error if the pool has ended.
    pub fn send(&self, command: Command) -> Result<(), Failure> {
        self.commands.send(command).map_err(|_| closed())?;
        self.master.ring();
        Ok(())
    }

    /// Cancels a job that no rank has yet; returns whether it was cancelled.
    pub fn cancel(&self, map: MapId, job: u64) -> bool {
        let (reply, answer) = bounded(1);
        self.send(Command::Cancel { map, job, reply }).is_ok() && answer.recv().unwrap_or(false)
    }
}

/// The sending half of an open map: takes inputs and sends them to the master in blocks.
pub(super) struct JobSender {
    link: Link,
    map: MapId,
    block: BlockBuilder,
    pushed: u64,
    closed: bool,
}

impl JobSender {
    pub fn new(link: Link, map: MapId) -> JobSender {
        JobSender { link, map, block: BlockBuilder::default(), pushed: 0, closed: false }
    }

    pub fn map(&self) -> MapId {
        self.map
    }

    /// Returns the number of jobs pushed so far, which is the index of the next one.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Adds a job to the block; `write` appends its encoded input. If there is another rank than `avoid`, the job goes there.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>, avoid: Option<RankId>) {
        self.block.push(write);
        if let Some(rank) = avoid {
            self.block.avoid(rank);
        }
        self.pushed += 1;
    }

    /// Returns whether the block has to be sent before the next job is pushed.
    pub fn is_full(&self) -> bool {
        self.block.count() >= BLOCK_JOBS || self.block.bytes() >= BLOCK_BYTES
    }

    /// Sends the block and returns the size of its inputs; an error if the pool has ended.
    pub fn flush(&mut self) -> Result<usize, Failure> {
        let bytes = self.block.bytes();
        if self.block.count() > 0 {
            self.link.send(Command::Submit { map: self.map, block: self.block.take() })?;
        }
        Ok(bytes)
    }

    /// Closes the map: no more jobs will be pushed.
    pub fn close(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.closed, true) {
            Ok(())
        } else {
            self.link.send(Command::Close { map: self.map })
        }
    }
}

/// An open map with inputs of type `I` and results of type `O`. Dropping it abandons its jobs, also those that run.
pub(crate) struct JobStream<I, O> {
    sender: JobSender,
    deliveries: Receiver<(MapId, Vec<Delivery>)>,
    /// Deliveries that were received and not yet returned as events.
    received: vec::IntoIter<Delivery>,
    /// The last piece of output that was returned: the rank sends the next one when this one is acknowledged.
    part: Option<(RankId, u64)>,
    /// The number of queued jobs that keeps the ranks busy; the master updates it.
    queue_target: Arc<AtomicU64>,
    /// The number of jobs whose end was returned in an event.
    settled: u64,
    /// Blocks with jobs that are not settled: the number of jobs up to the block's end, and its bytes.
    sent: VecDeque<(u64, usize)>,
    sent_bytes: usize,
    given_up: bool,
    types: PhantomData<fn(I) -> O>,
}

/// An event of a [`JobStream`].
pub(crate) enum Event<O> {
    /// Jobs ran and have results.
    Done(Results<O>),
    /// Results of jobs that are not settled yet: they come again in [`Done`](Self::Done).
    Early(Results<O>),
    /// A job failed, and is not run again by the pool.
    Failed(Box<JobError>),
    /// Jobs did not run to their end.
    Unrun(Unrun),
    /// Jobs were sent to a rank, if that is reported for this stream.
    Started { first: u64, count: u64 },
    /// A piece of output that a running job sent before its result. The next call for an event lets the rank send the next
    /// piece.
    Part(OutputPart),
    /// The deadline has passed.
    Idle,
    /// The channel `wake` has a message, or is disconnected.
    Wake,
    /// The stream is closed and all its jobs are settled.
    Ended,
}

impl<I, O> JobStream<I, O> {
    pub(super) fn new(
        link: Link,
        map: MapId,
        deliveries: Receiver<(MapId, Vec<Delivery>)>,
        queue_target: Arc<AtomicU64>,
    ) -> JobStream<I, O> {
        JobStream {
            sender: JobSender::new(link, map),
            deliveries,
            received: Vec::new().into_iter(),
            part: None,
            queue_target,
            settled: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            given_up: false,
            types: PhantomData,
        }
    }

    /// Returns the number of jobs pushed so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.sender.pushed()
    }

    /// Returns the number of jobs whose end no event has reported yet.
    pub(crate) fn unsettled(&self) -> u64 {
        self.sender.pushed() - self.settled
    }

    /// Returns the encoded size of the inputs of jobs that are not settled, counted in whole blocks.
    pub(crate) fn input_bytes(&self) -> usize {
        self.sent_bytes
    }

    /// Returns the number of queued jobs that keeps the ranks busy.
    pub(crate) fn target(&self) -> u64 {
        self.queue_target.load(Ordering::Relaxed)
    }

    /// Returns whether no more jobs can be pushed.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.closed
    }

    /// Returns whether an event can be returned without waiting.
    pub(crate) fn is_ready(&self) -> bool {
        !self.received.as_slice().is_empty() || !self.deliveries.is_empty()
    }

    /// Returns whether the block of inputs is full: the next [`push`](Self::push) sends it first.
    pub(crate) fn is_full(&self) -> bool {
        self.sender.is_full()
    }

    /// Adds a job and returns its index. It is sent when a block is full, by [`flush`](Self::flush), or by a call that waits for an
    /// event. If there is another rank than `avoid`, the job goes there. A job whose input cannot be encoded fails.
    ///
    /// # Errors
    /// The stream is closed, or the pool has ended.
    pub(crate) fn push(&mut self, input: &I, avoid: Option<RankId>) -> Result<u64, Failure>
    where
        I: Input,
    {
        if self.sender.closed {
            return Err(Failure::new(JobErrorKind::Closed, "the stream of jobs is closed"));
        }
        if self.sender.is_full() {
            self.flush()?;
        }
        let job = self.sender.pushed();
        self.sender.push(|out| encode_input(input, out), avoid);
        Ok(job)
    }

    /// Sends the jobs that were pushed; an error if the pool has ended.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let bytes = self.sender.flush()?;
        if bytes > 0 {
            self.sent.push_back((self.sender.pushed(), bytes));
            self.sent_bytes += bytes;
        }
        Ok(())
    }

    /// Sends the jobs that were pushed and closes the stream.
    ///
    /// # Errors
    /// The pool has ended.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        self.flush()?;
        self.sender.close()
    }

    /// Cancels the jobs that have not begun and closes the stream; jobs that run may end. The end of each job is still reported.
    ///
    /// # Errors
    /// The pool has ended.
    pub(crate) fn give_up(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.given_up, true) {
            return Ok(());
        }
        self.flush()?;
        self.sender.closed = true;
        self.sender.link.send(Command::GiveUp { map: self.sender.map })
    }

    /// Cancels a job that no rank has yet; returns whether it was cancelled. Its end is reported by an event, too.
    #[cfg_attr(not(test), expect(dead_code, reason = "the driver of a batch will cancel single jobs for clients"))]
    pub(crate) fn cancel(&mut self, job: u64) -> bool {
        self.flush().is_ok() && self.sender.link.cancel(self.sender.map, job)
    }

    /// Waits for the next event. Returns [`Event::Wake`] if there is none and `wake` has a message, which stays there.
    ///
    /// # Errors
    /// The pool has ended before all jobs were settled.
    pub(crate) fn next<T>(
        &mut self,
        deadline: Option<Instant>,
        wake: Option<&Receiver<T>>,
    ) -> Result<Event<O>, Failure> {
        loop {
            if let Some(event) = self.next_received() {
                return Ok(event);
            }
            self.flush()?;
            if self.sender.closed && self.unsettled() == 0 {
                return Ok(Event::Ended);
            }
            if let Some(wake) = wake {
                match wait_for_either(&self.deliveries, wake, deadline) {
                    WokenBy::Delivery => {}
                    WokenBy::Wake => return Ok(Event::Wake),
                    WokenBy::Deadline => return Ok(Event::Idle),
                }
            }
            let received = match deadline {
                None => self.deliveries.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.deliveries.recv_deadline(deadline),
            };
            match received {
                Ok((_, received)) => self.received = received.into_iter(),
                Err(RecvTimeoutError::Timeout) => return Ok(Event::Idle),
                Err(RecvTimeoutError::Disconnected) => return Err(closed()),
            }
        }
    }

    /// Returns the next event among those that were received together with the last one.
    pub(crate) fn next_received(&mut self) -> Option<Event<O>> {
        if let Some((rank, part)) = self.part.take() {
            // If the pool has ended, receiving reports it.
            let _ = self.sender.link.send(Command::PartTaken { rank, part });
        }
        let event = Event::from(self.received.next()?);
        let jobs = match &event {
            Event::Done(results) => results.len(),
            Event::Failed(_) => 1,
            Event::Unrun(unrun) => unrun.left,
            Event::Part(part) => {
                self.part = Some((part.rank, part.part));
                0
            }
            Event::Early(_) | Event::Started { .. } | Event::Idle | Event::Wake | Event::Ended => 0,
        };
        self.settled += jobs;
        while let Some(&(_, bytes)) = self.sent.front().filter(|(end, _)| *end <= self.settled) {
            self.sent_bytes -= bytes;
            self.sent.pop_front();
        }
        Some(event)
    }
}

impl<I, O> Drop for JobStream<I, O> {
    fn drop(&mut self) {
        if !self.sender.closed || self.unsettled() > 0 {
            let _ = self.sender.link.send(Command::Abandon { map: self.sender.map });
        }
    }
}

/// The reason why a wait ended.
enum WokenBy {
    Delivery,
    Wake,
    Deadline,
}

fn wait_for_either<D, T>(deliveries: &Receiver<D>, wake: &Receiver<T>, deadline: Option<Instant>) -> WokenBy {
    let mut select = Select::new();
    let delivery = select.recv(deliveries);
    select.recv(wake);
    let ready = match deadline {
        None => Ok(select.ready()),
        Some(deadline) => select.ready_deadline(deadline),
    };
    match ready {
        Ok(ready) if ready == delivery => WokenBy::Delivery,
        Ok(_) => WokenBy::Wake,
        Err(_) => WokenBy::Deadline,
    }
}

impl<O> From<Delivery> for Event<O> {
    fn from(delivery: Delivery) -> Event<O> {
        match delivery {
            Delivery::Done { first, count, frames, lists, packet_bytes } => {
                Event::Done(Results::new(first, count, frames, lists, packet_bytes))
            }
            Delivery::Early { first, count, frames, packet_bytes } => {
                Event::Early(Results::new(first, count, frames, Lists::default(), packet_bytes))
            }
            Delivery::Failed(error) => Event::Failed(error),
            Delivery::Unrun { first, count, attempt, failure } => {
                Event::Unrun(Unrun { job: first, left: count, attempt, failure })
            }
            Delivery::Started { first, count } => Event::Started { first, count: count.into() },
            Delivery::Part(part) => Event::Part(part),
        }
    }
}

#[cfg(test)]
mod tests;
