//! A report as text, for terminals: the same facts as the page. Foreign text in it is made harmless.

use std::fmt::Write;

use super::facts::{Classes, Facts, NamedJob, RunEnd, SlotTime, status_name};
use crate::console::words::{bytes, count, counted, number, percent, seconds};
use crate::console::{in_one_line, shortened};
use crate::journal::entries::FileKind;

/// The number of bars of the histogram, and of parts of the course.
const BARS: usize = 16;
/// The length of the longest bar.
const LONGEST_BAR: usize = 40;
/// The most rows of a table.
const MOST_ROWS: usize = 20;

/// The most single jobs in a list; the page has more.
const MOST_NAMED: usize = 10;

/// The most bytes of a value of the summary, such as a command line with a long list.
const LONGEST_VALUE: usize = 500;

/// Lines that are being written. Writing to a string cannot fail.
struct Lines(String);

impl Lines {
    fn title(&mut self, title: &str) {
        let _ = write!(self.0, "\n{title}\n");
    }

    fn line(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.0, "  {}", text.as_ref());
    }

    /// Writes a bar with a label before it and a text behind it.
    fn bar(&mut self, label: &str, part: f64, text: &str) {
        let length = (part.clamp(0.0, 1.0) * LONGEST_BAR as f64).round() as usize;
        let _ = writeln!(self.0, "  {label:>12} {:<LONGEST_BAR$} {text}", "█".repeat(length));
    }
}

/// Returns the report.
pub(crate) fn text(facts: &Facts) -> String {
    let mut lines = Lines(String::new());
    summary(facts, &mut lines);
    notes(facts, &mut lines);
    course(facts, &mut lines);
    lanes(facts, &mut lines);
    times(facts, &mut lines);
    for classes in facts.by_name.iter().chain(std::iter::once(&facts.by_host)) {
        table(classes, &mut lines);
    }
    phases(facts, &mut lines);
    memory(facts, &mut lines);
    failures(facts, &mut lines);
    slowest(facts, &mut lines);
    if !facts.missing.is_empty() {
        lines.title("Not in the file");
        facts.missing.iter().for_each(|sentence| lines.line(format!("* {}", in_one_line(sentence))));
    }
    lines.0
}

fn summary(facts: &Facts, lines: &mut Lines) {
    let kind = match facts.kind {
        FileKind::Journal => "journal",
        FileKind::JobLog => "job log",
    };
    let _ = writeln!(lines.0, "Report of the {kind} {}", in_one_line(&facts.path.to_string_lossy()));
    lines.title("Summary");
    for (name, value) in facts.summary() {
        lines.line(format!("{name}: {}", shortened(in_one_line(&value), LONGEST_VALUE)));
    }
}

fn notes(facts: &Facts, lines: &mut Lines) {
    if facts.notes.is_empty() {
        return;
    }
    lines.title("Notes");
    for note in &facts.notes {
        let line = note.line.as_ref().map_or_else(String::new, |line| format!("{}: ", in_one_line(line)));
        lines.line(format!("* {line}{}", in_one_line(&note.text)));
    }
}

fn course(facts: &Facts, lines: &mut Lines) {
    let Some(timeline) = &facts.timeline else { return };
    lines.title("Jobs that ended, and jobs that ran, over time");
    let (pauses, paused) = timeline.range.pauses();
    if pauses > 0 {
        lines.line(format!("without {} between runs, {} in all", counted(pauses as u64, "pause"), seconds(paused)));
    }
    let (running, each) = (timeline.running(), timeline.ended.len().div_ceil(BARS));
    let ended: Vec<u64> = timeline.ended.chunks(each).map(|part| part.iter().sum()).collect();
    let failed: Vec<u64> = timeline.failed.chunks(each).map(|part| part.iter().sum()).collect();
    let ran: Vec<f64> = running.chunks(each).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let most = ended.iter().copied().max().unwrap_or(0).max(1) as f64;
    let part = timeline.part_seconds() * each as f64;
    for (at, ended) in ended.iter().enumerate() {
        let failed = if failed[at] > 0 { format!(", {} failed", count(failed[at])) } else { String::new() };
        let ran = if timeline.has_running { format!(", {} running", number(ran[at])) } else { String::new() };
        let rate = number(*ended as f64 / part);
        lines.bar(&seconds(at as f64 * part), *ended as f64 / most, &format!("{rate} jobs/s{ran}{failed}"));
    }
}

fn lanes(facts: &Facts, lines: &mut Lines) {
    let Some(lanes) = &facts.lanes else { return ranks(facts, lines) };
    lines.title("Ranks and slots (█ busy, ▒ partly, · idle, ! a job failed)");
    let width = lanes.lanes.iter().map(|lane| lane.label.len()).max().unwrap_or(0);
    for lane in &lanes.lanes {
        let busy = lane.busy();
        let cells = busy.chunks(2).zip(lane.failed_in.chunks(2)).map(|(busy, failed)| {
            let mean = busy.iter().sum::<f64>() / busy.len() as f64;
            match mean {
                _ if failed.iter().any(|failed| *failed > 0) => '!',
                _ if mean > 0.75 => '█',
                _ if mean > 0.05 => '▒',
                _ => '·',
            }
        });
        let cells: String = cells.collect();
        lines.line(format!("{:<width$} {cells} {}", lane.label, counted(lane.jobs, "job")));
    }
}

/// The ranks by what the run has counted, if single jobs have no times.
fn ranks(facts: &Facts, lines: &mut Lines) {
    let (shown, all) = facts.counted_ranks(MOST_ROWS);
    if shown.is_empty() {
        return;
    }
    lines.title("Ranks: the part of their threads' time in the functions of jobs");
    for (label, busy, note) in &shown {
        lines.bar(label, *busy, &format!("{}, {note}", percent(*busy)));
    }
    if all > shown.len() {
        lines.line(format!("the least and the most busy ones of {all}"));
    }
}

fn times(facts: &Facts, lines: &mut Lines) {
    if facts.times.count() == 0 {
        return;
    }
    lines.title("Times of jobs");
    lines.line(facts.time_sentence());
    let bins = facts.times.bins(BARS);
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1) as f64;
    for bin in bins {
        lines.bar(&seconds(bin.from / 1e9), bin.count as f64 / most, &counted(bin.count, "job"));
    }
}

fn table(classes: &Classes, lines: &mut Lines) {
    if classes.classes.len() < 2 {
        return;
    }
    lines.title(&format!("Time by {}", in_one_line(&classes.name)));
    let most = classes.classes.iter().map(|class| class.times.mean()).fold(1.0, f64::max);
    for class in classes.classes.iter().take(MOST_ROWS) {
        let failed = if class.failed > 0 { format!(", {} failed", count(class.failed)) } else { String::new() };
        let (mean, p95) = (seconds(class.times.mean() / 1e9), seconds(class.times.quantile(0.95) as f64 / 1e9));
        let text = format!("mean {mean}, 95 % within {p95}, {}{failed}", counted(class.jobs, "job"));
        lines.bar(&in_one_line(&class.value), class.times.mean() / most, &text);
    }
    let more = classes.classes.len().saturating_sub(MOST_ROWS);
    if more > 0 {
        lines.line(format!("and {more} more"));
    }
}

fn phases(facts: &Facts, lines: &mut Lines) {
    if let Some(slots) = facts.slots {
        lines.title("Where the time of the slots went");
        for (name, part) in slots.time.parts() {
            lines.bar(name, part, &percent(part));
        }
    }
    for (name, value) in facts.phase_sentences() {
        lines.line(format!("{name}: {value}"));
    }
}

fn memory(facts: &Facts, lines: &mut Lines) {
    if let Some(sentence) = facts.memory_sentence() {
        lines.title("Memory of a job");
        lines.line(sentence);
    }
}

fn failures(facts: &Facts, lines: &mut Lines) {
    if facts.reasons.is_empty() {
        return;
    }
    lines.title("Failed jobs");
    for reason in facts.reasons.iter().take(MOST_ROWS) {
        lines.line(format!(
            "{}: {}{}, first job {}",
            counted(reason.jobs, "job"),
            status_name(reason.status),
            if reason.message.is_empty() { String::new() } else { format!(" ({})", in_one_line(&reason.message)) },
            reason.first
        ));
        for line in reason.stderr.iter().flat_map(|stderr| stderr.lines()) {
            lines.line(format!("    | {}", in_one_line(line)));
        }
    }
    match &facts.failed_again {
        Some(command) => lines.line(format!("Run them again: {}", in_one_line(command))),
        None => lines.line(format!("To run them again, add to the command: {}", in_one_line(&facts.again_options()))),
    }
    facts.failed.iter().take(MOST_NAMED).for_each(|job| named(job, lines));
}

fn slowest(facts: &Facts, lines: &mut Lines) {
    if facts.slowest.is_empty() {
        return;
    }
    lines.title("Slowest jobs");
    facts.slowest.iter().take(MOST_NAMED).for_each(|job| named(job, lines));
}

fn named(job: &NamedJob, lines: &mut Lines) {
    let time = job.seconds.map_or_else(|| "–".into(), seconds);
    let place = job.place();
    let place = if place.is_empty() { String::new() } else { format!(" on {}", in_one_line(&place)) };
    lines.line(format!("job {}: {}, {time}{place}: {}", job.number, status_name(job.status), job.shown_input));
    if let Some(message) = &job.message {
        lines.line(format!("    {}", in_one_line(message)));
    }
    if let Some(line) = job.last_words() {
        lines.line(format!("    | {}", in_one_line(line)));
    }
    if let Some(command) = &job.command {
        lines.line(format!("    {}", in_one_line(command)));
    }
}

impl SlotTime {
    /// Returns the phases with their parts of the whole, from 0 to 1.
    pub(super) fn parts(&self) -> [(&'static str, f64); 4] {
        let total = self.total().max(f64::MIN_POSITIVE);
        [("start-up", self.start_up), ("run", self.run), ("between jobs", self.between), ("at the end", self.tail)]
            .map(|(name, seconds)| (name, seconds / total))
    }
}

impl NamedJob {
    /// Returns where its last attempt ran.
    pub(super) fn place(&self) -> String {
        let rank = self.rank.map(|rank| format!("rank {rank}"));
        let slot = self.slot.map(|slot| format!("slot {slot}"));
        let parts: Vec<_> = [self.host.clone(), rank, slot].into_iter().flatten().collect();
        parts.join(", ")
    }
}

impl Facts {
    /// Returns the lines of the summary: names and values.
    pub(super) fn summary(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("jobs", self.jobs_sentence())];
        let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
        add("state", self.state());
        add("time", self.wall().map(seconds));
        add(
            "throughput",
            self.wall()
                .filter(|wall| *wall > 0.0)
                .map(|wall| format!("{} jobs/s", number(self.counts.run() as f64 / wall))),
        );
        add("slots", self.slots_sentence());
        add("busy", self.busy_sentence());
        add("retries", self.retries_sentence());
        let lost = self.lost_ranks();
        let names: Vec<_> = lost
            .iter()
            .take(10)
            .map(|(host, rank, after)| format!("rank {rank} on {host} after {}", seconds(*after)))
            .collect();
        add("lost ranks", (!lost.is_empty()).then(|| format!("{}: {}", lost.len(), names.join(", "))));
        if let Some(run) = self.last_run() {
            let allocation =
                if run.allocation.is_empty() { String::new() } else { format!(", allocation {}", run.allocation) };
            add("last run", Some(format!("{} on {}{allocation}", run.since, run.host)));
            add("command", run.about.command.clone());
            add("folder", run.about.folder.clone());
            add("output", Some(run.output.clone()).filter(|output| !output.is_empty()));
            add("version", Some(run.version.clone()).filter(|version| !version.is_empty()));
        }
        let spec = self.spec.iter().filter(|(name, _)| self.has_command_line().is_none() && name != "batch");
        let spec: Vec<_> = spec.map(|(name, value)| format!("{name} {value}")).collect();
        add("jobs have in common", Some(spec.join("; ")).filter(|spec| !spec.is_empty()));
        all
    }

    fn has_command_line(&self) -> Option<&str> {
        self.last_run()?.about.command.as_deref()
    }

    fn jobs_sentence(&self) -> String {
        let parts: Vec<_> = self.counts.each().iter().map(|(name, jobs)| format!("{} {name}", count(*jobs))).collect();
        if parts.is_empty() {
            return "none has been settled".into();
        }
        format!("{} ({})", count(self.counts.run() + self.counts.cancelled), parts.join(", "))
    }

    fn state(&self) -> Option<String> {
        let run = self.last_run()?;
        let state = match run.end {
            _ if self.condition.is_in_use => "a run goes on",
            Some(RunEnd::Complete) => "complete",
            Some(RunEnd::Closed) => "stopped early",
            None => "not closed: killed, or its node failed",
        };
        let runs = self.runs.len() as u64 + self.earlier_runs;
        Some(if runs > 1 { format!("{state}, after {}", counted(runs, "run")) } else { state.into() })
    }

    fn slots_sentence(&self) -> Option<String> {
        let Some(slots) = self.slots else {
            let about = &self.last_run()?.about;
            let (threads, ranks, hosts) = (about.threads?, about.ranks?, about.hosts?);
            return Some(format!(
                "{} of {} on {}",
                counted(threads, "thread"),
                counted(ranks, "rank"),
                counted(hosts, "host")
            ));
        };
        Some(format!(
            "{} of {} on {} ran jobs",
            counted(slots.count, "slot"),
            counted(slots.ranks, "rank"),
            counted(slots.hosts, "host")
        ))
    }

    fn busy_sentence(&self) -> Option<String> {
        if let Some(slots) = self.slots {
            return Some(format!("slots were in jobs for {} of the time", percent(slots.time.busy())));
        }
        let efficiency = self.last_run()?.statistics.as_ref()?.efficiency()?;
        Some(format!("threads were in the functions of jobs for {} of the time", percent(efficiency)))
    }

    fn retries_sentence(&self) -> Option<String> {
        let retries = self.retries;
        (retries.known > 0).then(|| {
            if retries.jobs == 0 {
                return "none".into();
            }
            format!(
                "{} had more than one attempt, {} of them succeeded; {} more than the first, at most {} for a job",
                counted(retries.jobs, "job"),
                count(retries.succeeded),
                counted(retries.attempts, "attempt"),
                retries.most
            )
        })
    }

    /// Returns the label, the busy part of the time and the note of at most `most` ranks, by the statistics of the last run, and the
    /// number of all ranks.
    pub(super) fn counted_ranks(&self, most: usize) -> (Vec<(String, f64, String)>, usize) {
        let Some(statistics) = self.last_run().and_then(|run| run.statistics.as_ref()) else { return (Vec::new(), 0) };
        let mut ranks: Vec<_> = statistics.ranks.iter().filter(|rank| rank.threads > 0).collect();
        let all = ranks.len();
        if all > most {
            ranks.sort_by(|a, b| a.busy_part(statistics.wall).total_cmp(&b.busy_part(statistics.wall)));
            ranks.drain(most / 2..all - most.div_ceil(2));
        }
        let shown = ranks.into_iter().map(|rank| {
            let failed = if rank.failed > 0 { format!(", {} failed", count(rank.failed)) } else { String::new() };
            let note = format!("{}{failed}", counted(rank.jobs, "job"));
            (format!("rank {} on {}", rank.rank, rank.host), rank.busy_part(statistics.wall), note)
        });
        (shown.collect(), all)
    }

    /// Returns quantiles of the times of jobs.
    pub(super) fn time_sentence(&self) -> String {
        let quantile = |share| seconds(self.times.quantile(share) as f64 / 1e9);
        let failed = match self.failed_times.count() {
            0 => String::new(),
            _ => format!("; median of failed ones {}", seconds(self.failed_times.quantile(0.5) as f64 / 1e9)),
        };
        format!(
            "shortest {}, median {}, mean {}, 95 % within {}, longest {}; {} in all{failed}",
            seconds(self.times.least() as f64 / 1e9),
            quantile(0.5),
            seconds(self.times.mean() / 1e9),
            quantile(0.95),
            seconds(self.times.most() as f64 / 1e9),
            seconds(self.times.sum() / 1e9)
        )
    }

    /// Returns how long jobs were in each phase: names and quantiles.
    pub(super) fn phase_sentences(&self) -> Vec<(&'static str, String)> {
        let quantiles = |spread: &super::facts::Spread| {
            let at = |share| seconds(spread.quantile(share) as f64 / 1e9);
            format!("median {}, 95 % within {}, longest {}", at(0.5), at(0.95), seconds(spread.most() as f64 / 1e9))
        };
        let spreads = [("queued", &self.queued), ("run", &self.times), ("result to rank 0", &self.returned)];
        let mut all: Vec<_> = spreads
            .into_iter()
            .filter(|(_, spread)| spread.count() > 0)
            .map(|(name, of)| (name, quantiles(of)))
            .collect();
        if let Some(output) = self.output_seconds {
            all.push(("output", format!("{} from the end of the last job until all was written", seconds(output))));
        }
        all
    }

    /// Returns what jobs needed, and how many fit on a node.
    pub(super) fn memory_sentence(&self) -> Option<String> {
        if self.memory.count() == 0 {
            return None;
        }
        let quantile = |share| bytes(self.memory.quantile(share) as f64);
        let most = self.memory.most();
        let fit = match self.node_memory() {
            Some(node) => {
                format!("{} of the largest fit on a node with {}", count(node / most.max(1)), bytes(node as f64))
            }
            None => "the memory of a node is not in the file".into(),
        };
        Some(format!("median {}, 95 % within {}, most {}; {fit}", quantile(0.5), quantile(0.95), bytes(most as f64)))
    }
}
