//! What the driver does for a script that takes the results.

use super::Driver;
use crate::batch::runners::Runner;
use crate::output::OutputError;

impl<R: Runner> Driver<'_, R> {
    /// Sends the script its results, if there is one. Returns false if it is gone: nothing takes the results of other jobs.
    ///
    /// # Errors
    /// If journal or job log cannot be written.
    pub(super) fn serve_client(&mut self, target: u64) -> Result<bool, OutputError> {
        let Some(client) = self.sinks.client() else { return Ok(true) };
        if (self.stop_requested)().is_some() {
            client.end("the run is being stopped, by a signal or because its time limit is near");
        }
        let is_gone = client.is_gone();
        self.sinks.send_to_client(target)?;
        Ok(!is_gone)
    }
}
