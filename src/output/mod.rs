//! Outputs: bytes or JSON Lines to standard output, standard error or a file.
//!
//! This module decides how a result becomes a line, how the outputs of jobs that end in any order are put in order ([`Ordered`]),
//! when bytes reach the system, and that a file appears whole or not at all. What a failure to write means for the run is left to
//! the caller.
//!
//! * A regular file is called `NAME.partial` until [`Writer::finish`] renames it. So `NAME` is always a whole file; a run that ends
//!   early or is killed leaves its output as `NAME.partial`, of which nothing is ever removed.
//! * Anything but a regular file (`/dev/null`, a FIFO, a terminal) is written directly, and so is the job log (`journal`), which
//!   must be readable while the run goes on and after it was killed.
//! * An output that cannot be written is reported when it is opened, before any job runs.
//! * A closed reader (`| head`) is not an error of the run: [`OutputError::is_closed`].

mod error;
mod identity;
pub(crate) mod layout;
mod ordered;
pub(crate) mod sink;
mod spill;
mod tag;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

pub use error::OutputError;
pub(crate) use identity::{Identity, Kind, is_same_file};
pub(crate) use layout::{Extent, Layout, Moved};
pub use ordered::{DEFAULT_MEMORY, Ordered, OutputOrder, Section};
pub(crate) use sink::{partial_path, real_path};
pub use tag::Tag;
pub use writer::{Existing, Writer};

/// Standard output, standard error or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Written as `-`.
    Stdout,
    /// Written as `/dev/stderr`.
    Stderr,
    /// Any other path.
    File(PathBuf),
}

impl Target {
    /// Makes a target of a path. `-` and the names of standard output in `/dev` and `/proc` are standard output, the names of
    /// standard error are standard error, everything else is a file.
    ///
    /// Opening `/dev/stdout` again would write from the beginning of a file to which the shell has redirected it.
    pub fn new(path: impl Into<PathBuf>) -> Target {
        let path = path.into();
        match path.to_str() {
            Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => Target::Stdout,
            Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => Target::Stderr,
            _ => Target::File(path),
        }
    }

    /// Returns its name for messages.
    pub fn name(&self) -> Arc<str> {
        match self {
            Target::Stdout => "standard output".into(),
            Target::Stderr => "standard error".into(),
            Target::File(path) => path.to_string_lossy().into(),
        }
    }
}

/// The JSON object in place of a result that is missing.
#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorLine<'a>,
}

/// Returns the line in place of a failed job's result: `{"error":{"job":3,"kind":"panic","message":"…"}}`.
pub(crate) fn error_line(error: ErrorLine<'_>) -> Vec<u8> {
    let mut line = serde_json::to_vec(&ErrorObject { error }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorLine<'a> {
    /// The job's number: that of its record in the input, from 1.
    pub job: u64,
    /// The kind of failure, one word: `panic`.
    pub kind: &'a str,
    /// The message; line ends in it are escaped.
    pub message: &'a str,
}

/// Writes results as JSON Lines: one value on each line, in the order of the calls.
///
/// Lines are written in blocks, never a part of a value that turned out to have no JSON form. Call [`JsonLines::finish`] at the
/// end: dropping the writer without it leaves an unfinished file as `NAME.partial`.
pub struct JsonLines {
    writer: Writer,
    line: Vec<u8>,
}

impl JsonLines {
    /// Opens the target for writing.
    ///
    /// # Errors
    /// If it cannot be written: no such directory, no permission, a directory of that name, a read-only file.
    pub fn open(target: &Target) -> Result<JsonLines, OutputError> {
        Ok(JsonLines { writer: Writer::open(target)?, line: Vec::new() })
    }

    /// Writes one result. Numbers that JSON does not have (NaN, infinities) become `null`.
    ///
    /// # Errors
    /// If the value has no JSON form (then nothing was written, and the output is still good), or writing fails.
    pub fn write<T: Serialize + ?Sized>(&mut self, result: &T) -> Result<(), OutputError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, result)
            .map_err(|source| OutputError::Value { name: self.writer.name().clone(), source })?;
        self.line.push(b'\n');
        self.writer.write_all(&self.line)
    }

    /// Writes what is left and lets the file appear under its name.
    ///
    /// # Errors
    /// If writing fails now or failed before: then the output stays in `NAME.partial`.
    pub fn finish(self) -> Result<(), OutputError> {
        self.writer.finish()
    }
}
