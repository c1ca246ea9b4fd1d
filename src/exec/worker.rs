//! A worker process that stays: one compute thread of a rank gives it records, one after the other, and takes its answers.
//!
//! It decides how many records are in flight, whose fault the end of a process is, and when a process is replaced. How a process
//! is started is left to [`exec::process`](super::process), and what becomes of answers to [`Jobs`].
//!
//! ```text
//! Jobs ──next──▶ flights ──request──▶ Connection ═stdin═▶ worker
//! Jobs ◀──done── (in order) ◀─understand─ Connection ◀stdout═ worker
//! ```
//!
//! A worker answers in order, and each answer is in the pipe before the next record is looked at. So when a process ends, the
//! first record that is not answered is the one that ended it; those behind it are given to the next process. In a batch there is
//! no telling: its records are sent again, each alone.

mod connection;
mod contract;
mod pace;
mod process;
mod protocol;
pub(crate) mod spares;
mod start;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use connection::{Connection, Heard};
pub(crate) use contract::{Answer, JobHead, Jobs, Options, Outcome, StartFailure, WorkerFailure};
use pace::Pace;
pub(crate) use process::Ended;
pub(crate) use protocol::Protocol;
use protocol::{Outgoing, Said};

use super::process::Launch;
use super::room::Turn;
use crate::input::reason;

/// An answer that is longer is no answer.
const MOST_ANSWER: usize = 64 << 20;
/// More is not sent ahead.
const MOST_AHEAD: usize = 64 << 10;
/// So many processes in a row that end before they are of any use are enough.
const MOST_FUTILE: u32 = 3;

/// A record that is not answered.
struct Flight {
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
    launch: Launch,
    options: Options,
    /// Readable or hung up when the run ends.
    cancelled: Option<Arc<OwnedFd>>,
    connection: Option<Connection>,
    flights: VecDeque<Flight>,
    requests: VecDeque<Request>,
    /// So many of the flights are in `requests`.
    sent: usize,
    pace: Pace,
    /// Since when the first request is the first one.
    since: Instant,
    futile: u32,
    was_useful: bool,
    has_warned: bool,
    turn: Turn,
}

impl Worker {
    pub(crate) fn new(launch: Launch, options: Options, cancelled: Option<Arc<OwnedFd>>) -> Self {
        Worker {
            launch,
            options,
            cancelled,
            connection: None,
            flights: VecDeque::new(),
            requests: VecDeque::new(),
            sent: 0,
            pace: Pace::new(),
            since: Instant::now(),
            futile: 0,
            was_useful: false,
            has_warned: false,
            turn: Turn::new(),
        }
    }

    /// Has all records answered that there are.
    ///
    /// # Errors
    /// There is no worker. What it had taken is not answered.
    pub(crate) fn answer(&mut self, jobs: &mut dyn Jobs) -> Result<Outcome, StartFailure> {
        if self.connection.is_some() {
            self.turn.asked();
        }
        let outcome = self.answer_all(jobs);
        self.turn.rest();
        outcome
    }

    fn answer_all(&mut self, jobs: &mut dyn Jobs) -> Result<Outcome, StartFailure> {
        while !self.flights.is_empty() || self.take(jobs) {
            let Some(mut connection) = self.connect()? else {
                self.cancel(jobs);
                return Ok(Outcome::Cancelled);
            };
            self.fill(&mut connection, jobs);
            let deadline = self.deadline(&connection);
            let nap = self.pace.nap(self.requests.len()).map(|nap| self.since + nap);
            match connection.listen(nap, deadline, fd(self.cancelled.as_ref())) {
                Ok(Heard::Bytes) => self.read(connection, jobs, nap.is_some())?,
                Ok(Heard::Closed) => self.bury(connection, jobs)?,
                Ok(Heard::Deadline) => self.overdue(connection, jobs),
                Ok(Heard::Cancelled) => {
                    connection.stop(self.options.kill_after, None);
                    self.cancel(jobs);
                    return Ok(Outcome::Cancelled);
                }
                Err(error) => {
                    connection.kill();
                    self.charge(
                        jobs,
                        WorkerFailure::new("crash", format!("the pipe to the worker: {}", reason(&error))),
                    );
                }
            }
        }
        Ok(Outcome::Answered)
    }

    /// Ends the process: end of input, some patience, TERM, some patience, KILL.
    pub(crate) fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.dismiss(self.options.kill_after, fd(self.cancelled.as_ref()));
        }
    }

    /// Takes one more record, if there is one.
    fn take(&mut self, jobs: &mut dyn Jobs) -> bool {
        let mut json = Vec::new();
        let Some(head) = jobs.next(&mut json) else { return false };
        self.flights.push_back(Flight { head, json, alone: false });
        true
    }

    /// The process, if it can go on, or else a new one; none, if the run ends.
    fn connect(&mut self) -> Result<Option<Connection>, StartFailure> {
        if let Some(mut connection) = self.connection.take() {
            let is_used_up = self.options.max_jobs.is_some_and(|most| connection.given >= most.get());
            let is_idle = self.requests.is_empty();
            if is_idle && is_used_up {
                connection.dismiss(self.options.kill_after, fd(self.cancelled.as_ref()));
            } else if is_idle && connection.ready && !connection.is_quiet() {
                // It has ended meanwhile, or speaks without being asked: nobody's record is to blame.
                connection.stop(self.options.kill_after, fd(self.cancelled.as_ref()));
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

    /// Sends as many requests as may be in flight.
    fn fill(&mut self, connection: &mut Connection, jobs: &mut dyn Jobs) {
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
            let records = self.gather(left, jobs);
            if records == 0 {
                return;
            }
            let flights = self.flights.range(self.sent..self.sent + records);
            let alone = flights.clone().any(|flight| flight.alone);
            let outgoing = flights.map(|flight| Outgoing { head: flight.head, json: &flight.json });
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
    fn gather(&mut self, most: u64, jobs: &mut dyn Jobs) -> usize {
        let most = self.options.protocol.batch().min(usize::try_from(most).unwrap_or(usize::MAX));
        let mut records = 0;
        while records < most {
            if self.sent + records == self.flights.len() && !self.take(jobs) {
                break;
            }
            if self.flights[self.sent + records].alone {
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
        !self.has_warned && connection.answered == 0 && self.options.protocol == Protocol::Lines
    }

    /// Takes in the lines that came, for which somebody waited or `napped`.
    fn read(&mut self, mut connection: Connection, jobs: &mut dyn Jobs, napped: bool) -> Result<(), StartFailure> {
        let lines = connection.lines();
        let elapsed = self.since.elapsed();
        let mut clock = Clock::new(elapsed);
        let share = elapsed / u32::try_from(lines.max(1)).unwrap_or(u32::MAX);
        let (mut answered, mut bytes) = (0, 0);
        while let Some(line) = connection.line() {
            bytes += line.len();
            let said = self.options.protocol.understand(connection.text(line.clone()));
            let before = (self.flights.len(), self.requests.len());
            let ready = connection.ready;
            match said {
                Said::Runs if !ready => continue,
                Said::Ready if !ready => {
                    connection.ready = true;
                    self.since = Instant::now();
                    continue;
                }
                Said::CannotStart(why) if !ready => {
                    connection.bury();
                    return self.is_futile(why.message, why.traceback);
                }
                Said::One(took, result) if ready && before.1 > 0 => {
                    self.settle(jobs, &mut clock, took.unwrap_or(share), result);
                }
                Said::Many(took, results) if ready && self.is_batch_of(results.len()) => {
                    let share = took / u32::try_from(results.len().max(1)).unwrap_or(u32::MAX);
                    for result in results {
                        self.settle(jobs, &mut clock, share, Ok(result.get()));
                    }
                }
                said => {
                    let what = match said {
                        Said::Garbage(what) => what,
                        _ => format!("an answer without a question: {}", protocol::excerpt(connection.text(line))),
                    };
                    return self.strange(connection, jobs, &what);
                }
            }
            answered += before.1 - self.requests.len();
            connection.answered += (before.0 - self.flights.len()) as u64;
            (self.futile, self.was_useful) = (0, true);
        }
        if connection.unfinished() > MOST_ANSWER {
            return self.strange(connection, jobs, &format!("a line of more than {} MiB", MOST_ANSWER >> 20));
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
        jobs: &mut dyn Jobs,
        clock: &mut Clock,
        duration: Duration,
        result: Result<&str, WorkerFailure>,
    ) {
        let (Some(_), Some(request)) = (self.flights.pop_front(), self.requests.front_mut()) else { return };
        self.sent -= 1;
        request.records -= 1;
        if request.records == 0 {
            self.requests.pop_front();
        } else {
            // Its function is called with one record at a time by now.
            request.alone = true;
        }
        jobs.done(Answer { start: clock.start_of(duration), duration, result });
    }

    /// The process said what it must not say.
    fn strange(&mut self, connection: Connection, jobs: &mut dyn Jobs, what: &str) -> Result<(), StartFailure> {
        let (ready, answered) = (connection.ready, connection.answered);
        connection.stop(self.options.kill_after, fd(self.cancelled.as_ref()));
        if !ready {
            return self.is_futile(format!("{} wrote {what} before it was ready", self.options.name), None);
        }
        if self.requests.is_empty() {
            (self.options.warn)(&format!("{} is started anew; it wrote {what}", self.options.name));
            self.charge_nobody();
        } else {
            self.is_no_worker(answered, &format!("wrote {what}"))?;
            self.blame(jobs, WorkerFailure::new("garbage", format!("the worker wrote {what}")));
        }
        Ok(())
    }

    /// The process is gone, or will be.
    fn bury(&mut self, connection: Connection, jobs: &mut dyn Jobs) -> Result<(), StartFailure> {
        let (ready, answered) = (connection.ready, connection.answered);
        let ended = connection.bury();
        if let Some(outside) = ended.as_ref().filter(|ended| ended.is_from_outside()) {
            return self.ended_from_outside(outside, ready, jobs);
        }
        let how = match ended {
            Some(ref ended) => ended.to_string(),
            None => "closed its standard output".to_string(),
        };
        if !ready {
            let message = format!("{} {how} before it was ready", self.options.name);
            return self.is_futile(message, None);
        }
        self.is_no_worker(answered, &how)?;
        if answered > 0 && ended == Some(Ended::Code(0)) && self.options.protocol == Protocol::Lines {
            // It has had enough, maybe before it looked at the record: the next process tells.
            self.charge_nobody();
            return Ok(());
        }
        let message = format!("the worker {how} before it answered");
        self.blame(jobs, WorkerFailure { ended, ..WorkerFailure::new("crash", message) });
        Ok(())
    }

    /// A process ended before it was ready. The first one says that none will ever be.
    fn is_futile(&mut self, message: String, traceback: Option<String>) -> Result<(), StartFailure> {
        self.charge_nobody();
        self.is_futile_after(if self.was_useful { MOST_FUTILE } else { 1 }, message, traceback)
    }

    /// A program whose processes never answer anything does not know what is asked of it.
    fn is_no_worker(&mut self, answered: u64, how: &str) -> Result<(), StartFailure> {
        if answered > 0 || self.was_useful || self.options.protocol != Protocol::Lines {
            return Ok(());
        }
        let message = format!("{} {how} without any answer, {MOST_FUTILE} times in a row", self.options.name);
        self.is_futile_after(MOST_FUTILE, message, None)
    }

    fn is_futile_after(&mut self, most: u32, message: String, traceback: Option<String>) -> Result<(), StartFailure> {
        self.futile += 1;
        if self.futile < most { Ok(()) } else { Err(StartFailure { message, traceback }) }
    }

    /// The first record takes too long, or is just slow.
    fn overdue(&mut self, connection: Connection, jobs: &mut dyn Jobs) {
        if self.may_warn(&connection) && self.since.elapsed() >= self.options.silence {
            self.has_warned = true;
            let (name, silence) = (&self.options.name, self.options.silence);
            let warning = format!(
                "{name} has not answered its first record for {silence:?}. It may just be slow; \
                 but does it end each answer with a new line, and flush its output after it?"
            );
            (self.options.warn)(&warning);
        }
        let timeout = self.options.timeout.filter(|timeout| self.since.elapsed() >= *timeout);
        let Some(timeout) = timeout else {
            self.connection = Some(connection);
            return;
        };
        let ended = connection.stop(self.options.kill_after, fd(self.cancelled.as_ref()));
        let message = format!("not done after {} s", timeout.as_secs_f64());
        self.blame(jobs, WorkerFailure { ended, ..WorkerFailure::new("timeout", message) });
    }

    /// The process is gone; the first record is to blame. In a batch there is no telling which one: each is tried alone.
    fn blame(&mut self, jobs: &mut dyn Jobs, failure: WorkerFailure) {
        match self.requests.front() {
            Some(request) if request.records > 1 && !request.alone => {
                let records = request.records;
                self.flights.iter_mut().take(records).for_each(|flight| flight.alone = true);
                self.charge_nobody();
            }
            _ => self.charge(jobs, failure),
        }
    }

    fn charge(&mut self, jobs: &mut dyn Jobs, failure: WorkerFailure) {
        let duration = self.since.elapsed();
        self.settle(jobs, &mut Clock::new(duration), duration, Err(failure));
        self.charge_nobody();
    }

    /// What was sent is to be sent again.
    fn charge_nobody(&mut self) {
        self.requests.clear();
        self.sent = 0;
    }

    fn cancel(&mut self, jobs: &mut dyn Jobs) {
        self.charge_nobody();
        let start = SystemTime::now();
        for _ in self.flights.drain(..) {
            let result = Err(WorkerFailure::new("cancelled", "the run was ended before it was answered"));
            jobs.done(Answer { start, duration: Duration::ZERO, result });
        }
    }
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
