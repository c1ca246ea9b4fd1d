//! Processes that end, or have to be ended, before they have answered everything: which record is to blame.

use std::time::{Duration, SystemTime};

use super::connection::Connection;
use super::doubt::Held;
use super::{Answer, Clock, MOST_USELESS, StartFailure, Worker, WorkerEnd, WorkerFailure, WorkerFeed, fd};

impl Worker {
    /// Handles an answer to another record than the first one.
    pub(super) fn wrong_number(
        &mut self,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
        id: u64,
    ) -> Result<(), StartFailure> {
        let expected = self.expects().unwrap_or_default();
        let what = format!("an answer with the id {id} where {expected} was due");
        if connection.last == Some(id) {
            // The process has answered the last record twice; the first one is not to blame.
            self.resend_all();
        }
        self.protocol_error(connection, feed, &what)
    }

    /// Ends a process that wrote `what`, which the protocol does not allow, and blames the first record.
    pub(super) fn protocol_error(
        &mut self,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
        what: &str,
    ) -> Result<(), StartFailure> {
        let (ready, answered) = (connection.ready, connection.answered);
        connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        if !ready {
            return self.count_failed_start(format!("{} wrote {what} before it was ready", self.options.name), None);
        }
        if self.requests.is_empty() {
            (self.options.warn)(&format!("{} is started anew; it wrote {what}", self.options.name));
            self.resend_all();
        } else {
            self.count_if_useless(answered, &format!("wrote {what}"))?;
            self.blame_first(feed, WorkerFailure::new("garbage", format!("the worker wrote {what}")));
            self.pass_check(feed);
        }
        Ok(())
    }

    /// Handles a process that has ended or has closed its output.
    pub(super) fn reap(&mut self, connection: Connection, feed: &mut dyn WorkerFeed) -> Result<(), StartFailure> {
        let (ready, answered) = (connection.ready, connection.answered);
        let ended = connection.reap();
        // A process that has no record yet is not to blame for the memory: it is started again when there is room.
        let out_of_memory = matches!(ended, Some(WorkerEnd::OutOfMemory { .. }));
        if let Some(outside) = ended.as_ref().filter(|ended| ended.is_from_outside() || out_of_memory && !ready) {
            return self.ended_from_outside(outside, ready, feed);
        }
        let how = match ended {
            Some(ref ended) => ended.to_string(),
            None => "closed its standard output".to_string(),
        };
        if !ready {
            let message = format!("{} {how} before it was ready", self.options.name);
            return self.count_failed_start(message, None);
        }
        if !out_of_memory {
            self.count_if_useless(answered, &how)?;
        }
        if answered > 0 && ended == Some(WorkerEnd::Code(0)) && self.options.protocol.is_plain() {
            // It may have ended before it read the record: the next process gets the record again.
            self.resend_all();
            self.pass_check(feed);
            return Ok(());
        }
        let message = format!("the worker {how} before it answered");
        self.blame_first(feed, WorkerFailure { ended, ..WorkerFailure::new("crash", message) });
        self.pass_check(feed);
        Ok(())
    }

    /// Counts a process that ended before it was ready. Fails at the first one if no process was ever useful.
    pub(super) fn count_failed_start(
        &mut self,
        message: String,
        traceback: Option<String>,
    ) -> Result<(), StartFailure> {
        self.resend_all();
        self.count_useless(if self.was_useful { MOST_USELESS } else { 1 }, message, traceback)
    }

    /// Counts a process that ended without any answer, if no process was ever useful: the program may not be a worker at all.
    pub(super) fn count_if_useless(&mut self, answered: u64, how: &str) -> Result<(), StartFailure> {
        if answered > 0 || self.was_useful || !self.options.protocol.is_plain() {
            return Ok(());
        }
        let message = format!("{} {how} without any answer, {MOST_USELESS} times in a row", self.options.name);
        self.count_useless(MOST_USELESS, message, None)
    }

    /// Counts a useless process and fails when there were `most` of them in a row.
    fn count_useless(&mut self, most: u32, message: String, traceback: Option<String>) -> Result<(), StartFailure> {
        self.useless += 1;
        if self.useless < most { Ok(()) } else { Err(StartFailure { message, traceback }) }
    }

    /// Handles a first record that takes long: warns once, and ends the process when its time limit is over.
    pub(super) fn on_deadline(
        &mut self,
        connection: Connection,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
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
            return Ok(());
        };
        let shutdown = connection.terminate(self.options.kill_after, fd(self.cancelled.as_ref()));
        if self.matches_by_order() && shutdown.lines > self.requests.len() {
            return self.check_shutdown(&shutdown, self.requests.len(), feed);
        }
        let message = format!("not done after {} s", timeout.as_secs_f64());
        self.blame_first(feed, WorkerFailure { ended: shutdown.ended, ..WorkerFailure::new("timeout", message) });
        self.pass_check(feed);
        Ok(())
    }

    /// Blames the first record for the end of the process. In a batch the guilty record is unknown: each is sent again alone.
    pub(super) fn blame_first(&mut self, feed: &mut dyn WorkerFeed, failure: WorkerFailure) {
        match self.requests.front() {
            Some(request) if request.records > 1 && !request.alone => {
                let records = request.records;
                self.in_flight.iter_mut().take(records).for_each(|record| record.alone = true);
                self.resend_all();
            }
            _ => self.fail_first(feed, failure),
        }
    }

    /// Fails the first record and sends the others again.
    pub(super) fn fail_first(&mut self, feed: &mut dyn WorkerFeed, failure: WorkerFailure) {
        let duration = self.since.elapsed();
        self.settle(feed, &mut Clock::new(duration), duration, Err(failure));
        self.resend_all();
    }

    /// Marks all records in flight as not sent.
    pub(super) fn resend_all(&mut self) {
        self.requests.clear();
        self.sent = 0;
    }

    /// Fails all records in flight as `cancelled`.
    pub(super) fn cancel(&mut self, feed: &mut dyn WorkerFeed) {
        self.resend_all();
        if self.retry_groups.is_empty() {
            self.hand_over(feed);
        }
        self.retry_groups.clear();
        let start = SystemTime::now();
        let held = self.held.drain(..).map(Held::into_record);
        for _ in held.chain(self.in_flight.drain(..)) {
            let result = Err(WorkerFailure::new("cancelled", "the run was ended before it was answered"));
            feed.done(Answer { start, duration: Duration::ZERO, result });
        }
    }
}
