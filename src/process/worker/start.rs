//! How a worker gets a process, and what is done when something else than the process itself has kept it from its work.

use super::connection::Connection;
use super::process::Ended;
use super::{Jobs, Options, StartFailure, Worker, WorkerFailure, fd, spares};
use crate::process::program::SpawnError;

impl Worker {
    /// A new process; none, if the run ends.
    pub(super) fn open(&mut self) -> Result<Option<Connection>, StartFailure> {
        let ready = !self.options.protocol.announces();
        loop {
            if !self.turn.wait(fd(self.cancelled.as_ref())) {
                return Ok(None);
            }
            let Options { preamble, greeting, .. } = &self.options;
            if let Some(spare) = spares::take(&self.launch, greeting) {
                self.turn.asked();
                return Ok(Some(spare));
            }
            match Connection::start(&self.launch, preamble, ready) {
                Ok(mut connection) => {
                    connection.outgoing().extend_from_slice(greeting);
                    self.turn.asked();
                    return Ok(Some(connection));
                }
                Err(SpawnError::Scarce(why)) => self.wait_for_room(&why)?,
                Err(error) => return Err(self.cannot_be_started(&error.to_string())),
            }
        }
    }

    /// There was no room for one more process.
    fn wait_for_room(&mut self, why: &str) -> Result<(), StartFailure> {
        (self.options.make_room)();
        if self.turn.refused() { Ok(()) } else { Err(self.cannot_be_started(why)) }
    }

    fn cannot_be_started(&self, why: &str) -> StartFailure {
        StartFailure { message: format!("{} cannot be started: {why}", self.options.name), traceback: None }
    }

    /// The process has ended, or was not even started, which was no fault of its own.
    pub(super) fn ended_from_outside(
        &mut self,
        ended: &Ended,
        ready: bool,
        jobs: &mut dyn Jobs,
    ) -> Result<(), StartFailure> {
        match ended {
            Ended::WithHelper { ran: true } if ready && !self.requests.is_empty() => {
                let failure = WorkerFailure::new("lost", format!("the worker {ended}"));
                self.blame(jobs, WorkerFailure { ended: Some(ended.clone()), ..failure });
            }
            Ended::Scarce(why) => {
                self.charge_nobody();
                self.wait_for_room(why)?;
            }
            _ => self.charge_nobody(),
        }
        self.is_sure(jobs);
        Ok(())
    }
}
