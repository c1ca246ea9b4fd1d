//! The status file: written anew every few seconds, on a thread of its own, so that a slow disk delays nothing else.
//!
//! The new status is written beside the file and renamed to it: a reader sees the one before or the new one, whole. A status that
//! cannot be written is skipped, with one warning for each run; the next one is tried again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::observer::Observer;
use super::status::Status;
use crate::console::{self, reason};
use crate::output::{partial_path, real_path};

/// The time from one status to the next.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);
/// Writing takes at most one part in this number of the time: on a slow disk there are fewer statuses.
const SHARE: u32 = 20;
/// The longest time from one status to the next, however long writing takes.
const LONGEST: Duration = Duration::from_secs(60);
/// The end of the run waits no longer than this for the last status.
const LAST: Duration = Duration::from_secs(5);

/// The status file of a run.
#[derive(Debug)]
pub(super) struct StatusFile {
    /// The path as it was given, for messages.
    name: String,
    path: PathBuf,
}

impl StatusFile {
    /// Prepares a status file at this path.
    ///
    /// # Errors
    /// A sentence, if something else than a regular file has that name.
    pub(super) fn new(path: &Path) -> Result<StatusFile, String> {
        let name = path.display().to_string();
        // A device or a pipe would be replaced by a file.
        match fs::metadata(path) {
            Ok(there) if !there.is_file() => Err(format!("--status {name}: it is not a regular file; give a new name")),
            _ => Ok(StatusFile { name, path: real_path(path) }),
        }
    }

    /// Writes a status, whole or not at all.
    pub(super) fn write(&self, status: &Status) -> Result<(), String> {
        let partial = partial_path(&self.path);
        let written = fs::write(&partial, status.json()).and_then(|()| fs::rename(&partial, &self.path));
        written.map_err(|error: io::Error| {
            let _ = fs::remove_file(&partial);
            format!("the status could not be written to {}: {}", self.name, reason(&error))
        })
    }
}

/// The thread that writes a status file.
pub(super) struct FileThread {
    stop: Sender<Arc<Status>>,
    ended: Receiver<()>,
}

impl FileThread {
    /// Starts the thread. Without threads there is no status, and a warning.
    pub(super) fn start(file: StatusFile, observer: Arc<Observer>) -> Option<FileThread> {
        let (stop, stopped) = bounded(1);
        let (end, ended) = bounded::<()>(0);
        let write = move || {
            write_until(&file, &observer, &stopped);
            drop(end);
        };
        match thread::Builder::new().name("rankpool status".into()).spawn(write) {
            Ok(_) => Some(FileThread { stop, ended }),
            Err(error) => {
                console::eprint_error(format_args!("there is no thread for --status: {}", reason(&error)));
                None
            }
        }
    }

    /// Writes the last status and ends the thread. A disk that hangs is not waited for.
    pub(super) fn end(self, last: Arc<Status>) {
        let _ = self.stop.send_timeout(last, LAST);
        // Nothing is ever sent: the other end is dropped.
        let _ = self.ended.recv_timeout(LAST);
    }
}

/// Writes a status again and again, until there is a last one.
fn write_until(file: &StatusFile, observer: &Observer, stopped: &Receiver<Arc<Status>>) {
    let mut has_warned = false;
    let mut write = |status: &Status| {
        if let Err(message) = file.write(status) {
            if !has_warned {
                console::eprint_error(format_args!(
                    "{message}; the run goes on, and it is tried again without another message"
                ));
            }
            has_warned = true;
        }
    };
    let mut pause = PERIOD;
    loop {
        match stopped.recv_timeout(pause) {
            Ok(last) => return write(&last),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let began = Instant::now();
        write(&observer.status());
        pause = (began.elapsed() * SHARE).clamp(PERIOD, LONGEST);
    }
}
