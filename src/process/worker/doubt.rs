//! Answers that may belong to other records, and how they are found out.
//!
//! In the plain protocol nothing but its place says which record a line answers. A worker that writes one line too much shifts
//! all answers behind it, and only at its end there is a line that nobody has asked for. So answers are held back until the
//! process has answered everything and is quiet. When it is not, they are nobody's: their records are asked again, in groups,
//! each of a new process, whose end of output is the proof that there was a line for each record and no more. A group that fails
//! again is halved, until the record that makes the surplus is alone with its process, and fails.
//!
//! What was handed over before is told of, see [`AnswerCheck`]: only the end of a process proves its answers right.

use std::time::{Duration, Instant, SystemTime};

use super::connection::{Connection, Shutdown, has_something};
use super::{
    Answer, AnswerCheck, InFlight, MOST_USELESS, Protocol, StartFailure, Worker, WorkerFailure, WorkerFeed, fd,
    protocol,
};

/// A process that has answered everything is listened to so long, in parts of the time that this took, for what it has no right to
/// say.
const SHARE: u32 = 50;
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(5);

/// An answer that is not handed over yet.
pub(super) struct Held {
    record: InFlight,
    start: SystemTime,
    duration: Duration,
    result: Result<String, WorkerFailure>,
}

impl Held {
    pub(super) fn into_record(self) -> InFlight {
        self.record
    }
}

impl Worker {
    /// Whether nothing but its place says whose a line is.
    pub(super) fn matches_by_order(&self) -> bool {
        self.options.protocol == Protocol::Lines
    }

    /// So many records may still be given to the process: all, or what is left of a group that needs a process of its own.
    pub(super) fn room_in_group(&self) -> usize {
        self.retry_groups.front().map_or(usize::MAX, |group| group.saturating_sub(self.held.len() + self.sent))
    }

    /// Whether all records that the process is to have are answered.
    pub(super) fn is_group_answered(&self) -> bool {
        self.retry_groups.front().is_some_and(|group| *group <= self.held.len())
    }

    /// Holds an answer back.
    pub(super) fn hold(
        &mut self,
        record: InFlight,
        start: SystemTime,
        duration: Duration,
        result: Result<&str, WorkerFailure>,
    ) {
        if self.held.is_empty() {
            self.held_since = Instant::now().checked_sub(duration).unwrap_or_else(Instant::now);
        }
        self.held.push(Held { record, start, duration, result: result.map(str::to_string) });
    }

    /// Everything is answered: listens for what would be one line too much, and hands the answers over if there is none.
    pub(super) fn check_answers(&mut self, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let Some(mut connection) = self.connection.take() else {
            self.hand_over(feed);
            return Ok(());
        };
        if self.retry_groups.is_empty() && !self.strict {
            let patience = (self.held_since.elapsed() / SHARE).clamp(SHORTEST, LONGEST);
            if !connection.writes_until(Instant::now() + patience) {
                self.connection = Some(connection);
                self.hand_over(feed);
                return Ok(());
            }
            return self.surplus(connection, feed);
        }
        self.close_connection(connection, feed)
    }

    /// Ends a process that has answered everything that it was asked. What is in its output now is too much.
    pub(super) fn close_connection(
        &mut self,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        let shutdown = connection.close(self.options.kill_after, fd(self.cancelled.as_ref()));
        let was_killed = fd(self.cancelled.as_ref()).is_some_and(has_something);
        if was_killed && shutdown.lines == 0 && !self.retry_groups.is_empty() {
            // Nothing is proved, and there was reason to doubt.
            self.cancel(feed);
            return Ok(());
        }
        self.check_shutdown(&shutdown, 0, feed)
    }

    /// Ends a process that said something unasked.
    pub(super) fn surplus(&mut self, connection: Connection, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let shutdown = connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        self.check_shutdown(&shutdown, 0, feed)
    }

    /// A process is gone that still had to answer so many requests: whether its answers can be what they seem.
    pub(super) fn check_shutdown(
        &mut self,
        shutdown: &Shutdown,
        unanswered: usize,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        if !self.matches_by_order() || shutdown.lines <= unanswered {
            self.pass_check(feed);
            return Ok(());
        }
        let what = if unanswered == 0 { protocol::excerpt(&shutdown.begin) } else { "another line".to_string() };
        self.doubt(&what, feed)
    }

    /// A process has answered everything, and wrote one more line.
    pub(super) fn stray(
        &mut self,
        connection: Connection,
        line: &[u8],
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        self.doubt(&protocol::excerpt(line), feed)
    }

    /// A process has ended, and its output with it, without a line too much.
    pub(super) fn pass_check(&mut self, feed: &mut dyn WorkerFeed) {
        if self.matches_by_order() {
            self.hand_over(feed);
            (self.options.on_check)(AnswerCheck::Passed);
        }
    }

    /// Hands over what was held back.
    pub(super) fn hand_over(&mut self, feed: &mut dyn WorkerFeed) {
        if let Some(group) = self.retry_groups.front_mut() {
            *group = group.saturating_sub(self.held.len());
            if *group == 0 {
                self.retry_groups.pop_front();
            }
        }
        for Held { start, duration, result, .. } in self.held.drain(..) {
            self.was_right |= result.is_ok();
            feed.done(Answer { start, duration, result: result.as_deref().map_err(WorkerFailure::clone) });
        }
    }

    /// The process is gone, and it wrote something that nobody had asked for: what it has answered may be other records' answers.
    pub(super) fn doubt(&mut self, what: &str, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        self.resend_all();
        let why = format!("{} wrote a line more than it was asked for, {what}", self.options.name);
        (self.options.on_check)(AnswerCheck::Doubtful(why));
        self.strict = true;
        let group = self.retry_groups.pop_front();
        let (size, held) = (group.unwrap_or(self.held.len()), self.held.len());
        if group == Some(1) {
            return self.fail_surplus_record(what, feed);
        }
        while let Some(held) = self.held.pop() {
            self.in_flight.push_front(held.record);
        }
        // In a group that was not asked to its end, it was one of those that were.
        let cut = if group.is_none() || (1..size).contains(&held) { held } else { size / 2 };
        if size > cut {
            self.retry_groups.push_front(size - cut);
        }
        if cut > 0 {
            self.retry_groups.push_front(cut);
        }
        if held > 0 { Ok(()) } else { self.count_surplus(what) }
    }

    /// The record that was alone with its process fails.
    fn fail_surplus_record(&mut self, what: &str, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let message =
            format!("the worker wrote more than one line for this record, the last one {what}: any may be the answer");
        for held in self.held.drain(..) {
            let Held { start, duration, .. } = held;
            feed.done(Answer { start, duration, result: Err(WorkerFailure::new("surplus", message.clone())) });
        }
        self.count_surplus(what)
    }

    /// A program that does so with every record does not know what is asked of it.
    fn count_surplus(&mut self, what: &str) -> Result<(), StartFailure> {
        self.surplus_records += 1;
        if self.was_right || self.surplus_records < MOST_USELESS {
            return Ok(());
        }
        let name = &self.options.name;
        let message = format!(
            "{name} wrote more than one line for a record, {MOST_USELESS} times in a row, the last time {what}; \
             a worker writes one line of JSON for each record and nothing else to its standard output"
        );
        Err(StartFailure { message, traceback: None })
    }
}
