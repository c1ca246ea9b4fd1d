//! Records read back: which jobs have ended well, and whether inputs are still what they were.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::Status;
use super::places::OutputFiles;
use crate::input::{InputError, MAX_RECORD_BYTES, Place as InputPlace};

/// The longest line: an input that is the longest record, each character of it escaped, and what is said of it.
pub(super) const MAX_LINE_BYTES: usize = 7 * MAX_RECORD_BYTES;
/// How far a last line without end is read before it is called none of a record.
const MAX_TORN_BYTES: u64 = MAX_LINE_BYTES as u64;
/// Jobs are remembered in groups of so many.
const GROUP: u64 = 64;

/// What is read of a record; what it has besides is not looked at.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub number: u64,
    #[serde(borrow)]
    input: &'a RawValue,
    pub status: Status,
    #[serde(borrow, default)]
    pub output: Option<Place<'a>>,
}

/// Where a record says that the output is.
#[derive(Deserialize)]
pub(super) struct Place<'a> {
    #[serde(borrow)]
    pub file: Cow<'a, str>,
    pub at: u64,
    pub length: u64,
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
}

/// What an input can be recognised by. Blanks between its values count; a line end between them is recorded as a blank.
fn hash(input: &RawValue) -> u32 {
    let text = input.get();
    let hash = if text.contains('\n') { xxh3_64(text.replace('\n', " ").as_bytes()) } else { xxh3_64(text.as_bytes()) };
    hash as u32
}

/// The last records of jobs whose numbers follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// A bit for each job that has a record.
    known: u64,
    /// A bit for each one that ended well.
    ok: u64,
    inputs: [u32; GROUP as usize],
}

/// For each job its last record: whether it ended well, and what its input can be recognised by. That takes some four bytes for
/// each job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRecords {
    groups: BTreeMap<u64, Group>,
}

impl LastRecords {
    /// Reads a file of records. A torn last line is what a killed run leaves, and is ignored. A job that ended well counts as one
    /// that did not if its output belongs to `files` and is not there.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a record.
    pub(crate) fn read(path: &Path, files: Option<&mut OutputFiles>) -> Result<LastRecords, InputError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let unreadable = |source| InputError::Unreadable { file: name.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        LastRecords::read_lines(&name, BufReader::with_capacity(64 << 10, file), files)
    }

    pub(super) fn read_lines(
        name: &Arc<str>,
        mut lines: impl BufRead,
        mut files: Option<&mut OutputFiles>,
    ) -> Result<LastRecords, InputError> {
        let mut last = LastRecords::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let place = InputPlace { file: name.clone(), line: number, column: None };
            (&mut lines)
                .take(MAX_LINE_BYTES as u64 + 1)
                .read_until(b'\n', &mut line)
                .map_err(|source| InputError::Unreadable { file: name.clone(), source })?;
            let is_whole = line.ends_with(b"\n");
            if !is_whole && line.len() > MAX_LINE_BYTES {
                return Err(InputError::TooLong { place, limit: MAX_LINE_BYTES });
            }
            if line.is_empty() {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line<'_>>(&line) {
                Ok(record) => {
                    let is_there = files.as_deref_mut().is_none_or(|files| files.look(&record));
                    last.note(&record, is_there);
                }
                Err(_) if !is_whole => break,
                Err(error) => {
                    let place = InputPlace { column: Some(error.column()).filter(|column| *column > 0), ..place };
                    let fault = error.to_string();
                    let fault = fault.split(" at line ").next().unwrap_or_default();
                    let message = format!("not a record of a job, as `--records` writes them: {fault}");
                    return Err(InputError::Json { place, message });
                }
            }
        }
        Ok(last)
    }

    /// Whether the job's last record says that it ended well. A job that was never recorded did not.
    pub fn is_ok(&self, number: u64) -> bool {
        self.groups.get(&(number / GROUP)).is_some_and(|group| group.ok & bit(number) != 0)
    }

    /// Whether the job's last record was of another input than this.
    pub fn is_of_another(&self, number: u64, input: &RawValue) -> bool {
        self.groups.get(&(number / GROUP)).is_some_and(|group| {
            group.known & bit(number) != 0 && group.inputs[(number % GROUP) as usize] != hash(input)
        })
    }

    /// How many jobs ended well.
    pub fn ok_count(&self) -> u64 {
        self.groups.values().map(|group| u64::from(group.ok.count_ones())).sum()
    }

    fn note(&mut self, record: &Line<'_>, is_there: bool) {
        let new = || Group { known: 0, ok: 0, inputs: [0; GROUP as usize] };
        let group = self.groups.entry(record.number / GROUP).or_insert_with(new);
        let bit = bit(record.number);
        group.known |= bit;
        group.inputs[(record.number % GROUP) as usize] = hash(record.input);
        if record.status == Status::Ok && is_there {
            group.ok |= bit;
        } else {
            group.ok &= !bit;
        }
    }
}

/// A job's bit in its group.
fn bit(number: u64) -> u64 {
    1 << (number % GROUP)
}

/// Makes the file end with a whole line, so that records can follow: a whole record without its end gets one, a torn one is
/// cut off.
pub(super) fn mend(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        // Opening it for writing says what is wrong with it.
        Err(_) => return Ok(()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let begin = last_line(&mut file, metadata.len())?;
    let mut line = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    (&mut file).take(MAX_TORN_BYTES).read_to_end(&mut line)?;
    if line.is_empty() {
        return Ok(());
    }
    if serde_json::from_slice::<Line<'_>>(&line).is_ok() {
        return io::Write::write_all(&mut file, b"\n");
    }
    let beginning = b"{\"number\":";
    let common = line.len().min(beginning.len());
    if line[..common] != beginning[..common] {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its last line is not a record of a job, as `--records` writes them; give another file",
        ));
    }
    file.set_len(begin)
}

/// Where the last line begins; at the end if that is the end of a line.
fn last_line(file: &mut File, length: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = length;
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let bytes = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}
