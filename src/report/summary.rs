//! The summary at the end of a run: a few lines of text, or one JSON object.

use std::io::{self, Write};

use serde::Serialize;

use super::memory::MemorySummary;
use super::{Needs, bytes};
use crate::console::in_one_line;
use crate::engine::stats::{RankStats, Stats};
use crate::process::memory::of_process;

/// The end summary of a run. Its JSON has the keys below.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The name of the batch.
    name: String,
    /// The number of jobs that have a result or have failed after all retries.
    jobs: u64,
    /// The number of these jobs that failed.
    failed: u64,
    /// The time from the first job's dispatch to the last result, in s.
    wall_seconds: f64,
    jobs_per_second: f64,
    /// The number of ranks.
    ranks: usize,
    /// The number of compute threads of all ranks.
    threads: u32,
    /// The part of all threads' wall time that was useful: spent in the functions of jobs alone.
    efficiency: f64,
    messages_to_ranks: u64,
    messages_from_ranks: u64,
    bytes_to_ranks: u64,
    bytes_from_ranks: u64,
    /// The largest resident set of rank 0's process.
    peak_memory_bytes: u64,
    /// The memory that jobs have needed; null if it is not known.
    job_memory: Option<MemorySummary>,
    /// Each rank, in order.
    per_rank: Vec<RankSummary>,
}

#[derive(Debug, Clone, Serialize)]
struct RankSummary {
    rank: u32,
    host: String,
    threads: u32,
    jobs: u64,
    /// The number of jobs that failed there, also if they were run again elsewhere.
    failed: u64,
    /// Useful time: the time that its threads spent in the functions of jobs alone, summed over threads.
    busy_seconds: f64,
    /// Useful time / (wall × threads).
    busy_fraction: f64,
    /// The time that its threads spent on chunks: useful time, and the time for reading inputs and writing results.
    chunk_seconds: f64,
    messages_to: u64,
    messages_from: u64,
    bytes_to: u64,
    bytes_from: u64,
    /// The time from the start of the run at which the rank was lost, in s; null if it was not lost.
    lost_seconds: Option<f64>,
}

impl Summary {
    /// Makes the summary of a batch of this name.
    pub fn new(name: &str, stats: &Stats) -> Self {
        let sum = |count: fn(&RankStats) -> u64| stats.ranks.iter().map(count).sum();
        let per_rank = stats.ranks.iter().map(|rank| RankSummary {
            rank: rank.rank,
            host: rank.host.clone(),
            threads: rank.threads,
            jobs: rank.jobs,
            failed: rank.failed,
            busy_seconds: rank.busy.as_secs_f64(),
            busy_fraction: rank.busy_fraction(stats.wall),
            chunk_seconds: rank.on_chunks.as_secs_f64(),
            messages_to: rank.messages_to,
            messages_from: rank.messages_from,
            bytes_to: rank.bytes_to,
            bytes_from: rank.bytes_from,
            lost_seconds: rank.lost.map(|lost| lost.as_secs_f64()),
        });
        Summary {
            name: name.to_string(),
            jobs: stats.jobs,
            failed: stats.failed,
            wall_seconds: stats.wall.as_secs_f64(),
            jobs_per_second: stats.jobs_per_second(),
            ranks: stats.ranks.len(),
            threads: stats.threads(),
            efficiency: stats.efficiency(),
            messages_to_ranks: sum(|rank| rank.messages_to),
            messages_from_ranks: sum(|rank| rank.messages_from),
            bytes_to_ranks: sum(|rank| rank.bytes_to),
            bytes_from_ranks: sum(|rank| rank.bytes_from),
            peak_memory_bytes: peak_memory(),
            job_memory: None,
            per_rank: per_rank.collect(),
        }
    }

    /// Adds what jobs have needed on nodes like this, see [`Needs::summary`].
    pub(crate) fn with_memory(self, needs: &Needs, out_of_memory: u64) -> Summary {
        Summary { job_memory: needs.summary(of_process(), out_of_memory), ..self }
    }

    /// Writes one JSON object on several lines.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }

    /// Writes a few lines of text.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_text(&self, mut out: impl Write) -> io::Result<()> {
        let failed = if self.failed > 0 { format!(" ({} failed)", self.failed) } else { String::new() };
        writeln!(
            out,
            "{}: {} jobs{failed} in {} s, {} jobs/s, efficiency {:.0} %",
            in_one_line(&self.name),
            self.jobs,
            rounded(self.wall_seconds),
            rounded(self.jobs_per_second),
            100.0 * self.efficiency,
        )?;
        writeln!(
            out,
            "{} rank(s), {} thread(s); {} messages ({}) to ranks, {} ({}) back",
            self.ranks,
            self.threads,
            self.messages_to_ranks,
            bytes(self.bytes_to_ranks),
            self.messages_from_ranks,
            bytes(self.bytes_from_ranks),
        )?;
        if let Some(memory) = &self.job_memory {
            memory.write_text(&mut out)?;
        }
        for rank in &self.per_rank {
            if let Some(lost) = rank.lost_seconds {
                let (number, host) = (rank.rank, in_one_line(&rank.host));
                writeln!(
                    out,
                    "rank {number} on {host} was lost after {} s; its jobs were given to others",
                    rounded(lost)
                )?;
            }
        }
        // A few ranks are all shown; of many ranks, only the least and the most busy.
        let mut shown: Vec<&RankSummary> = self.per_rank.iter().collect();
        if shown.len() > MANY_RANKS {
            shown.retain(|rank| rank.threads > 0);
            shown.sort_by(|a, b| a.busy_fraction.total_cmp(&b.busy_fraction));
            let (least, most) = (shown[0], shown[shown.len() - 1]);
            shown = vec![least, most];
            writeln!(out, "least and most busy:")?;
        }
        for rank in shown {
            let RankSummary { rank, host, threads, jobs, failed, busy_fraction, .. } = rank;
            let failed = if *failed > 0 { format!(" ({failed} failed there)") } else { String::new() };
            writeln!(
                out,
                "  rank {rank} on {}: {jobs} jobs{failed}, {threads} thread(s), {:.0} % busy",
                in_one_line(host),
                100.0 * busy_fraction
            )?;
        }
        Ok(())
    }
}

/// Returns the largest resident set of this process so far, in bytes; 0 if it is not known.
fn peak_memory() -> u64 {
    // On some systems `getrusage` includes the process that started this one; the status file does not.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

const MANY_RANKS: usize = 8;

/// Formats a number with three significant digits, or as a whole number.
fn rounded(value: f64) -> String {
    let digits = if value >= 100.0 || value == 0.0 { 0 } else { (2 - value.log10().floor() as i32).max(0) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rank(number: u32, busy_ms: u64, on_chunks_ms: u64) -> RankStats {
        RankStats {
            rank: number,
            host: "here".into(),
            threads: 2,
            jobs: 5,
            failed: 0,
            busy: Duration::from_millis(busy_ms),
            on_chunks: Duration::from_millis(on_chunks_ms),
            messages_to: 1,
            bytes_to: 2,
            messages_from: 3,
            bytes_from: 4,
            lost: None,
        }
    }

    #[test]
    fn lost_ranks_are_named_with_their_hosts_however_many_ranks_there_are() {
        let mut ranks: Vec<_> = (0..20).map(|number| rank(number, 1_500, 2_000)).collect();
        ranks[7].lost = Some(Duration::from_millis(12_300));
        let stats = Stats { jobs: 10, failed: 0, wall: Duration::from_secs(2), stop_requested: None, ranks };
        let summary = Summary::new("x", &stats);
        let mut text = Vec::new();
        summary.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("rank 7 on here was lost after 12.3 s; its jobs were given to others"), "{text}");
        assert_eq!(text.matches("was lost").count(), 1, "{text}");
        let mut json = Vec::new();
        summary.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["per_rank"][7]["lost_seconds"], 12.3);
        assert!(json["per_rank"][6]["lost_seconds"].is_null());
    }

    #[test]
    fn efficiency_and_busy_are_about_useful_time() {
        let ranks = vec![rank(0, 1_500, 2_000), rank(1, 500, 4_000)];
        let stats = Stats { jobs: 10, failed: 0, wall: Duration::from_secs(2), stop_requested: None, ranks };
        let summary = Summary::new("x", &stats);
        let mut json = Vec::new();
        summary.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["efficiency"], &json["per_rank"][1]["busy_fraction"]), (&0.25.into(), &0.125.into()));
        let (busy, chunks) = (&json["per_rank"][1]["busy_seconds"], &json["per_rank"][1]["chunk_seconds"]);
        assert_eq!((busy, chunks), (&0.5.into(), &4.0.into()));
        let mut text = Vec::new();
        summary.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("efficiency 25 %") && text.contains("2 thread(s), 12 % busy"), "{text}");
    }
}
