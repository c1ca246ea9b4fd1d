//! What a worker's lines mean for the records that it was sent.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::protocol::{self, Reply};
use super::{Clock, MOST_ANSWER, StartFailure, Worker, WorkerFailure, WorkerFeed};

/// A line after which the process cannot go on.
enum Fault {
    /// The process reports that it will never be ready.
    CannotStart(WorkerFailure),
    /// The answer to another record than the first one, by its number.
    WrongNumber(u64),
    /// A line that answers no request, where answers are matched by their order.
    Surplus(Vec<u8>),
    /// A line that the protocol does not allow; the description is for a message.
    Protocol(String),
}

/// What was read at once.
struct Reading {
    clock: Clock,
    /// The time of one answer, if the worker does not report it.
    share: Duration,
    /// Requests that were answered.
    requests: usize,
    bytes: usize,
}

impl Worker {
    /// Handles the lines that were read. `delayed`: the rank looked for them only after a delay.
    pub(super) fn read(
        &mut self,
        mut connection: Connection,
        feed: &mut dyn WorkerFeed,
        delayed: bool,
    ) -> Result<(), StartFailure> {
        let lines = connection.lines();
        let elapsed = self.since.elapsed();
        let share = elapsed / u32::try_from(lines.max(1)).unwrap_or(u32::MAX);
        let mut reading = Reading { clock: Clock::new(elapsed), share, requests: 0, bytes: 0 };
        while let Some(line) = connection.line() {
            reading.bytes += line.len();
            let handled = if connection.ready {
                self.read_answer(&mut connection, line, &mut reading, feed)
            } else {
                self.read_before_ready(&mut connection, line)
            };
            if let Err(fault) = handled {
                return self.end_after(fault, connection, feed);
            }
        }
        if connection.unfinished() > MOST_ANSWER {
            return self.protocol_error(connection, feed, &format!("a line of more than {} MiB", MOST_ANSWER >> 20));
        }
        if reading.requests > 0 {
            self.pace.record(reading.requests, elapsed, reading.bytes, delayed && self.requests.is_empty());
        }
        if lines > 0 {
            self.turn.succeeded();
            self.since = Instant::now();
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Handles a line of a process that is not ready.
    fn read_before_ready(&mut self, connection: &mut Connection, line: Range<usize>) -> Result<(), Fault> {
        match self.options.protocol.understand(connection.text(line.clone())) {
            Reply::Runs => Ok(()),
            Reply::Ready => {
                connection.ready = true;
                self.since = Instant::now();
                Ok(())
            }
            Reply::CannotStart(why) => Err(Fault::CannotStart(why)),
            Reply::Garbage(what) => Err(Fault::Protocol(what)),
            Reply::One(..) | Reply::Numbered(..) | Reply::Many(..) => Err(unasked(connection, line)),
        }
    }

    /// Handles a line of a process that is ready.
    fn read_answer(
        &mut self,
        connection: &mut Connection,
        line: Range<usize>,
        reading: &mut Reading,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), Fault> {
        let (records, requests) = (self.in_flight.len(), self.requests.len());
        match self.options.protocol.understand(connection.text(line.clone())) {
            Reply::One(took, result) if requests > 0 => {
                self.settle(feed, &mut reading.clock, took.unwrap_or(reading.share), result);
            }
            Reply::Many(took, results) if self.expects_batch_of(results.len()) => {
                let share = took / u32::try_from(results.len().max(1)).unwrap_or(u32::MAX);
                for result in results {
                    self.settle(feed, &mut reading.clock, share, Ok(result.get()));
                }
            }
            Reply::Numbered(number, result) if self.expects() == Some(number) => {
                self.settle(feed, &mut reading.clock, reading.share, result);
                connection.last = Some(number);
            }
            Reply::Numbered(number, _) if requests > 0 => return Err(Fault::WrongNumber(number)),
            _ if requests == 0 && self.matches_by_order() => {
                return Err(Fault::Surplus(connection.text(line).to_vec()));
            }
            Reply::Garbage(what) => return Err(Fault::Protocol(what)),
            _ => return Err(unasked(connection, line)),
        }
        reading.requests += requests - self.requests.len();
        connection.answered += (records - self.in_flight.len()) as u64;
        (self.useless, self.was_useful) = (0, true);
        Ok(())
    }

    /// Ends the process because of a line.
    fn end_after(
        &mut self,
        fault: Fault,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        match fault {
            Fault::CannotStart(why) => {
                connection.reap();
                self.count_failed_start(why.message, why.traceback)
            }
            Fault::WrongNumber(number) => self.wrong_number(connection, feed, number),
            Fault::Surplus(line) => self.surplus_line(connection, &line, feed),
            Fault::Protocol(what) => self.protocol_error(connection, feed, &what),
        }
    }

    /// Whether the first request is a batch of `records` records, none of them answered.
    fn expects_batch_of(&self, records: usize) -> bool {
        self.requests.front().is_some_and(|request| request.records == records)
    }

    /// Returns the number of the record whose answer is next.
    pub(super) fn expects(&self) -> Option<u64> {
        self.requests.front().and(self.in_flight.front()).map(|record| record.head.number)
    }
}

fn unasked(connection: &Connection, line: Range<usize>) -> Fault {
    Fault::Protocol(format!("an answer without a question: {}", protocol::excerpt(connection.text(line))))
}
