//! A temporary file for bytes that wait. It has no name, so nothing is left behind.
//!
//! It is used in blocks. Bytes are appended to one block after the other; a block whose bytes are no longer needed is used
//! again, so the file grows only with the bytes that wait at one time. When nothing waits it is emptied.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::OutputError;

/// Size of a block, and so the most bytes of one extent.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that are read at once: small outputs are often read in the order in which they were written.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// A range of bytes in the file, within one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpillExtent {
    pub at: u64,
    pub len: u32,
}

impl SpillExtent {
    fn block(self) -> usize {
        (self.at / BLOCK_BYTES as u64) as usize
    }

    /// Adds the bytes of `next` if they follow in the same block; returns whether they do.
    pub(super) fn merge(&mut self, next: SpillExtent) -> bool {
        let follows = self.at + u64::from(self.len) == next.at && self.block() == next.block();
        if follows {
            self.len += next.len;
        }
        follows
    }
}

/// The temporary file, created when it is first needed.
pub(super) struct Spill {
    folder: PathBuf,
    file: Option<File>,
    /// Bytes of each block that are needed.
    needed: Vec<u32>,
    /// Blocks of which none are needed.
    free: Vec<usize>,
    /// The block that is being filled.
    current: Option<usize>,
    /// Bytes in the current block, including those in the buffer.
    filled: usize,
    /// The end of the current block, not written yet.
    buffer: Vec<u8>,
    /// The bytes that were read last, and their position.
    window: Vec<u8>,
    window_at: u64,
    /// Bytes that are needed in all blocks.
    total: u64,
}

impl Spill {
    /// Makes a spill file in this folder.
    pub(super) fn new(folder: PathBuf) -> Spill {
        Spill {
            folder,
            file: None,
            needed: Vec::new(),
            free: Vec::new(),
            current: None,
            filled: 0,
            buffer: Vec::new(),
            window: Vec::new(),
            window_at: 0,
            total: 0,
        }
    }

    /// Returns how many bytes wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// Returns the largest size of the file.
    #[cfg(test)]
    pub(super) fn file_bytes(&self) -> u64 {
        (self.needed.len() * BLOCK_BYTES) as u64
    }

    /// Returns its own memory in bytes.
    pub(super) fn memory(&self) -> usize {
        self.needed.capacity() * 4 + self.free.capacity() * 8 + self.buffer.capacity() + self.window.capacity()
    }

    /// Writes the bytes that fit into the current block; the extent tells how many.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<SpillExtent, OutputError> {
        let current = match self.current {
            Some(current) if self.filled < BLOCK_BYTES => current,
            Some(_) | None => self.next_block()?,
        };
        let bytes = &bytes[..bytes.len().min(BLOCK_BYTES - self.filled)];
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        let at = (current * BLOCK_BYTES + self.filled) as u64;
        if bytes.len() > BUFFER_BYTES {
            self.write_at(bytes, at)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        let len = bytes.len() as u32;
        self.filled += bytes.len();
        self.needed[current] += len;
        self.total += u64::from(len);
        Ok(SpillExtent { at, len })
    }

    /// Puts down bytes that must stay together: at most [`BLOCK_BYTES`].
    pub(super) fn append_together(&mut self, bytes: &[u8]) -> Result<u64, OutputError> {
        if self.current.is_some() && self.filled + bytes.len() > BLOCK_BYTES {
            self.next_block()?;
        }
        Ok(self.append(bytes)?.at)
    }

    /// Bytes that were put down.
    pub(super) fn read(&mut self, extent: SpillExtent) -> Result<&[u8], OutputError> {
        let len = extent.len as usize;
        let inside = extent.at.checked_sub(self.window_at).map(|from| from as usize);
        let from = match inside.filter(|from| from + len <= self.window.len()) {
            Some(from) => from,
            None => {
                self.read_window(extent)?;
                0
            }
        };
        Ok(&self.window[from..from + len])
    }

    /// Releases bytes that are no longer needed.
    pub(super) fn release(&mut self, extent: SpillExtent) {
        let block = extent.block();
        self.needed[block] -= extent.len;
        self.total -= u64::from(extent.len);
        if self.total == 0 {
            self.clear();
        } else if self.needed[block] == 0 && self.current != Some(block) {
            self.free.push(block);
        }
    }

    fn clear(&mut self) {
        self.needed.clear();
        self.free.clear();
        self.buffer.clear();
        self.window.clear();
        (self.current, self.filled) = (None, 0);
        if let Some(file) = &self.file {
            // This only frees the space early, so an error does not matter.
            let _ = file.set_len(0);
        }
    }

    fn next_block(&mut self) -> Result<usize, OutputError> {
        self.write_buffer()?;
        if let Some(old) = self.current.filter(|old| self.needed[*old] == 0) {
            self.free.push(old);
        }
        let next = self.free.pop().unwrap_or_else(|| {
            self.needed.push(0);
            self.needed.len() - 1
        });
        if self.window_at / BLOCK_BYTES as u64 == next as u64 {
            // The block will be overwritten.
            self.window.clear();
        }
        (self.current, self.filled) = (Some(next), 0);
        Ok(next)
    }

    fn write_buffer(&mut self) -> Result<(), OutputError> {
        if let (Some(current), false) = (self.current, self.buffer.is_empty()) {
            let at = (current * BLOCK_BYTES + self.filled - self.buffer.len()) as u64;
            let buffer = std::mem::take(&mut self.buffer);
            let written = self.write_at(&buffer, at);
            self.buffer = buffer;
            written?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), OutputError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder).map_err(|error| failure(&self.folder, error))?),
        };
        file.write_all_at(bytes, at).map_err(|error| failure(&self.folder, error))
    }

    /// Reads the extent and some bytes behind it.
    fn read_window(&mut self, extent: SpillExtent) -> Result<(), OutputError> {
        let (block, len) = (extent.block(), extent.len as usize);
        let from = (extent.at % BLOCK_BYTES as u64) as usize;
        let mut end = BLOCK_BYTES;
        if self.current == Some(block) {
            if from + len > self.filled - self.buffer.len() {
                self.write_buffer()?;
            }
            // The bytes behind that are not written, or are old.
            end = self.filled - self.buffer.len();
        }
        self.window.resize(len.max(READ_AHEAD_BYTES).min(end - from), 0);
        self.window_at = extent.at;
        let mut read = 0;
        while let (Some(file), true) = (&self.file, read < self.window.len()) {
            match file.read_at(&mut self.window[read..], extent.at + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(failure(&self.folder, error));
                }
            }
        }
        self.window.truncate(read);
        if read < len { Err(failure(&self.folder, io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
    }
}

fn failure(folder: &Path, source: io::Error) -> OutputError {
    OutputError::Waiting { folder: folder.to_owned(), source }
}
