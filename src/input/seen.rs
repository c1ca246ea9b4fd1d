//! Files that are read more than once: every reading must find the bytes of the first.
//!
//! A file is read in blocks. Of each one a hash is kept when it is read first; when it is read again, it is compared before any
//! of its bytes is handed out. So no record is made of bytes that were not checked, and a file that was only touched, or
//! replaced by one with the same contents, has not changed.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

const BLOCK_BYTES: usize = 256 << 10;

/// What is known of a file's contents: 8 bytes for each block. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    hashes: Vec<u64>,
    /// Bytes in the last block; all others are full.
    last: usize,
    /// Whether the file ends behind it.
    ended: bool,
}

/// In what way a file is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Change {
    #[error("it is shorter than before")]
    Shorter,
    #[error("it is longer than before")]
    Longer,
    #[error("its contents are not those from before")]
    Other,
}

impl Seen {
    /// The file's bytes from the beginning, as long as they are those that were seen before.
    pub(super) fn read(&self, file: File) -> io::Result<SeenFile> {
        let length = file.metadata()?.len();
        if let Some(before) = self.length() {
            // What has no length, as in /proc, may have contents. The end of an empty file is found by reading.
            if length > 0 && length != before {
                return Err(if length < before { Change::Shorter } else { Change::Longer }.into());
            }
        }
        Ok(SeenFile { file, seen: self.clone(), block: Vec::new(), at: 0, count: 0 })
    }

    /// The next reading is the first.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Blocks::default();
    }

    /// What can be read only once does not follow on a file that could be read again.
    pub(super) fn refuse_stream(&self) -> io::Result<()> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.ended || blocks.last > 0 { Err(Change::Other.into()) } else { Ok(()) }
    }

    /// The file's length, once it was read to its end.
    fn length(&self) -> Option<u64> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = blocks.hashes.len().saturating_sub(1);
        blocks.ended.then_some((full * BLOCK_BYTES + blocks.last) as u64)
    }

    /// Compares a block with what was seen in its place, or remembers it if it is the first reading that comes so far. An empty
    /// one is the end.
    fn compare(&self, place: usize, block: &[u8]) -> Result<(), Change> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match blocks.hashes.len().checked_sub(place) {
            None | Some(0) => 0,
            Some(1) => blocks.last,
            Some(_) => BLOCK_BYTES,
        };
        if block.len() < known {
            return Err(Change::Shorter);
        }
        if known > 0 && blocks.hashes[place] != xxh3_64(&block[..known]) {
            return Err(Change::Other);
        }
        if block.len() > known {
            if blocks.ended {
                return Err(Change::Longer);
            }
            blocks.hashes.truncate(place);
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
    /// How much of the block was handed out.
    at: usize,
    /// Blocks before the next one.
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
