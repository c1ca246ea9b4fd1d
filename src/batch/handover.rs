//! The outputs and the records of a batch on their way to the system: a record is written when what it tells of was.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::journal::{Found, OutputFiles, OutputPlace, Records, finish_line};
use crate::output::{Extent, Layout, Order, OutputError, Stream, Writer};

/// How many bytes of records wait for their outputs to be written before those are.
const RECORD_BYTES: usize = 64 << 10;
/// How many bytes a note begins with: the job's number.
const NUMBER_BYTES: usize = 8;

/// Takes outputs and notes of jobs, one job after the other.
pub(crate) struct Handover {
    out: Writer,
    err: Errors,
    records: Option<Records>,
    order: Order,
    /// The output's name, if records tell places in it.
    named: Option<String>,
    /// Where the outputs are, if the file may have to be put into order.
    layout: Option<Layout>,
    current: Current,
    /// Records of outputs that the system may not have yet.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
}

/// The job whose output is being taken.
struct Current {
    /// Where its output begins.
    at: u64,
    hash: Xxh3,
    note: Vec<u8>,
}

/// A record, and how far the outputs must be written before it may be.
struct Pending {
    out: u64,
    err: u64,
    line: Vec<u8>,
}

/// What jobs say of themselves. Results must not suffer when its reader goes away: then nobody is told any more.
struct Errors(Option<Writer>);

impl Errors {
    fn tell(&mut self, tell: impl FnOnce(&mut Writer) -> Result<(), OutputError>) -> Result<(), OutputError> {
        match self.0.as_mut().map(tell) {
            Some(Err(error)) if error.is_closed() => self.0 = None,
            Some(told) => return told,
            None => {}
        }
        Ok(())
    }
}

impl Handover {
    /// `named` is the output's name for records, if it is a file that can be read again.
    pub(crate) fn new(
        out: Writer,
        err: Writer,
        records: Option<Records>,
        unordered: bool,
        named: Option<String>,
    ) -> Handover {
        let order = if unordered { Order::Settled } else { Order::Places };
        let named = named.filter(|_| records.as_ref().is_some_and(|records| records.path().is_some()));
        let current = Current { at: out.position(), hash: Xxh3::new(), note: Vec::new() };
        Handover {
            layout: named.is_some().then(Layout::default),
            err: Errors(Some(err)),
            pending: VecDeque::new(),
            pending_bytes: 0,
            out,
            records,
            order,
            named,
            current,
        }
    }

    /// Keeps account of where the outputs are, so that some can be replaced.
    pub(crate) fn keep_layout(&mut self) {
        if self.out.partial_name().is_some() {
            self.layout.get_or_insert_with(Layout::default);
        }
    }

    /// Puts other lines in the places of some jobs' lines, if the output is a file that is not whole yet. The records of these
    /// jobs are not changed.
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

    /// Lets the output go on behind what earlier runs have left. What they left in another file than the partial one is copied.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn go_on(&mut self, files: &OutputFiles, found: &[Found]) -> Result<(), OutputError> {
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
            let moved = copied.plan(Order::Places).moved().shifted(start);
            if let Some(records) = &self.records {
                records.change_places(&moved)?;
            }
        }
        self.current.at = self.out.position();
        Ok(())
    }

    /// The file of the records, if it is one that can be read again.
    pub(super) fn records(&self) -> Option<&Path> {
        self.records.as_ref()?.path()
    }

    pub(super) fn has_records(&self) -> bool {
        self.records.is_some()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.err.0.as_ref().is_some_and(|err| err.position() > err.written())
    }

    /// Whether it is recorded where the outputs are.
    pub(super) fn tells_places(&self) -> bool {
        self.named.is_some()
    }

    /// Whether jobs need notes, because records are written or the places of outputs are kept.
    pub(super) fn needs_notes(&self) -> bool {
        self.layout.is_some() || self.records.is_some()
    }

    /// The beginning of a job's note; empty if notes are not needed.
    pub(super) fn note(&self, number: u64) -> Vec<u8> {
        if self.needs_notes() { number.to_le_bytes().to_vec() } else { Vec::new() }
    }

    /// A record has no JSON form.
    pub(super) fn no_json(&self, source: serde_json::Error) -> OutputError {
        let name = self.records.as_ref().map_or_else(|| Arc::from("the records"), |records| records.name().clone());
        OutputError::Value { name, source }
    }

    /// Takes a piece of the current job's output, or of its note. An empty piece of a note ends the job.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), OutputError> {
        match stream {
            Stream::Out => {
                if self.named.is_some() {
                    self.current.hash.update(bytes);
                }
                self.out.write_all(bytes)
            }
            Stream::Err => self.err.tell(|err| err.write_all(bytes)),
            Stream::Note if bytes.is_empty() => self.end_job(),
            Stream::Note => {
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
            if self.pending_bytes > RECORD_BYTES {
                return self.commit();
            }
        }
        Ok(())
    }

    /// Hands everything that was taken to the system: outputs first, then the records of those that are there.
    pub(super) fn commit(&mut self) -> Result<(), OutputError> {
        let out = self.out.flush();
        let err = self.err.tell(Writer::flush);
        let recorded = self.record();
        out.and(err).and(recorded)
    }

    /// Writes the records of what the system has.
    fn record(&mut self) -> Result<(), OutputError> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let out = self.out.written();
        let err = self.err.0.as_ref().map_or(u64::MAX, Writer::written);
        while let Some(next) = self.pending.front().filter(|next| next.out <= out && next.err <= err) {
            records.write_line(&next.line)?;
            self.pending_bytes -= next.line.len();
            self.pending.pop_front();
        }
        records.flush()
    }

    /// What the outputs are called as long as they are not whole: of the jobs' standard output, and of their standard error.
    pub(super) fn partial_names(&self) -> [Option<PathBuf>; 2] {
        [self.out.partial_name(), self.err.0.as_ref().and_then(Writer::partial_name)]
    }

    /// Ends all outputs. `whole`: the output is all that was asked for. After an error all is left as it is.
    pub(super) fn finish(mut self, whole: bool) -> Result<(), OutputError> {
        self.commit()?;
        let Handover { out, err, records, order, layout, .. } = self;
        match err.0 {
            Some(err) if whole => err.finish()?,
            Some(err) => err.leave_partial()?,
            None => {}
        }
        let plan = layout.map(|layout| layout.plan(order)).filter(|plan| !plan.is_done(out.position()));
        match plan {
            Some(plan) => {
                let moved = plan.moved();
                let record = || records.as_ref().map_or(Ok(()), |records| records.change_places(&moved));
                out.finish_sorted(&plan, whole, record)?;
            }
            None if whole => out.finish()?,
            None => out.leave_partial()?,
        }
        records.map_or(Ok(()), Records::finish)
    }
}
