//! A journal as a run uses it: finds the jobs that are settled already, and takes the jobs that are settled now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Status;
use super::frame::{Kind, push_fields};
use super::lookup::{Lookup, Place};
use super::options::{Repaired, Spec};
use super::owner::Owner;
use super::presence::{is_there, rescue};
use super::scan::Scan;
use super::settled::{Key, Settled};
use super::storage::SyncedFile;
use super::writer::{DiskTime, FrameWriter, MAX_OUTPUT_BYTES};
use crate::console::reason;
use crate::engine::exchange::OutputStream;
use crate::output::OutputError;

/// The journal of a run.
pub(crate) struct Journal {
    path: PathBuf,
    name: Arc<str>,
    /// What happened to the file, if it is no longer at its path.
    gone: Option<String>,
    lookup: Lookup,
    writer: FrameWriter<SyncedFile>,
    /// The run that has opened the journal before.
    before: Option<Owner>,
    torn: u64,
    repaired: Option<Repaired>,
    /// When the last moment was written, if entries have been settled since.
    last_moment: Option<Instant>,
    has_settled: bool,
}

/// A moment is written this often at most, while jobs are settled.
const BETWEEN_MOMENTS: Duration = Duration::from_millis(150);

impl Journal {
    pub(super) fn new(
        path: PathBuf,
        lookup: Lookup,
        writer: FrameWriter<SyncedFile>,
        before: Option<Owner>,
        torn: u64,
        repaired: Option<Repaired>,
    ) -> Journal {
        Journal {
            name: path.to_string_lossy().into(),
            path,
            gone: None,
            lookup,
            writer,
            before,
            torn,
            repaired,
            last_moment: None,
            has_settled: false,
        }
    }

    /// Returns the path for messages.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the last run has written its output to this file.
    pub(crate) fn had_output(&self, path: &Path) -> bool {
        self.before.as_ref().is_some_and(|before| Path::new(&before.output) == path)
    }

    /// Whether another run can continue by this journal: its file is still at its path.
    pub(crate) fn is_there(&self) -> bool {
        self.gone.is_none() && is_there(self.lookup.file(), &self.path)
    }

    /// Returns messages about what was found in the file.
    pub(crate) fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        if let Some(Repaired { original, damage, kept }) = &self.repaired {
            let regions: Vec<_> =
                damage.iter().map(|damage| format!("bytes {} to {}", damage.bytes.start, damage.bytes.end)).collect();
            let lost: u64 = damage.iter().map(|damage| u64::from(damage.frames)).sum();
            messages.push(format!(
                "the journal {} was damaged ({}): {kept} job(s) are kept, about {lost} entries are lost and their jobs are run \
                 again. The damaged file is kept as {}",
                self.name,
                regions.join(", "),
                original.display()
            ));
        }
        if self.torn > 0 && self.repaired.is_none() {
            let torn = self.torn;
            messages
                .push(format!("the last {torn} bytes of {} were not written completely and are dropped", self.name));
        }
        messages
    }

    pub(crate) fn disk(&self) -> DiskTime {
        self.writer.disk()
    }

    /// See [`Lookup::find`].
    pub(crate) fn find(&mut self, content: u128) -> (Key, Option<Place>) {
        self.lookup.find(content)
    }

    /// See [`Lookup::read`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(&mut self, place: Place, number: u64) -> Result<Option<Settled<'_>>, OutputError> {
        self.lookup.read(place, number).map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// See [`Lookup::read_part`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read_part(&mut self, number: u64) -> Result<Option<(OutputStream, &[u8])>, OutputError> {
        self.lookup.read_part(number).map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// Adds a piece of the output of a job that is not settled yet, and its number to `parts`.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub(crate) fn add_part(
        &mut self,
        stream: OutputStream,
        bytes: &[u8],
        parts: &mut Vec<u64>,
    ) -> Result<(), OutputError> {
        for bytes in bytes.chunks(MAX_OUTPUT_BYTES) {
            let added = self.writer.append_piece(stream, bytes);
            parts.push(added.map_err(|error| OutputError::from_io(&self.name, error))?);
        }
        Ok(())
    }

    /// Adds the entry of a settled job, with the numbers of the pieces of its output.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub(crate) fn settle(&mut self, mut settled: Settled<'_>, mut parts: Vec<u64>) -> Result<(), OutputError> {
        if settled.err.len() > MAX_OUTPUT_BYTES {
            self.add_part(OutputStream::Stderr, settled.err, &mut parts)?;
            settled.err = &[];
        }
        if settled.out.len() > MAX_OUTPUT_BYTES {
            self.add_part(OutputStream::Stdout, settled.out, &mut parts)?;
            settled.out = &[];
        }
        if settled.description.len() > MAX_OUTPUT_BYTES || parts.len() > MAX_OUTPUT_BYTES / 8 {
            settled.description = &[];
        }
        self.has_settled = true;
        let added = self.writer.append(Kind::Settled, |out| settled.write(&parts, out));
        added.map(drop).map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// Passes all entries to the system, and begins to sync them if the interval is over.
    ///
    /// # Errors
    /// If writing or syncing fails now or failed before.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        let syncs = self.writer.syncs();
        let is_recent = self.last_moment.is_some_and(|last| last.elapsed() < BETWEEN_MOMENTS);
        let noted = if self.has_settled && !is_recent { self.note_moment() } else { Ok(()) };
        let flushed = noted.and_then(|()| self.writer.flush()).and_then(|()| match self.writer.syncs() == syncs {
            true => Ok(()),
            false => self.check_path(),
        });
        flushed.map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// Adds an entry with the time by which all entries before it were settled.
    fn note_moment(&mut self) -> io::Result<()> {
        (self.last_moment, self.has_settled) = (Some(Instant::now()), false);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        self.writer.append(Kind::Moment, |out| out.extend_from_slice(&now.to_le_bytes())).map(drop)
    }

    /// Adds what the run knows of itself when all ranks are there.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub(crate) fn add_ranks(&mut self, fields: &Spec) -> Result<(), OutputError> {
        self.add_fields(Kind::Ranks, fields)
    }

    /// Adds what the run has counted when its last job was settled.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub(crate) fn add_statistics(&mut self, fields: &Spec) -> Result<(), OutputError> {
        self.add_fields(Kind::Statistics, fields)
    }

    /// Adds an entry that nothing depends on: one that would be too long is left out.
    fn add_fields(&mut self, kind: Kind, fields: &Spec) -> Result<(), OutputError> {
        if fields.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>() > MAX_OUTPUT_BYTES {
            return Ok(());
        }
        let added = self.writer.append(kind, |out| push_fields(fields, out));
        added.map(drop).map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// Looks whether the file is still at its path. If not, a copy of it is made.
    fn check_path(&mut self) -> io::Result<()> {
        if self.gone.is_none() && !is_there(self.lookup.file(), &self.path) {
            self.gone = Some(match rescue(self.lookup.file(), &self.path) {
                Ok(None) => "it was moved while the run went on; give its new path to continue with --resume".into(),
                Ok(Some(copy)) => format!(
                    "it was removed while the run went on; its entries are in {}: rename that file to continue with --resume",
                    copy.display()
                ),
                Err(error) => {
                    format!("it was removed while the run went on, and its entries are lost: {}", reason(&error))
                }
            });
        }
        self.gone.clone().map_or(Ok(()), |message| Err(io::Error::other(message)))
    }

    /// Syncs all entries.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(crate) fn sync(&mut self) -> Result<(), OutputError> {
        let synced = self.writer.sync().and_then(|()| self.check_path());
        synced.map_err(|error| OutputError::from_io(&self.name, error))
    }

    /// Adds the entry that says that all jobs are settled and their output is complete, and closes the journal.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(crate) fn complete(self, counts: &Spec) -> Result<(), OutputError> {
        self.close(Kind::Complete, counts)
    }

    /// Closes the journal of a run that has not settled all jobs.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(crate) fn leave(self) -> Result<(), OutputError> {
        self.close(Kind::Closed, &Spec::new())
    }

    fn close(mut self, kind: Kind, fields: &Spec) -> Result<(), OutputError> {
        let noted = if kind == Kind::Complete { self.note_moment() } else { Ok(()) };
        noted.map_err(|error| OutputError::from_io(&self.name, error))?;
        // Everything that the last entry relies on is durable before it.
        self.sync()?;
        let added = self.writer.append(kind, |out| push_fields(fields, out));
        added.map_err(|error| OutputError::from_io(&self.name, error))?;
        self.sync()
    }

    /// Adds an entry for each of these jobs that says that it has failed, with this output in place of the one it had. Only jobs
    /// that are in the journal get one.
    ///
    /// # Errors
    /// If the journal cannot be read or written.
    pub(crate) fn replace(&mut self, outputs: &std::collections::BTreeMap<u64, Vec<u8>>) -> Result<(), OutputError> {
        if outputs.is_empty() {
            return Ok(());
        }
        self.flush()?;
        let fault = |error| OutputError::from_io(&self.name, error);
        let mut keys = Vec::new();
        let mut scan = Scan::new(self.lookup.file()).map_err(fault)?;
        while let Some(frame) = scan.next().map_err(fault)? {
            let settled = Some(frame.payload).filter(|_| frame.kind == Kind::Settled).and_then(Settled::read);
            keys.extend(settled.filter(|of| outputs.contains_key(&of.number)).map(|of| (of.number, of.key)));
        }
        keys.sort_unstable_by_key(|(number, key)| (*number, key.occurrence));
        keys.dedup();
        for (number, key) in keys {
            let out = outputs.get(&number).map_or(&[][..], Vec::as_slice);
            let status = Status::Failed;
            let settled = Settled { out, ..Settled::new(key, status, number) };
            self.settle(settled, Vec::new())?;
        }
        Ok(())
    }
}
