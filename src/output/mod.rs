//! Where results go: bytes or JSON Lines to standard output, standard error or a file.
//!
//! The room decides how a result becomes a line, how outputs of jobs that end in any order come out in order ([`Ordered`]),
//! when bytes reach the system, and whether a file appears whole or not at all. What a failure to write means for the run
//! is left to the caller.
//!
//! * A regular file is called `NAME.partial` until [`Writer::finish`] renames it. Whoever finds the name finds a whole file; a
//!   run that ends early, also one that is killed, leaves what it wrote as `NAME.partial`. Nothing in it is ever removed.
//! * Whatever is not a regular file (`/dev/null`, a FIFO, a terminal) is written directly, and so is what must be readable
//!   while the run goes on, and after it was killed: the records (`journal`).
//! * An output that cannot be written is found out when it is opened, before any job runs.
//! * A reader who has gone away (`| head`) is no fault of the run: [`OutputError::is_closed`] tells it apart.

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
pub use ordered::{DEFAULT_MEMORY, Order, Ordered, Stream};
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
    /// Any path.
    File(PathBuf),
}

impl Target {
    /// `-` is standard output, and so are its names in `/dev` and `/proc`; standard error has such names, too; everything
    /// else is a path.
    ///
    /// Opening `/dev/stdout` anew would begin at the start of a file that the shell had redirected it to.
    pub fn new(path: impl Into<PathBuf>) -> Target {
        let path = path.into();
        match path.to_str() {
            Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => Target::Stdout,
            Some("/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2") => Target::Stderr,
            _ => Target::File(path),
        }
    }

    /// How messages call it.
    pub fn name(&self) -> Arc<str> {
        match self {
            Target::Stdout => "standard output".into(),
            Target::Stderr => "standard error".into(),
            Target::File(path) => path.to_string_lossy().into(),
        }
    }
}

/// The line that stands in the place of a result that there is not.
#[derive(Serialize)]
struct FailureLine<'a> {
    error: Failure<'a>,
}

/// The line that stands in the place of a failed job's result: `{"error":{"job":3,"kind":"panic","message":"…"}}`.
pub(crate) fn failure_line(failure: Failure<'_>) -> Vec<u8> {
    let mut line = serde_json::to_vec(&FailureLine { error: failure }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Failure<'a> {
    /// The job's number: that of its record in the input, from 1.
    pub job: u64,
    /// What kind of failure, as one word: `panic`.
    pub kind: &'a str,
    /// What it says, on as many lines as it likes: they are escaped.
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
    /// If writing fails now or failed before: then what was written is in `NAME.partial`.
    pub fn finish(self) -> Result<(), OutputError> {
        self.writer.finish()
    }
}
