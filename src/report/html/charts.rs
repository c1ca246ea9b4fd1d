//! The charts of the page: from facts to marks, never more than some thousand.

use super::Page;
use crate::chart::{Axis, Bar, Bars, Caption, Column, Gantt, Histogram, Ink, Lines, Mark, Reference, Series, Unit};
use crate::console::words::{bytes, counted, number, percent, seconds};
use crate::report::facts::{CELLS, Class, Classes, Facts, LaneOf, Lanes};

/// The most columns of a histogram.
const COLUMNS: usize = 48;
/// Parts of the time are merged until there are about this many jobs in each on average.
const PER_PART: u64 = 8;
/// But no more than this number of them.
const MOST_MERGED: u64 = 10;
/// The most bars of a chart of classes.
const MOST_BARS: usize = 24;

/// A time axis in the unit that suits its length: the divisor of seconds, and the axis.
fn time_axis(length: f64) -> (f64, Axis) {
    let (divisor, name) = match length {
        _ if length >= 3.0 * 86_400.0 => (86_400.0, "time since the start (days)"),
        _ if length >= 3.0 * 3600.0 => (3600.0, "time since the start (hours)"),
        _ if length >= 180.0 => (60.0, "time since the start (minutes)"),
        _ if length >= 0.5 => (1.0, "time since the start (s)"),
        _ => (1e-3, "time since the start (ms)"),
    };
    (divisor, Axis::new(name, Unit::Count))
}

/// Throughput and running jobs over time.
pub(super) fn course(facts: &Facts, page: &mut Page) -> bool {
    let Some(timeline) = facts.timeline.as_ref().filter(|timeline| timeline.ended.iter().any(|jobs| *jobs > 0)) else {
        return false;
    };
    let (divisor, axis) = time_axis(timeline.range.seconds());
    // With few jobs a part, the line would only show single ones.
    let all: u64 = timeline.ended.iter().sum();
    let merged = (PER_PART * timeline.ended.len() as u64 / all.max(1)).clamp(1, MOST_MERGED) as usize;
    let part = timeline.part_seconds() * merged as f64;
    let end = timeline.range.seconds() / divisor;
    let rate = |jobs: &[u64]| -> Vec<(f64, f64)> {
        let rates: Vec<_> = jobs.chunks(merged).map(|jobs| jobs.iter().sum::<u64>() as f64 / part).collect();
        through(&rates, end)
    };
    let most = rate(&timeline.ended).iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let mut series = vec![Series {
        name: "all jobs".into(),
        ink: Ink::Main,
        points: rate(&timeline.ended),
        is_filled: true,
        is_dashed: false,
    }];
    if timeline.failed.iter().any(|jobs| *jobs > 0) {
        let points = rate(&timeline.failed);
        series.push(Series { name: "failed".into(), ink: Ink::Failed, points, is_filled: false, is_dashed: false });
    }
    let description = format!(
        "At most {} jobs/s, mean {} jobs/s.",
        number(most),
        number(facts.counts.run() as f64 / timeline.range.seconds())
    );
    let chart = Lines {
        caption: Caption::new("Jobs that ended in a second, over time", &description),
        x: axis.clone(),
        y: Axis::new("jobs ended per s", Unit::Count),
        series,
        references: Vec::new(),
    };
    page.figure(&chart, &format!("Throughput: jobs that ended in a second, by their last attempt. {description}"));
    let (pauses, paused) = timeline.range.pauses();
    if pauses > 0 {
        page.paragraph(&format!(
            "{} between runs, {} in all, are left out of these charts.",
            counted(pauses as u64, "pause"),
            seconds(paused)
        ));
    }
    if timeline.has_running {
        running(facts, page);
    }
    true
}

/// Returns the points of a line through the middles of equal parts of the time from 0 to `end`, and to both ends.
fn through(values: &[f64], end: f64) -> Vec<(f64, f64)> {
    let step = end / values.len().max(1) as f64;
    let middles = values.iter().enumerate().map(|(index, value)| ((index as f64 + 0.5) * step, *value));
    let (first, last) = (values.first().map(|value| (0.0, *value)), values.last().map(|value| (end, *value)));
    first.into_iter().chain(middles).chain(last).collect()
}

fn running(facts: &Facts, page: &mut Page) {
    let Some(timeline) = &facts.timeline else { return };
    let (divisor, axis) = time_axis(timeline.range.seconds());
    let points = through(&timeline.running(), timeline.range.seconds() / divisor);
    // Starts are known to the millisecond, so the sum is a little more than a whole number.
    let most = points.iter().map(|(_, jobs)| *jobs).fold(0.0, f64::max).round();
    let slots = facts.slots.map(|slots| slots.count as f64);
    let description = format!("At most {} jobs ran at once.", number(most));
    let chart = Lines {
        caption: Caption::new("Jobs that ran at once, over time", &description),
        x: axis,
        y: Axis::new("jobs running", Unit::Count),
        series: vec![Series { name: "running".into(), ink: Ink::Second, points, is_filled: true, is_dashed: false }],
        references: slots.map(|slots| Reference::new("slots", slots)).into_iter().collect(),
    };
    page.figure(
        &chart,
        &format!("Jobs running: where the line is below the slots, slots had nothing to do. {description}"),
    );
}

/// The Gantt chart.
pub(super) fn lanes(facts: &Facts, page: &mut Page) -> bool {
    let Some(lanes) = facts.lanes.as_ref().filter(|lanes| lanes.lanes.iter().any(|lane| lane.jobs > 0)) else {
        return ranks(facts, page);
    };
    let length = lanes.range.seconds();
    let (divisor, axis) = time_axis(length);
    let (of, each) = match lanes.of {
        LaneOf::Slot => ("slot", ""),
        LaneOf::Rank => ("rank", " Each row is all slots of a rank."),
        LaneOf::Ranks => ("group of ranks", " Each row is a group of ranks, because there are many."),
    };
    let description = format!(
        "{} in {}.",
        counted(lanes.lanes.iter().map(|lane| lane.jobs).sum(), "job"),
        counted(lanes.lanes.len() as u64, of)
    );
    let chart = Gantt {
        caption: Caption::new("When which slot ran a job", &description),
        x: axis,
        range: (0.0, length / divisor),
        rows: lanes.lanes.iter().map(|lane| lane.label.clone()).collect(),
        marks: if lanes.has_spans { single(lanes, divisor) } else { summed(lanes, divisor) },
    };
    let how = if lanes.has_spans {
        "Each bar is a job's last attempt; failed ones are orange. A gap after a bar is a pause or an earlier attempt."
            .to_string()
    } else {
        format!(
            "The stronger the blue, the more of the slots were in jobs, in {CELLS} parts of the time. Orange marks are failed jobs: the \
             higher, the more of those that ended there."
        )
    };
    page.figure(&chart, &format!("{how}{each}"));
    lane_table(lanes, page);
    true
}

/// The ranks by what the run has counted, if single jobs have no times.
fn ranks(facts: &Facts, page: &mut Page) -> bool {
    let (shown, all) = facts.counted_ranks(MOST_BARS);
    if shown.is_empty() {
        return false;
    }
    let of = if all > shown.len() { format!(" The least and the most busy ones of {all}.") } else { String::new() };
    let bars = shown.into_iter().map(|(label, busy, note)| Bar::new(label, busy).with_note(note));
    let chart = Bars {
        caption: Caption::new("How busy ranks were", "The part of the time of their threads in the functions of jobs."),
        unit: Unit::Part,
        bars: bars.collect(),
        reference: Some(Reference::new("all of the time", 1.0)),
    };
    page.figure(
        &chart,
        &format!("The part of the time of their threads that ranks were in the functions of jobs.{of}"),
    );
    true
}

/// Each job by itself.
fn single(lanes: &Lanes, divisor: f64) -> Vec<Mark> {
    let at = |us: u64| lanes.range.since_start(us) / divisor;
    let marks = lanes.lanes.iter().enumerate().flat_map(|(row, lane)| {
        lane.spans.iter().map(move |span| Mark {
            row,
            from: at(span.start_us),
            to: at(span.end_us),
            ink: if span.has_failed { Ink::Failed } else { Ink::Main },
            strength: 0.85,
            height: 1.0,
        })
    });
    let (failed, others): (Vec<_>, Vec<_>) = marks.partition(|mark| mark.ink == Ink::Failed);
    // Failed ones are drawn last, so that they are seen however short they are.
    others.into_iter().chain(failed).collect()
}

/// How busy each part of the time was; equal parts beside each other are one mark.
fn summed(lanes: &Lanes, divisor: f64) -> Vec<Mark> {
    let cell = lanes.range.seconds() / divisor / CELLS as f64;
    let mut marks = Vec::new();
    for (row, lane) in lanes.lanes.iter().enumerate() {
        let shades: Vec<u32> =
            lane.busy().iter().map(|busy| if *busy > 0.0 { (busy * 4.0).ceil() as u32 } else { 0 }).collect();
        let mut from = 0;
        for to in 1..=CELLS {
            if to < CELLS && shades[to] == shades[from] {
                continue;
            }
            if shades[from] > 0 {
                let (start, end) = (from as f64 * cell, to as f64 * cell);
                let strength = f64::from(shades[from]) / 4.0 * 0.85 + 0.05;
                marks.push(Mark { row, from: start, to: end, ink: Ink::Main, strength, height: 1.0 });
            }
            from = to;
        }
        // A few failures are not as large as many. Three heights, so that equal ones beside each other are one mark.
        let height = |cell: usize| match f64::from(lane.failed_in[cell]) / f64::from(lane.ended_in[cell].max(1)) {
            0.0 => 0.0,
            part if part < 0.3 => 0.3,
            part if part < 0.7 => 0.65,
            _ => 1.0,
        };
        let mut from = 0;
        for to in 1..=CELLS {
            if to < CELLS && height(to) == height(from) {
                continue;
            }
            if height(from) > 0.0 {
                let (start, end) = ((from as f64 + 0.2) * cell, (to as f64 - 0.2) * cell);
                marks.push(Mark { row, from: start, to: end, ink: Ink::Failed, strength: 1.0, height: height(from) });
            }
            from = to;
        }
    }
    marks
}

fn lane_table(lanes: &Lanes, page: &mut Page) {
    page.html("<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">where</th>");
    for name in ["slots", "jobs", "failed", "in jobs"] {
        page.html("<th scope=\"col\" class=\"n\">").text(name).html("</th>");
    }
    page.html("</tr></thead><tbody>");
    for lane in &lanes.lanes {
        let busy = lane.busy();
        let busy = busy.iter().sum::<f64>() / busy.len().max(1) as f64;
        page.html("<tr><th scope=\"row\">").text(&lane.label).html("</th>");
        for value in [number(lane.slots as f64), number(lane.jobs as f64), number(lane.failed as f64), percent(busy)] {
            page.html("<td class=\"n\">").text(&value).html("</td>");
        }
        page.html("</tr>");
    }
    page.html("</tbody></table></div></details>\n");
}

/// The histogram of times.
pub(super) fn times(facts: &Facts, page: &mut Page) -> bool {
    if facts.times.count() == 0 {
        return false;
    }
    let bins = facts.times.bins(COLUMNS);
    let columns = bins.iter().map(|bin| Column { from: bin.from / 1e9, to: bin.to / 1e9, count: bin.count }).collect();
    let at = |share| facts.times.quantile(share) as f64 / 1e9;
    let sentence = facts.time_sentence();
    let chart = Histogram {
        caption: Caption::new("How many jobs took how long", &sentence),
        x: Axis::new("time of a job", Unit::Seconds).log(),
        y: Axis::new("jobs", Unit::Count),
        columns,
        references: vec![Reference::new("median", at(0.5)), Reference::new("95 % within", at(0.95))],
    };
    page.figure(&chart, &format!("{} have a time: {sentence}.", counted(facts.times.count(), "job")));
    true
}

/// The bars of a class.
pub(super) fn classes(facts: &Facts, classes: &Classes, page: &mut Page) {
    let mean = facts.times.mean() / 1e9;
    let (known, all) = shown(classes, facts.times.mean(), MOST_BARS);
    if known.is_empty() {
        return;
    }
    let bars = known.iter().map(|class| {
        let failed = if class.failed > 0 { format!(", {} failed", class.failed) } else { String::new() };
        Bar::new(class.value.clone(), class.times.mean() / 1e9)
            .with_note(format!("{}{failed}", counted(class.jobs, "job")))
    });
    let chart = Bars {
        caption: Caption::new(
            format!("Mean time of a job by {}", classes.name),
            format!("{} values; the mean of all jobs is {}.", classes.classes.len(), seconds(mean)),
        ),
        unit: Unit::Seconds,
        bars: bars.collect(),
        reference: Some(Reference::new("mean of all jobs", mean)),
    };
    let of = if all > known.len() {
        format!(
            " The {} of {all} that differ most from the mean of all jobs, or have the most failed jobs.",
            known.len()
        )
    } else {
        String::new()
    };
    page.figure(&chart, &format!("Mean time of a job by {}.{of}", classes.name));
}

/// Returns the classes with times, or those of them that differ most from the others, and the number of all.
pub(super) fn shown(classes: &Classes, mean: f64, most: usize) -> (Vec<&Class>, usize) {
    let known: Vec<&Class> = classes.classes.iter().filter(|class| class.times.count() > 0).collect();
    let all = known.len();
    if all <= most {
        return (known, all);
    }
    let differs = |class: &Class| {
        (class.times.mean() - mean).abs() / mean.max(1.0) + 2.0 * class.failed as f64 / class.jobs.max(1) as f64
    };
    let mut order: Vec<usize> = (0..all).collect();
    order.sort_by(|a, b| differs(known[*b]).total_cmp(&differs(known[*a])));
    order.truncate(most);
    order.sort_unstable();
    (order.into_iter().map(|at| known[at]).collect(), all)
}

/// Where the time of the slots went, and how long jobs were in each phase.
pub(super) fn phases(facts: &Facts, page: &mut Page) -> bool {
    if let Some(slots) = facts.slots {
        let time = slots.time;
        let words = [
            "from the start of the run until each slot's first job",
            "in the last attempts of jobs",
            "from the end of a job to the start of the next one on its slot, with earlier attempts",
            "from the end of each slot's last job to the end of the run's last job",
        ];
        let parts: Vec<_> = time.parts().into_iter().zip([time.start_up, time.run, time.between, time.tail]).collect();
        let inks = [Ink::Third, Ink::Main, Ink::Idle, Ink::Idle];
        let bars = parts.iter().zip(inks).map(|(((name, part), seconds), ink)| Bar {
            label: (*name).into(),
            parts: vec![(ink, *seconds)],
            note: percent(*part),
        });
        let all: Vec<_> = parts.iter().map(|((name, part), _)| format!("{name} {}", percent(*part))).collect();
        let chart = Bars {
            caption: Caption::new("Where the time of the slots went", all.join(", ")),
            unit: Unit::Seconds,
            bars: bars.collect(),
            reference: None,
        };
        let explained: Vec<_> =
            parts.iter().zip(words).map(|(((name, _), _), words)| format!("{name}: {words}")).collect();
        page.figure(&chart, &format!("The time of all slots together. {}.", explained.join("; ")));
    }
    let sentences = facts.phase_sentences();
    if !sentences.is_empty() {
        page.html("<dl>");
        for (name, value) in &sentences {
            page.html("<dt>").text(name).html("</dt><dd>").text(value).html("</dd>");
        }
        page.html("</dl>\n");
    }
    facts.slots.is_some() || !sentences.is_empty()
}

/// The memory of jobs.
pub(super) fn memory(facts: &Facts, page: &mut Page) -> bool {
    let Some(sentence) = facts.memory_sentence() else { return false };
    let bins = facts.memory.bins(COLUMNS);
    let most = facts.memory.most() as f64;
    let chart = Histogram {
        caption: Caption::new("How many jobs had how much memory", &sentence),
        x: Axis::new("largest resident set of a job", Unit::Bytes).log(),
        y: Axis::new("jobs", Unit::Count),
        columns: bins.iter().map(|bin| Column { from: bin.from, to: bin.to, count: bin.count }).collect(),
        references: vec![Reference::new("most", most)],
    };
    let sentence = format!("{}: {sentence}.", counted(facts.memory.count(), "job"));
    if bins.len() > 2 {
        page.figure(&chart, &sentence);
    } else {
        page.paragraph(&sentence);
    }
    if let Some(node) = facts.node_memory() {
        let fit = node as f64 / most.max(1.0);
        page.paragraph(&format!(
            "{} of the largest jobs fit on a node with {}; {} would fit if each had the median.",
            number(fit.floor()),
            bytes(node as f64),
            number((node as f64 / facts.memory.quantile(0.5).max(1) as f64).floor())
        ));
    }
    true
}
