//! Lines of text, one after the other, and the records of a file that has one on each.

use std::io::{BufRead, Read};
use std::sync::Arc;

use ::csv::StringRecord;

use super::Bytes;
use super::error::{InputError, NOT_UTF_8, Place, quote};
use super::header::Header;
use super::record::Record;

/// The lines of a text, none longer than the limit without its end. All of them share one buffer.
pub(super) struct TextLines {
    bytes: Bytes,
    name: Arc<str>,
    limit: usize,
    /// The byte behind each line.
    end: u8,
    /// Lines read so far.
    count: u64,
    line: Vec<u8>,
}

impl TextLines {
    pub(super) fn new(name: Arc<str>, bytes: Bytes, limit: usize, end: u8) -> TextLines {
        TextLines { bytes, name, limit, end, count: 0, line: Vec::new() }
    }

    /// Reads the next line. `false`: there is none.
    pub(super) fn advance(&mut self) -> Result<bool, InputError> {
        self.line.clear();
        // With `\r\n` behind the longest line.
        let most = self.limit as u64 + 2;
        let read = self.bytes.by_ref().take(most).read_until(self.end, &mut self.line);
        if read.map_err(|source| InputError::unreadable(&self.name, source))? == 0 {
            return Ok(false);
        }
        self.count += 1;
        if self.line().len() > self.limit {
            return Err(InputError::TooLong { place: self.place(), limit: self.limit });
        }
        Ok(true)
    }

    /// The line read last, without its end: `\n`, `\r\n`, or NUL.
    pub(super) fn line(&self) -> &[u8] {
        match self.line.strip_suffix(&[self.end]) {
            Some(line) if self.end == b'\n' => line.strip_suffix(b"\r").unwrap_or(line),
            Some(line) => line,
            None => &self.line,
        }
    }

    /// The line read last, as text.
    pub(super) fn text(&self) -> Result<&str, InputError> {
        let line = self.line();
        std::str::from_utf8(line).map_err(|_| {
            let value = quote(&String::from_utf8_lossy(line));
            InputError::Value { place: self.place(), label: String::new(), value, fault: NOT_UTF_8 }
        })
    }

    /// Of the line read last. Where lines end in NUL, it is the number of the record.
    pub(super) fn place(&self) -> Place {
        Place { file: self.name.clone(), line: self.count, column: None }
    }
}

/// Records that are lines.
pub(super) struct Lines {
    lines: TextLines,
    /// The name of the value, if the first line gave one.
    header: Option<Arc<Header>>,
}

impl Lines {
    /// Reads the first line, if it is a header.
    pub(super) fn new(lines: TextLines, has_header: bool) -> Result<Lines, InputError> {
        let mut lines = Lines { lines, header: None };
        if has_header && lines.advance()? {
            let name = lines.lines.text().map_err(InputError::into_header)?.trim().to_owned();
            lines.header = Some(Arc::new(Header::of_one(name)));
        }
        Ok(lines)
    }

    pub(super) fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        if !self.advance()? {
            return Ok(None);
        }
        let (place, text) = (self.lines.place(), self.lines.text()?);
        Ok(Some(match &self.header {
            None => Record::from_line(place, text.into()),
            Some(header) => Record::from_row(place, header.clone(), StringRecord::from_iter([text])),
        }))
    }

    /// Reads the next line that says something. `false`: there is none.
    fn advance(&mut self) -> Result<bool, InputError> {
        while self.lines.advance()? {
            let line = self.lines.line();
            // A file may have a name of blanks, but nobody sees a line of blanks.
            let is_blank = line.is_empty() || (self.lines.end == b'\n' && line.trim_ascii().is_empty());
            if !is_blank {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
