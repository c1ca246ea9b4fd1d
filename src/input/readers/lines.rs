//! The records of a file that has one on each line.

use std::sync::Arc;

use ::csv::StringRecord;

use crate::input::error::InputError;
use crate::input::header::Header;
use crate::input::record::Record;
use crate::input::text::TextLines;

/// Records that are lines.
pub(in crate::input) struct Lines {
    lines: TextLines,
    /// The name of the value, if the first line is a header.
    header: Option<Arc<Header>>,
}

impl Lines {
    /// Reads the first line, if it is a header.
    pub(in crate::input) fn new(lines: TextLines, has_header: bool) -> Result<Lines, InputError> {
        let mut lines = Lines { lines, header: None };
        if has_header && lines.advance()? {
            let name = lines.lines.text().map_err(InputError::into_header)?.trim().to_owned();
            lines.header = Some(Arc::new(Header::of_one(name)));
        }
        Ok(lines)
    }

    pub(in crate::input) fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        if !self.advance()? {
            return Ok(None);
        }
        let (place, text) = (self.lines.place(), self.lines.text()?);
        Ok(Some(match &self.header {
            None => Record::from_line(place, text.into()),
            Some(header) => Record::from_row(place, header.clone(), StringRecord::from_iter([text])),
        }))
    }

    /// Reads the next line that is not blank; returns false if there is none.
    fn advance(&mut self) -> Result<bool, InputError> {
        while self.lines.advance()? {
            let line = self.lines.line();
            // With NUL a record may consist of blanks, as a file's name may; a blank line is skipped.
            let is_blank = line.is_empty() || (self.lines.end() == b'\n' && line.trim_ascii().is_empty());
            if !is_blank {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
