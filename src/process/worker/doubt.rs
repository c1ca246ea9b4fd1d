//! How surplus lines are found, after which answers may belong to other records.
//!
//! In the plain protocol only the order of the lines says which record a line answers. A worker that writes a surplus line shifts
//! all answers behind it, and the surplus shows only at the end, as one line more than there are records. So answers are held
//! back until the process has answered everything and is quiet. If it writes more, its answers are dropped and its records are
//! sent again, in groups, each group to a new process. The end of a process's output proves that it wrote one line for each
//! record. A group that fails again is halved, until the record that causes the surplus is alone with its process, and fails.
//!
//! Answers that were handed over earlier are reported with an [`AnswerCheck`]: only the end of a process proves them right.

use std::time::{Duration, Instant, SystemTime};

use super::connection::{Connection, Shutdown};
use super::{
    Answer, AnswerCheck, InFlight, MOST_USELESS, Protocol, StartFailure, Worker, WorkerFailure, WorkerFeed, fd,
    protocol,
};
use crate::process::pipes::is_readable;

/// After its last answer a process is watched for surplus lines for 1/SHARE of the time that its answers took, within these bounds.
const SHARE: u32 = 50;
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(5);

/// An answer that is held back.
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
    /// Whether answers are matched to records by their order only.
    pub(super) fn matches_by_order(&self) -> bool {
        self.options.protocol == Protocol::Lines
    }

    /// Returns how many more records may be sent to the process: any number, or the rest of a group that needs a process of its own.
    pub(super) fn room_in_group(&self) -> usize {
        self.retry_groups.front().map_or(usize::MAX, |group| group.saturating_sub(self.held.len() + self.sent))
    }

    /// Whether all records of the group that has a process of its own are answered.
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

    /// Checks for a surplus line after everything is answered, and hands the answers over if there is none.
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

    /// Ends a process that has answered everything. Any further output is surplus.
    pub(super) fn close_connection(
        &mut self,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        let shutdown = connection.close(self.options.kill_after, fd(self.cancelled.as_ref()));
        let is_cancelled = fd(self.cancelled.as_ref()).is_some_and(is_readable);
        if is_cancelled && shutdown.lines == 0 && !self.retry_groups.is_empty() {
            // Nothing is proved, and an earlier process wrote a surplus line.
            self.cancel(feed);
            return Ok(());
        }
        self.check_shutdown(&shutdown, 0, feed)
    }

    /// Ends a process that wrote something unasked.
    pub(super) fn surplus(&mut self, connection: Connection, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let shutdown = connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        self.check_shutdown(&shutdown, 0, feed)
    }

    /// Checks the output of a process that has ended with `unanswered` requests: more lines than these are a surplus.
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

    /// Ends a process that has answered everything and wrote one more line.
    pub(super) fn surplus_line(
        &mut self,
        connection: Connection,
        line: &[u8],
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        self.doubt(&protocol::excerpt(line), feed)
    }

    /// Hands the answers over: the process has ended, and wrote no surplus line.
    pub(super) fn pass_check(&mut self, feed: &mut dyn WorkerFeed) {
        if self.matches_by_order() {
            self.hand_over(feed);
            (self.options.on_check)(AnswerCheck::Passed);
        }
    }

    /// Hands over the answers that were held back.
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

    /// Drops the answers of a process that has ended and wrote a surplus line, and forms the groups that are sent again.
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
        // If only a part of the group was sent, the record that causes the surplus is in that part.
        let cut = if group.is_none() || (1..size).contains(&held) { held } else { size / 2 };
        if size > cut {
            self.retry_groups.push_front(size - cut);
        }
        if cut > 0 {
            self.retry_groups.push_front(cut);
        }
        if held > 0 { Ok(()) } else { self.count_surplus(what) }
    }

    /// Fails the record that was alone with its process.
    fn fail_surplus_record(&mut self, what: &str, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let message =
            format!("the worker wrote more than one line for this record, the last one {what}: any may be the answer");
        for held in self.held.drain(..) {
            let Held { start, duration, .. } = held;
            feed.done(Answer { start, duration, result: Err(WorkerFailure::new("surplus", message.clone())) });
        }
        self.count_surplus(what)
    }

    /// Counts a record that caused a surplus. Fails if the worker did so for several records in a row and never answered one right.
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
