//! Puts the outputs of jobs that end in any order into the order of their places, each whole, in bounded memory.
//!
//! Outputs that wait for their turn are kept in memory up to a limit, and beyond it in one temporary file; then each takes a few
//! dozen bytes of memory. Pieces of a running job's output go to the file at once: the job may fail and run again, and then none of
//! them may have been written.

mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::OutputError;
use super::spill::{BLOCK_BYTES, Spill, SpillExtent};
use crate::engine::exchange::OutputStream;

/// The usual limit of memory for outputs that wait.
pub const DEFAULT_MEMORY: usize = 32 << 20;
/// Most bytes of output that are passed on at once.
pub const PIECE_BYTES: usize = 256 << 10;
/// Overhead of the allocator for each allocation.
const ALLOCATION_BYTES: usize = 16;
/// Capacity for waiting jobs that is kept when none waits.
const SPARE_PLACES: usize = 4096;

/// A section of the output of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What the job wrote to one of its streams.
    Output(OutputStream),
    /// The caller's note, behind both.
    Note,
}

impl Section {
    pub const STDOUT: Section = Section::Output(OutputStream::Stdout);
    pub const STDERR: Section = Section::Output(OutputStream::Stderr);
}

/// The order of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputOrder {
    /// By place: 0, 1, 2, …
    Places,
    /// As jobs settle.
    Settled,
}

/// Receives a piece of a job's output when its turn has come. A note that is not empty ends with an empty piece.
pub type Give<'a> = dyn FnMut(u64, Section, &[u8]) -> Result<(), OutputError> + 'a;

/// The output of a job, or its state.
#[derive(Debug)]
enum Entry {
    /// The job has not settled.
    Open,
    /// The output is empty, or was passed on before its turn.
    Empty,
    /// Standard output, standard error and the note, one behind the other.
    Memory { bytes: Vec<u8>, split: Split },
    /// The same in one block of the temporary file.
    Spilled { at: u64, split: Split },
    /// In the pieces of [`Ordered::large`], and, behind each section, the bytes that did not fit there.
    Large { bytes: Vec<u8>, split: Split },
}

/// The lengths of the three sections of an output.
#[derive(Clone, Copy, Debug)]
struct Split {
    out: u32,
    err: u32,
    note: u32,
}

impl Split {
    fn new(out: usize, err: usize, note: usize) -> Option<Split> {
        let length = |length: usize| u32::try_from(length).ok();
        Some(Split { out: length(out)?, err: length(err)?, note: length(note)? })
    }

    /// Returns each section with its begin and its length.
    fn parts(self) -> [(Section, usize, usize); 3] {
        let (out, err, note) = (self.out as usize, self.err as usize, self.note as usize);
        [(Section::STDOUT, 0, out), (Section::STDERR, out, err), (Section::Note, out + err, note)]
    }
}

/// A piece of a large output in the temporary file.
#[derive(Clone, Copy, Debug)]
struct SpilledPiece {
    extent: SpillExtent,
    section: Section,
}

/// Takes outputs as jobs settle and passes them on in order.
///
/// Call [`Ordered::drain`] after each settled job, or after each batch of them. Each job settles or is skipped once. After
/// an error the run should end; waiting outputs can still be passed on.
pub struct Ordered {
    order: OutputOrder,
    limit: usize,
    /// The next place, in the order of places.
    head: u64,
    /// The waiting outputs in the order of places, from `head` on.
    waiting: VecDeque<Entry>,
    /// Outputs of jobs with consecutive places that wait together, by the first place, with the number of jobs.
    runs: BTreeMap<u64, (u64, Entry)>,
    /// What waits in the order in which it settled.
    settled: VecDeque<(u64, Entry)>,
    /// Jobs whose output came in pieces or does not fit one block.
    large: HashMap<u64, Vec<SpilledPiece>>,
    /// Number of pieces in `large`.
    parts: usize,
    /// Bytes of memory that outputs take.
    memory: usize,
    /// Number of outputs that wait in the order of places.
    kept: usize,
    spill: Spill,
}

impl Ordered {
    /// Makes one with `limit` bytes of memory for waiting outputs, and a temporary file in the folder `TMPDIR`. The output whose turn
    /// has come does not count against the limit.
    pub fn new(order: OutputOrder, limit: usize) -> Ordered {
        Ordered {
            order,
            limit,
            head: 0,
            waiting: VecDeque::new(),
            runs: BTreeMap::new(),
            settled: VecDeque::new(),
            large: HashMap::new(),
            parts: 0,
            memory: 0,
            kept: 0,
            spill: Spill::new(std::env::temp_dir()),
        }
    }

    /// Returns the place whose output is next, in the order of places.
    #[cfg(test)]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Returns the memory of waiting outputs in bytes.
    pub fn memory(&self) -> usize {
        self.memory
            + self.waiting.capacity() * size_of::<Entry>()
            + self.settled.capacity() * size_of::<(u64, Entry)>()
            + self.runs.len() * 2 * size_of::<(u64, (u64, Entry))>()
            + self.large.capacity() * size_of::<(u64, Vec<SpilledPiece>)>()
            // A list of pieces may be twice as long as its contents.
            + 2 * self.parts * size_of::<SpilledPiece>()
            + self.spill.memory()
    }

    /// Returns how many bytes wait in the temporary file.
    #[cfg(test)]
    pub fn spilled(&self) -> u64 {
        self.spill.len()
    }

    /// Whether outputs wait behind jobs that have not settled.
    pub fn is_waiting(&self) -> bool {
        self.kept > 0
    }

    /// Takes a piece of a running job's output. Later pieces of the same stream follow it.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn part(&mut self, job: u64, stream: OutputStream, mut bytes: &[u8]) -> Result<(), OutputError> {
        if self.is_open(job) { self.spill_bytes(job, Section::Output(stream), &mut bytes) } else { Ok(()) }
    }

    /// Writes bytes of a job to the temporary file. After an error `bytes` holds those that were not written.
    fn spill_bytes(&mut self, job: u64, section: Section, bytes: &mut &[u8]) -> Result<(), OutputError> {
        while !bytes.is_empty() {
            let extent = self.spill.append(bytes)?;
            *bytes = &bytes[extent.len as usize..];
            let parts = self.large.entry(job).or_default();
            let is_merged = parts.last_mut().is_some_and(|last| last.section == section && last.extent.merge(extent));
            if !is_merged {
                parts.push(SpilledPiece { extent, section });
                self.parts += 1;
            }
        }
        Ok(())
    }

    /// Forgets the pieces of a job: its attempt has failed, and it runs again.
    pub fn forget_parts(&mut self, job: u64) {
        if self.is_open(job) {
            for part in self.take_parts(job) {
                self.spill.release(part.extent);
            }
        }
    }

    /// Takes the output of a job, or the rest of it behind its pieces, and a note, which is passed on with it.
    ///
    /// # Errors
    /// If the temporary file cannot be written: then the output is kept in memory.
    pub fn settle(&mut self, job: u64, out: Vec<u8>, err: &[u8], note: &[u8]) -> Result<(), OutputError> {
        if !self.is_open(job) {
            return Ok(());
        }
        let (entry, kept) = if !self.large.is_empty() && self.large.contains_key(&job) {
            self.keep_large(job, &out, err, note)
        } else if out.is_empty() && err.is_empty() && note.is_empty() {
            (Entry::Empty, Ok(()))
        } else {
            self.keep(job, out, err, note)
        };
        self.put(job, entry);
        kept
    }

    /// Skips a job: it has no output, and its pieces are forgotten.
    pub fn skip(&mut self, job: u64) {
        self.forget_parts(job);
        if self.is_open(job) {
            self.put(job, Entry::Empty);
        }
    }

    /// Skips all open jobs, because the run ends early, so that the outputs behind them can be passed on. Returns the jobs of which
    /// pieces were forgotten.
    pub fn skip_open(&mut self) -> Vec<u64> {
        let mut torn = Vec::new();
        for job in self.head..self.end() {
            if self.is_open(job) {
                torn.extend(self.large.contains_key(&job).then_some(job));
                self.skip(job);
            }
        }
        torn
    }

    /// Passes on all outputs whose turn has come: for each job standard output, then standard error, then the note, in pieces of at
    /// most [`PIECE_BYTES`].
    ///
    /// # Errors
    /// Errors of `give`, and if the temporary file cannot be read.
    pub fn drain(&mut self, give: &mut Give<'_>) -> Result<(), OutputError> {
        while let Some((job, entry)) = self.next() {
            self.pass_on(job, entry, give)?;
        }
        Ok(())
    }

    /// Passes on all waiting outputs before their turn, in the order of places.
    ///
    /// # Errors
    /// As [`Ordered::drain`].
    pub fn drain_waiting(&mut self, give: &mut Give<'_>) -> Result<(), OutputError> {
        self.part_runs();
        for index in 0..self.waiting.len() {
            if self.kept == 0 {
                break;
            }
            if !matches!(self.waiting[index], Entry::Open | Entry::Empty) {
                let entry = std::mem::replace(&mut self.waiting[index], Entry::Empty);
                self.kept -= 1;
                self.pass_on(self.head + index as u64, entry, give)?;
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, job: u64, entry: Entry, give: &mut Give<'_>) -> Result<(), OutputError> {
        let has_note = match entry {
            Entry::Open | Entry::Empty => false,
            Entry::Memory { bytes, split } => {
                self.memory -= cost(&bytes);
                for (section, at, length) in split.parts() {
                    give_pieces(job, section, &bytes[at..at + length], give)?;
                }
                split.note > 0
            }
            Entry::Spilled { at, split } => {
                for (section, from, length) in split.parts() {
                    let extent = SpillExtent { at: at + from as u64, len: length as u32 };
                    self.give_spilled(job, section, extent, give)?;
                }
                split.note > 0
            }
            Entry::Large { bytes, split } => {
                self.memory -= cost(&bytes);
                let parts = self.take_parts(job);
                for (section, at, length) in split.parts() {
                    for part in parts.iter().filter(|part| part.section == section) {
                        self.give_spilled(job, section, part.extent, give)?;
                    }
                    give_pieces(job, section, &bytes[at..at + length], give)?;
                }
                split.note > 0 || parts.iter().any(|part| part.section == Section::Note)
            }
        };
        if has_note { give(job, Section::Note, &[]) } else { Ok(()) }
    }

    /// Whether a job can still settle.
    fn is_open(&self, job: u64) -> bool {
        match (self.order, job.checked_sub(self.head)) {
            (OutputOrder::Settled, _) => true,
            (OutputOrder::Places, None) => false,
            (OutputOrder::Places, Some(index)) => {
                matches!(self.waiting.get(index as usize), None | Some(Entry::Open)) && !self.is_in_run(job)
            }
        }
    }

    /// Keeps an output that came whole, in memory or in the temporary file.
    fn keep(&mut self, job: u64, mut bytes: Vec<u8>, err: &[u8], note: &[u8]) -> (Entry, Result<(), OutputError>) {
        let is_next = match self.order {
            OutputOrder::Places => job == self.head,
            OutputOrder::Settled => self.settled.is_empty(),
        };
        let Some(split) = Split::new(bytes.len(), err.len(), note.len()) else {
            return self.keep_large(job, &bytes, err, note);
        };
        bytes.extend_from_slice(err);
        bytes.extend_from_slice(note);
        let mut kept = Ok(());
        if !is_next {
            if self.memory() + cost(&bytes) > self.limit {
                if bytes.len() > BLOCK_BYTES {
                    let (out, rest) = bytes.split_at(split.out as usize);
                    let (err, note) = rest.split_at(split.err as usize);
                    return self.keep_large(job, out, err, note);
                }
                match self.spill.append_together(&bytes) {
                    Ok(at) => return (Entry::Spilled { at, split }, Ok(())),
                    Err(error) => kept = Err(error),
                }
            }
            // It may be a large read buffer.
            if bytes.capacity() > 2 * bytes.len() + ALLOCATION_BYTES {
                bytes.shrink_to_fit();
            }
        }
        self.memory += cost(&bytes);
        (Entry::Memory { bytes, split }, kept)
    }

    /// Puts an output behind its pieces in the temporary file; bytes that cannot be written there are kept in memory.
    fn keep_large(&mut self, job: u64, out: &[u8], err: &[u8], note: &[u8]) -> (Entry, Result<(), OutputError>) {
        let mut rest = [(Section::STDOUT, out), (Section::STDERR, err), (Section::Note, note)];
        let kept = rest.iter_mut().try_for_each(|(section, bytes)| self.spill_bytes(job, *section, bytes));
        let [(_, out), (_, err), (_, note)] = rest;
        let bytes = [out, err, note].concat();
        self.memory += cost(&bytes);
        // The rest does not reach 4 GiB: a full disk refuses an output larger than a block at once.
        let split = Split::new(out.len(), err.len(), note.len()).unwrap_or(Split { out: 0, err: 0, note: 0 });
        (Entry::Large { bytes, split }, kept)
    }

    fn put(&mut self, job: u64, entry: Entry) {
        let is_kept = !matches!(entry, Entry::Open | Entry::Empty);
        match self.order {
            OutputOrder::Settled => {
                if is_kept {
                    self.settled.push_back((job, entry));
                }
            }
            OutputOrder::Places => {
                self.kept += usize::from(is_kept);
                let index = (job - self.head) as usize;
                if index >= self.waiting.len() {
                    self.waiting.resize_with(index, || Entry::Open);
                    self.waiting.push_back(entry);
                } else {
                    self.waiting[index] = entry;
                }
            }
        }
    }

    /// Takes the output whose turn has come.
    fn next(&mut self) -> Option<(u64, Entry)> {
        let next = match self.order {
            OutputOrder::Settled => self.settled.pop_front(),
            OutputOrder::Places => match self.waiting.front() {
                None | Some(Entry::Open) => self.next_run(),
                Some(entry) => {
                    self.kept -= usize::from(!matches!(entry, Entry::Empty));
                    self.head += 1;
                    self.waiting.pop_front().map(|entry| (self.head - 1, entry))
                }
            },
        };
        if next.is_none() && self.waiting.is_empty() && self.waiting.capacity() > 2 * SPARE_PLACES {
            self.waiting.shrink_to(SPARE_PLACES);
        }
        next
    }

    fn take_parts(&mut self, job: u64) -> Vec<SpilledPiece> {
        if self.large.is_empty() {
            return Vec::new();
        }
        let parts = self.large.remove(&job).unwrap_or_default();
        self.parts -= parts.len();
        parts
    }

    fn give_spilled(
        &mut self,
        job: u64,
        section: Section,
        extent: SpillExtent,
        give: &mut Give<'_>,
    ) -> Result<(), OutputError> {
        let end = extent.at + u64::from(extent.len);
        let mut at = extent.at;
        while at < end {
            let len = (end - at).min(PIECE_BYTES as u64) as u32;
            give(job, section, self.spill.read(SpillExtent { at, len })?)?;
            at += u64::from(len);
        }
        if extent.len > 0 {
            self.spill.release(extent);
        }
        Ok(())
    }
}

/// Passes on bytes in pieces.
fn give_pieces(job: u64, section: Section, bytes: &[u8], give: &mut Give<'_>) -> Result<(), OutputError> {
    bytes.chunks(PIECE_BYTES).try_for_each(|piece| give(job, section, piece))
}

/// Returns the memory of an output in bytes.
fn cost(bytes: &Vec<u8>) -> usize {
    bytes.capacity() + ALLOCATION_BYTES
}
