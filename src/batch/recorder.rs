//! Writes each settled job of a batch to the journal, and returns the jobs that are in it already.

use std::collections::{BTreeMap, VecDeque};

use super::job::Cause;
use super::ledger::Counts;
use crate::engine::exchange::OutputStream;
use crate::journal::{Journal, Key, Settled, Spec, Status};
use crate::output::OutputError;

/// A journal with the keys of the jobs that are not settled yet.
pub(super) struct Recorder {
    journal: Journal,
    /// The keys and numbers of jobs, by their places, from `first` on. `None`: the job is settled.
    keys: VecDeque<Option<(Key, u64)>>,
    first: u64,
    /// The pieces of output in the journal, by the places of jobs.
    parts: BTreeMap<u64, Vec<u64>>,
}

/// A job that an earlier run has settled.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub description: Vec<u8>,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    /// The numbers of the pieces of its output.
    pub parts: Vec<u64>,
}

impl Restored {
    /// Returns why the job has failed, if its entry has a description.
    pub(super) fn cause(&self) -> Option<Cause> {
        #[derive(serde::Deserialize)]
        struct Described {
            message: String,
        }
        // The description is a JSON object without its end.
        let text = [&self.description, &b"}"[..]].concat();
        let described: Described = serde_json::from_slice(&text).ok()?;
        Some(Cause::new("failed", described.message))
    }
}

impl Recorder {
    pub(super) fn new(journal: Journal) -> Recorder {
        Recorder { journal, keys: VecDeque::new(), first: 0, parts: BTreeMap::new() }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Takes the next job that was read. Returns its status if an earlier run has settled it; the rest of its entry is then in
    /// `restored`.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) fn take(
        &mut self,
        content: u128,
        number: u64,
        restored: &mut Restored,
    ) -> Result<Option<Status>, OutputError> {
        let (key, place) = self.journal.find(content);
        if let Some(place) = place {
            if let Some(settled) = self.journal.read(place, number)? {
                for (copy, bytes) in [
                    (&mut restored.description, settled.description),
                    (&mut restored.out, settled.out),
                    (&mut restored.err, settled.err),
                ] {
                    copy.clear();
                    copy.extend_from_slice(bytes);
                }
                restored.parts.clear();
                restored.parts.extend(settled.parts.iter());
                let status = settled.status;
                self.push(None);
                return Ok(Some(status));
            }
        }
        self.push(Some((key, number)));
        Ok(None)
    }

    fn push(&mut self, key: Option<(Key, u64)>) {
        if key.is_none() && self.keys.is_empty() {
            self.first += 1;
        } else {
            self.keys.push_back(key);
        }
    }

    /// Returns the key of the job at this place, which is settled now.
    fn settle_key(&mut self, place: u64) -> Option<(Key, u64)> {
        let at = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let key = self.keys.get_mut(at)?.take();
        while let Some(None) = self.keys.front() {
            self.keys.pop_front();
            self.first += 1;
        }
        key
    }

    /// Reads the piece with this number of the output of a job that an earlier run has settled.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) fn part(&mut self, number: u64) -> Result<Option<(OutputStream, &[u8])>, OutputError> {
        self.journal.read_part(number)
    }

    /// Takes a piece of output that comes ahead of its job's result.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn take_part(&mut self, place: u64, stream: OutputStream, bytes: &[u8]) -> Result<(), OutputError> {
        self.journal.add_part(stream, bytes, self.parts.entry(place).or_default())
    }

    /// Forgets the output so far of a job that is run again or left.
    pub(super) fn forget(&mut self, place: u64) {
        self.parts.remove(&place);
    }

    /// Writes the entry of a job. One that was cancelled has none: the next run runs it.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn settle(
        &mut self,
        place: u64,
        status: Status,
        description: &[u8],
        out: &[u8],
        err: &[u8],
    ) -> Result<(), OutputError> {
        let parts = self.parts.remove(&place).unwrap_or_default();
        let Some((key, number)) = self.settle_key(place) else { return Ok(()) };
        if status == Status::Cancelled {
            return Ok(());
        }
        self.journal.settle(Settled { description, out, err, ..Settled::new(key, status, number) }, parts)
    }

    /// Writes the entries of successful jobs with consecutive places, from `first` on, each with its line of `lines`.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn settle_run(&mut self, first: u64, lines: &[u8]) -> Result<(), OutputError> {
        for (place, line) in (first..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
            self.settle(place, Status::Ok, &[], line, &[])?;
        }
        Ok(())
    }

    /// Replaces the output of some jobs, which have failed.
    ///
    /// # Errors
    /// If the journal cannot be read or written.
    pub(super) fn replace(&mut self, outputs: &BTreeMap<u64, Vec<u8>>) -> Result<(), OutputError> {
        self.journal.replace(outputs)
    }

    /// Writes what the run has counted.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub(super) fn add_statistics(&mut self, fields: &Spec) -> Result<(), OutputError> {
        self.journal.add_statistics(fields)
    }

    /// Passes all entries to the system.
    ///
    /// # Errors
    /// If the journal cannot be written or synced.
    pub(super) fn flush(&mut self) -> Result<(), OutputError> {
        self.journal.flush()
    }

    /// Syncs all entries.
    ///
    /// # Errors
    /// If the journal cannot be written or synced, or is no longer at its path.
    pub(super) fn sync(&mut self) -> Result<(), OutputError> {
        self.journal.sync()
    }

    /// Closes the journal. With `counts` all jobs are settled or, by the stop policy, cancelled, and the output is complete.
    ///
    /// # Errors
    /// If the journal cannot be written or synced.
    pub(super) fn close(self, counts: Option<Counts>) -> Result<(), OutputError> {
        let Some(counts) = counts else { return self.journal.leave() };
        let numbers = [
            ("jobs", counts.done),
            ("succeeded", counts.succeeded),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
        ];
        self.journal.complete(&numbers.map(|(name, number)| (name.to_string(), number.to_string())).into())
    }
}
