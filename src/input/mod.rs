//! Where jobs come from: files and standard input, read as a lazy stream of records.
//!
//! The room decides how bytes become [`Record`]s, how records become the inputs of the built-in functions ([`convert`]),
//! and how a fault in them is named: file, line, column, and what was expected there. It reads in constant memory, and no
//! record grows beyond [`MAX_RECORD_BYTES`]. It starts nothing and prints nothing; what a bad record means for the run is
//! left to the caller, who asks [`InputError::is_bad_record`].
//!
//! A new format is a variant of [`Format`] and an iterator of records beside `csv` and `json`.

pub mod convert;
mod csv;
mod error;
mod json;
mod record;
mod span;
mod table;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use error::reason;
pub use error::{InputError, Place};
pub use record::{Cell, Record};
pub use span::{Linspace, linspace};
pub use table::Table;

/// The largest record that is read. A longer one (a binary file, a quote that is never closed) is an error.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

const READ_BUFFER_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// How far blank text at the beginning is searched for the byte that tells the format.
const PEEK_BYTES: usize = 4096;

/// Any source of bytes.
type Bytes = Box<dyn BufRead + Send>;

/// How records are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values (RFC 4180), UTF-8. The first line names the columns. Empty lines are skipped.
    Csv,
    /// One JSON value on each line, UTF-8. Empty lines are skipped.
    JsonLines,
}

impl Format {
    /// What the file's ending says: `.csv`, or `.jsonl`, `.ndjson` and `.json`, in small or capital letters.
    pub fn from_ending(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "jsonl" | "ndjson" | "json" => Some(Format::JsonLines),
            _ => None,
        }
    }

    /// What the beginning of the text says. Column names never look like the beginning of an array, object or number.
    fn from_beginning(text: &[u8]) -> Format {
        match text.trim_ascii_start().first() {
            Some(b'{' | b'[' | b'-' | b'0'..=b'9') => Format::JsonLines,
            _ => Format::Csv,
        }
    }
}

/// A file or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Written as `-`.
    Stdin,
    /// Any path that can be opened: a regular file, a FIFO, `/dev/fd/3`.
    File(PathBuf),
}

impl Source {
    /// `-` is standard input, everything else a path.
    pub fn new(path: impl Into<PathBuf>) -> Source {
        match path.into() {
            path if path.as_os_str() == "-" => Source::Stdin,
            path => Source::File(path),
        }
    }

    /// How messages call it.
    pub fn name(&self) -> Arc<str> {
        match self {
            Source::Stdin => "standard input".into(),
            Source::File(path) => path.to_string_lossy().into(),
        }
    }

    /// Its records, from the beginning. Without a format the file's ending decides, and where that says nothing, the
    /// first byte that is not blank.
    ///
    /// # Errors
    /// If it cannot be read, or is CSV without a usable header.
    pub fn open(&self, format: Option<Format>) -> Result<Records, InputError> {
        let format = match self {
            Source::Stdin => format,
            Source::File(path) => format.or_else(|| Format::from_ending(path)),
        };
        Records::new(self.name(), self.bytes()?, format)
    }

    /// Its jobs, from the beginning: each record as `parse` reads it.
    ///
    /// # Errors
    /// As [`Source::open`]. A bad record is an `Err` in its place, and the iterator goes on behind it.
    pub fn jobs<T>(
        &self,
        format: Option<Format>,
        mut parse: impl FnMut(&Record) -> Result<T, InputError>,
    ) -> Result<impl Iterator<Item = Result<T, InputError>>, InputError> {
        Ok(self.open(format)?.map(move |record| parse(&record?)))
    }

    /// Reads the whole source once, so that a bad record is known before any job starts, and counts its records.
    /// `None`, and nothing is read, if it can be read only once (standard input, a FIFO).
    ///
    /// # Errors
    /// The first fault, be it in opening, reading, or a record that `parse` refuses.
    pub fn check<T>(
        &self,
        format: Option<Format>,
        parse: impl FnMut(&Record) -> Result<T, InputError>,
    ) -> Result<Option<u64>, InputError> {
        let is_special = |path: &Path| path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        match self {
            Source::File(path) if !is_special(path) => {}
            Source::Stdin | Source::File(_) => return Ok(None),
        }
        let mut count = 0;
        for job in self.jobs(format, parse)? {
            job?;
            count += 1;
        }
        Ok(Some(count))
    }

    /// Its numbers, all at once: CSV with or without a header, as [`Table`] describes.
    ///
    /// # Errors
    /// If it cannot be read, or a field is not a finite number, or a row has more or fewer fields than the first.
    pub fn table(&self) -> Result<Table, InputError> {
        let name = self.name();
        let (_, bytes) = peek(self.bytes()?).map_err(|source| InputError::unreadable(&name, source))?;
        Table::read(name, bytes, MAX_RECORD_BYTES)
    }

    fn bytes(&self) -> Result<Bytes, InputError> {
        let unreadable = |source| InputError::unreadable(&self.name(), source);
        match self {
            Source::Stdin => Ok(Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, io::stdin()))),
            Source::File(path) => {
                let file = File::open(path).map_err(unreadable)?;
                // A directory opens, and fails only when it is read.
                if file.metadata().map_err(unreadable)?.is_dir() {
                    return Err(unreadable(io::Error::from_raw_os_error(libc::EISDIR)));
                }
                Ok(Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, file)))
            }
        }
    }
}

/// The records of one source, read as they are asked for.
///
/// A bad record is an `Err` in its place, and the next record follows. After a fault of the source itself
/// (see [`InputError::is_bad_record`]) the iterator ends.
pub struct Records {
    reader: Reader,
}

enum Reader {
    Csv(csv::CsvRecords),
    JsonLines(json::JsonLines),
    Ended,
}

impl Records {
    /// The records in `bytes`, which messages call `name`. Without a format the first byte that is not blank decides.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn new(
        name: impl Into<Arc<str>>,
        bytes: impl BufRead + Send + 'static,
        format: Option<Format>,
    ) -> Result<Records, InputError> {
        Records::with_limit(name.into(), Box::new(bytes), format, MAX_RECORD_BYTES)
    }

    fn with_limit(name: Arc<str>, bytes: Bytes, format: Option<Format>, limit: usize) -> Result<Records, InputError> {
        let (beginning, bytes) = peek(bytes).map_err(|source| InputError::unreadable(&name, source))?;
        let reader = match format.unwrap_or(Format::from_beginning(&beginning)) {
            Format::Csv => Reader::Csv(csv::CsvRecords::new(name, bytes, limit)?),
            Format::JsonLines => Reader::JsonLines(json::JsonLines::new(name, bytes, limit)),
        };
        Ok(Records { reader })
    }
}

impl Iterator for Records {
    type Item = Result<Record, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match &mut self.reader {
            Reader::Csv(reader) => reader.next_record(),
            Reader::JsonLines(reader) => reader.next_record(),
            Reader::Ended => Ok(None),
        };
        let record = record.transpose();
        match &record {
            Some(Ok(_)) => {}
            Some(Err(error)) if error.is_bad_record() => {}
            Some(Err(_)) | None => self.reader = Reader::Ended,
        }
        record
    }
}

/// The beginning of the text, up to the first byte that is not blank, and the whole text without its byte order mark.
///
/// It asks for no byte more than it needs: the next one may be a long time coming.
fn peek(mut bytes: Bytes) -> io::Result<(Vec<u8>, Bytes)> {
    let mut beginning = Vec::new();
    for byte in bytes.by_ref().bytes() {
        beginning.push(byte?);
        if beginning == BYTE_ORDER_MARK {
            beginning.clear();
        }
        let undecided = BYTE_ORDER_MARK.starts_with(&beginning) || beginning.trim_ascii_start().is_empty();
        if !undecided || beginning.len() == PEEK_BYTES {
            break;
        }
    }
    let whole = Cursor::new(beginning.clone()).chain(bytes);
    Ok((beginning, Box::new(whole)))
}
