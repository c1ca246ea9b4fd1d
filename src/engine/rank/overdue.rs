//! Jobs that exceed the time limit of their map. A thread cannot be stopped, so it is written off: the job fails, a new thread
//! replaces it, and the rank goes on. The result of a thread that was written off is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::chunk::Chunk;
use super::{RankError, RankLoop};
use crate::console::eprint_error;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::wire::{self, ToMaster};

impl RankLoop<'_> {
    /// Writes off the threads that run overdue jobs.
    pub(super) fn write_off(&mut self) -> Result<(), RankError> {
        let now = Instant::now();
        let mut overdue = Vec::new();
        self.limited.retain(|chunk| {
            let Some(limited) = &chunk.limited else { return false };
            if let Some(thread) = limited.overdue(now) {
                overdue.push((chunk.clone(), thread));
                return false;
            }
            limited.is_open()
        });
        for (chunk, thread) in overdue {
            self.write_off_chunk(&chunk, thread)?;
        }
        Ok(())
    }

    fn write_off_chunk(&mut self, chunk: &Arc<Chunk>, thread: u32) -> Result<(), RankError> {
        let Some(limited) = chunk.limited.as_ref().filter(|limited| limited.write_off()) else { return Ok(()) };
        chunk.cut();
        self.chunks.remove(chunk.id);
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
            failed_results: 0,
            bytes: frames.len() as u64,
            lists: 0,
        };
        self.outbox.push_with(head, [frames.into()]);
        let (rank, slot) = (self.executor.rank, self.executor.slots_before.load(Ordering::Relaxed) + thread);
        eprint_error(format_args!(
            "the job with index {} has not ended within its time limit of {seconds} s: its thread (rank {rank} on {}, slot {slot}) is left behind, \
             and a new thread replaces it",
            chunk.first, self.host
        ));
        self.threads.as_mut().map_or(Ok(()), |threads| threads.replace(thread))
    }

    /// Logs the jobs that still run although the run ends. They are not waited for.
    pub(super) fn leave_jobs_behind(&self) {
        for (_, chunk) in self.chunks.in_order() {
            if let Some(job) = chunk.last_taken() {
                eprint_error(format_args!(
                    "job {job} of a map that was dropped (rank {} on {}) has not ended within the grace time; the run ends \
                     without it",
                    self.executor.rank, self.host
                ));
            }
        }
    }
}
