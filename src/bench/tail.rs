//! Reads from a job log how a run ended: for how long some threads had nothing left to do, and which jobs ended last.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::journal::JournalError;
use crate::journal::entries::{Entries, Entry};
use crate::journal::job::Job;

/// The end of a run, by its job log.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Tail {
    /// From the first moment at which a thread had no more jobs to the end of the last job.
    pub seconds: f64,
    /// From the start of the first job to the end of the last one.
    pub run_seconds: f64,
    /// The mean and the longest time of a job.
    pub mean_seconds: f64,
    /// The jobs that ended last, the last one first: number and duration.
    pub last: Vec<(u64, f64)>,
}

/// The number of jobs that are named.
const NAMED: usize = 3;

impl Tail {
    /// Reads the job log of a run with this number of threads or ranks.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(log: &Path, count: u32) -> Result<Tail, JournalError> {
        let mut ends: BTreeMap<(u32, u64), u64> = BTreeMap::new();
        let mut last: Vec<(u64, u64, f64)> = Vec::new();
        let (mut first, mut total, mut jobs) = (u64::MAX, 0.0, 0_u64);
        Entries::open(log)?.for_each(|entry| {
            let Entry::Job(job) = entry else { return };
            let job = Job::new(job);
            let (Some((start, end)), Some(ns)) = (job.span_us(), job.ns) else { return };
            let (Some(rank), Some(slot)) = (job.fields.rank, job.fields.slot) else { return };
            let seconds = ns as f64 / 1e9;
            (first, total, jobs) = (first.min(start), total + seconds, jobs + 1);
            let slot_end = ends.entry((rank, slot)).or_insert(end);
            *slot_end = end.max(*slot_end);
            if last.len() < NAMED || last.iter().any(|(other, ..)| *other < end) {
                last.push((end, job.number, seconds));
                last.sort_by_key(|(end, ..)| std::cmp::Reverse(*end));
                last.truncate(NAMED);
            }
        })?;
        let Some(&(end, ..)) = last.first() else { return Ok(Tail::default()) };
        // A thread that had no job at all was idle from the start.
        let idle = if ends.len() < count as usize { first } else { ends.values().copied().fold(end, u64::min) };
        Ok(Tail {
            seconds: (end - idle) as f64 / 1e6,
            run_seconds: (end - first) as f64 / 1e6,
            mean_seconds: total / jobs as f64,
            last: last.into_iter().map(|(_, number, seconds)| (number, seconds)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_when_the_first_thread_has_no_more_jobs() {
        let folder = tempfile::tempdir().expect("a folder");
        let tail_of = |lines: &[String]| {
            let log = folder.path().join("log");
            std::fs::write(&log, lines.concat()).expect("a file");
            Tail::read(&log, 2).expect("it can be read")
        };
        let line = |number, slot, second: u32, seconds| {
            let start = format!("2026-01-01T00:00:{second:02}Z");
            format!(
                r#"{{"number":{number},"status":"ok","input":null,"rank":0,"slot":{slot},"start":"{start}","seconds":{seconds}}}{}"#,
                "\n"
            )
        };
        let tail = tail_of(&[line(1, 1, 0, 2.0), line(2, 2, 0, 1.0), line(3, 2, 1, 1.5), line(4, 1, 2, 8.0)]);
        assert_eq!((tail.seconds, tail.run_seconds), (7.5, 10.0));
        assert_eq!(tail.last[0], (4, 8.0));
        assert!((tail.mean_seconds - 3.125).abs() < 1e-9);
        let one = tail_of(&[line(1, 1, 0, 2.0)]);
        assert_eq!(one.seconds, 2.0, "a thread without a job was idle all the time");
        assert_eq!(tail_of(&[]), Tail::default());
    }
}
