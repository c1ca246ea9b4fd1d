//! The notification of running jobs that their map was abandoned.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Reports that a map was abandoned, by a file descriptor that can be polled.
pub(crate) struct Cancellation {
    watched: Arc<OwnedFd>,
    /// Dropped to cancel.
    held: Mutex<Option<UnixStream>>,
}

impl Cancellation {
    pub(super) fn new() -> std::io::Result<Self> {
        let (watched, held) = UnixStream::pair()?;
        Ok(Cancellation { watched: Arc::new(watched.into()), held: Mutex::new(Some(held)) })
    }

    /// Returns a file descriptor that becomes readable, at end of file, when the map is abandoned.
    pub(crate) fn watched(&self) -> &Arc<OwnedFd> {
        &self.watched
    }

    pub(super) fn cancel(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
