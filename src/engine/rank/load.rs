//! Reports of a rank about its load: how busy its threads are, and which job has run longest.
//!
//! They are made by the rank's loop, from what the compute threads leave behind anyway, and only if the master has asked for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::RankLoop;
use crate::engine::schedule::ChunkId;
use crate::engine::wire::{Load, RunningJob, ToMaster};

/// What a rank remembers from one report to the next.
#[derive(Debug, Default)]
pub(super) struct LoadReports {
    /// The time from one report to the next, and the time at which the next one is due; `None`: no reports are wanted.
    due: Option<(Duration, Instant)>,
    /// The time that threads have spent on chunks that are done.
    done_ns: u64,
    /// The busy time of the last report: a chunk that ends meanwhile is counted a moment longer than it took.
    reported_ns: u64,
    /// The job of each running chunk at the last report, and since when it is known to run, in ns since the start of the rank.
    seen: BTreeMap<ChunkId, (u64, u64)>,
}

impl LoadReports {
    /// Begins with the reports.
    pub(super) fn start(&mut self, every: Duration) {
        self.due = Some((every.max(Duration::from_millis(10)), Instant::now()));
    }

    /// Counts a chunk that is done.
    pub(super) fn chunk_done(&mut self, wall_ns: u64) {
        self.done_ns = self.done_ns.saturating_add(wall_ns);
    }

    /// Makes a report about the chunks that run: of each the number, the time of its start, and its job.
    fn load(
        &mut self,
        at_ns: u64,
        running: impl Iterator<Item = (ChunkId, u64, Option<u64>)>,
    ) -> (Load, Option<ChunkId>) {
        let before = std::mem::take(&mut self.seen);
        let mut load = Load { at_ns, busy_ns: self.done_ns, running: 0, slowest: None };
        let mut slowest: Option<(u64, ChunkId)> = None;
        for (chunk, begun_ns, job) in running {
            load.running += 1;
            load.busy_ns = load.busy_ns.saturating_add(at_ns.saturating_sub(begun_ns));
            let Some(job) = job else { continue };
            let since = match before.get(&chunk) {
                None => begun_ns,
                Some((same, since)) if *same == job => *since,
                Some(_) => at_ns,
            };
            self.seen.insert(chunk, (job, since));
            if slowest.is_none_or(|(earliest, _)| since < earliest) {
                slowest = Some((since, chunk));
            }
        }
        load.busy_ns = load.busy_ns.max(self.reported_ns);
        self.reported_ns = load.busy_ns;
        (load, slowest.map(|(_, chunk)| chunk))
    }
}

impl RankLoop<'_> {
    /// Sends a report about the load, if one is due.
    pub(super) fn report_load(&mut self) {
        let Some((every, due)) = self.loads.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.loads.due = Some((every, now + every));
        let at_ns = self.executor.since_start(now);
        let running = self.chunks.in_order().into_iter().filter_map(|(_, chunk)| {
            let begun_ns = chunk.progress.begun_ns()?;
            Some((chunk.id, begun_ns, chunk.running()))
        });
        let (mut load, slowest) = self.loads.load(at_ns, running);
        if let Some((id, chunk)) = slowest.and_then(|id| Some((id, self.chunks.get(id)?))) {
            if let Some((job, since)) = self.loads.seen.get(&id) {
                let ns = at_ns.saturating_sub(*since);
                load.slowest = Some(RunningJob { job: *job, attempt: chunk.attempt, ns });
            }
        }
        self.outbox.push(ToMaster::Load(load));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ChunkId = ChunkId(7);

    #[test]
    fn busy_time_has_the_chunks_that_are_done_and_those_that_run_and_never_shrinks() {
        let mut loads = LoadReports::default();
        loads.chunk_done(500);
        let running = [(CHUNK, 100, Some(1)), (ChunkId(8), 900, None)];
        let (load, slowest) = loads.load(1_000, running.into_iter());
        assert_eq!((load.busy_ns, load.running, slowest), (500 + 900 + 100, 2, Some(CHUNK)));
        loads.chunk_done(850);
        let (load, _) = loads.load(1_001, [].into_iter());
        assert_eq!((load.busy_ns, load.running), (1_500, 0), "a chunk was counted a moment longer than it took");
    }

    #[test]
    fn a_job_inside_a_chunk_counts_from_the_report_that_saw_it_first() {
        let mut loads = LoadReports::default();
        let mut since = |at, job| {
            loads.load(at, [(CHUNK, 100, Some(job))].into_iter());
            loads.seen[&CHUNK].1
        };
        assert_eq!([since(1_000, 3), since(2_000, 3)], [100, 100], "at most since the start of the chunk");
        assert_eq!([since(3_000, 4), since(4_000, 4), since(5_000, 5)], [3_000, 3_000, 5_000]);
    }
}
