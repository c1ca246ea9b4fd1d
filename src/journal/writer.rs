//! Appends frames to a journal: collects them, writes them together, and has them synced at a bounded interval.

use std::io;
use std::time::{Duration, Instant};

use super::frame::{Chain, Kind, MAX_PAYLOAD_BYTES};
use super::settled::{Piece, stream_byte};
use super::storage::Storage;
use crate::engine::exchange::OutputStream;

/// With this number of bytes, frames are written without waiting for the next flush.
const BUFFER_BYTES: usize = 256 << 10;

/// What the disk has cost a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DiskTime {
    /// The time that the run waited for writes and syncs.
    pub waited: Duration,
    pub bytes: u64,
}

/// Writes frames behind each other. After the first error nothing is written any more.
pub(super) struct FrameWriter<S> {
    storage: S,
    chain: Chain,
    buffer: Vec<u8>,
    /// Where the buffer will be written.
    at: u64,
    /// The longest time for which written frames stay unsynced.
    sync_after: Duration,
    /// Since when there have been written frames that are not synced.
    unsynced: Option<Instant>,
    disk: DiskTime,
    /// The number of syncs that were begun.
    syncs: u64,
    is_broken: bool,
}

impl<S: Storage> FrameWriter<S> {
    /// Makes a writer that goes on with `chain` at this position.
    pub(super) fn new(storage: S, chain: Chain, at: u64, sync_after: Duration) -> Self {
        FrameWriter {
            storage,
            chain,
            buffer: Vec::new(),
            at,
            sync_after,
            unsynced: None,
            disk: DiskTime::default(),
            syncs: 0,
            is_broken: false,
        }
    }

    pub(super) fn disk(&self) -> DiskTime {
        self.disk
    }

    /// Returns the number of syncs that were begun.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Returns the position of the next frame.
    pub(super) fn position(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    /// Adds a frame whose payload `write` appends, and returns its position. It is written now if many bytes are waiting.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub(super) fn append(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<u64> {
        let at = self.position();
        self.chain.append(kind, &mut self.buffer, write);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok(at)
    }

    /// Adds a piece of output, and returns its number.
    ///
    /// # Errors
    /// As [`append`](Self::append); if the file is too large.
    pub(super) fn append_piece(&mut self, stream: OutputStream, bytes: &[u8]) -> io::Result<u64> {
        let at = self.append(Kind::Part, |out| {
            out.push(stream_byte(stream));
            out.extend_from_slice(bytes);
        })?;
        let piece = Piece::new(at, self.chain.previous);
        piece.map(Piece::to_number).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
    }

    fn write(&mut self) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("writing it failed before"));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let written = self.storage.write_all_at(&self.buffer, self.at);
        self.disk.waited += began.elapsed();
        self.disk.bytes += self.buffer.len() as u64;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        self.unsynced.get_or_insert(began);
        self.note(written)
    }

    /// Writes all frames, and begins to sync them if the interval is over. It does not wait for the disk.
    ///
    /// # Errors
    /// If writing or syncing fails now or failed before.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        let checked = self.storage.check();
        self.note(checked)?;
        if self.unsynced.is_some_and(|since| since.elapsed() >= self.sync_after) && self.storage.begin_sync() {
            self.unsynced = None;
            self.syncs += 1;
        }
        Ok(())
    }

    /// Writes and syncs all frames.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        let began = Instant::now();
        let synced = self.storage.sync();
        self.disk.waited += began.elapsed();
        self.unsynced = None;
        self.syncs += 1;
        self.note(synced)
    }

    fn note(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.is_broken |= result.is_err();
        result
    }
}

/// The most bytes of output in the entry of a job. What is longer goes before it in pieces.
pub(super) const MAX_OUTPUT_BYTES: usize = MAX_PAYLOAD_BYTES / 4;
