//! Writes bytes to standard output, standard error or a file, in blocks; an output that failed stays as a partial file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{Plan, copy_range, have_same_beginning};
use super::sink::{Sink, appear, sorted_path};
use super::{OutputError, Target};

pub(super) const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// What is done with an existing file that is written directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is emptied.
    Replace,
    /// New bytes are written behind its end.
    Append,
}

/// Writes bytes to a target.
///
/// They are collected and reach the system in blocks. The bytes of one call of [`Writer::write_all`] stay together: unless the
/// process is killed during a write, a file that is read meanwhile ends where a call ended.
pub struct Writer {
    name: Arc<str>,
    buffer: BufWriter<Counted>,
    /// The position of the next byte, buffered ones included.
    position: u64,
    /// Set by the first failure to write, after which the output cannot become whole.
    is_broken: bool,
}

/// A sink, and the position up to which it was written.
struct Counted {
    sink: Sink,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.sink.write(bytes)?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Writer {
    /// Opens a target whose file appears whole or not at all: until [`Writer::finish`] it is called `NAME.partial`, which a run that
    /// ends early leaves.
    ///
    /// # Errors
    /// If it cannot be written: no such directory, no permission, a directory of that name, a read-only file, a file that
    /// another run writes.
    pub fn open(target: &Target) -> Result<Writer, OutputError> {
        Writer::new(target, Sink::open(target, false))
    }

    /// Opens like [`Writer::open`], but writes behind the bytes that an earlier run has left in `NAME.partial`.
    pub(crate) fn open_behind(target: &Target) -> Result<Writer, OutputError> {
        Writer::new(target, Sink::open(target, true))
    }

    /// Opens like [`Writer::open`], but drops the bytes that an earlier run has left in `NAME.partial`: they will be written again.
    pub(crate) fn open_again(target: &Target) -> Result<Writer, OutputError> {
        let sink = Sink::open(target, true).and_then(|sink| sink.clear().map(|()| sink));
        Writer::new(target, sink)
    }

    /// Opens like [`Writer::open_behind`], with the contents of the file `NAME` in front. If a killed run has begun to copy them into
    /// `NAME.partial`, the rest is copied.
    pub(crate) fn open_after(target: &Target) -> Result<Writer, OutputError> {
        let mut writer = Writer::open_behind(target)?;
        let Some((partial, _, path)) = writer.partial() else { return Ok(writer) };
        let Ok(old) = File::open(path) else { return Ok(writer) };
        let (copied, length) = (writer.position, old.metadata().map_or(0, |metadata| metadata.len()));
        if copied < length && have_same_beginning(partial, &old, copied).unwrap_or(false) {
            writer.copy_from(&old, copied, length - copied)?;
            writer.flush()?;
        }
        Ok(writer)
    }

    /// Opens a target whose file appears at once and can be read while it is written; a run that ends early leaves what was
    /// flushed.
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
                let written = sink.start();
                let buffer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, Counted { sink, written });
                Ok(Writer { name, buffer, position: written, is_broken: false })
            }
            Err(source) => Err(OutputError::from_io(&name, source)),
        }
    }

    /// Returns its name for messages.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn sink(&self) -> &Sink {
        &self.buffer.get_ref().sink
    }

    /// Returns the position of the next byte in the file, buffered ones included.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the position up to which the file was written.
    pub(crate) fn written(&self) -> u64 {
        self.buffer.get_ref().written
    }

    /// Returns the name of the unfinished file; `None` for what is written directly.
    pub(crate) fn partial_name(&self) -> Option<PathBuf> {
        self.partial().map(|(_, partial, _)| partial.to_owned())
    }

    /// Returns the unfinished file, its name, and its name when it is finished; `None` for what is written directly.
    pub(crate) fn partial(&self) -> Option<(&File, &Path, &Path)> {
        self.sink().partial()
    }

    /// Whether writing has failed before.
    #[cfg(test)]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether the bytes are written directly.
    #[cfg(test)]
    pub(super) fn is_direct(&self) -> bool {
        self.partial().is_none()
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.position += bytes.len() as u64;
        let written = self.buffer.write_all(bytes);
        self.note(written)
    }

    /// Passes everything written so far to the system.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        let flushed = self.buffer.flush();
        self.note(flushed)
    }

    /// Writes the rest and gives the file its name.
    ///
    /// # Errors
    /// If writing fails now or failed before: then the output stays in `NAME.partial`, or, if it is written directly, is not whole.
    pub fn finish(mut self) -> Result<(), OutputError> {
        if self.is_broken {
            return Err(OutputError::Incomplete { name: self.name.clone() });
        }
        self.flush()?;
        self.sink().finish().map_err(|source| OutputError::from_io(&self.name, source))
    }

    /// Writes the rest of an output that is not whole, and leaves it as `NAME.partial`.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub fn leave_partial(mut self) -> Result<(), OutputError> {
        self.flush()
    }

    /// Writes bytes of another file.
    ///
    /// # Errors
    /// If that file cannot be read, or writing fails.
    pub(crate) fn copy_from(&mut self, source: &File, at: u64, length: u64) -> Result<(), OutputError> {
        let mut buffer = [0; 16 << 10];
        let copied = copy_range(source, at, length, &mut buffer, &mut self.buffer);
        self.position += length;
        self.note(copied)
    }

    /// Writes the rest and puts the file into order, then gives it its name if it is `whole`. Calls `record` before the ordered
    /// copy replaces the file that was written.
    ///
    /// # Errors
    /// If writing fails now or failed before: then the output stays in `NAME.partial`.
    pub(crate) fn finish_sorted(
        mut self,
        plan: &Plan,
        whole: bool,
        record: impl FnOnce() -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        self.flush()?;
        let Some((file, partial, path)) = self.partial() else { return Ok(()) };
        let failure = |source| OutputError::from_io(&self.name, source);
        let sorted = sorted_path(partial);
        let copy_failure = |source| OutputError::from_io(&sorted.to_string_lossy().into(), source);
        let copy = plan.copy(file, &sorted).and_then(|copy| {
            copy.set_permissions(file.metadata()?.permissions())?;
            copy.sync_all()?;
            Ok(copy)
        });
        let copy = copy.map_err(|source| {
            // Only the copy is removed: all outputs are still in the original.
            let _ = std::fs::remove_file(&sorted);
            copy_failure(source)
        })?;
        record()?;
        let appeared = if whole { appear(&copy, &sorted, path) } else { Ok(()) };
        if whole && appeared.is_ok() {
            return std::fs::remove_file(partial).map_err(failure);
        }
        std::fs::rename(&sorted, partial).and(appeared).map_err(failure)
    }

    fn note(&mut self, outcome: io::Result<()>) -> Result<(), OutputError> {
        outcome.map_err(|source| {
            self.is_broken = true;
            OutputError::from_io(&self.name, source)
        })
    }
}
