//! Processes that end, or have to be ended, before they have answered everything: whose fault that is.

use std::time::{Duration, SystemTime};

use super::connection::Connection;
use super::doubt::Held;
use super::{Answer, Clock, Ended, Jobs, MOST_FUTILE, StartFailure, Worker, WorkerFailure, fd};

impl Worker {
    /// The process answered another record than the first one.
    pub(super) fn misnumbered(
        &mut self,
        connection: Connection,
        jobs: &mut dyn Jobs,
        id: u64,
    ) -> Result<(), StartFailure> {
        let expected = self.expects().unwrap_or_default();
        let what = format!("an answer with the id {id} where {expected} was due");
        if connection.last == Some(id) {
            // It has answered the last one twice; this one is not to blame.
            self.charge_nobody();
        }
        self.strange(connection, jobs, &what)
    }

    /// The process said what it must not say.
    pub(super) fn strange(
        &mut self,
        connection: Connection,
        jobs: &mut dyn Jobs,
        what: &str,
    ) -> Result<(), StartFailure> {
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
            self.is_sure(jobs);
        }
        Ok(())
    }

    /// The process is gone, or will be.
    pub(super) fn bury(&mut self, connection: Connection, jobs: &mut dyn Jobs) -> Result<(), StartFailure> {
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
        if answered > 0 && ended == Some(Ended::Code(0)) && self.options.protocol.is_plain() {
            // It has had enough, maybe before it looked at the record: the next process tells.
            self.charge_nobody();
            self.is_sure(jobs);
            return Ok(());
        }
        let message = format!("the worker {how} before it answered");
        self.blame(jobs, WorkerFailure { ended, ..WorkerFailure::new("crash", message) });
        self.is_sure(jobs);
        Ok(())
    }

    /// A process ended before it was ready. The first one says that none will ever be.
    pub(super) fn is_futile(&mut self, message: String, traceback: Option<String>) -> Result<(), StartFailure> {
        self.charge_nobody();
        self.is_futile_after(if self.was_useful { MOST_FUTILE } else { 1 }, message, traceback)
    }

    /// A program whose processes never answer anything does not know what is asked of it.
    pub(super) fn is_no_worker(&mut self, answered: u64, how: &str) -> Result<(), StartFailure> {
        if answered > 0 || self.was_useful || !self.options.protocol.is_plain() {
            return Ok(());
        }
        let message = format!("{} {how} without any answer, {MOST_FUTILE} times in a row", self.options.name);
        self.is_futile_after(MOST_FUTILE, message, None)
    }

    pub(super) fn is_futile_after(
        &mut self,
        most: u32,
        message: String,
        traceback: Option<String>,
    ) -> Result<(), StartFailure> {
        self.futile += 1;
        if self.futile < most { Ok(()) } else { Err(StartFailure { message, traceback }) }
    }

    /// The first record takes too long, or is just slow.
    pub(super) fn overdue(&mut self, connection: Connection, jobs: &mut dyn Jobs) -> Result<(), StartFailure> {
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
        let farewell = connection.stop(self.options.kill_after, fd(self.cancelled.as_ref()));
        if self.is_unsure() && farewell.lines > self.requests.len() {
            return self.judge(&farewell, self.requests.len(), jobs);
        }
        let message = format!("not done after {} s", timeout.as_secs_f64());
        self.blame(jobs, WorkerFailure { ended: farewell.ended, ..WorkerFailure::new("timeout", message) });
        self.is_sure(jobs);
        Ok(())
    }

    /// The process is gone; the first record is to blame. In a batch there is no telling which one: each is tried alone.
    pub(super) fn blame(&mut self, jobs: &mut dyn Jobs, failure: WorkerFailure) {
        match self.requests.front() {
            Some(request) if request.records > 1 && !request.alone => {
                let records = request.records;
                self.flights.iter_mut().take(records).for_each(|flight| flight.alone = true);
                self.charge_nobody();
            }
            _ => self.charge(jobs, failure),
        }
    }

    pub(super) fn charge(&mut self, jobs: &mut dyn Jobs, failure: WorkerFailure) {
        let duration = self.since.elapsed();
        self.settle(jobs, &mut Clock::new(duration), duration, Err(failure));
        self.charge_nobody();
    }

    /// What was sent is to be sent again.
    pub(super) fn charge_nobody(&mut self) {
        self.requests.clear();
        self.sent = 0;
    }

    pub(super) fn cancel(&mut self, jobs: &mut dyn Jobs) {
        self.charge_nobody();
        if self.suspects.is_empty() {
            self.hand_over(jobs);
        }
        self.suspects.clear();
        let start = SystemTime::now();
        let held = self.held.drain(..).map(Held::into_flight);
        for _ in held.chain(self.flights.drain(..)) {
            let result = Err(WorkerFailure::new("cancelled", "the run was ended before it was answered"));
            jobs.done(Answer { start, duration: Duration::ZERO, result });
        }
    }
}
