//! CSV: rows, their line numbers, and errors in quotes.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder, StringRecord};

use crate::input::Bytes;
use crate::input::error::{InputError, NOT_UTF_8, Place, quote};

/// The rows of a CSV text, the first one included, each with its place.
pub(in crate::input) struct CsvRows {
    reader: ::csv::Reader<RecordFeed>,
    name: Arc<str>,
    limit: usize,
    row: ByteRecord,
}

impl CsvRows {
    pub(in crate::input) fn new(name: Arc<str>, bytes: Bytes, limit: usize) -> CsvRows {
        let quotes = Quotes { state: Quote::FieldStart, column: 0, opened: (1, 1), fault: None };
        let feed = RecordFeed { bytes, limit, line: 1, record_line: None, fed: 0, quotes };
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(feed);
        CsvRows { reader, name, limit, row: ByteRecord::new() }
    }

    /// Reads the next row that is not empty. `label` returns the name of a field by its position, for the message that it is not
    /// UTF-8.
    pub(in crate::input) fn next_row(
        &mut self,
        label: impl Fn(usize) -> String,
    ) -> Result<Option<(Place, StringRecord)>, InputError> {
        self.reader.get_mut().begin_record();
        let outcome = self.reader.read_byte_record(&mut self.row);
        let feed = self.reader.get_ref();
        let place = |line, column| Place { file: self.name.clone(), line, column };
        match outcome {
            Ok(false) => Ok(None),
            Ok(true) => {
                if let Some(fault) = &feed.quotes.fault {
                    let (line, column) = feed.quotes.opened;
                    let (place, fault) = (place(line, Some(column)), fault.clone());
                    return Err(match feed.quotes.is_open() {
                        // It is unknown which rows the quote has swallowed.
                        true => InputError::Unclosed { place, fault },
                        false => InputError::Quote { place, fault },
                    });
                }
                let place = place(feed.record_line(), None);
                match StringRecord::from_byte_record(std::mem::take(&mut self.row)) {
                    Ok(row) => Ok(Some((place, row))),
                    Err(error) => {
                        let field = error.utf8_error().field();
                        let value = String::from_utf8_lossy(&error.into_byte_record()[field]).into_owned();
                        let (label, value) = (label(field), quote(&value));
                        Err(InputError::Value { place, label, value, fault: NOT_UTF_8 })
                    }
                }
            }
            Err(_) if feed.is_too_long() => {
                let line = if feed.quotes.is_open() { feed.quotes.opened.0 } else { feed.record_line() };
                Err(InputError::TooLong { place: place(line, None), limit: self.limit })
            }
            Err(error) => {
                let source = match error.into_kind() {
                    ErrorKind::Io(source) => source,
                    other => io::Error::other(format!("{other:?}")),
                };
                Err(InputError::unreadable(&self.name, source))
            }
        }
    }
}

/// Gives the parser one line at a time, and so knows on which line a record begins, its length so far, and its quotes. A line ends in `\n`, `\r\n` or, as for the parser, in a lone `\r`; only `\n` counts in line numbers.
///
/// The parser's own line numbers are one too low behind empty lines and behind `\r\n`: it counts from where it stopped
/// reading the record before.
struct RecordFeed {
    bytes: Bytes,
    limit: usize,
    /// The line of the next byte.
    line: u64,
    /// The first line of the current record that is not empty, after the parser got it.
    record_line: Option<u64>,
    /// Bytes of the current record that the parser got, without the end of its last line.
    fed: usize,
    quotes: Quotes,
}

impl RecordFeed {
    fn begin_record(&mut self) {
        self.record_line = None;
        self.fed = 0;
        self.quotes.state = Quote::FieldStart;
        self.quotes.fault = None;
    }

    fn record_line(&self) -> u64 {
        self.record_line.unwrap_or(self.line)
    }

    fn is_too_long(&self) -> bool {
        self.fed > self.limit
    }
}

impl Read for RecordFeed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.bytes.fill_buf()?;
        let available = &available[..available.len().min(buffer.len())];
        if available.is_empty() {
            self.quotes.end(self.line);
            return Ok(0);
        }
        let (end, quote) = end_and_first_quote(available);
        let line = &available[..end.map_or(available.len(), |end| end + 1)];
        let count = line.len();
        buffer[..count].copy_from_slice(line);
        if self.record_line.is_none() && end != Some(0) {
            self.record_line = Some(self.line);
        }
        self.quotes.look_at(line, quote, self.line);
        let is_newline = line.ends_with(b"\n");
        self.bytes.consume(count);
        if is_newline {
            self.line += 1;
            self.quotes.column = 0;
        }
        // Neither empty lines between records nor the end of a record's last line belong to a record.
        let is_last = end.is_some() && !self.quotes.is_open();
        self.fed = if self.record_line.is_some() { self.fed + count - usize::from(is_last) } else { 0 };
        if self.is_too_long() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}

/// Returns the end of the line and the first quote before it.
fn end_and_first_quote(bytes: &[u8]) -> (Option<usize>, Option<usize>) {
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => return (Some(at), quote),
            b'"' if quote.is_none() => quote = Some(at),
            _ => {}
        }
    }
    (None, quote)
}

/// The quotes of the current record. They are checked here, because the parser accepts everything: it closes an open quote at the
/// end of the text, and adds text behind a closing quote to the field.
struct Quotes {
    state: Quote,
    /// Bytes of the current line so far.
    column: usize,
    /// Line and column of the last quote that began a field.
    opened: (u64, usize),
    fault: Option<String>,
}

/// The state of a field before the next byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    FieldStart,
    /// In a field that does not begin with a quote: a quote in it has no meaning.
    Plain,
    Open,
    /// Behind a quote that closes the field, or is the first half of a quote within it.
    Closed,
    /// Behind a closed field and a blank.
    Behind,
}

impl Quotes {
    fn is_open(&self) -> bool {
        self.state == Quote::Open
    }

    /// Goes on over bytes of one line, at most up to its end; `quote` is the first quote among them.
    fn look_at(&mut self, bytes: &[u8], quote: Option<usize>, line: u64) {
        let before = self.column;
        self.column += bytes.len();
        let mut start = 0;
        if matches!(self.state, Quote::FieldStart | Quote::Plain) {
            // Without a quote, as in nearly all lines, the last byte is enough.
            start = quote.unwrap_or(bytes.len());
            self.state = match bytes[..start].last() {
                Some(b',' | b'\r' | b'\n') => Quote::FieldStart,
                Some(_) => Quote::Plain,
                None => self.state,
            };
        }
        for (at, byte) in bytes.iter().enumerate().skip(start) {
            self.state = match (self.state, byte) {
                (Quote::Open, b'"') => Quote::Closed,
                (Quote::Open, _) | (Quote::Closed, b'"') => Quote::Open,
                (_, b',' | b'\r' | b'\n') => Quote::FieldStart,
                (Quote::FieldStart, b'"') => {
                    // The first fault is kept, because later ones may follow from it.
                    if self.fault.is_none() {
                        self.opened = (line, before + at + 1);
                    }
                    Quote::Open
                }
                (Quote::FieldStart | Quote::Plain, _) => Quote::Plain,
                (Quote::Closed | Quote::Behind, b' ' | b'\t') => Quote::Behind,
                (Quote::Closed | Quote::Behind, _) => {
                    self.fault.get_or_insert_with(|| {
                        let closed = if line == self.opened.0 { String::new() } else { format!(" on line {line}") };
                        format!(
                            "the quote that opens here is closed{closed}, and text follows where a comma should (a quote \
                             within a field is written twice)"
                        )
                    });
                    Quote::Plain
                }
            };
        }
    }

    /// Ends the text, on this line.
    fn end(&mut self, line: u64) {
        if self.is_open() && self.fault.is_none() {
            // There is no line behind the last line end.
            let last = if self.column == 0 { line - 1 } else { line };
            let rest = if last > self.opened.0 { format!(", up to line {last},") } else { String::new() };
            self.fault = Some(format!(
                "the quote that opens here is never closed: everything behind it{rest} would be one field (a quote within a \
                 field is written twice)"
            ));
        }
    }
}
