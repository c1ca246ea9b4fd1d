//! Writes what was measured as a table for people.

use std::fmt::Write as _;

use super::allocation::{Allocation, Both};
use super::curve::{Metg, Point};
use super::diagnosis::Finding;
use super::machine::Machine;
use super::scaling::Row;
use crate::console::words;

/// The number of ranks whose round trips are shown one by one.
const SHOWN_RANKS: usize = 8;

/// Returns the table of an allocation.
pub(crate) fn allocation(found: &Allocation, machine: &Machine, ranks: usize, threads: u32) -> String {
    let mut text = format!("{ranks} rank(s), {threads} thread(s); {}\n\n", machine.line());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<34} {value}");
    };
    if let Some(seconds) = found.startup_seconds {
        line("start-up", format!("{seconds:.2} s until all ranks had joined"));
    }
    line("round trip of a job", round_trips(found));
    let Both { one_by_one, automatic } = &found.job_seconds;
    line("cost of a job, sent one by one", words::seconds(*one_by_one));
    line("cost of a job, automatic chunks", words::seconds(*automatic));
    for large in &found.large {
        let rate = |seconds: f64| format!("{:.2} GB/s", large.bytes as f64 / seconds.max(1e-12) / 1e9);
        let (input, result) = (rate(large.input_seconds), rate(large.result_seconds));
        line(&format!("a value of {} MB", large.bytes / 1_000_000), format!("{input} to a rank, {result} back"));
    }
    if let Some((mean, largest)) = found.waiting {
        let (mean, largest) = (100.0 * mean, 100.0 * largest);
        line("a rank that waits", format!("{mean:.1} % of a core, at most {largest:.1} %"));
    }
    for (share, found) in [(50, &found.metg_50), (90, &found.metg_90)] {
        let (one_by_one, automatic) = (metg(found.one_by_one), metg(found.automatic));
        line(&format!("METG({share} %)"), format!("{one_by_one} sent one by one, {automatic} in automatic chunks"));
    }
    text += "\nThe share of the threads' time that is spent in jobs, by their length:\n\n";
    let _ = writeln!(text, "{:>10}  {:>12}  {:>12}", "job", "one by one", "automatic");
    for (one, automatic) in found.efficiency.one_by_one.iter().zip(&found.efficiency.automatic) {
        let share = |point: &Point| format!("{:.1} %", 100.0 * point.efficiency);
        let _ = writeln!(text, "{:>10}  {:>12}  {:>12}", words::seconds(one.seconds), share(one), share(automatic));
    }
    text + "\nMETG(p) is the shortest job with which p of the time is spent in jobs (Task Bench, arXiv 1908.05790).\n"
}

fn round_trips(found: &Allocation) -> String {
    let mut trips = found.round_trips.clone();
    if trips.len() <= SHOWN_RANKS {
        let each = trips.iter().map(|trip| format!("rank {}: {}", trip.rank, words::seconds(trip.median_seconds)));
        return each.collect::<Vec<_>>().join(", ");
    }
    trips.sort_by(|a, b| a.median_seconds.total_cmp(&b.median_seconds));
    let (middle, slowest) = (&trips[trips.len() / 2], &trips[trips.len() - 1]);
    let (middle_time, longest) = (words::seconds(middle.median_seconds), words::seconds(slowest.median_seconds));
    format!("{middle_time} in the middle, {longest} for the slowest (rank {})", slowest.rank)
}

fn metg(found: Option<Metg>) -> String {
    match found {
        Some(Metg::Seconds(seconds)) => words::seconds(seconds),
        Some(Metg::AtMost(seconds)) => format!("at most {}", words::seconds(seconds)),
        Some(Metg::Above(seconds)) => format!("more than {}", words::seconds(seconds)),
        None => "not measured".into(),
    }
}

/// Columns of a bar.
const BAR: f64 = 30.0;

/// Returns the table of work with more and more threads or ranks.
pub(crate) fn scaling(rows: &[Row], what: &str, words: &str, machine: &Machine) -> String {
    let mut text = format!("{words}\n{}\n\n", machine.line());
    let _ = writeln!(text, "{what:>8}  {:>9}  {:>15}  {:>8}  {:>10}", "time", "range, s", "speed-up", "efficiency");
    let longest = rows.iter().map(Row::wall).fold(1e-9, f64::max);
    let serial = rows.first().map_or(0.0, Row::wall);
    for row in rows {
        let (shortest, most) = row.range();
        let speed_up = serial / row.wall().max(1e-9);
        let bar = "█".repeat((BAR * row.wall() / longest).round() as usize);
        let _ = writeln!(
            text,
            "{:>8}  {:>9}  {:>15}  {speed_up:>8.2}  {:>8.0} %  {bar}",
            row.count,
            words::seconds(row.wall()),
            format!("{:.3}…{:.3}", shortest, most),
            100.0 * speed_up / f64::from(row.count)
        );
    }
    text
}

/// Returns findings and warnings as paragraphs.
pub(crate) fn findings(findings: &[Finding], warnings: &[String]) -> String {
    let found = findings.iter().map(|finding| format!("\n* {}\n", finding.text));
    let warned = warnings.iter().map(|warning| format!("\nwarning: {warning}\n"));
    found.chain(warned).collect()
}
