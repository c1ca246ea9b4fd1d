//! Finds the settled jobs of a journal by their records.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use super::Status;
use super::frame::Kind;
use super::index::{Index, Position};
use super::key_set::KeySet;
use super::scan::FrameReader;
use super::settled::{Key, Settled};
use crate::engine::exchange::OutputStream;

/// The settled jobs of a journal, asked for in the order of the records of a run.
pub(crate) struct Lookup {
    file: File,
    reader: FrameReader,
    index: Index,
    retry_failed: bool,
    /// The number of jobs of this run with the same content, where there is more than one.
    repeats: HashMap<u128, u32>,
    /// The keys of jobs of this run that are not in the index.
    seen: KeySet,
}

impl Lookup {
    /// `retry_failed`: jobs that have failed count as not settled.
    pub(super) fn new(file: File, index: Index, retry_failed: bool) -> Lookup {
        Lookup {
            file,
            reader: FrameReader::new(),
            index,
            retry_failed,
            repeats: HashMap::new(),
            seen: KeySet::default(),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the key of the next job, which has this content, and where it is, if it is settled already. All jobs of the run are
    /// asked for, in the order of their records.
    pub(crate) fn find(&mut self, content: u128) -> (Key, Option<Place>) {
        if let Some(next) = self.repeats.get_mut(&content) {
            *next += 1;
            let key = Key { content, occurrence: *next - 1 };
            return (key, self.take(key));
        }
        let first = Key { content, occurrence: 0 };
        let is_repeated = match self.index.find(first) {
            Some(entry) => match self.index.take(entry) {
                Some(position) => return (first, Some(Place { key: first, position })),
                None => true,
            },
            None => !self.seen.insert(first.short()),
        };
        if !is_repeated {
            return (first, None);
        }
        self.repeats.insert(content, 2);
        let key = Key { content, occurrence: 1 };
        (key, self.take(key))
    }

    fn take(&mut self, key: Key) -> Option<Place> {
        let entry = self.index.find(key)?;
        self.index.take(entry).map(|position| Place { key, position })
    }

    /// Returns the entry of a settled job with this number; `None` if the job has to be run: its entry cannot be read, or it has
    /// failed and is tried again, or had another number, which its error names.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(&mut self, place: Place, number: u64) -> io::Result<Option<Settled<'_>>> {
        let Place { key, position } = place;
        if position.has_failed && self.retry_failed {
            return Ok(None);
        }
        let parts: Vec<u64> = {
            let read = self.reader.read(&self.file, position.at);
            let Some((Kind::Settled, payload)) = read? else {
                return Ok(None);
            };
            let Some(settled) = Settled::read(payload).filter(|settled| settled.key == key) else { return Ok(None) };
            if settled.status != Status::Ok && settled.number != number {
                return Ok(None);
            }
            settled.parts.iter().collect()
        };
        for part in parts {
            if self.read_part(part)?.is_none() {
                return Ok(None);
            }
        }
        let read = self.reader.read(&self.file, position.at)?;
        Ok(read.and_then(|(_, payload)| Settled::read(payload)))
    }

    /// Returns the piece with this number of the output of a settled job.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read_part(&mut self, number: u64) -> io::Result<Option<(OutputStream, &[u8])>> {
        self.reader.read_piece(&self.file, number)
    }

    /// Returns whether the next job, which has this content and number, is settled.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn is_settled(&mut self, content: u128, number: u64) -> io::Result<bool> {
        let (_, place) = self.find(content);
        place.map_or(Ok(false), |place| self.read(place, number).map(|settled| settled.is_some()))
    }
}

/// Where the entry of a settled job is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    key: Key,
    position: Position,
}
