//! What can be wrong with an input, in words that lead to the place.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::seen::Change;
use crate::console::reason;

/// How many characters of a wrong value are shown.
const SHOWN_CHARACTERS: usize = 40;

/// What is said of bytes that are no text.
pub(super) const NOT_UTF_8: &str = "is not UTF-8 text (iconv converts a file from another encoding)";

/// A place in a source. Written `jobs.csv:17`, or `jobs.jsonl:4:12` with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How messages call the source.
    pub file: Arc<str>,
    /// The line on which the record begins, from 1. Lines end in `\n`. Where there are no such lines (values of a range,
    /// texts that end in NUL), the record's number in the source.
    pub line: u64,
    /// The byte of that line, from 1, where one is known.
    pub column: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match self.column {
            Some(column) => write!(f, ":{column}"),
            None => Ok(()),
        }
    }
}

/// Why an input cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Opening or reading failed.
    #[error("cannot read {file}: {}", reason(source))]
    Unreadable {
        /// How messages call the source.
        file: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is read more than once is not what it was.
    #[error(
        "{file} changed while it was read: {fault}; no more records are taken from it, so run this again when it is complete"
    )]
    Changed {
        /// How messages call the source.
        file: Arc<str>,
        /// In what way.
        fault: String,
    },
    /// The first line of a file does not name its columns.
    #[error("{place}: {fault}")]
    Header {
        /// The header's line.
        place: Place,
        /// What is wrong with it.
        fault: String,
    },
    /// A record is longer than memory should hold.
    #[error("{place}: a record of more than {limit} bytes (a quote that is never closed, or not a text file?)")]
    TooLong {
        /// Where the record begins.
        place: Place,
        /// How long it may be.
        limit: usize,
    },
    /// A quote in a CSV file is never closed: all that is behind it may be other rows.
    #[error("{place}: {fault}")]
    Unclosed {
        /// The quote that opens the field.
        place: Place,
        /// What is wrong with it.
        fault: String,
    },
    /// Text follows in a CSV file where a quote is closed.
    #[error("{place}: {fault}")]
    Quote {
        /// The quote that opens the field.
        place: Place,
        /// What is wrong with it.
        fault: String,
    },
    /// A row has more or fewer fields than the header, or than the first row of a table without header.
    #[error("{place}: {}, but {} has {expected}", columns(*.found), if *.header { "the header" } else { "the first row" })]
    Columns {
        /// Where the row begins.
        place: Place,
        /// Fields in the row.
        found: usize,
        /// Fields it should have.
        expected: usize,
        /// Whether there is a header to compare with.
        header: bool,
    },
    /// A line is not JSON.
    #[error("{place}: {message}")]
    Json {
        /// Line and column of the fault.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A field is missing.
    #[error("{place}: no {what} (available: {})", shorten(present))]
    Missing {
        /// Where the record begins.
        place: Place,
        /// The column or key that is missing.
        what: String,
        /// The names that are there.
        present: String,
    },
    /// The record is of another kind than the function takes.
    #[error("{place}: expected {expected}")]
    Shape {
        /// Where the record begins.
        place: Place,
        /// What the function takes.
        expected: &'static str,
    },
    /// What is to be done with the record cannot be done.
    #[error("{place}: {message}")]
    Refused {
        /// Where the record begins.
        place: Place,
        /// Why not.
        message: String,
    },
    /// A value is of the wrong kind or out of range.
    #[error("{place}: {label}{value} {fault}")]
    Value {
        /// Where the record begins.
        place: Place,
        /// Which value, as `column 'p3': `; empty if it is the whole record.
        label: String,
        /// The value, quoted and shortened.
        value: String,
        /// What is wrong with it, as `is not a number`.
        fault: &'static str,
    },
}

impl InputError {
    /// Whether one record is at fault, so that the ones behind it can still be read; if not, the source is.
    pub fn is_bad_record(&self) -> bool {
        match self {
            InputError::Unreadable { .. }
            | InputError::Changed { .. }
            | InputError::Header { .. }
            | InputError::Unclosed { .. }
            | InputError::TooLong { .. } => false,
            InputError::Quote { .. }
            | InputError::Columns { .. }
            | InputError::Json { .. }
            | InputError::Missing { .. }
            | InputError::Shape { .. }
            | InputError::Refused { .. }
            | InputError::Value { .. } => true,
        }
    }

    /// The same fault in a header, where it is one of the whole file.
    pub(super) fn into_header(self) -> InputError {
        match self {
            InputError::Value { place, label, value, fault } => {
                InputError::Header { place, fault: format!("{label}{value} {fault}") }
            }
            InputError::Quote { place, fault } | InputError::Unclosed { place, fault } => {
                InputError::Header { place, fault }
            }
            error => error,
        }
    }

    pub(super) fn unreadable(file: &Arc<str>, source: io::Error) -> InputError {
        match source.get_ref().and_then(|source| source.downcast_ref::<Change>()) {
            Some(change) => InputError::Changed { file: file.clone(), fault: change.to_string() },
            None => InputError::Unreadable { file: file.clone(), source },
        }
    }
}

/// A text between quotes.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", shorten(text))
}

/// At most a few dozen characters of a text, on one line.
pub(super) fn shorten(text: &str) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == SHOWN_CHARACTERS {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn columns(count: usize) -> String {
    format!("{count} column{}", if count == 1 { "" } else { "s" })
}
