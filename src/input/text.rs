//! Lines of text, one after the other.

use std::io::{BufRead, Read};
use std::sync::Arc;

use super::Bytes;
use super::error::{InputError, NOT_UTF_8, Place, quote};

/// The lines of a text, none longer than the limit without its end. All of them share one buffer.
pub(super) struct TextLines {
    bytes: Bytes,
    name: Arc<str>,
    limit: usize,
    /// The byte that ends each line.
    end: u8,
    /// Lines read so far.
    count: u64,
    line: Vec<u8>,
}

impl TextLines {
    pub(super) fn new(name: Arc<str>, bytes: Bytes, limit: usize, end: u8) -> TextLines {
        TextLines { bytes, name, limit, end, count: 0, line: Vec::new() }
    }

    /// Reads the next line; returns false if there is none.
    pub(super) fn advance(&mut self) -> Result<bool, InputError> {
        self.line.clear();
        // The longest line, and its `\r\n`.
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

    /// Returns the line that was read last, without its end: `\n`, `\r\n`, or NUL.
    pub(super) fn line(&self) -> &[u8] {
        match self.line.strip_suffix(&[self.end]) {
            Some(line) if self.end == b'\n' => line.strip_suffix(b"\r").unwrap_or(line),
            Some(line) => line,
            None => &self.line,
        }
    }

    /// Returns the line that was read last, as text.
    pub(super) fn text(&self) -> Result<&str, InputError> {
        let line = self.line();
        std::str::from_utf8(line).map_err(|_| {
            let value = quote(&String::from_utf8_lossy(line));
            InputError::Value { place: self.place(), label: String::new(), value, fault: NOT_UTF_8 }
        })
    }

    /// Returns the place of the line that was read last. For lines that end in NUL, its line is the number of the record.
    pub(super) fn place(&self) -> Place {
        Place { file: self.name.clone(), line: self.count, column: None }
    }

    /// Returns the byte that ends each line.
    pub(super) fn end(&self) -> u8 {
        self.end
    }
}
