//! Where results go: JSON Lines to standard output or to a file.
//!
//! The room decides how a result becomes a line, when bytes reach the system, and that a file appears whole or not at all.
//! The order of the lines, and what a failure to write means for the run, are left to the caller.
//!
//! * A regular file is written under another name in the same directory and renamed by [`JsonLines::finish`]. Whoever
//!   finds the name finds a whole file; a run that ends early removes what it wrote (unless it is killed outright: then
//!   `.rankpool-*.partial` stays behind).
//! * Whatever is not a regular file (`/dev/null`, a FIFO, a terminal) is written directly.
//! * An output that cannot be written is found out by [`JsonLines::open`], before any job runs.
//! * A reader who has gone away (`| head`) is no fault of the run: [`OutputError::is_closed`] tells it apart.

mod error;
mod sink;
#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

pub use error::OutputError;
use sink::Sink;

const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Standard output or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Written as `-`.
    Stdout,
    /// Any path.
    File(PathBuf),
}

impl Target {
    /// `-` is standard output, and so are its names in `/dev` and `/proc`; everything else is a path.
    ///
    /// Opening `/dev/stdout` anew would begin at the start of a file that the shell had redirected it to.
    pub fn new(path: impl Into<PathBuf>) -> Target {
        let path = path.into();
        match path.to_str() {
            Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1") => Target::Stdout,
            _ => Target::File(path),
        }
    }

    /// How messages call it.
    pub fn name(&self) -> Arc<str> {
        match self {
            Target::Stdout => "standard output".into(),
            Target::File(path) => path.to_string_lossy().into(),
        }
    }
}

/// The line that stands in the place of a result that there is not.
#[derive(Serialize)]
struct FailureLine<'a> {
    error: Failure<'a>,
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Failure<'a> {
    /// The job's index, from 0.
    pub job: u64,
    /// What kind of failure, as one word: `panic`.
    pub kind: &'a str,
    /// What it says, on as many lines as it likes: they are escaped.
    pub message: &'a str,
}

/// Writes results as JSON Lines: one value on each line, in the order of the calls.
///
/// Lines are collected and written in blocks, never a part of a value that turned out to have no JSON form. Call
/// [`JsonLines::flush`] when the results pause, so that a reader sees what there is, and [`JsonLines::finish`] at the end:
/// dropping the writer without it removes an unfinished file.
pub struct JsonLines {
    name: Arc<str>,
    writer: BufWriter<Sink>,
    line: Vec<u8>,
    /// Set by the first failure to write: what is in the file from there on is not a whole output.
    is_broken: bool,
}

impl JsonLines {
    /// Opens the target for writing.
    ///
    /// # Errors
    /// If it cannot be written: no such directory, no permission, a directory of that name, a read-only file.
    pub fn open(target: &Target) -> Result<JsonLines, OutputError> {
        let name = target.name();
        match Sink::open(target) {
            Ok(sink) => {
                let writer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, sink);
                Ok(JsonLines { name, writer, line: Vec::new(), is_broken: false })
            }
            Err(source) => Err(OutputError::from_io(&name, source)),
        }
    }

    /// Writes one result. Numbers that JSON does not have (NaN, infinities) become `null`.
    ///
    /// # Errors
    /// If the value has no JSON form (then nothing was written, and the output is still good), or writing fails.
    pub fn write<T: Serialize + ?Sized>(&mut self, result: &T) -> Result<(), OutputError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, result)
            .map_err(|source| OutputError::Value { name: self.name.clone(), source })?;
        self.line.push(b'\n');
        let written = self.writer.write_all(&self.line);
        self.note(written)
    }

    /// Writes `{"error":{"job":3,"kind":"panic","message":"…"}}` in the place of a failed job's result.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_failure(&mut self, failure: Failure<'_>) -> Result<(), OutputError> {
        self.write(&FailureLine { error: failure })
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        let flushed = self.writer.flush();
        self.note(flushed)
    }

    /// Writes what is left and lets the file appear under its name.
    ///
    /// # Errors
    /// If writing fails now or failed before: then there is no file, or the old one is still there.
    pub fn finish(mut self) -> Result<(), OutputError> {
        if self.is_broken {
            return Err(OutputError::Incomplete { name: self.name });
        }
        self.flush()?;
        let (sink, _) = self.writer.into_parts();
        sink.finish().map_err(|source| OutputError::from_io(&self.name, source))
    }

    fn note(&mut self, outcome: io::Result<()>) -> Result<(), OutputError> {
        outcome.map_err(|source| {
            self.is_broken = true;
            OutputError::from_io(&self.name, source)
        })
    }
}
