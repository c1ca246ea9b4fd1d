//! A worker: a process that stays. One compute thread of a rank sends it records, one after the other, and reads its answers.
//!
//! This module decides how many records are in flight, which record is blamed for the end of a process, and when a process is
//! replaced. Starting a process is left to [`program`](super::program), and what happens with answers to the [`WorkerFeed`].
//!
//! ```text
//! WorkerFeed ──next──▶ in_flight ──request──▶ Connection ═stdin═▶ worker
//! WorkerFeed ◀──done── (in order) ◀─understand─ Connection ◀stdout═ worker
//! ```
//!
//! A worker answers in order, and writes each answer before it reads the next record. So when a process ends, the first record
//! without an answer is the one that ended it; the records behind it are sent to the next process. Within a batch the guilty
//! record is unknown: the records of the batch are sent again one by one.

mod connection;
mod contract;
mod doubt;
mod ends;
mod pace;
pub(crate) mod prestarted;
mod process;
mod protocol;
mod read;
mod start;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use connection::{Connection, Wake};
pub(crate) use contract::{Answer, AnswerCheck, AnswerEnd, JobHead, Options, StartFailure, WorkerFailure, WorkerFeed};
use doubt::Held;
pub(super) use pace::RequestPace;
pub(super) use process::Running;
pub(crate) use process::WorkerEnd;
use protocol::Outgoing;
pub(crate) use protocol::Protocol;

use super::pipes::is_readable;
use super::program::Program;
use super::room::StartTurn;
use crate::console::reason;

/// The longest answer; a longer line is a protocol error.
const MOST_ANSWER: usize = 64 << 20;
/// Bytes of unanswered requests beyond which no more are sent.
const MOST_AHEAD: usize = 64 << 10;
/// The run ends after this many processes in a row that ended without any answer.
const MOST_USELESS: u32 = 3;

/// A record that was taken from the feed and is not answered.
struct InFlight {
    head: JobHead,
    json: Vec<u8>,
    /// It is sent in a request of its own, because a batch with it ended a process.
    alone: bool,
}

/// A request that was sent and is not answered.
struct Request {
    /// Records without an answer.
    records: usize,
    bytes: usize,
    alone: bool,
}

/// Estimates when the records were begun whose answers were read together: one after the other.
struct Clock {
    next: SystemTime,
    now: SystemTime,
}

impl Clock {
    /// A clock whose first record was begun at most `since` ago.
    fn new(since: Duration) -> Self {
        let now = SystemTime::now();
        Clock { next: now.checked_sub(since).unwrap_or(now), now }
    }

    fn start_of(&mut self, duration: Duration) -> SystemTime {
        let start = self.next.min(self.now.checked_sub(duration).unwrap_or(self.now));
        self.next = start + duration;
        start
    }
}

/// The worker of one compute thread.
pub(crate) struct Worker {
    program: Program,
    options: Options,
    /// Becomes readable or is hung up when the run ends.
    cancelled: Option<Arc<OwnedFd>>,
    connection: Option<Connection>,
    /// The first `sent` of these were sent, in `requests`.
    in_flight: VecDeque<InFlight>,
    requests: VecDeque<Request>,
    sent: usize,
    pace: RequestPace,
    /// When the worker could begin with the first of the requests.
    since: Instant,
    /// Processes in a row that ended without any answer.
    useless: u32,
    /// Some process has answered a record.
    was_useful: bool,
    has_warned: bool,
    /// Answers that are held back until it is certain that the process wrote one line for each record.
    held: Vec<Held>,
    held_since: Instant,
    /// Sizes of groups of records that are sent again, each group to a process of its own, because a process wrote a surplus
    /// line. They are the first of `in_flight`.
    retry_groups: VecDeque<usize>,
    /// A process has written a surplus line: from now on answers are handed over only after their process has ended.
    strict: bool,
    /// Records for which the worker wrote more than one line.
    surplus_records: u32,
    /// Some record was answered with a result.
    was_right: bool,
    turn: StartTurn,
}

impl Worker {
    pub(crate) fn new(program: Program, options: Options, cancelled: Option<Arc<OwnedFd>>) -> Self {
        Worker {
            program,
            options,
            cancelled,
            connection: None,
            in_flight: VecDeque::new(),
            requests: VecDeque::new(),
            sent: 0,
            pace: RequestPace::new(),
            since: Instant::now(),
            useless: 0,
            was_useful: false,
            has_warned: false,
            held: Vec::new(),
            held_since: Instant::now(),
            retry_groups: VecDeque::new(),
            strict: false,
            surplus_records: 0,
            was_right: false,
            turn: StartTurn::new(),
        }
    }

    /// Sends the worker all records of the feed and passes on its answers.
    ///
    /// # Errors
    /// There is no worker. Some of the records that were taken have no answer.
    pub(crate) fn answer(&mut self, feed: &mut dyn WorkerFeed) -> Result<AnswerEnd, StartFailure> {
        if self.connection.is_some() {
            self.turn.started();
        }
        let outcome = self.answer_all(feed);
        if outcome.is_err() && self.retry_groups.is_empty() {
            self.hand_over(feed);
        }
        self.turn.release();
        outcome
    }

    fn answer_all(&mut self, feed: &mut dyn WorkerFeed) -> Result<AnswerEnd, StartFailure> {
        loop {
            if self.is_group_answered() || (self.in_flight.is_empty() && !self.take(feed)) {
                if self.held.is_empty() {
                    return Ok(AnswerEnd::AllAnswered);
                }
                self.check_answers(feed)?;
                continue;
            }
            let Some(mut connection) = self.connect(feed)? else {
                self.cancel(feed);
                return Ok(AnswerEnd::Cancelled);
            };
            self.fill(&mut connection, feed);
            let deadline = self.deadline(&connection);
            let poll_delay = self.pace.poll_delay(self.requests.len()).map(|delay| self.since + delay);
            match connection.listen(poll_delay, deadline, fd(self.cancelled.as_ref())) {
                Ok(Wake::Bytes) => self.read(connection, feed, poll_delay.is_some())?,
                Ok(Wake::Closed) => self.reap(connection, feed)?,
                Ok(Wake::Deadline) => self.on_deadline(connection, feed)?,
                Ok(Wake::Cancelled) => {
                    let shutdown = connection.terminate(self.options.kill_after, None);
                    if self.retry_groups.is_empty() {
                        self.check_shutdown(&shutdown, self.requests.len(), feed)?;
                    }
                    self.cancel(feed);
                    return Ok(AnswerEnd::Cancelled);
                }
                Err(error) => {
                    connection.kill();
                    let message = format!("the pipe to the worker: {}", reason(&error));
                    self.fail_first(feed, WorkerFailure::new("crash", message));
                    self.pass_check(feed);
                }
            }
        }
    }

    /// Ends the process, which has answered everything: closes its standard input, then TERM, then KILL, each after `kill_after`.
    pub(crate) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // No answer is held back here, so only `on_check` has something to report.
            let _ = self.close_connection(connection, &mut NoRecords);
        }
    }

    /// Takes one more record from the feed; returns whether there was one.
    fn take(&mut self, feed: &mut dyn WorkerFeed) -> bool {
        let mut json = Vec::new();
        let Some(head) = feed.next(&mut json) else { return false };
        self.in_flight.push_back(InFlight { head, json, alone: false });
        true
    }

    /// Returns the process if it can go on, or else a new one; `None` if the run ends.
    fn connect(&mut self, feed: &mut dyn WorkerFeed) -> Result<Option<Connection>, StartFailure> {
        if let Some(connection) = self.connection.take() {
            let is_used_up = self.options.max_jobs.is_some_and(|most| connection.given >= most.get());
            let is_idle = self.requests.is_empty();
            if is_idle && is_used_up {
                self.close_connection(connection, feed)?;
            } else if is_idle && connection.ready && !connection.is_quiet() {
                // It has ended, or has written an unasked line, before it got the next record, which is not to blame.
                self.surplus(connection, feed)?;
            } else {
                return Ok(Some(connection));
            }
        }
        if fd(self.cancelled.as_ref()).is_some_and(is_readable) {
            return Ok(None);
        }
        self.pace.reset();
        self.since = Instant::now();
        self.open()
    }

    /// Sends requests until the window is full.
    fn fill(&mut self, connection: &mut Connection, feed: &mut dyn WorkerFeed) {
        let window = self.pace.window();
        // Sending many requests at once costs less than one at a time.
        if self.requests.len() > window / 2 {
            return;
        }
        if self.requests.is_empty() {
            self.since = Instant::now();
        }
        let mut ahead: usize = self.requests.iter().map(|request| request.bytes).sum();
        while self.requests.len() < window && (self.requests.is_empty() || ahead < MOST_AHEAD) {
            let left = self.options.max_jobs.map_or(u64::MAX, |most| most.get().saturating_sub(connection.given));
            let records = self.gather(left, feed);
            if records == 0 {
                return;
            }
            let in_flight = self.in_flight.range(self.sent..self.sent + records);
            let alone = in_flight.clone().any(|record| record.alone);
            let outgoing = in_flight.map(|record| Outgoing { head: record.head, json: &record.json });
            let before = connection.pending();
            let protocol = self.options.protocol;
            protocol.request(outgoing, protocol.batch() > 1, connection.outgoing());
            let bytes = connection.pending() - before;
            self.requests.push_back(Request { records, bytes, alone });
            self.sent += records;
            connection.given += records as u64;
            ahead += bytes;
        }
    }

    /// Returns how many of the records that are not sent make the next request, at most `most`. Takes records from the feed as
    /// needed.
    fn gather(&mut self, most: u64, feed: &mut dyn WorkerFeed) -> usize {
        let most =
            self.options.protocol.batch().min(usize::try_from(most).unwrap_or(usize::MAX)).min(self.room_in_group());
        let mut records = 0;
        while records < most {
            if self.sent + records == self.in_flight.len() && !self.take(feed) {
                break;
            }
            if self.in_flight[self.sent + records].alone {
                return records.max(1);
            }
            records += 1;
        }
        records
    }

    /// Returns when listening ends: at the time limit of the first record, or when the warning about a silent worker is due.
    fn deadline(&self, connection: &Connection) -> Option<Instant> {
        if !connection.ready {
            return None;
        }
        let timeout = self.options.timeout.and_then(|timeout| self.since.checked_add(timeout));
        let silence = self.may_warn(connection).then(|| self.since + self.options.silence);
        timeout.into_iter().chain(silence).min()
    }

    fn may_warn(&self, connection: &Connection) -> bool {
        !self.has_warned && connection.answered == 0 && self.options.protocol.is_plain()
    }

    /// Answers the first record in flight.
    fn settle(
        &mut self,
        feed: &mut dyn WorkerFeed,
        clock: &mut Clock,
        duration: Duration,
        result: Result<&str, WorkerFailure>,
    ) {
        let (Some(record), Some(request)) = (self.in_flight.pop_front(), self.requests.front_mut()) else { return };
        self.sent -= 1;
        request.records -= 1;
        if request.records == 0 {
            self.requests.pop_front();
        } else {
            // A batch that is answered record by record is computed record by record.
            request.alone = true;
        }
        let start = clock.start_of(duration);
        if self.matches_by_order() {
            self.hold(record, start, duration, result);
        } else {
            feed.done(Answer { start, duration, result });
        }
    }
}

/// A feed without records.
struct NoRecords;

impl WorkerFeed for NoRecords {
    fn next(&mut self, _: &mut Vec<u8>) -> Option<JobHead> {
        None
    }

    fn done(&mut self, _: Answer<'_>) {}
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.kill();
        }
    }
}

fn fd(cancelled: Option<&Arc<OwnedFd>>) -> Option<BorrowedFd<'_>> {
    cancelled.map(|fd| fd.as_fd())
}
