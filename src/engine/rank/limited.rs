//! The time limit of a chunk. Either the thread that runs the chunk ends it, or the loop writes the thread off: whichever comes
//! first.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// The time limit of a chunk, which has one job.
pub(super) struct Limited {
    pub(super) limit: Duration,
    pub(super) count: u32,
    /// The start, and the index of the thread.
    begun: OnceLock<(Instant, u32)>,
    state: AtomicU8,
    /// Dropped when the map's function is no longer in use, or its thread was written off.
    released: Mutex<Option<Sender<()>>>,
}

impl Limited {
    pub(super) fn new(limit: Duration, count: u32, released: Sender<()>) -> Self {
        Limited {
            limit,
            count,
            begun: OnceLock::new(),
            state: AtomicU8::new(OPEN),
            released: Mutex::new(Some(released)),
        }
    }

    /// Records that a thread begins the chunk.
    pub(super) fn begin(&self, thread: u32) {
        let _ = self.begun.set((Instant::now(), thread));
    }

    /// Takes the chunk from its thread. Returns false if the chunk has ended.
    pub(super) fn write_off(&self) -> bool {
        let written_off = self.close(WRITTEN_OFF);
        if written_off {
            self.released.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        written_off
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) == OPEN
    }

    fn close(&self, how: u8) -> bool {
        self.state.compare_exchange(OPEN, how, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Records that the chunk has ended. Returns false if its thread was written off before.
    pub(super) fn end(&self) -> bool {
        self.close(ENDED)
    }

    /// Returns the index of the thread if it has run the chunk for longer than the limit.
    pub(super) fn overdue(&self, now: Instant) -> Option<u32> {
        let (since, thread) = *self.begun.get()?;
        (self.is_open() && now.saturating_duration_since(since) > self.limit).then_some(thread)
    }
}
