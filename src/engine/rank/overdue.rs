//! Jobs that take longer than their map allows. A thread cannot be stopped, so it is written off: the job fails, another thread
//! takes its place, and the rank goes on. What a thread that was written off still finds out is nobody's business.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::bench::Chunk;
use super::{Worker, WorkerError};
use crate::console::complain;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::wire::{self, ToMaster};

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const WRITTEN_OFF: u8 = 2;

/// The time limit of a chunk, which is that of its only job.
pub(super) struct Limited {
    limit: Duration,
    count: u32,
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

    fn close(&self, how: u8) -> bool {
        self.state.compare_exchange(OPEN, how, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The chunk has ended. False if its thread was written off before.
    pub(super) fn end(&self) -> bool {
        self.close(ENDED)
    }

    /// The place of the thread that has had the chunk for too long.
    fn overdue(&self, now: Instant) -> Option<u32> {
        let (since, place) = *self.begun.get()?;
        let open = self.state.load(Ordering::Relaxed) == OPEN;
        (open && now.saturating_duration_since(since) > self.limit).then_some(place)
    }
}

impl Worker<'_> {
    /// Writes off the threads whose jobs are overdue.
    pub(super) fn write_off(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        let mut overdue = Vec::new();
        self.limited.retain(|chunk| {
            let Some(limited) = &chunk.limited else { return false };
            if let Some(place) = limited.overdue(now) {
                overdue.push((chunk.clone(), place));
                return false;
            }
            limited.state.load(Ordering::Relaxed) == OPEN
        });
        for (chunk, place) in overdue {
            self.write_off_chunk(&chunk, place)?;
        }
        Ok(())
    }

    fn write_off_chunk(&mut self, chunk: &Arc<Chunk>, place: u32) -> Result<(), WorkerError> {
        let Some(limited) = chunk.limited.as_ref().filter(|limited| limited.close(WRITTEN_OFF)) else { return Ok(()) };
        limited.released.lock().unwrap_or_else(PoisonError::into_inner).take();
        chunk.cut();
        self.chunks.remove(&chunk.id);
        let seconds = limited.limit.as_secs_f64();
        let failure = Failure::new(
            JobErrorKind::TimedOut,
            format!("it ran longer than its time limit of {seconds} s; its thread was left behind"),
        );
        let mut frames = Vec::new();
        (0..limited.count).for_each(|_| wire::push_failure(&mut frames, &failure));
        let head = ToMaster::Finished {
            chunk: chunk.id,
            count: limited.count,
            busy: u64::try_from(limited.limit.as_nanos()).unwrap_or(u64::MAX),
            failed: (0..limited.count).collect(),
            bad: 0,
            bytes: frames.len() as u64,
        };
        self.outbox.push_with(head, [frames.into()]);
        let (rank, slot) = (self.bench.rank, self.bench.slots_before.load(Ordering::Relaxed) + place);
        complain(format_args!(
            "job {} has not ended within its time limit of {seconds} s: its thread (rank {rank} on {}, slot {slot}) is left behind, \
             and another one takes its place",
            chunk.first, self.host
        ));
        self.crew.as_mut().map_or(Ok(()), |crew| crew.replace(place, &self.bench))
    }

    /// Says which jobs still run although the run ends, and does not wait for them.
    pub(super) fn leave_jobs_behind(&self) {
        for chunk in self.chunks.values() {
            if let Some(job) = chunk.last_taken() {
                complain(format_args!(
                    "job {job} of a map that nobody wants any more (rank {} on {}) has not ended within the time of grace; the \
                     run ends without it",
                    self.bench.rank, self.host
                ));
            }
        }
    }
}
