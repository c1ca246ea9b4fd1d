//! The live view of a run: a status file that is written anew every few seconds, and what reads it.
//!
//! | file | |
//! |---|---|
//! | `status` | the status of a run at a moment, with its JSON |
//! | `observer` | makes a status from the counters and the board of a run |
//! | `file` | the status file (`--status`) |
//! | `serve` | the status page (`--serve-status`); `page`, `metrics`: what it serves |
//! | `table` | a status as text, for `rankpool top` |
//!
//! Nothing here delays or ends a run: statuses are made and written on threads of their own.

mod file;
mod metrics;
mod observer;
mod page;
mod serve;
mod status;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::console;
use file::{FileThread, PERIOD, StatusFile};
use observer::Observer;
pub(crate) use observer::{Names, Observed, short_input};
use serve::Server;
pub(crate) use status::Status;
pub(crate) use table::{Order, Table};

/// Ranks report their load this often.
pub(crate) const LOADS: Duration = Duration::from_secs(1);

/// The options of the live view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LiveOptions {
    /// The status file.
    pub status: Option<PathBuf>,
    /// The address of the status page.
    pub serve: Option<SocketAddr>,
}

impl LiveOptions {
    /// Whether there is a live view.
    pub(crate) fn is_wanted(&self) -> bool {
        self.status.is_some() || self.serve.is_some()
    }
}

/// The live view of a run that goes on.
pub(crate) struct Live {
    observer: Arc<Observer>,
    file: Option<FileThread>,
    server: Option<Server>,
}

impl Live {
    /// Starts the live view of a run. The first status is written before this returns.
    ///
    /// # Errors
    /// A sentence, if the status cannot be written.
    pub(crate) fn start(options: &LiveOptions, of: Observed) -> Result<Live, String> {
        let observer = Arc::new(Observer::new(of, PERIOD));
        let file = match &options.status {
            Some(path) => {
                let file = StatusFile::new(path)?;
                file.write(&observer.status())?;
                FileThread::start(file, observer.clone())
            }
            None => None,
        };
        let server = options.serve.map(|address| Server::start(address, &observer)).transpose()?;
        if let Some(server) = &server {
            console::eprint_error(format_args!("the status of the run is at http://{}/", server.address()));
        }
        Ok(Live { observer, file, server })
    }

    /// Ends the live view: its last status says that the run has ended, with this exit code if it has one.
    pub(crate) fn end(mut self, code: Option<u8>) {
        self.finish(code);
    }

    fn finish(&mut self, code: Option<u8>) {
        let (file, server) = (self.file.take(), self.server.take());
        if file.is_some() || server.is_some() {
            let last = self.observer.end(code);
            if let Some(file) = file {
                file.end(last);
            }
        }
    }
}

impl Drop for Live {
    /// The run has ended without an exit code of its own.
    fn drop(&mut self) {
        self.finish(None);
    }
}
