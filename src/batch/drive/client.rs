//! What the driver does for a script that takes the results.

use super::Driver;
use crate::batch::runners::Runner;

impl<R: Runner> Driver<'_, R> {
    /// Sends the script its results, if there is one. Returns false if it is gone: nothing takes the results of other jobs.
    pub(super) fn serve_client(&mut self, target: u64) -> bool {
        let Some(client) = self.sinks.client() else { return true };
        if (self.stop_requested)().is_some() {
            client.end("the run is being stopped, by a signal or because its time limit is near");
        }
        client.send(target);
        !client.is_gone()
    }
}
