//! A worker process that stays: one compute thread of a rank gives it records, one after the other, and takes its answers.
//!
//! It decides how many records are in record, whose fault the end of a process is, and when a process is replaced. How a process
//! is started is left to [`program`](super::program), and what becomes of answers to [`WorkerFeed`].
//!
//! ```text
//! WorkerFeed ──next──▶ in_flight ──request──▶ Connection ═stdin═▶ worker
//! WorkerFeed ◀──done── (in order) ◀─understand─ Connection ◀stdout═ worker
//! ```
//!
//! A worker answers in order, and each answer is in the pipe before the next record is looked at. So when a process ends, the
//! first record that is not answered is the one that ended it; those behind it are given to the next process. In a batch there is
//! no telling: its records are sent again, each alone.

mod connection;
mod contract;
mod doubt;
mod ends;
mod pace;
pub(crate) mod prestarted;
mod process;
mod protocol;
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
use pace::RequestPace;
pub(crate) use process::WorkerEnd;
pub(crate) use protocol::Protocol;
use protocol::{Outgoing, Reply};

use super::program::Program;
use super::room::StartTurn;
use crate::console::reason;

/// An answer that is longer is no answer.
const MOST_ANSWER: usize = 64 << 20;
/// More is not sent ahead.
const MOST_AHEAD: usize = 64 << 10;
/// So many processes in a row that end before they are of any use are enough.
const MOST_USELESS: u32 = 3;

/// A record that is not answered.
struct InFlight {
    head: JobHead,
    json: Vec<u8>,
    /// It was in a batch that ended a process.
    alone: bool,
}

/// What the process was asked and has not answered.
struct Request {
    records: usize,
    bytes: usize,
    alone: bool,
}

/// When answers that were read together were begun: one after the other.
struct Clock {
    next: SystemTime,
    now: SystemTime,
}

impl Clock {
    /// The first of them could begin so long ago.
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
    /// Readable or hung up when the run ends.
    cancelled: Option<Arc<OwnedFd>>,
    connection: Option<Connection>,
    in_flight: VecDeque<InFlight>,
    requests: VecDeque<Request>,
    /// So many of the in_flight are in `requests`.
    sent: usize,
    pace: RequestPace,
    /// Since when the first request is the first one.
    since: Instant,
    useless: u32,
    was_useful: bool,
    has_warned: bool,
    /// Answers that wait for the proof that they are what they seem, and since when.
    held: Vec<Held>,
    held_since: Instant,
    /// The first of the in_flight, in groups of these sizes, each with a process of its own: one of the last one's answers was too
    /// much.
    retry_groups: VecDeque<usize>,
    /// A process wrote too much: from now on the end of each is waited for before its answers are handed over.
    strict: bool,
    /// Records that made too much, and whether any was ever answered as it should.
    surplus_records: u32,
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

    /// Has all records answered that there are.
    ///
    /// # Errors
    /// There is no worker. What it had taken is not answered.
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

    /// Ends the process: end of input, some patience, TERM, some patience, KILL. It has answered everything.
    pub(crate) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nothing is held back by now, so there is nobody to tell but by the verdict.
            let _ = self.close_connection(connection, &mut NoRecords);
        }
    }

    /// Takes one more record, if there is one.
    fn take(&mut self, feed: &mut dyn WorkerFeed) -> bool {
        let mut json = Vec::new();
        let Some(head) = feed.next(&mut json) else { return false };
        self.in_flight.push_back(InFlight { head, json, alone: false });
        true
    }

    /// The process, if it can go on, or else a new one; none, if the run ends.
    fn connect(&mut self, feed: &mut dyn WorkerFeed) -> Result<Option<Connection>, StartFailure> {
        if let Some(mut connection) = self.connection.take() {
            let is_used_up = self.options.max_jobs.is_some_and(|most| connection.given >= most.get());
            let is_idle = self.requests.is_empty();
            if is_idle && is_used_up {
                self.close_connection(connection, feed)?;
            } else if is_idle && connection.ready && !connection.is_quiet() {
                // It has ended meanwhile, or speaks without being asked: the next record is not to blame.
                self.surplus(connection, feed)?;
            } else {
                return Ok(Some(connection));
            }
        }
        if fd(self.cancelled.as_ref()).is_some_and(connection::has_something) {
            return Ok(None);
        }
        self.pace.forget();
        self.since = Instant::now();
        self.open()
    }

    /// Sends as many requests as may be in record.
    fn fill(&mut self, connection: &mut Connection, feed: &mut dyn WorkerFeed) {
        let window = self.pace.window();
        // Many at once cost less than one at a time.
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

    /// How many of the records that are not sent, old ones or new ones, make the next request; at most so many.
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

    /// When to stop listening.
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

    /// Takes in the lines that came, for which somebody waited or `napped`.
    fn read(
        &mut self,
        mut connection: Connection,
        feed: &mut dyn WorkerFeed,
        napped: bool,
    ) -> Result<(), StartFailure> {
        let lines = connection.lines();
        let elapsed = self.since.elapsed();
        let mut clock = Clock::new(elapsed);
        let share = elapsed / u32::try_from(lines.max(1)).unwrap_or(u32::MAX);
        let (mut answered, mut bytes) = (0, 0);
        while let Some(line) = connection.line() {
            bytes += line.len();
            let said = self.options.protocol.understand(connection.text(line.clone()));
            let before = (self.in_flight.len(), self.requests.len());
            let ready = connection.ready;
            match said {
                Reply::Runs if !ready => continue,
                Reply::Ready if !ready => {
                    connection.ready = true;
                    self.since = Instant::now();
                    continue;
                }
                Reply::CannotStart(why) if !ready => {
                    connection.reap();
                    return self.count_failed_start(why.message, why.traceback);
                }
                Reply::One(took, result) if ready && before.1 > 0 => {
                    self.settle(feed, &mut clock, took.unwrap_or(share), result);
                }
                Reply::Many(took, results) if ready && self.is_batch_of(results.len()) => {
                    let share = took / u32::try_from(results.len().max(1)).unwrap_or(u32::MAX);
                    for result in results {
                        self.settle(feed, &mut clock, share, Ok(result.get()));
                    }
                }
                Reply::Numbered(id, result) if ready && self.expects() == Some(id) => {
                    self.settle(feed, &mut clock, share, result);
                    connection.last = Some(id);
                }
                Reply::Numbered(id, _) if ready && before.1 > 0 => {
                    return self.wrong_number(connection, feed, id);
                }
                _ if before.1 == 0 && self.matches_by_order() => {
                    let line = connection.text(line).to_vec();
                    return self.stray(connection, &line, feed);
                }
                said => {
                    let what = match said {
                        Reply::Garbage(what) => what,
                        _ => format!("an answer without a question: {}", protocol::excerpt(connection.text(line))),
                    };
                    return self.protocol_error(connection, feed, &what);
                }
            }
            answered += before.1 - self.requests.len();
            connection.answered += (before.0 - self.in_flight.len()) as u64;
            (self.useless, self.was_useful) = (0, true);
        }
        if connection.unfinished() > MOST_ANSWER {
            return self.protocol_error(connection, feed, &format!("a line of more than {} MiB", MOST_ANSWER >> 20));
        }
        if answered > 0 {
            self.pace.took(answered, elapsed, bytes, napped && self.requests.is_empty());
        }
        if lines > 0 {
            self.turn.succeeded();
            self.since = Instant::now();
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether the first request is a batch of that size, of which nothing is answered yet.
    fn is_batch_of(&self, records: usize) -> bool {
        self.requests.front().is_some_and(|request| request.records == records)
    }

    /// Gives one answer to the first record.
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
            // Its function is called with one record at a time by now.
            request.alone = true;
        }
        let start = clock.start_of(duration);
        if self.matches_by_order() {
            self.hold(record, start, duration, result);
        } else {
            feed.done(Answer { start, duration, result });
        }
    }

    /// The number of the record that is to be answered next.
    fn expects(&self) -> Option<u64> {
        self.requests.front().and(self.in_flight.front()).map(|record| record.head.number)
    }
}

/// Has no jobs.
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
