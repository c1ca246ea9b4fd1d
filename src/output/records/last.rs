//! Records read back: which jobs have ended well, and what the others' inputs were.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::Status;
use crate::input::{InputError, MAX_RECORD_BYTES, Place};

/// The longest line: an input that is the longest record, each character of it escaped, and what is said of it.
const MAX_LINE_BYTES: usize = 7 * MAX_RECORD_BYTES;
/// How far a last line without end is read before it is called none of a record.
const MAX_TORN_BYTES: u64 = MAX_LINE_BYTES as u64;
/// Jobs are remembered in groups.
const GROUP_BITS: u64 = 512;

/// What is read of a record; what it has besides is not looked at.
#[derive(Deserialize)]
struct Line<'a> {
    number: u64,
    #[serde(borrow)]
    input: &'a RawValue,
    status: Status,
}

/// What an input can be recognised by. Blanks between its values count; a line end between them is recorded as a blank.
pub fn input_hash(input: &RawValue) -> u64 {
    let text = input.get();
    if text.contains('\n') { xxh3_64(text.replace('\n', " ").as_bytes()) } else { xxh3_64(text.as_bytes()) }
}

/// For each job its last record: whether it ended well, and if not, the hash of its input.
///
/// Memory: a bit or so for each job that ended well (jobs that follow each other; a lone one takes some 100 bytes), some
/// 20 bytes for each other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRecords {
    ok: HashMap<u64, [u64; (GROUP_BITS / 64) as usize]>,
    not_ok: BTreeMap<u64, u64>,
}

impl LastRecords {
    /// Reads a file of records. A torn last line is what a killed run leaves, and is not looked at.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a record.
    pub fn read(path: &Path) -> Result<LastRecords, InputError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let unreadable = |source| InputError::Unreadable { file: name.clone(), source };
        let file = File::open(path).map_err(unreadable)?;
        LastRecords::read_lines(&name, BufReader::with_capacity(64 << 10, file))
    }

    pub(super) fn read_lines(name: &Arc<str>, mut lines: impl BufRead) -> Result<LastRecords, InputError> {
        let mut last = LastRecords::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let place = Place { file: name.clone(), line: number, column: None };
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
                Ok(record) => last.note(&record),
                Err(_) if !is_whole => break,
                Err(error) => {
                    let place = Place { column: Some(error.column()).filter(|column| *column > 0), ..place };
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
        let (group, word, bit) = place_of(number);
        self.ok.get(&group).is_some_and(|words| words[word] & bit != 0)
    }

    /// The jobs whose last record says that they did not end well, in order, each with the hash of its input.
    pub fn not_ok(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.not_ok.iter().map(|(number, hash)| (*number, *hash))
    }

    /// The hash of the input of a job that did not end well; see [`input_hash`].
    pub fn input_hash(&self, number: u64) -> Option<u64> {
        self.not_ok.get(&number).copied()
    }

    /// How many jobs ended well.
    pub fn ok_count(&self) -> u64 {
        self.ok.values().flatten().map(|word| u64::from(word.count_ones())).sum()
    }

    fn note(&mut self, record: &Line<'_>) {
        let (group, word, bit) = place_of(record.number);
        if record.status == Status::Ok {
            self.ok.entry(group).or_default()[word] |= bit;
            self.not_ok.remove(&record.number);
        } else {
            if let Some(words) = self.ok.get_mut(&group) {
                words[word] &= !bit;
            }
            self.not_ok.insert(record.number, input_hash(record.input));
        }
    }
}

/// A job's group, its word there and its bit in that.
fn place_of(number: u64) -> (u64, usize, u64) {
    let inside = number % GROUP_BITS;
    (number / GROUP_BITS, (inside / 64) as usize, 1 << (inside % 64))
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
