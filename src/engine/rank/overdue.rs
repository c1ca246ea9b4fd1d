//! Jobs that take longer than their map allows. A thread cannot be stopped, so it is written off: the job fails, another thread
//! takes its place, and the rank goes on. The result of a thread that was written off is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::chunk::Chunk;
use super::{Worker, WorkerError};
use crate::console::complain;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::wire::{self, ToMaster};

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
            limited.is_open()
        });
        for (chunk, place) in overdue {
            self.write_off_chunk(&chunk, place)?;
        }
        Ok(())
    }

    fn write_off_chunk(&mut self, chunk: &Arc<Chunk>, place: u32) -> Result<(), WorkerError> {
        let Some(limited) = chunk.limited.as_ref().filter(|limited| limited.write_off()) else { return Ok(()) };
        chunk.cut();
        self.chunks.remove(&chunk.id);
        let seconds = limited.limit.as_secs_f64();
        let failure = Failure::new(
            JobErrorKind::TimedOut,
            format!("it ran longer than its time limit of {seconds} s; its thread was left behind"),
        );
        let mut frames = Vec::new();
        (0..limited.count).for_each(|_| wire::push_failure(&mut frames, &failure));
        // Its only job has done nothing but run.
        let limit_ns = u64::try_from(limited.limit.as_nanos()).unwrap_or(u64::MAX);
        let head = ToMaster::Finished {
            chunk: chunk.id,
            count: limited.count,
            wall_ns: limit_ns,
            useful_ns: limit_ns,
            failed: (0..limited.count).collect(),
            bad: 0,
            bytes: frames.len() as u64,
        };
        self.outbox.push_with(head, [frames.into()]);
        let (rank, slot) = (self.executor.rank, self.executor.slots_before.load(Ordering::Relaxed) + place);
        complain(format_args!(
            "job {} has not ended within its time limit of {seconds} s: its thread (rank {rank} on {}, slot {slot}) is left behind, \
             and another one takes its place",
            chunk.first, self.host
        ));
        self.crew.as_mut().map_or(Ok(()), |crew| crew.replace(place, &self.executor))
    }

    /// Says which jobs still run although the run ends, and does not wait for them.
    pub(super) fn leave_jobs_behind(&self) {
        for chunk in self.chunks.values() {
            if let Some(job) = chunk.last_taken() {
                complain(format_args!(
                    "job {job} of a map that nobody wants any more (rank {} on {}) has not ended within the time of grace; the \
                     run ends without it",
                    self.executor.rank, self.host
                ));
            }
        }
    }
}
