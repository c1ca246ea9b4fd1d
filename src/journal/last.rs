//! Reads a job log: which jobs have succeeded, and whether their inputs are still the same.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::Status;
use super::frame::has_magic;
use super::line::{Line, MAX_LINE_BYTES};
use super::places::OutputFiles;
use crate::input::{InputError, Place as InputPlace};

/// The number of bytes that are read of a last line without end. A longer one is not an entry.
const MAX_TORN_BYTES: u64 = MAX_LINE_BYTES as u64;
/// The number of jobs in a [`Group`].
const GROUP: u64 = 64;

/// Returns a hash by which an input is recognised. Blanks between its values count; a line end between them is logged as a blank.
fn hash(input: &RawValue) -> u32 {
    let text = input.get();
    let hash = if text.contains('\n') { xxh3_64(text.replace('\n', " ").as_bytes()) } else { xxh3_64(text.as_bytes()) };
    hash as u32
}

/// The last entries of [`GROUP`] jobs with consecutive numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// A bit for each job that has an entry.
    known: u64,
    /// A bit for each job that succeeded.
    ok: u64,
    /// The hashes of the inputs.
    inputs: [u32; GROUP as usize],
}

/// For each job its last entry: whether the job succeeded, and the hash of its input. That takes about four bytes for each job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEntries {
    groups: BTreeMap<u64, Group>,
}

impl LastEntries {
    /// Reads a job log. An incomplete last line, which a killed run leaves, is ignored. A successful job counts as failed if its
    /// output belongs to `files` and is missing there.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not an entry.
    pub(crate) fn read(path: &Path, files: Option<&mut OutputFiles>) -> Result<LastEntries, InputError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let unreadable = |source| InputError::Unreadable { file: name.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        if has_magic(&file).unwrap_or_default() {
            let place = InputPlace { file: name, line: 1, column: None };
            let message = "this is a journal, not a job log: give it as --journal, with --resume --retry-failed".into();
            return Err(InputError::Json { place, message });
        }
        LastEntries::read_lines(&name, BufReader::with_capacity(64 << 10, file), files)
    }

    pub(super) fn read_lines(
        name: &Arc<str>,
        mut lines: impl BufRead,
        mut files: Option<&mut OutputFiles>,
    ) -> Result<LastEntries, InputError> {
        let mut last = LastEntries::default();
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
                Ok(entry) => {
                    let is_there = files.as_deref_mut().is_none_or(|files| files.look_up(&entry));
                    last.note(&entry, is_there);
                }
                Err(_) if !is_whole => break,
                Err(error) => {
                    let place = InputPlace { column: Some(error.column()).filter(|column| *column > 0), ..place };
                    let fault = error.to_string();
                    let fault = fault.split(" at line ").next().unwrap_or_default();
                    let message = format!("not an entry of a job log, as `--records` writes it: {fault}");
                    return Err(InputError::Json { place, message });
                }
            }
        }
        Ok(last)
    }

    /// Whether the job has succeeded by its last entry. A job without an entry has not.
    pub fn is_ok(&self, number: u64) -> bool {
        self.groups.get(&(number / GROUP)).is_some_and(|group| group.ok & bit(number) != 0)
    }

    /// Whether the job's last entry has another input than this.
    pub fn is_of_another(&self, number: u64, input: &RawValue) -> bool {
        self.groups.get(&(number / GROUP)).is_some_and(|group| {
            group.known & bit(number) != 0 && group.inputs[(number % GROUP) as usize] != hash(input)
        })
    }

    /// Returns the number of successful jobs.
    pub fn ok_count(&self) -> u64 {
        self.groups.values().map(|group| u64::from(group.ok.count_ones())).sum()
    }

    fn note(&mut self, entry: &Line<'_>, is_there: bool) {
        let new = || Group { known: 0, ok: 0, inputs: [0; GROUP as usize] };
        let group = self.groups.entry(entry.number / GROUP).or_insert_with(new);
        let bit = bit(entry.number);
        group.known |= bit;
        group.inputs[(entry.number % GROUP) as usize] = hash(entry.input);
        if entry.status == Status::Ok && is_there {
            group.ok |= bit;
        } else {
            group.ok &= !bit;
        }
    }
}

/// Returns a job's bit in its group.
fn bit(number: u64) -> u64 {
    1 << (number % GROUP)
}

/// Makes the file end with a complete line, so that entries can be appended: a complete entry without a line end gets one, an
/// incomplete entry is cut off.
pub(super) fn end_last_line(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        // Opening the log for writing reports the reason.
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
            "its last line is not an entry of a job log, as `--records` writes it; give another file",
        ));
    }
    file.set_len(begin)
}

/// Returns where the last line begins: at the end of the file if a line ends there.
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
