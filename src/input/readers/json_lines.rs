//! The records of a file that has a JSON value on each line.

use crate::input::error::{InputError, Place};
use crate::input::json::JsonText;
use crate::input::record::Record;
use crate::input::text::TextLines;

/// The values of a JSON Lines text.
pub(in crate::input) struct JsonLines {
    lines: TextLines,
}

impl JsonLines {
    pub(in crate::input) fn new(lines: TextLines) -> JsonLines {
        JsonLines { lines }
    }

    /// Returns the next value; blank lines are skipped.
    pub(in crate::input) fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        while self.lines.advance()? {
            let line = self.lines.line().trim_ascii_end();
            if !line.is_empty() {
                let json = JsonText::new(line).map_err(|(column, message)| {
                    let place = Place { column: Some(column), ..self.lines.place() };
                    InputError::Json { place, message }
                })?;
                return Ok(Some(Record::from_json(self.lines.place(), json)));
            }
        }
        Ok(None)
    }
}
