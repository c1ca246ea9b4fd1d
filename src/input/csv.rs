//! CSV: rows and their line numbers.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder, StringRecord};

use super::Bytes;
use super::error::{InputError, NOT_UTF_8, Place, quote};

/// The rows of a CSV text, the first one included, each with its place.
pub(super) struct CsvRows {
    reader: ::csv::Reader<LineFeed>,
    name: Arc<str>,
    limit: usize,
    row: ByteRecord,
}

impl CsvRows {
    pub(super) fn new(name: Arc<str>, bytes: Bytes, limit: usize) -> CsvRows {
        let feed = LineFeed { bytes, limit, line: 1, fed_line: 1, record_line: None, fed: 0 };
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(feed);
        CsvRows { reader, name, limit, row: ByteRecord::new() }
    }

    /// The next row that is not empty. `label` names a field by its position, for the message that it is not UTF-8.
    pub(super) fn next_row(
        &mut self,
        label: impl Fn(usize) -> String,
    ) -> Result<Option<(Place, StringRecord)>, InputError> {
        self.reader.get_mut().begin_record();
        let outcome = self.reader.read_byte_record(&mut self.row);
        let place = Place { file: self.name.clone(), line: self.reader.get_ref().record_line(), column: None };
        match outcome {
            Ok(false) => Ok(None),
            Ok(true) => match StringRecord::from_byte_record(std::mem::take(&mut self.row)) {
                Ok(row) => Ok(Some((place, row))),
                Err(error) => {
                    let field = error.utf8_error().field();
                    let value = String::from_utf8_lossy(&error.into_byte_record()[field]).into_owned();
                    let (label, value) = (label(field), quote(&value));
                    Err(InputError::Value { place, label, value, fault: NOT_UTF_8 })
                }
            },
            Err(_) if self.reader.get_ref().is_too_long() => Err(InputError::TooLong { place, limit: self.limit }),
            Err(error) => {
                let source = match error.into_kind() {
                    ErrorKind::Io(source) => source,
                    other => io::Error::other(format!("{other:?}")),
                };
                Err(InputError::Unreadable { file: self.name.clone(), source })
            }
        }
    }
}

/// Hands the parser at most one line at a time, and so knows on which line a record begins and how long it has become.
///
/// The parser's own line numbers are one too low behind empty lines and behind `\r\n`: it counts from where it stopped
/// reading the record before.
struct LineFeed {
    bytes: Bytes,
    limit: usize,
    /// The line on which the next byte lies.
    line: u64,
    /// The line on which the last byte handed out lay.
    fed_line: u64,
    /// The first line of the current record that is not empty, once it was handed out.
    record_line: Option<u64>,
    /// Bytes of the current record handed out so far.
    fed: usize,
}

impl LineFeed {
    fn begin_record(&mut self) {
        self.record_line = None;
        self.fed = 0;
    }

    fn record_line(&self) -> u64 {
        // Without a read the record came from the rest of a line that a lone `\r` had divided.
        self.record_line.unwrap_or(self.fed_line)
    }

    fn is_too_long(&self) -> bool {
        self.fed > self.limit
    }
}

impl Read for LineFeed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.bytes.fill_buf()?;
        let available = &available[..available.len().min(buffer.len())];
        let end = available.iter().position(|&byte| byte == b'\n').map(|newline| newline + 1);
        let line = &available[..end.unwrap_or(available.len())];
        let count = line.len();
        buffer[..count].copy_from_slice(line);
        if self.record_line.is_none() && line.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.record_line = Some(self.line);
        }
        self.bytes.consume(count);
        self.fed_line = self.line;
        self.line += u64::from(end.is_some());
        // Empty lines between records are not part of any.
        self.fed = if self.record_line.is_some() { self.fed + count } else { 0 };
        if self.is_too_long() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}
