//! Reads from a job log how a run ended: for how long some threads had nothing left to do, and which jobs ended last.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

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

/// The entries of a job log that are read here.
#[derive(Debug, Deserialize)]
struct LogEntry {
    number: u64,
    rank: Option<u32>,
    slot: Option<u32>,
    start: Option<String>,
    seconds: Option<f64>,
}

/// The number of jobs that are named.
const NAMED: usize = 3;

impl Tail {
    pub(super) fn of(lines: impl Iterator<Item = io::Result<String>>, count: u32) -> Tail {
        let mut ends: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        let mut last: Vec<(f64, u64, f64)> = Vec::new();
        let (mut first, mut total, mut jobs) = (f64::INFINITY, 0.0, 0_u64);
        for line in lines.map_while(Result::ok) {
            let Ok(LogEntry { number, rank: Some(rank), slot: Some(slot), start: Some(start), seconds: Some(seconds) }) =
                serde_json::from_str(&line)
            else {
                continue;
            };
            let Some(start) = since_epoch(&start) else { continue };
            let end = start + seconds;
            (first, total, jobs) = (first.min(start), total + seconds, jobs + 1);
            let slot_end = ends.entry((rank, slot)).or_insert(end);
            *slot_end = slot_end.max(end);
            if last.len() < NAMED || last.iter().any(|(other, ..)| *other < end) {
                last.push((end, number, seconds));
                last.sort_by(|a, b| b.0.total_cmp(&a.0));
                last.truncate(NAMED);
            }
        }
        let Some(&(end, ..)) = last.first() else { return Tail::default() };
        // A thread that had no job at all was idle from the start.
        let idle = if ends.len() < count as usize { first } else { ends.values().copied().fold(end, f64::min) };
        Tail {
            seconds: end - idle,
            run_seconds: end - first,
            mean_seconds: total / jobs as f64,
            last: last.into_iter().map(|(_, number, seconds)| (number, seconds)).collect(),
        }
    }
}

fn since_epoch(time: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_when_the_first_thread_has_no_more_jobs() {
        let line = |number, slot, second: u32, seconds| {
            Ok(format!(
                r#"{{"number":{number},"rank":0,"slot":{slot},"start":"2026-01-01T00:00:{second:02}Z","seconds":{seconds}}}"#
            ))
        };
        let lines = [line(1, 1, 0, 2.0), line(2, 2, 0, 1.0), line(3, 2, 1, 1.5), line(4, 1, 2, 8.0)];
        let tail = Tail::of(lines.into_iter(), 2);
        assert_eq!((tail.seconds, tail.run_seconds), (7.5, 10.0));
        assert_eq!(tail.last[0], (4, 8.0));
        assert!((tail.mean_seconds - 3.125).abs() < 1e-9);
        let one = Tail::of([line(1, 1, 0, 2.0)].into_iter(), 2);
        assert_eq!(one.seconds, 2.0, "a thread without a job was idle all the time");
        assert_eq!(Tail::of(std::iter::empty(), 2), Tail::default());
    }
}
