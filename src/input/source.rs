//! One source of bytes and its records: a file, a pipe, or standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::error::InputError;
use super::format::{Format, Layout};
use super::readers::csv::CsvRows;
use super::readers::json_lines::JsonLines;
use super::readers::lines::Lines;
use super::readers::rows::{Rows, TableRecords, TsvRows};
use super::readers::table::Table;
use super::record::Record;
use super::seen::Seen;
use super::text::TextLines;
use super::{Bytes, MAX_RECORD_BYTES};

const READ_BUFFER_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Most blank bytes at the beginning that are skipped to find the byte that decides the format.
const PEEK_BYTES: usize = 4096;

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

    /// Returns its name for messages.
    pub fn name(&self) -> Arc<str> {
        match self {
            Source::Stdin => "standard input".into(),
            Source::File(path) => path.to_string_lossy().into(),
        }
    }

    /// Returns the path, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Source::Stdin => None,
            Source::File(path) => Some(path),
        }
    }

    /// Returns its records from the beginning, and an error if the file differs from what was `seen`.
    ///
    /// # Errors
    /// If it cannot be read, or is a table without a usable header.
    pub(super) fn open(&self, layout: Layout, seen: &Seen) -> Result<Records, InputError> {
        let format = layout.format_of(self.path());
        Records::new(self.name(), self.bytes(seen)?, Layout { format, ..layout })
    }

    /// Whether it can be read only once: standard input, a FIFO.
    pub fn is_stream(&self) -> bool {
        match self {
            Source::Stdin => true,
            // A missing file or a folder is reported when it is opened.
            Source::File(path) => path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()),
        }
    }

    /// Reads all its numbers: CSV with or without a header, as [`Table`] describes.
    ///
    /// # Errors
    /// If it cannot be read, or a field is not a finite number, or a row has more or fewer fields than the first.
    pub fn table(&self) -> Result<Table, InputError> {
        let name = self.name();
        let unreadable = |source| InputError::unreadable(&name, source);
        let seen = Seen::default();
        let before = self.state();
        let (_, bytes) = peek(self.bytes(&seen)?).map_err(unreadable)?;
        let table = Table::read(name.clone(), bytes, MAX_RECORD_BYTES)?;
        if self.state() != before {
            // It was written to while it was read: a second reading checks that the contents are those of the first.
            io::copy(&mut self.bytes(&seen)?, &mut io::sink()).map_err(unreadable)?;
        }
        Ok(table)
    }

    /// Returns what changes when a regular file is written to.
    fn state(&self) -> Option<(u64, SystemTime)> {
        let metadata = self.path()?.metadata().ok()?;
        if metadata.is_file() { Some((metadata.len(), metadata.modified().ok()?)) } else { None }
    }

    fn bytes(&self, seen: &Seen) -> Result<Bytes, InputError> {
        let unreadable = |source| InputError::unreadable(&self.name(), source);
        match self {
            Source::Stdin => Ok(Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, io::stdin()))),
            Source::File(path) => {
                let file = File::open(path).map_err(unreadable)?;
                let metadata = file.metadata().map_err(unreadable)?;
                if metadata.is_file() {
                    return Ok(Box::new(seen.read(file).map_err(unreadable)?));
                }
                // A directory can be opened, and fails only when it is read.
                if metadata.is_dir() {
                    return Err(unreadable(io::Error::from_raw_os_error(libc::EISDIR)));
                }
                seen.refuse_stream().map_err(unreadable)?;
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
    pub(super) reader: Reader,
}

pub(super) enum Reader {
    Lines(Lines),
    Table(TableRecords),
    JsonLines(JsonLines),
    Ended,
}

impl Records {
    /// Reads records from `bytes`; `name` is used in messages. If the layout has no format, the first byte that is not blank
    /// decides.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn new(
        name: impl Into<Arc<str>>,
        bytes: impl BufRead + Send + 'static,
        layout: Layout,
    ) -> Result<Records, InputError> {
        Records::with_limit(name.into(), Box::new(bytes), layout, MAX_RECORD_BYTES)
    }

    pub(super) fn with_limit(
        name: Arc<str>,
        bytes: Bytes,
        layout: Layout,
        limit: usize,
    ) -> Result<Records, InputError> {
        let (beginning, bytes) = peek(bytes).map_err(|source| InputError::unreadable(&name, source))?;
        let format = layout.format_of(None).unwrap_or_else(|| layout.guess(&beginning));
        let reader = match format {
            Format::Lines => {
                let end = if layout.null { b'\0' } else { b'\n' };
                Reader::Lines(Lines::new(TextLines::new(name, bytes, limit, end), layout.header == Some(true))?)
            }
            Format::Csv => {
                Reader::Table(TableRecords::new(Rows::Csv(CsvRows::new(name, bytes, limit)), layout.header)?)
            }
            Format::Tsv => {
                Reader::Table(TableRecords::new(Rows::Tsv(TsvRows::new(name, bytes, limit)), layout.header)?)
            }
            Format::JsonLines => Reader::JsonLines(JsonLines::new(TextLines::new(name, bytes, limit, b'\n'))),
        };
        Ok(Records { reader })
    }
}

impl Iterator for Records {
    type Item = Result<Record, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match &mut self.reader {
            Reader::Lines(reader) => reader.next_record(),
            Reader::Table(reader) => reader.next_record(),
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

/// Returns the beginning of the text, up to the first byte that is not blank, and the whole text without its byte order mark.
///
/// Reads no more bytes than it needs, because on a pipe the next one may arrive much later.
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
