//! Errors in inputs, with their place.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::seen::Change;
use crate::console::reason;

/// Most characters of a wrong value that are shown.
const SHOWN_CHARACTERS: usize = 40;

/// The fault of bytes that are not text.
pub(super) const NOT_UTF_8: &str = "is not UTF-8 text (iconv converts a file from another encoding)";

/// A place in a source. Displayed as `jobs.csv:17`, or `jobs.jsonl:4:12` with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source's name in messages.
    pub file: Arc<str>,
    /// The line on which the record begins, from 1. Lines end in `\n`. For records without lines (values of a range, texts that
    /// end in NUL), the record's number in the source.
    pub line: u64,
    /// The byte of that line, from 1, if it is known.
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
        /// The source's name in messages.
        file: Arc<str>,
        /// The system's error.
        source: io::Error,
    },
    /// A file that is read more than once has changed.
    #[error(
        "{file} changed while it was read: {fault}; no more records are taken from it, so run this again when it is complete"
    )]
    Changed {
        /// The source's name in messages.
        file: Arc<str>,
        /// The kind of change.
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
        /// The limit.
        limit: usize,
    },
    /// A quote in a CSV file is never closed: the text behind it may be other rows.
    #[error("{place}: {fault}")]
    Unclosed {
        /// The quote that opens the field.
        place: Place,
        /// What is wrong with it.
        fault: String,
    },
    /// A closed quote in a CSV file is followed by text.
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
        /// The parser's message.
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
    /// The record is not of the kind that the function takes.
    #[error("{place}: expected {expected}")]
    Shape {
        /// Where the record begins.
        place: Place,
        /// What the function takes.
        expected: &'static str,
    },
    /// The record cannot be used for the job.
    #[error("{place}: {message}")]
    Refused {
        /// Where the record begins.
        place: Place,
        /// The reason.
        message: String,
    },
    /// The record is not the one that an earlier run had.
    #[error(
        "{place}: record {number} is another one than in the job log of --only-failed; the input must be the same as in that run"
    )]
    NotAsLogged {
        /// Where the record begins.
        place: Place,
        /// The record's number.
        number: u64,
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
    /// Whether only one record is bad and the records behind it can be read. Otherwise the source is.
    pub fn is_bad_record(&self) -> bool {
        match self {
            InputError::Unreadable { .. }
            | InputError::Changed { .. }
            | InputError::Header { .. }
            | InputError::Unclosed { .. }
            | InputError::NotAsLogged { .. }
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

    /// Turns the error of a row into one of the header, and so of the whole file.
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

/// Returns a shortened text between quotes.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", shorten(text))
}

/// Shortens a text to [`SHOWN_CHARACTERS`] and one line.
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
