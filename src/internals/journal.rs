//! The journal of a run, for the benches: entries are appended and read back.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use crate::journal::{self, JournalOptions, Key, Lookup, Settled, Spec, Status};

/// A journal that is written.
pub struct Journal(journal::Journal);

impl Journal {
    /// Makes a new journal. It syncs when it is told to.
    ///
    /// # Errors
    /// If the file is there already, or cannot be written.
    pub fn create(path: &Path) -> Result<Journal, Box<dyn Error>> {
        let options = JournalOptions { resume: false, sync: Duration::MAX, ..JournalOptions::new(path) };
        Ok(Journal(journal::Journal::open(&options, &Spec::new(), None)?))
    }

    /// Looks whether the job with this record is settled, and appends its entry if it is not.
    ///
    /// # Errors
    /// If writing fails.
    pub fn settle(&mut self, number: u64, record: &[u8], out: &[u8]) -> Result<(), Box<dyn Error>> {
        let (key, None) = self.0.find(Key::content_of(record, None)) else { return Ok(()) };
        Ok(self.0.settle(Settled { out, ..Settled::new(key, Status::Ok, number) }, Vec::new())?)
    }

    /// Passes all entries to the system.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.0.flush()?)
    }

    /// Passes all entries to the disk.
    ///
    /// # Errors
    /// If writing fails.
    pub fn sync(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.0.sync()?)
    }
}

/// Reads a journal to continue it: opens it, and reads the entries of the jobs with these records, the first of which has the number
/// 1. Returns the number of settled jobs, and the length of their outputs.
///
/// # Errors
/// If it cannot be read.
pub fn read_back<'r>(path: &Path, records: impl Iterator<Item = &'r [u8]>) -> Result<(u64, u64), Box<dyn Error>> {
    let lookup = Lookup::preview(&JournalOptions::new(path), &Spec::new())?;
    let mut lookup = lookup.ok_or("there is no journal")?;
    let (mut jobs, mut bytes) = (0, 0);
    for (number, record) in (1..).zip(records) {
        let (_, Some(place)) = lookup.find(Key::content_of(record, None)) else { continue };
        if let Some(settled) = lookup.read(place, number)? {
            jobs += 1;
            bytes += settled.out.len() as u64;
        }
    }
    Ok((jobs, bytes))
}
