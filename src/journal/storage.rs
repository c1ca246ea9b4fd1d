//! The file of a journal as its writer sees it: writes at a position, and syncs on a thread of their own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

/// A file that can be written and synced.
pub(super) trait Storage {
    /// Writes bytes at a position.
    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Begins to sync everything that was written. Returns false if the last sync has not ended yet.
    fn begin_sync(&mut self) -> bool;

    /// Returns the error of a sync that has ended.
    fn check(&mut self) -> io::Result<()>;

    /// Syncs everything that was written, and waits for it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file whose syncs run on a thread. It ends when this is dropped and the last sync has ended.
///
/// A sync that has failed is not tried again: the system forgets what could not be written, and the next sync would succeed.
pub(super) struct SyncedFile {
    file: Arc<File>,
    syncer: Option<Syncer>,
    is_syncing: bool,
}

struct Syncer {
    requests: Sender<()>,
    results: Receiver<io::Result<()>>,
}

impl SyncedFile {
    pub(super) fn new(file: File) -> SyncedFile {
        SyncedFile { file: Arc::new(file), syncer: None, is_syncing: false }
    }

    /// Returns the thread that syncs; `None` if it cannot be started.
    fn syncer(&mut self) -> Option<&Syncer> {
        if self.syncer.is_none() {
            let (requests, requested) = bounded(1);
            let (done, results) = bounded(1);
            let file = self.file.clone();
            let sync = move || {
                while requested.recv().is_ok() {
                    if done.send(file.sync_data()).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("rankpool sync".into()).spawn(sync).ok()?;
            self.syncer = Some(Syncer { requests, results });
        }
        self.syncer.as_ref()
    }

    fn take_result(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.is_syncing = false;
        result
    }
}

impl Storage for SyncedFile {
    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(&*self.file, bytes, at)
    }

    fn begin_sync(&mut self) -> bool {
        if self.is_syncing {
            return false;
        }
        self.is_syncing = self.syncer().is_some_and(|syncer| syncer.requests.try_send(()).is_ok());
        self.is_syncing
    }

    fn check(&mut self) -> io::Result<()> {
        match self.syncer.as_ref().filter(|_| self.is_syncing).map(|syncer| syncer.results.try_recv()) {
            Some(Ok(result)) => self.take_result(result),
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(syncer) = self.syncer.as_ref().filter(|_| self.is_syncing) {
            let result =
                syncer.results.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs is gone")));
            self.take_result(result)?;
        }
        self.file.sync_data()
    }
}

/// Reads bytes at a position until `bytes` is full or the file ends, and returns how many were read.
///
/// # Errors
/// If reading fails.
pub(super) fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Makes a new or renamed file durable in its folder.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
