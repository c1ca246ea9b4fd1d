//! Where jobs come from: files and standard input, read as a lazy stream of records, and values that are computed.
//!
//! The room decides how bytes become [`Record`]s
//! and how a fault in them is named: file, line, column, and what was expected there. [`Inputs`] says which records a run
//! has, and gives each its number. Everything is read in constant memory, and no record grows beyond [`MAX_RECORD_BYTES`].
//! The room starts nothing and prints nothing; what a bad record means for the run is left to the caller, who asks
//! [`InputError::is_bad_record`] or has them left out and counted ([`BadRecords`]).
//!
//! A new format is a variant of [`Format`] and an iterator of records in `readers`.

mod bad;
mod cell;
mod error;
mod format;
mod header;
mod inputs;
mod json;
mod made;
mod number;
mod readers;
mod record;
mod seen;
mod source;
#[cfg(test)]
mod tests;
mod text;

use std::io::BufRead;

pub use bad::BadRecords;
pub use cell::Cell;
pub use error::{InputError, Place};
pub use format::{Format, Layout};
pub use inputs::Inputs;
pub use made::range::Range;
pub use made::span::{Linspace, linspace};
pub use made::sweep::{Axis, Draw, Sweep};
pub use number::Number;
pub use record::Record;
pub use source::Source;

/// The largest record that is read. A longer one (a binary file, a quote that is never closed) is an error.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Any source of bytes.
type Bytes = Box<dyn BufRead + Send>;
