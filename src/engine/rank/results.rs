//! The messages from the compute threads of a rank to its loop: results of chunks, and pieces of output.

use crossbeam_channel::Sender;

use crate::engine::schedule::{ChunkId, MapId};
use crate::engine::wire::{List, OutputStream};

/// A message from a compute thread to the rank's loop.
pub(super) enum FromThread {
    Results(Results),
    Part(Part),
    Early(Early),
    /// Jobs of this chunk that were taken can be given back again.
    Delayed(ChunkId),
}

/// Results of a chunk that is not finished.
pub(super) struct Early {
    pub chunk: ChunkId,
    /// The first of its jobs that they are of.
    pub first: u32,
    pub count: u32,
    pub frames: Vec<u8>,
}

/// The frames of a chunk's results.
#[derive(Debug)]
pub(super) enum ResultFrames {
    /// They travel to the loop without memory of their own, which one thread would allocate and another one free.
    Few(Few),
    Many(Vec<u8>),
}

impl ResultFrames {
    /// Takes the frames out of a buffer; its memory stays if they are few.
    pub(super) fn take(buffer: &mut Vec<u8>) -> Self {
        let mut few = Few { length: 0, bytes: [0; FEW] };
        match few.bytes.get_mut(..buffer.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(buffer);
                few.length = buffer.len() as u8;
                buffer.clear();
                ResultFrames::Few(few)
            }
            None => ResultFrames::Many(std::mem::take(buffer)),
        }
    }

    /// Returns the frames.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            ResultFrames::Few(few) => few.bytes(),
            ResultFrames::Many(many) => many,
        }
    }
}

/// As many bytes as the frames of one small result need.
const FEW: usize = 39;

/// A few bytes.
#[derive(Debug)]
pub(super) struct Few {
    length: u8,
    bytes: [u8; FEW],
}

impl Few {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A chunk's results. Every chunk sends one to the loop: it is small.
pub(super) struct Results {
    pub chunk: ChunkId,
    pub count: u32,
    /// From its start to its end.
    pub wall_ns: u64,
    /// The part of that time that was in the function of its jobs.
    pub useful_ns: u64,
    /// The number of jobs that were marked by [`mark_failed`](super::mark_failed).
    pub failed_results: u32,
    pub frames: ResultFrames,
    /// What most chunks do not have.
    pub rare: Option<Box<Rare>>,
}

/// The part of a chunk's results that most chunks do not have.
#[derive(Default)]
pub(super) struct Rare {
    /// The offsets of the jobs that failed.
    pub failed: Vec<u32>,
    /// The results that are large lists, in the order of their frames.
    pub lists: Vec<List>,
}

impl Results {
    /// No results yet.
    pub(super) fn of(chunk: ChunkId) -> Self {
        let frames = ResultFrames::Many(Vec::new());
        Results { chunk, count: 0, wall_ns: 0, useful_ns: 0, failed_results: 0, frames, rare: None }
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// A piece of a job's output that is sent before its result.
pub(super) struct Part {
    pub map: MapId,
    pub job: u64,
    pub stream: OutputStream,
    pub bytes: Vec<u8>,
    /// Sends the job's thread a message when the driver has taken the piece; dropped if the map is abandoned.
    pub taken: Sender<()>,
}
