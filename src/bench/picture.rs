//! Draws what was measured.

use super::allocation::Allocation;
use super::curve::Point;
use super::diagnosis::Finding;
use super::machine::Machine;
use super::scaling::Row;
use crate::chart::{Axis, Bar, Bars, Caption, Ink, Lines, Reference, Series, Sheet, Unit};
use crate::console::words;

/// Returns the picture of an allocation: the efficiency for each length of job.
pub(crate) fn allocation(found: &Allocation, machine: &Machine, ranks: usize, threads: u32) -> String {
    let title = "The share of the threads' time that is spent in jobs, by their length";
    let series = |name: &str, ink, points: &[Point]| Series {
        name: name.into(),
        ink,
        points: points.iter().map(|point| (point.seconds, point.efficiency)).collect(),
        is_filled: false,
        is_dashed: false,
    };
    let lines = Lines {
        caption: Caption::new(title, "A line for jobs that are sent one by one, and one for automatic chunks."),
        x: Axis::new("length of a job", Unit::Seconds).log(),
        y: Axis::new("time in jobs", Unit::Part),
        series: vec![
            series("automatic chunks", Ink::Main, &found.efficiency.automatic),
            series("one by one", Ink::Second, &found.efficiency.one_by_one),
        ],
        references: vec![Reference::new("METG", 0.5), Reference::new("METG", 0.9)],
    };
    Sheet::new(Caption::new("rankpool bench", title))
        .chart(&lines)
        .line(&format!("{}, {}", words::counted(ranks as u64, "rank"), words::counted(threads.into(), "thread")))
        .line(&machine.line())
        .to_svg()
}

/// Returns the picture of work with more and more threads or ranks: times with the speed-up beside them, and the speed-up itself.
pub(crate) fn scaling(rows: &[Row], what: &str, work: &str, machine: &Machine, findings: &[Finding]) -> String {
    let serial = rows.first().map_or(0.0, Row::wall);
    let speed_up = |row: &Row| serial / row.wall().max(1e-9);
    let one = |row: &Row| if row.count == 1 { what.trim_end_matches('s') } else { what };
    let bars = Bars {
        caption: Caption::new(
            format!("Time of {work}"),
            format!("A bar for each number of {what}, with the speed-up beside it."),
        ),
        unit: Unit::Seconds,
        bars: rows
            .iter()
            .map(|row| {
                Bar::new(format!("{} {}", row.count, one(row)), row.wall()).with_note(format!("{:.2}×", speed_up(row)))
            })
            .collect(),
        reference: Some(Reference::new("serial", serial)),
    };
    let points = |of: &dyn Fn(&Row) -> f64| rows.iter().map(|row| (f64::from(row.count), of(row))).collect();
    let series =
        |name: &str, ink, is_dashed, points| Series { name: name.into(), ink, points, is_filled: false, is_dashed };
    let lines = Lines {
        caption: Caption::new(
            "Speed-up",
            format!("The measured speed-up for each number of {what}, and the ideal one."),
        ),
        x: Axis::new(what, Unit::Count),
        y: Axis::new("speed-up", Unit::Count),
        series: vec![
            series("ideal", Ink::Reference, true, ideal(rows.last().map_or(1, |row| row.count))),
            series("measured", Ink::Main, false, points(&speed_up)),
        ],
        references: Vec::new(),
    };
    let sheet = Sheet::new(Caption::new("rankpool bench", work)).chart(&bars);
    // One point makes no line.
    let sheet = if rows.len() > 1 { sheet.chart(&lines) } else { sheet };
    let limits = findings.iter().filter_map(|finding| finding.text.split_once(':')).map(|(limit, _)| limit);
    let limits: Vec<_> = limits.collect();
    let sheet = if limits.is_empty() { sheet } else { sheet.line(&format!("limited by {}", limits.join(", "))) };
    sheet.line(&machine.line()).to_svg()
}

/// Returns the ideal speed-up up to a number of threads, in enough points for the gaps of a dashed line.
fn ideal(most: u32) -> Vec<(f64, f64)> {
    let point = |at: u32| 1.0 + f64::from(at) / 40.0 * (f64::from(most) - 1.0);
    (0..=40).map(|at| (point(at), point(at))).collect()
}
