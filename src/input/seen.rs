//! Checks that a file that is read more than once has not changed.
//!
//! A file is read in blocks. The first reading keeps a hash of each block; later readings compare it before they return any byte
//! of the block. So every record is made of checked bytes, and a file that was only touched, or replaced by one with the same
//! contents, has not changed.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

const BLOCK_BYTES: usize = 256 << 10;

/// The hashes of a file's blocks. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    hashes: Vec<u64>,
    /// Bytes in the last block; all others are full.
    last: usize,
    /// Whether the file ends behind the last block.
    ended: bool,
}

/// How a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Change {
    #[error("it is shorter than before")]
    Shorter,
    #[error("it is longer than before")]
    Longer,
    #[error("its contents are not the same as before")]
    Other,
}

impl Seen {
    /// Returns the file's bytes from the beginning, and an error at the first block that has changed.
    pub(super) fn read(&self, file: File) -> io::Result<SeenFile> {
        let length = file.metadata()?.len();
        if let Some(before) = self.length() {
            // A file of length 0, as in /proc, may have contents.
            if length > 0 && length != before {
                return Err(if length < before { Change::Shorter } else { Change::Longer }.into());
            }
        }
        Ok(SeenFile { file, seen: self.clone(), block: Vec::new(), at: 0, count: 0 })
    }

    /// Forgets the contents: the next reading is the first.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Blocks::default();
    }

    /// Refuses a stream in place of a regular file that was read before.
    pub(super) fn refuse_stream(&self) -> io::Result<()> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.ended || blocks.last > 0 { Err(Change::Other.into()) } else { Ok(()) }
    }

    /// Returns the file's length if it was read to its end.
    fn length(&self) -> Option<u64> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = blocks.hashes.len().saturating_sub(1);
        blocks.ended.then_some((full * BLOCK_BYTES + blocks.last) as u64)
    }

    /// Compares a block with the one that was seen at this index, or keeps its hash if no reading has come this far. An empty block
    /// is the end.
    fn compare(&self, index: usize, block: &[u8]) -> Result<(), Change> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match blocks.hashes.len().checked_sub(index) {
            None | Some(0) => 0,
            Some(1) => blocks.last,
            Some(_) => BLOCK_BYTES,
        };
        if block.len() < known {
            return Err(Change::Shorter);
        }
        if known > 0 && blocks.hashes[index] != xxh3_64(&block[..known]) {
            return Err(Change::Other);
        }
        if block.len() > known {
            if blocks.ended {
                return Err(Change::Longer);
            }
            blocks.hashes.truncate(index);
            blocks.hashes.push(xxh3_64(block));
            blocks.last = block.len();
        }
        blocks.ended |= block.is_empty();
        Ok(())
    }
}

impl From<Change> for io::Error {
    fn from(change: Change) -> io::Error {
        io::Error::other(change)
    }
}

/// One reading of a file.
pub(super) struct SeenFile {
    file: File,
    seen: Seen,
    block: Vec<u8>,
    /// Bytes of the block that were returned.
    at: usize,
    /// Index of the next block.
    count: usize,
}

impl SeenFile {
    fn read_block(&mut self) -> io::Result<()> {
        self.block.clear();
        self.at = 0;
        self.file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        let compared = self.seen.compare(self.count, &self.block);
        self.count += usize::from(!self.block.is_empty());
        compared.map_err(|change| {
            self.block.clear();
            change.into()
        })
    }
}

impl BufRead for SeenFile {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.block.len() {
            self.read_block()?;
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.block.len());
    }
}

impl Read for SeenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
