//! Writes the outputs of jobs, then the entries of the job log: an entry is written after the output that it describes.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::journal::{Found, JobLog, OutputFiles, OutputPlace, finish_line};
use crate::output::{Extent, Layout, OutputError, OutputOrder, Section, Writer};

/// The most bytes of entries that wait for their outputs; with more, the outputs are flushed.
const ENTRY_BYTES: usize = 64 << 10;
/// The number of bytes that a note begins with: the job's number.
const NUMBER_BYTES: usize = 8;

/// The writers of a batch. Takes outputs and notes, one job after the other. A note is the job's number and its entry.
pub(crate) struct Handover {
    out: Writer,
    err: Errors,
    log: Option<JobLog>,
    order: OutputOrder,
    /// The output's name in entries, if they contain places.
    named: Option<String>,
    /// The places of the jobs' outputs, if the file may have to be put into order.
    layout: Option<Layout>,
    current: Current,
    /// Entries of outputs that may not be flushed yet.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
}

/// The job whose output is being written.
struct Current {
    /// The position at which its output begins.
    at: u64,
    hash: Xxh3,
    note: Vec<u8>,
}

/// An entry, and the positions up to which the outputs must be flushed before it is written.
struct Pending {
    out: u64,
    err: u64,
    line: Vec<u8>,
}

/// The standard error of jobs. If its reader goes away, the rest is dropped, and results are written as before.
struct Errors(Option<Writer>);

impl Errors {
    fn write_with(&mut self, write: impl FnOnce(&mut Writer) -> Result<(), OutputError>) -> Result<(), OutputError> {
        match self.0.as_mut().map(write) {
            Some(Err(error)) if error.is_closed() => self.0 = None,
            Some(written) => return written,
            None => {}
        }
        Ok(())
    }
}

impl Handover {
    /// `named` is the output's name for entries, if it is a regular file.
    pub(crate) fn new(
        out: Writer,
        err: Writer,
        log: Option<JobLog>,
        unordered: bool,
        named: Option<String>,
    ) -> Handover {
        let order = if unordered { OutputOrder::Settled } else { OutputOrder::Places };
        let named = named.filter(|_| log.as_ref().is_some_and(|log| log.path().is_some()));
        let current = Current { at: out.position(), hash: Xxh3::new(), note: Vec::new() };
        Handover {
            layout: named.is_some().then(Layout::default),
            err: Errors(Some(err)),
            pending: VecDeque::new(),
            pending_bytes: 0,
            out,
            log,
            order,
            named,
            current,
        }
    }

    /// Notes where the outputs are, so that some can be replaced later.
    pub(crate) fn keep_layout(&mut self) {
        if self.out.partial_name().is_some() {
            self.layout.get_or_insert_with(Layout::default);
        }
    }

    /// Replaces the lines of some jobs by other ones, if the output is an unfinished file. The entries of these jobs are not
    /// changed.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(super) fn replace_lines(&mut self, lines: &BTreeMap<u64, Vec<u8>>) -> Result<(), OutputError> {
        self.commit()?;
        let (Some(layout), Some((file, _, _))) = (&mut self.layout, self.out.partial()) else { return Ok(()) };
        let taken = layout.take_lines(file, |number| lines.contains_key(&number));
        taken.map_err(|error| OutputError::from_io(self.out.name(), error))?;
        for (number, line) in lines {
            let at = self.out.position();
            self.out.write_all(line)?;
            layout.add(Extent { number: *number, at, length: line.len() as u64 });
        }
        self.current.at = self.out.position();
        self.commit()
    }

    /// Appends to the output that earlier runs have left. Results that are in another file than the partial one are copied.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn append_to_earlier(&mut self, files: &OutputFiles, found: &[Found]) -> Result<(), OutputError> {
        let layout = self.layout.get_or_insert_with(Layout::default);
        let mut copied = Layout::default();
        let start = self.out.position();
        for Found { extent, file } in found {
            let Some(source) = files.other(*file) else {
                layout.add(*extent);
                continue;
            };
            let at = self.out.position();
            self.out.copy_from(source, extent.at, extent.length)?;
            copied.add(*extent);
            layout.add(Extent { at, ..*extent });
        }
        if self.out.position() > start {
            self.out.flush()?;
            let moved = copied.plan(OutputOrder::Places).moved().shifted(start);
            if let Some(log) = &self.log {
                log.change_places(&moved)?;
            }
        }
        self.current.at = self.out.position();
        Ok(())
    }

    /// Returns the path of the job log, if it is a regular file.
    pub(super) fn log_path(&self) -> Option<&Path> {
        self.log.as_ref()?.path()
    }

    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Whether standard error has bytes that are not flushed.
    pub(super) fn has_errors(&self) -> bool {
        self.err.0.as_ref().is_some_and(|err| err.position() > err.written())
    }

    /// Whether entries contain the places of outputs.
    pub(super) fn has_output_places(&self) -> bool {
        self.named.is_some()
    }

    /// Whether jobs need notes, because there is a job log or the places of outputs are kept.
    pub(super) fn needs_notes(&self) -> bool {
        self.layout.is_some() || self.log.is_some()
    }

    /// Returns the beginning of a job's note; empty if notes are not needed.
    pub(super) fn note(&self, number: u64) -> Vec<u8> {
        if self.needs_notes() { number.to_le_bytes().to_vec() } else { Vec::new() }
    }

    /// Returns the error for an entry that has no JSON form.
    pub(super) fn entry_error(&self, source: serde_json::Error) -> OutputError {
        let name = self.log.as_ref().map_or_else(|| Arc::from("the job log"), |log| log.name().clone());
        OutputError::Value { name, source }
    }

    /// Writes a piece of the current job's output, or takes a piece of its note. An empty piece of a note ends the job.
    pub(super) fn write(&mut self, section: Section, bytes: &[u8]) -> Result<(), OutputError> {
        match section {
            Section::STDOUT => {
                if self.named.is_some() {
                    self.current.hash.update(bytes);
                }
                self.out.write_all(bytes)
            }
            Section::STDERR => self.err.write_with(|err| err.write_all(bytes)),
            Section::Note if bytes.is_empty() => self.end_job(),
            Section::Note => {
                self.current.note.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn end_job(&mut self) -> Result<(), OutputError> {
        let out = self.out.position();
        let mut note = std::mem::take(&mut self.current.note);
        let hash = std::mem::replace(&mut self.current.hash, Xxh3::new());
        let at = std::mem::replace(&mut self.current.at, out);
        let Some(number) = note.first_chunk::<NUMBER_BYTES>().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return Ok(());
        };
        let length = out - at;
        if let Some(layout) = &mut self.layout {
            layout.add(Extent { number, at, length });
        }
        if note.len() > NUMBER_BYTES {
            let mut line = note.split_off(NUMBER_BYTES);
            let place = self.named.as_deref().map(|file| OutputPlace { file, at, length, hash: hash.digest() });
            finish_line(&mut line, place);
            self.pending_bytes += line.len();
            let err = self.err.0.as_ref().map_or(0, Writer::position);
            self.pending.push_back(Pending { out, err, line });
            if self.pending_bytes > ENTRY_BYTES {
                return self.commit();
            }
        }
        Ok(())
    }

    /// Flushes everything that was taken: outputs first, then the entries of flushed outputs.
    pub(super) fn commit(&mut self) -> Result<(), OutputError> {
        let out = self.out.flush();
        let err = self.err.write_with(Writer::flush);
        let logged = self.write_entries();
        out.and(err).and(logged)
    }

    /// Writes the entries whose outputs are flushed.
    fn write_entries(&mut self) -> Result<(), OutputError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let out = self.out.written();
        let err = self.err.0.as_ref().map_or(u64::MAX, Writer::written);
        while let Some(next) = self.pending.front().filter(|next| next.out <= out && next.err <= err) {
            log.write_line(&next.line)?;
            self.pending_bytes -= next.line.len();
            self.pending.pop_front();
        }
        log.flush()
    }

    /// Returns the names of the unfinished outputs: of the jobs' standard output, and of their standard error.
    pub(super) fn partial_names(&self) -> [Option<PathBuf>; 2] {
        [self.out.partial_name(), self.err.0.as_ref().and_then(Writer::partial_name)]
    }

    /// Finishes all outputs. `whole`: the output is complete. After an error all files are left as they are.
    pub(super) fn finish(mut self, whole: bool) -> Result<(), OutputError> {
        self.commit()?;
        let Handover { out, err, log, order, layout, .. } = self;
        match err.0 {
            Some(err) if whole => err.finish()?,
            Some(err) => err.leave_partial()?,
            None => {}
        }
        let plan = layout.map(|layout| layout.plan(order)).filter(|plan| !plan.is_done(out.position()));
        match plan {
            Some(plan) => {
                let moved = plan.moved();
                let change_places = || log.as_ref().map_or(Ok(()), |log| log.change_places(&moved));
                out.finish_sorted(&plan, whole, change_places)?;
            }
            None if whole => out.finish()?,
            None => out.leave_partial()?,
        }
        log.map_or(Ok(()), JobLog::finish)
    }
}
