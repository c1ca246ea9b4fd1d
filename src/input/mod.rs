//! Where jobs come from: files and standard input, read as a lazy stream of records, and values that are computed.
//!
//! The room decides how bytes become [`Record`]s
//! and how a fault in them is named: file, line, column, and what was expected there. [`Inputs`] says which records a run
//! has, and gives each its number. Everything is read in constant memory, and no record grows beyond [`MAX_RECORD_BYTES`].
//! The room starts nothing and prints nothing; what a bad record means for the run is left to the caller, who asks
//! [`InputError::is_bad_record`] or has them left out and counted ([`BadRecords`]).
//!
//! A new format is a variant of [`Format`] and an iterator of records beside `rows`, `lines` and `json`.

mod bad;
mod cell;
mod csv;
mod error;
mod format;
mod header;
mod inputs;
mod json;
mod lines;
mod number;
mod range;
mod record;
mod rows;
mod seen;
mod source;
mod span;
mod sweep;
mod table;
#[cfg(test)]
mod tests;

use std::io::BufRead;

pub use bad::BadRecords;
pub use cell::Cell;
pub use error::{InputError, Place};
pub use format::{Format, Layout};
pub use inputs::{Inputs, Reading};
pub use number::Number;
pub use range::Range;
pub use record::Record;
pub use source::Source;
pub use span::{Linspace, linspace};
pub use sweep::{Axis, Draw, Sweep};

/// The largest record that is read. A longer one (a binary file, a quote that is never closed) is an error.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Any source of bytes.
type Bytes = Box<dyn BufRead + Send>;
