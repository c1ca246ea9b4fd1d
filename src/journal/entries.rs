//! Reads a journal or a job log from its beginning to its end, entry after entry, in bounded memory: for reports.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::frame::{Header, Kind, has_magic, read_fields};
use super::line::MAX_LINE_BYTES;
use super::owner::lock;
use super::scan::{Damage, Scan};
use super::settled::Settled;
use super::{JournalError, Spec, Status};

/// The least bytes of a job's entry: an estimate of the number of jobs decides the size of the filter.
const LEAST_ENTRY_BYTES: u64 = 56;
/// The largest filter takes 32 MiB.
const MOST_FILTER_BITS: u64 = 1 << 28;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Journal,
    JobLog,
}

/// An entry, in the order of the file.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// A run has opened the journal.
    Owner(&'a Spec),
    /// What all jobs have in common.
    Spec(&'a Spec),
    /// The ranks of the run.
    Ranks(&'a Spec),
    /// All entries before this one were settled by this time, in µs since 1970.
    Moment(u64),
    Job(JobEntryRead<'a>),
    /// The statistics of the run, at its end.
    Statistics(&'a Spec),
    /// The run has ended by itself.
    Complete,
    /// The run has closed the journal before all jobs were settled.
    Closed,
}

/// The last entry of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobEntryRead<'a> {
    pub number: u64,
    pub status: Status,
    /// The job's object of the job log; `None` if none was kept.
    pub description: Option<&'a [u8]>,
    /// The end of its standard error, as far as it is in its entry.
    pub stderr: &'a [u8],
}

/// The condition of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub bytes: u64,
    pub damage: Vec<Damage>,
    /// The number of bytes at the end that were not written completely.
    pub torn: u64,
    /// The number of lines of a job log that are no entries.
    pub unreadable: u64,
    /// Whether a run has locked it now.
    pub is_in_use: bool,
}

/// A journal or a job log that is read more than once.
#[derive(Debug)]
pub(crate) struct Entries {
    path: PathBuf,
    file: File,
    kind: FileKind,
    last: LastPlaces,
    condition: Condition,
}

impl Entries {
    /// Opens a file and finds out which entries count: for each job the last one.
    ///
    /// # Errors
    /// If it cannot be read, or is neither a journal nor a job log.
    pub(crate) fn open(path: &Path) -> Result<Entries, JournalError> {
        let fault = |source| JournalError::Io { path: path.to_owned(), source };
        let file = super::inspect::open(path)?;
        let bytes = file.metadata().map_err(fault)?.len();
        let kind = match has_magic(&file).map_err(fault)? {
            false if bytes > 0 && begins_with_entry(&file).map_err(fault)? => FileKind::JobLog,
            _ => FileKind::Journal,
        };
        let mut entries = Entries {
            path: path.to_owned(),
            file,
            kind,
            last: LastPlaces::new(bytes / LEAST_ENTRY_BYTES),
            condition: Condition { bytes, ..Condition::default() },
        };
        let (mut last, mut frames) = (std::mem::take(&mut entries.last), 0);
        let condition = entries.read(&mut |place, key, entry| {
            frames += 1;
            if let (Entry::Job(_), Some(key)) = (entry, key) {
                last.note(key, place);
            }
        })?;
        // A file of its own, which is closed at once: the lock must not keep a run from its journal.
        let is_in_use = super::inspect::open(path).is_ok_and(|file| lock(&file).is_ok_and(|locked| !locked));
        entries.condition = Condition { bytes, is_in_use, ..condition };
        entries.last = last.without_filter();
        let is_known = kind == FileKind::JobLog || frames > 0 || bytes == 0 || entries.has_header()?;
        if is_known { Ok(entries) } else { Err(JournalError::NotAJournal(path.to_owned())) }
    }

    pub(crate) fn kind(&self) -> FileKind {
        self.kind
    }

    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    fn has_header(&self) -> Result<bool, JournalError> {
        let scan = Scan::new(&self.file).map_err(|source| self.fault(source))?;
        Ok(scan.header() == Header::Intact)
    }

    fn fault(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }

    /// Calls `entry` with each entry that counts, in the order of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn for_each(&self, mut entry: impl FnMut(&Entry<'_>)) -> Result<(), JournalError> {
        self.read(&mut |place, key, read| {
            if key.is_none_or(|key| self.last.is_last(key, place)) {
                entry(read);
            }
        })
        .map(drop)
    }

    /// Reads all entries, each with its place in the file and, of a job, a hash of its key.
    fn read(&self, each: &mut dyn FnMut(u64, Option<u64>, &Entry<'_>)) -> Result<Condition, JournalError> {
        match self.kind {
            FileKind::Journal => self.read_journal(each),
            FileKind::JobLog => self.read_log(each).map_err(|source| self.fault(source)),
        }
    }

    fn read_journal(&self, each: &mut dyn FnMut(u64, Option<u64>, &Entry<'_>)) -> Result<Condition, JournalError> {
        let mut scan = Scan::new(&self.file).map_err(|source| self.fault(source))?;
        if let Header::Newer(version) = scan.header() {
            return Err(JournalError::Newer { path: self.path.clone(), version });
        }
        let mut object = Vec::new();
        while let Some(frame) = scan.next().map_err(|source| self.fault(source))? {
            let fields = || read_fields(frame.payload);
            match frame.kind {
                Kind::Settled => {
                    let Some(settled) = Settled::read(frame.payload) else { continue };
                    object.clear();
                    if !settled.description.is_empty() {
                        object.extend_from_slice(settled.description);
                        object.push(b'}');
                    }
                    let description = Some(&*object).filter(|object| !object.is_empty());
                    let job = JobEntryRead {
                        number: settled.number,
                        status: settled.status,
                        description,
                        stderr: settled.err,
                    };
                    each(frame.at, Some(settled.key.short()), &Entry::Job(job));
                }
                Kind::Owner => each(frame.at, None, &Entry::Owner(&fields())),
                Kind::Spec => each(frame.at, None, &Entry::Spec(&fields())),
                Kind::Complete => each(frame.at, None, &Entry::Complete),
                Kind::Closed => each(frame.at, None, &Entry::Closed),
                Kind::Ranks => each(frame.at, None, &Entry::Ranks(&fields())),
                Kind::Statistics => each(frame.at, None, &Entry::Statistics(&fields())),
                Kind::Moment => {
                    if let Some(bytes) = frame.payload.first_chunk::<8>() {
                        each(frame.at, None, &Entry::Moment(u64::from_le_bytes(*bytes)));
                    }
                }
                Kind::Part | Kind::Unknown(_) => {}
            }
        }
        let torn = scan.length().saturating_sub(scan.end());
        Ok(Condition { damage: scan.damage().to_vec(), torn, ..Condition::default() })
    }

    fn read_log(&self, each: &mut dyn FnMut(u64, Option<u64>, &Entry<'_>)) -> io::Result<Condition> {
        /// What is read of each line.
        #[derive(Deserialize)]
        struct Head {
            number: u64,
            status: Status,
        }

        let mut condition = Condition::default();
        let mut lines = BufReader::with_capacity(1 << 20, &self.file);
        lines.seek(SeekFrom::Start(0))?;
        let (mut at, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let read = (&mut lines).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(condition);
            }
            match serde_json::from_slice::<Head>(&line) {
                Ok(Head { number, status }) => {
                    let job = JobEntryRead { number, status, description: Some(&line), stderr: &[] };
                    each(at, Some(number), &Entry::Job(job));
                }
                Err(_) if !line.ends_with(b"\n") => condition.torn = read as u64,
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) => condition.unreadable += 1,
            }
            at += read as u64;
        }
    }
}

/// Whether a file begins with an entry of a job log.
fn begins_with_entry(mut file: &File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_LINE_BYTES as u64)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice::<super::line::Line<'_>>(&line).is_ok())
}

/// Where the last entries of jobs are, as far as a job may have several.
///
/// A bit for the hash of each key says whether it may have been there before; only then the place of the entry is kept. So most jobs
/// cost two bytes, and the answer is exact as far as the hashes differ.
#[derive(Debug, Default)]
struct LastPlaces {
    bits: Vec<u64>,
    mask: u64,
    places: HashMap<u64, u64>,
}

impl LastPlaces {
    /// Makes an empty one for at most about this number of entries.
    fn new(entries: u64) -> LastPlaces {
        let bits = entries.saturating_mul(16).clamp(1 << 10, MOST_FILTER_BITS).next_power_of_two();
        LastPlaces { bits: vec![0; (bits / 64) as usize], mask: bits - 1, places: HashMap::new() }
    }

    /// Takes an entry with this key at this place, which is behind all others.
    fn note(&mut self, key: u64, place: u64) {
        let bit = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) & self.mask;
        let (word, bit) = (&mut self.bits[(bit / 64) as usize], 1 << (bit % 64));
        if *word & bit != 0 {
            self.places.insert(key, place);
        }
        *word |= bit;
    }

    /// Frees what is only needed while entries are noted.
    fn without_filter(self) -> LastPlaces {
        LastPlaces { places: self.places, ..LastPlaces::default() }
    }

    /// Whether the entry with this key at this place is the last one with this key.
    fn is_last(&self, key: u64, place: u64) -> bool {
        self.places.get(&key).is_none_or(|last| *last == place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_each_key_counts_however_the_bits_collide() {
        let mut last = LastPlaces::new(0);
        for place in 0..5_000 {
            last.note(place % 3_000, place);
        }
        let last = last.without_filter();
        let counted: Vec<_> = (0..5_000).filter(|place| last.is_last(place % 3_000, *place)).collect();
        assert_eq!(counted, (2_000..5_000).collect::<Vec<_>>());
        assert!(LastPlaces::new(u64::MAX).bits.len() <= 1 << 22, "its size is bounded");
    }
}
