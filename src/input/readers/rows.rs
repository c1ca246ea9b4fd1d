//! Tables: rows of CSV or TSV as records, below a header or without one.

use std::sync::Arc;

use ::csv::StringRecord;

use super::csv::CsvRows;
use crate::input::Bytes;
use crate::input::error::{InputError, NOT_UTF_8, Place, quote};
use crate::input::header::{Header, Separator, column_number, read_header};
use crate::input::record::Record;
use crate::input::text::TextLines;

/// The rows of a text, one after the other, each with its place. Empty lines are not among them.
pub(in crate::input) enum Rows {
    Csv(CsvRows),
    Tsv(TsvRows),
}

impl Rows {
    /// Reads the next row. `label` returns the name of a field by its position, for the message that it is not UTF-8.
    fn next_row(&mut self, label: impl Fn(usize) -> String) -> Result<Option<(Place, StringRecord)>, InputError> {
        match self {
            Rows::Csv(rows) => rows.next_row(label),
            Rows::Tsv(rows) => rows.next_row(label),
        }
    }

    fn separator(&self) -> Separator {
        match self {
            Rows::Csv(_) => Separator::Comma,
            Rows::Tsv(_) => Separator::Tab,
        }
    }
}

/// The rows of a TSV text: the texts between tabs.
pub(in crate::input) struct TsvRows {
    lines: TextLines,
}

impl TsvRows {
    pub(in crate::input) fn new(name: Arc<str>, bytes: Bytes, limit: usize) -> TsvRows {
        TsvRows { lines: TextLines::new(name, bytes, limit, b'\n') }
    }

    fn next_row(&mut self, label: impl Fn(usize) -> String) -> Result<Option<(Place, StringRecord)>, InputError> {
        loop {
            if !self.lines.advance()? {
                return Ok(None);
            }
            if !self.lines.line().is_empty() {
                break;
            }
        }
        let (place, line) = (self.lines.place(), self.lines.line());
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some((place, text.split('\t').collect()))),
            Err(error) => {
                let field = line[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\t').count();
                let value = line.split(|&byte| byte == b'\t').nth(field).unwrap_or_default();
                let (label, value) = (label(field), quote(&String::from_utf8_lossy(value)));
                Err(InputError::Value { place, label, value, fault: NOT_UTF_8 })
            }
        }
    }
}

/// The rows of a table, as records.
pub(in crate::input) struct TableRecords {
    rows: Rows,
    /// Unknown until the first row of a table without header.
    header: Option<Arc<Header>>,
    has_names: bool,
}

impl TableRecords {
    /// Reads the header; `has_header` is `None` if the user has not set it.
    pub(in crate::input) fn new(mut rows: Rows, has_header: Option<bool>) -> Result<TableRecords, InputError> {
        if has_header == Some(false) {
            return Ok(TableRecords { rows, header: None, has_names: false });
        }
        let header = match rows.next_row(column_number).map_err(InputError::into_header)? {
            // An empty text has no jobs, as in JSON Lines: on standard input the two formats cannot be told apart.
            None => Header::default(),
            Some((place, row)) => read_header(&row, rows.separator(), has_header == Some(true))
                .map_err(|fault| InputError::Header { place, fault })?,
        };
        Ok(TableRecords { rows, header: Some(Arc::new(header)), has_names: true })
    }

    pub(in crate::input) fn next_record(&mut self) -> Result<Option<Record>, InputError> {
        let known = self.header.as_deref();
        let label = |column| known.map_or_else(|| column_number(column), |header| header.label(column));
        let Some((place, fields)) = self.rows.next_row(label)? else {
            return Ok(None);
        };
        let found = fields.len();
        let separator = self.rows.separator();
        let header = self.header.get_or_insert_with(|| Arc::new(Header::without_names(found, separator)));
        if found != header.len() {
            return Err(InputError::Columns { place, found, expected: header.len(), header: self.has_names });
        }
        Ok(Some(Record::from_row(place, header.clone(), fields)))
    }
}
