//! JSON Lines: one value on each line.

use std::io::{BufRead, Read};
use std::sync::Arc;

use serde_json::error::Category;

use super::Bytes;
use super::error::{InputError, Place};
use super::record::Record;

/// The values of a JSON Lines text.
pub(super) struct JsonLines {
    bytes: Bytes,
    name: Arc<str>,
    limit: usize,
    /// Lines read so far.
    lines: u64,
    line: Vec<u8>,
}

impl JsonLines {
    pub(super) fn new(name: Arc<str>, bytes: Bytes, limit: usize) -> JsonLines {
        JsonLines { bytes, name, limit, lines: 0, line: Vec::new() }
    }

    /// The next value; lines of nothing but blanks are skipped.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        loop {
            self.line.clear();
            let most = self.limit as u64 + 1;
            let read = self.bytes.by_ref().take(most).read_until(b'\n', &mut self.line);
            if read.map_err(|source| InputError::unreadable(&self.name, source))? == 0 {
                return Ok(None);
            }
            self.lines += 1;
            let place = Place { file: self.name.clone(), line: self.lines, column: None };
            if self.line.len() > self.limit {
                return Err(InputError::TooLong { place, limit: self.limit });
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(self.line.trim_ascii_end()) {
                Ok(value) => Ok(Some(Record::from_json(place, value))),
                Err(error) => Err(parse_error(place, &error)),
            };
        }
    }
}

fn parse_error(place: Place, error: &serde_json::Error) -> InputError {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let mut message = text.strip_suffix(&position).unwrap_or(&text).to_owned();
    if error.classify() == Category::Eof {
        // The usual cause is a JSON document laid out over several lines.
        message.push_str(" (each line must hold a whole JSON value)");
    }
    InputError::Json { place: Place { column: Some(error.column()), ..place }, message }
}
