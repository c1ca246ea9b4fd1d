//! Outputs of jobs that end in any order, handed on in the order of their places, whole, and in bounded memory.
//!
//! What waits for its turn is kept in memory up to a limit, and beyond it in one temporary file; there a job that waits costs
//! a few dozen bytes of memory. Pieces of a running job's output go to the file at once: the job may fail and run again,
//! and then nothing of them may have been seen.

mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::OutputError;
use super::spill::{BLOCK_BYTES, Extent, Spill};

/// How much memory what waits may take, unless the caller has an opinion.
pub const DEFAULT_MEMORY: usize = 32 << 20;
/// Outputs are handed on in pieces of at most so many bytes.
pub const PIECE_BYTES: usize = 256 << 10;
/// What the allocator takes for a piece of memory besides its bytes.
const ALLOCATION_BYTES: usize = 16;
/// How many places are kept ready for jobs that wait, when none does.
const SPARE_PLACES: usize = 4096;

/// One of a job's two outputs, or what the caller notes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The caller's note, behind both.
    Note,
}

/// Which job's output comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the next place: 0, 1, 2, …
    Places,
    /// That of the job that settled next.
    Settled,
}

/// Takes a piece of a job's output whose turn it is. A note that is not empty ends with an empty piece.
pub type Give<'a> = dyn FnMut(u64, Stream, &[u8]) -> Result<(), OutputError> + 'a;

/// What is known of a job's output.
#[derive(Debug)]
enum Entry {
    /// The job has not settled.
    Open,
    /// There is nothing to hand on, or it was handed on before its turn.
    Empty,
    /// Standard output, standard error and the note, one behind the other.
    Memory { bytes: Vec<u8>, split: Split },
    /// The same in one block of the temporary file.
    Spilled { at: u64, split: Split },
    /// In the pieces of [`Ordered::large`], and behind each what did not fit there.
    Large { bytes: Vec<u8>, split: Split },
}

/// How long the first two of the three parts of an output are, and all.
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

    /// Each part with its begin and its length.
    fn parts(self) -> [(Stream, usize, usize); 3] {
        let (out, err, note) = (self.out as usize, self.err as usize, self.note as usize);
        [(Stream::Out, 0, out), (Stream::Err, out, err), (Stream::Note, out + err, note)]
    }
}

/// A piece of a large output.
#[derive(Clone, Copy, Debug)]
struct Part {
    extent: Extent,
    stream: Stream,
}

/// Takes outputs as jobs settle and hands them on in order.
///
/// Call [`Ordered::drain`] after each settled job, or after each batch of them. Each job settles or is skipped once. After
/// an error the run should end; what waits can still be handed on.
pub struct Ordered {
    order: Order,
    limit: usize,
    /// The place whose turn it is, in the order of places.
    head: u64,
    /// What waits in the order of places, from `head` on.
    waiting: VecDeque<Entry>,
    /// Outputs of jobs with consecutive places that wait together, by the first place, with the number of jobs.
    runs: BTreeMap<u64, (u64, Entry)>,
    /// What waits in the order in which it settled.
    settled: VecDeque<(u64, Entry)>,
    /// Jobs whose output came in pieces or does not fit one block.
    large: HashMap<u64, Vec<Part>>,
    /// How many pieces these are.
    parts: usize,
    /// What the outputs in memory take.
    memory: usize,
    /// How many outputs wait for their turn in the order of places.
    kept: usize,
    spill: Spill,
}

impl Ordered {
    /// With `limit` bytes of memory for what waits, and a temporary file where `TMPDIR` says. The output whose turn it is never counts against the limit.
    pub fn new(order: Order, limit: usize) -> Ordered {
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

    /// The place whose output is handed on next, in the order of places.
    #[cfg(test)]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How much memory waiting takes.
    pub fn memory(&self) -> usize {
        self.memory
            + self.waiting.capacity() * size_of::<Entry>()
            + self.settled.capacity() * size_of::<(u64, Entry)>()
            + self.runs.len() * 2 * size_of::<(u64, (u64, Entry))>()
            + self.large.capacity() * size_of::<(u64, Vec<Part>)>()
            // A list of pieces may be twice as long as its contents.
            + 2 * self.parts * size_of::<Part>()
            + self.spill.memory()
    }

    /// How many bytes wait in the temporary file.
    #[cfg(test)]
    pub fn spilled(&self) -> u64 {
        self.spill.len()
    }

    /// Whether outputs wait behind jobs that have not settled.
    pub fn is_waiting(&self) -> bool {
        self.kept > 0
    }

    /// Takes a piece of a running job's output. What comes later of the same stream follows it.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn part(&mut self, job: u64, stream: Stream, mut bytes: &[u8]) -> Result<(), OutputError> {
        if self.is_open(job) { self.put_down(job, stream, &mut bytes) } else { Ok(()) }
    }

    /// Writes bytes of a job to the temporary file; those that are left were not written.
    fn put_down(&mut self, job: u64, stream: Stream, bytes: &mut &[u8]) -> Result<(), OutputError> {
        while !bytes.is_empty() {
            let extent = self.spill.append(bytes)?;
            *bytes = &bytes[extent.len as usize..];
            let parts = self.large.entry(job).or_default();
            let is_merged = parts.last_mut().is_some_and(|last| last.stream == stream && last.extent.merge(extent));
            if !is_merged {
                parts.push(Part { extent, stream });
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

    /// Takes what a job has put out, or what is left of it behind its pieces, and a note that comes back with it.
    ///
    /// # Errors
    /// If the temporary file cannot be written: the output is kept in memory then.
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

    /// There will be no output of this job: what came in pieces is forgotten.
    pub fn skip(&mut self, job: u64) {
        self.forget_parts(job);
        if self.is_open(job) {
            self.put(job, Entry::Empty);
        }
    }

    /// The run ends early: no job that is still open settles any more, so that what waits behind them can be handed on. Gives
    /// those of which pieces were forgotten.
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

    /// Hands on everything whose turn it is: for each job standard output, then standard error, then the note, in pieces of at
    /// most [`PIECE_BYTES`].
    ///
    /// # Errors
    /// What `give` returns; and if the temporary file cannot be read.
    pub fn drain(&mut self, give: &mut Give<'_>) -> Result<(), OutputError> {
        while let Some((job, entry)) = self.next() {
            self.hand_on(job, entry, give)?;
        }
        Ok(())
    }

    /// Hands on what waits before its turn has come, in the order of places.
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
                self.hand_on(self.head + index as u64, entry, give)?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, job: u64, entry: Entry, give: &mut Give<'_>) -> Result<(), OutputError> {
        let has_note = match entry {
            Entry::Open | Entry::Empty => false,
            Entry::Memory { bytes, split } => {
                self.memory -= cost(&bytes);
                for (stream, at, length) in split.parts() {
                    give_pieces(job, stream, &bytes[at..at + length], give)?;
                }
                split.note > 0
            }
            Entry::Spilled { at, split } => {
                for (stream, from, length) in split.parts() {
                    let extent = Extent { at: at + from as u64, len: length as u32 };
                    self.give_spilled(job, stream, extent, give)?;
                }
                split.note > 0
            }
            Entry::Large { bytes, split } => {
                self.memory -= cost(&bytes);
                let parts = self.take_parts(job);
                for (stream, at, length) in split.parts() {
                    for part in parts.iter().filter(|part| part.stream == stream) {
                        self.give_spilled(job, stream, part.extent, give)?;
                    }
                    give_pieces(job, stream, &bytes[at..at + length], give)?;
                }
                split.note > 0 || parts.iter().any(|part| part.stream == Stream::Note)
            }
        };
        if has_note { give(job, Stream::Note, &[]) } else { Ok(()) }
    }

    /// Whether anything can still be said of a job.
    fn is_open(&self, job: u64) -> bool {
        match (self.order, job.checked_sub(self.head)) {
            (Order::Settled, _) => true,
            (Order::Places, None) => false,
            (Order::Places, Some(index)) => {
                matches!(self.waiting.get(index as usize), None | Some(Entry::Open)) && !self.is_in_run(job)
            }
        }
    }

    /// Finds a place for an output that came whole.
    fn keep(&mut self, job: u64, mut bytes: Vec<u8>, err: &[u8], note: &[u8]) -> (Entry, Result<(), OutputError>) {
        let is_next = match self.order {
            Order::Places => job == self.head,
            Order::Settled => self.settled.is_empty(),
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
            // A read buffer that was handed over as it was.
            if bytes.capacity() > 2 * bytes.len() + ALLOCATION_BYTES {
                bytes.shrink_to_fit();
            }
        }
        self.memory += cost(&bytes);
        (Entry::Memory { bytes, split }, kept)
    }

    /// Puts an output behind its pieces in the temporary file; what cannot be written there is kept in memory.
    fn keep_large(&mut self, job: u64, out: &[u8], err: &[u8], note: &[u8]) -> (Entry, Result<(), OutputError>) {
        let mut rest = [(Stream::Out, out), (Stream::Err, err), (Stream::Note, note)];
        let kept = rest.iter_mut().try_for_each(|(stream, bytes)| self.put_down(job, *stream, bytes));
        let [(_, out), (_, err), (_, note)] = rest;
        let bytes = [out, err, note].concat();
        self.memory += cost(&bytes);
        // Four GiB in memory are not reached: what does not fit into a block was refused by a full disk at once.
        let split = Split::new(out.len(), err.len(), note.len()).unwrap_or(Split { out: 0, err: 0, note: 0 });
        (Entry::Large { bytes, split }, kept)
    }

    fn put(&mut self, job: u64, entry: Entry) {
        let is_kept = !matches!(entry, Entry::Open | Entry::Empty);
        match self.order {
            Order::Settled => {
                if is_kept {
                    self.settled.push_back((job, entry));
                }
            }
            Order::Places => {
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

    /// The output whose turn it is.
    fn next(&mut self) -> Option<(u64, Entry)> {
        let next = match self.order {
            Order::Settled => self.settled.pop_front(),
            Order::Places => match self.waiting.front() {
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

    fn take_parts(&mut self, job: u64) -> Vec<Part> {
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
        stream: Stream,
        extent: Extent,
        give: &mut Give<'_>,
    ) -> Result<(), OutputError> {
        let end = extent.at + u64::from(extent.len);
        let mut at = extent.at;
        while at < end {
            let len = (end - at).min(PIECE_BYTES as u64) as u32;
            give(job, stream, self.spill.read(Extent { at, len })?)?;
            at += u64::from(len);
        }
        if extent.len > 0 {
            self.spill.release(extent);
        }
        Ok(())
    }
}

/// Hands on bytes in pieces.
fn give_pieces(job: u64, stream: Stream, bytes: &[u8], give: &mut Give<'_>) -> Result<(), OutputError> {
    bytes.chunks(PIECE_BYTES).try_for_each(|piece| give(job, stream, piece))
}

/// What an output takes in memory.
fn cost(bytes: &Vec<u8>) -> usize {
    bytes.capacity() + ALLOCATION_BYTES
}
