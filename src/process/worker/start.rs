//! How a worker gets a process, and what happens when a process ends through no fault of its own.

use super::connection::Connection;
use super::process::WorkerEnd;
use super::{Options, StartFailure, Worker, WorkerFailure, WorkerFeed, fd, prestarted};
use crate::process::program::SpawnError;

impl Worker {
    /// Returns a new process; `None` if the run ends.
    pub(super) fn open(&mut self) -> Result<Option<Connection>, StartFailure> {
        let ready = !self.options.protocol.announces();
        loop {
            if !self.turn.wait(fd(self.cancelled.as_ref())) {
                return Ok(None);
            }
            let Options { preamble, assignment, .. } = &self.options;
            if let Some(connection) = prestarted::take(&self.program, assignment) {
                self.turn.started();
                return Ok(Some(connection));
            }
            match Connection::start(&self.program, preamble, ready) {
                Ok(mut connection) => {
                    connection.outgoing().extend_from_slice(assignment);
                    self.turn.started();
                    return Ok(Some(connection));
                }
                Err(SpawnError::Scarce(why)) => self.wait_for_room(&why)?,
                Err(error) => return Err(self.cannot_be_started(&error.to_string())),
            }
        }
    }

    /// Makes room for one more process, or gives up when that took too long.
    fn wait_for_room(&mut self, why: &str) -> Result<(), StartFailure> {
        (self.options.make_room)();
        if self.turn.refused() { Ok(()) } else { Err(self.cannot_be_started(why)) }
    }

    fn cannot_be_started(&self, why: &str) -> StartFailure {
        StartFailure { message: format!("{} cannot be started: {why}", self.options.name), traceback: None }
    }

    /// Handles a process that was ended from outside, or that could not be started.
    pub(super) fn ended_from_outside(
        &mut self,
        ended: &WorkerEnd,
        ready: bool,
        feed: &mut dyn WorkerFeed,
    ) -> Result<(), StartFailure> {
        match ended {
            WorkerEnd::WithHelper { ran: true } | WorkerEnd::WithServer if ready && !self.requests.is_empty() => {
                let failure = WorkerFailure::new("lost", format!("the worker {ended}"));
                self.blame_first(feed, WorkerFailure { ended: Some(ended.clone()), ..failure });
            }
            WorkerEnd::Scarce(why) => {
                self.resend_all();
                self.wait_for_room(why)?;
            }
            WorkerEnd::OutOfMemory { .. } => {
                self.resend_all();
                self.wait_for_room(&format!("it {ended}"))?;
            }
            _ => self.resend_all(),
        }
        self.pass_check(feed);
        Ok(())
    }
}
