//! Outputs of jobs that end in any order, handed on in the order of their places, whole, and in bounded memory.
//!
//! What waits for its turn is kept in memory up to a limit, and beyond it in one temporary file; there a job that waits costs
//! a few dozen bytes of memory. Pieces of a running job's output go to the file at once: the job may fail and run again,
//! and then nothing of them may have been seen.

use std::collections::{HashMap, VecDeque};

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

/// One of a job's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Which job's output comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the next place: 0, 1, 2, …
    Places,
    /// That of the job that settled next.
    Settled,
}

/// Takes a piece of a job's output whose turn it is.
pub type Give<'a> = dyn FnMut(u64, Stream, &[u8]) -> Result<(), OutputError> + 'a;

/// What is known of a job's output.
#[derive(Debug)]
enum Entry {
    /// The job has not settled.
    Open,
    /// There is nothing to hand on.
    Empty,
    /// The first `out` bytes are standard output.
    Memory { bytes: Vec<u8>, out: usize },
    /// Standard output and, behind it, standard error, in one block.
    Spilled { at: u64, out: u32, err: u32 },
    /// In the pieces of [`Ordered::large`].
    Large,
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
/// an error what waited is lost, and the run should end.
pub struct Ordered {
    order: Order,
    limit: usize,
    /// The place whose turn it is, in the order of places.
    head: u64,
    /// What waits in the order of places, from `head` on.
    waiting: VecDeque<Entry>,
    /// What waits in the order in which it settled.
    settled: VecDeque<(u64, Entry)>,
    /// Jobs whose output came in pieces or does not fit one block.
    large: HashMap<u64, Vec<Part>>,
    /// How many pieces these are.
    parts: usize,
    /// What the outputs in memory take.
    memory: usize,
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
            settled: VecDeque::new(),
            large: HashMap::new(),
            parts: 0,
            memory: 0,
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

    /// Takes a piece of a running job's output. What comes later of the same stream follows it.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn part(&mut self, job: u64, stream: Stream, mut bytes: &[u8]) -> Result<(), OutputError> {
        if !self.is_open(job) {
            return Ok(());
        }
        while !bytes.is_empty() {
            let extent = self.spill.append(bytes)?;
            bytes = &bytes[extent.len as usize..];
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

    /// Takes what a job has put out, or what is left of it behind its pieces.
    ///
    /// # Errors
    /// If the temporary file cannot be written.
    pub fn settle(&mut self, job: u64, out: Vec<u8>, err: &[u8]) -> Result<(), OutputError> {
        if !self.is_open(job) {
            return Ok(());
        }
        let entry = if !self.large.is_empty() && self.large.contains_key(&job) {
            self.part(job, Stream::Out, &out)?;
            self.part(job, Stream::Err, err)?;
            Entry::Large
        } else if out.is_empty() && err.is_empty() {
            Entry::Empty
        } else {
            self.keep(job, out, err)?
        };
        self.put(job, entry);
        Ok(())
    }

    /// There will be no output of this job: what came in pieces is forgotten.
    pub fn skip(&mut self, job: u64) {
        self.forget_parts(job);
        if self.is_open(job) {
            self.put(job, Entry::Empty);
        }
    }

    /// The run ends early: no job that is still open settles any more, so that what waits behind them can be handed on.
    pub fn skip_open(&mut self) {
        let first = self.head;
        for index in 0..self.waiting.len() {
            if matches!(self.waiting[index], Entry::Open) {
                self.skip(first + index as u64);
            }
        }
    }

    /// Hands on everything whose turn it is: for each job standard output, then standard error, in pieces of at most
    /// [`PIECE_BYTES`].
    ///
    /// # Errors
    /// What `give` returns; and if the temporary file cannot be read.
    pub fn drain(&mut self, give: &mut Give<'_>) -> Result<(), OutputError> {
        while let Some((job, entry)) = self.next() {
            match entry {
                Entry::Open | Entry::Empty => {}
                Entry::Memory { bytes, out } => {
                    self.memory -= cost(&bytes);
                    let (out, err) = bytes.split_at(out);
                    for (stream, bytes) in [(Stream::Out, out), (Stream::Err, err)] {
                        for piece in bytes.chunks(PIECE_BYTES) {
                            give(job, stream, piece)?;
                        }
                    }
                }
                Entry::Spilled { at, out, err } => {
                    self.give_spilled(job, Stream::Out, Extent { at, len: out }, give)?;
                    self.give_spilled(job, Stream::Err, Extent { at: at + u64::from(out), len: err }, give)?;
                }
                Entry::Large => {
                    let parts = self.take_parts(job);
                    for stream in [Stream::Out, Stream::Err] {
                        for part in parts.iter().filter(|part| part.stream == stream) {
                            self.give_spilled(job, stream, part.extent, give)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether anything can still be said of a job.
    fn is_open(&self, job: u64) -> bool {
        match (self.order, job.checked_sub(self.head)) {
            (Order::Settled, _) => true,
            (Order::Places, None) => false,
            (Order::Places, Some(index)) => matches!(self.waiting.get(index as usize), None | Some(Entry::Open)),
        }
    }

    /// Finds a place for an output that came whole.
    fn keep(&mut self, job: u64, mut bytes: Vec<u8>, err: &[u8]) -> Result<Entry, OutputError> {
        let is_next = match self.order {
            Order::Places => job == self.head,
            Order::Settled => self.settled.is_empty(),
        };
        let out = bytes.len();
        bytes.extend_from_slice(err);
        if !is_next {
            if self.memory() + cost(&bytes) > self.limit {
                return self.spill(job, &bytes, out);
            }
            // A read buffer that was handed over as it was.
            if bytes.capacity() > 2 * bytes.len() + ALLOCATION_BYTES {
                bytes.shrink_to_fit();
            }
        }
        self.memory += cost(&bytes);
        Ok(Entry::Memory { bytes, out })
    }

    fn spill(&mut self, job: u64, bytes: &[u8], out: usize) -> Result<Entry, OutputError> {
        let (out_bytes, err_bytes) = bytes.split_at(out);
        if bytes.len() > BLOCK_BYTES {
            self.part(job, Stream::Out, out_bytes)?;
            self.part(job, Stream::Err, err_bytes)?;
            return Ok(Entry::Large);
        }
        let at = self.spill.append_together(bytes)?;
        Ok(Entry::Spilled { at, out: out_bytes.len() as u32, err: err_bytes.len() as u32 })
    }

    fn put(&mut self, job: u64, entry: Entry) {
        match self.order {
            Order::Settled => {
                if !matches!(entry, Entry::Empty) {
                    self.settled.push_back((job, entry));
                }
            }
            Order::Places => {
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
                None | Some(Entry::Open) => None,
                Some(_) => {
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

/// What an output takes in memory.
fn cost(bytes: &Vec<u8>) -> usize {
    bytes.capacity() + ALLOCATION_BYTES
}

#[cfg(test)]
mod tests;
