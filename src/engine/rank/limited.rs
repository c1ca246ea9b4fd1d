//! The time limit of a chunk, and who has the last word on it: the thread that runs it, or the loop that writes the thread off.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// The time limit of a chunk, which is that of its only job.
pub(super) struct Limited {
    pub(super) limit: Duration,
    pub(super) count: u32,
    /// Since when, and on which thread of the rank.
    begun: OnceLock<(Instant, u32)>,
    state: AtomicU8,
    /// Held while the map's function may be in use.
    released: Mutex<Option<Sender<()>>>,
}

impl Limited {
    pub(super) fn new(limit: Duration, count: u32, released: Option<Sender<()>>) -> Self {
        Limited { limit, count, begun: OnceLock::new(), state: AtomicU8::new(OPEN), released: Mutex::new(released) }
    }

    /// A thread begins the chunk.
    pub(super) fn begin(&self, place: u32) {
        let _ = self.begun.set((Instant::now(), place));
    }

    /// Takes the chunk from its thread. False if the chunk has ended.
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

    /// The chunk has ended. False if its thread was written off before.
    pub(super) fn end(&self) -> bool {
        self.close(ENDED)
    }

    /// The place of the thread that has had the chunk for too long.
    pub(super) fn overdue(&self, now: Instant) -> Option<u32> {
        let (since, place) = *self.begun.get()?;
        (self.is_open() && now.saturating_duration_since(since) > self.limit).then_some(place)
    }
}
