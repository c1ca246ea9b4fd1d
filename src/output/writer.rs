//! Bytes to standard output, standard error or a file, in blocks, and what is left of an output that failed.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use super::sink::Sink;
use super::{OutputError, Target};

pub(super) const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// What becomes of a file that is already there when it is written directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is emptied.
    Replace,
    /// It goes on where it ends.
    Append,
}

/// Writes bytes to a target.
///
/// They are collected and reach the system in blocks. What one call of [`Writer::write_all`] gets stays together: as long as
/// nobody is killed in the middle of a write, a file that is read meanwhile ends where a call ended.
pub struct Writer {
    name: Arc<str>,
    buffer: BufWriter<Sink>,
    /// Set by the first failure to write: what is in the file from there on is not a whole output.
    is_broken: bool,
}

impl Writer {
    /// Opens a target whose file appears whole or not at all: it is written under another name until [`Writer::finish`].
    ///
    /// # Errors
    /// If it cannot be written: no such directory, no permission, a directory of that name, a read-only file.
    pub fn open(target: &Target) -> Result<Writer, OutputError> {
        Writer::new(target, Sink::open(target))
    }

    /// Opens a target whose file is there at once and can be read while it is written; a run that ends early leaves what
    /// was flushed.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open_direct(target: &Target, existing: Existing) -> Result<Writer, OutputError> {
        Writer::new(target, Sink::open_direct(target, existing))
    }

    fn new(target: &Target, sink: io::Result<Sink>) -> Result<Writer, OutputError> {
        let name = target.name();
        match sink {
            Ok(sink) => {
                let buffer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, sink);
                Ok(Writer { name, buffer, is_broken: false })
            }
            Err(source) => Err(OutputError::from_io(&name, source)),
        }
    }

    /// How messages call it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether writing has failed before.
    #[cfg(test)]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether the bytes go straight to where they are read.
    #[cfg(test)]
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.buffer.get_ref(), Sink::Direct(_))
    }

    /// Takes these bytes.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let written = self.buffer.write_all(bytes);
        self.note(written)
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        let flushed = self.buffer.flush();
        self.note(flushed)
    }

    /// Writes what is left and lets the file appear under its name.
    ///
    /// # Errors
    /// If writing fails now or failed before: then there is no new file, or, if it is written directly, no whole one.
    pub fn finish(mut self) -> Result<(), OutputError> {
        if self.is_broken {
            return Err(OutputError::Incomplete { name: self.name });
        }
        self.flush()?;
        let (sink, _) = self.buffer.into_parts();
        sink.finish().map_err(|source| OutputError::from_io(&self.name, source))
    }

    /// Writes what is left of an output that is not whole. A file that would have appeared whole is left under its name with
    /// `.partial` behind it.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub fn leave_partial(mut self) -> Result<(), OutputError> {
        self.flush()?;
        let (sink, _) = self.buffer.into_parts();
        sink.leave_partial().map_err(|source| OutputError::from_io(&self.name, source))
    }

    fn note(&mut self, outcome: io::Result<()>) -> Result<(), OutputError> {
        outcome.map_err(|source| {
            self.is_broken = true;
            OutputError::from_io(&self.name, source)
        })
    }
}
