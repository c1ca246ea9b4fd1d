//! Reads all entries twice: for the survey, and to sort the jobs.

use std::path::Path;

use super::classes::Sorter;
use super::lanes::Lanes;
use super::named::Named;
use super::phases::Phases;
use super::run::{RunEnd, RunFacts};
use super::spread::Spread;
use super::survey::Survey;
use super::timeline::{Range, Timeline};
use super::{Classes, Counts, Facts, Retries, Slots};
use crate::journal::entries::{Entries, Entry};
use crate::journal::job::Job;
use crate::journal::{JournalError, Spec};

/// Of more runs, the first ones are only counted.
const MOST_RUNS: usize = 100;

/// What is collected in the second look.
#[derive(Debug, Default)]
struct Collector {
    counts: Counts,
    runs: Vec<RunFacts>,
    earlier_runs: u64,
    spec: Spec,
    timeline: Option<Timeline>,
    lanes: Option<Lanes>,
    times: Spread,
    failed_times: Spread,
    sorter: Sorter,
    named: Named,
    phases: Phases,
    memory: Spread,
    cpu_seconds: f64,
    cpu_wall: f64,
    retries: Retries,
    untimed: Untimed,
    last_end_us: u64,
    output_seconds: Option<f64>,
}

/// Jobs without times since the last moment.
#[derive(Debug, Default)]
struct Untimed {
    jobs: u64,
    failed: u64,
    since_us: Option<u64>,
}

/// Reads all facts but those that follow from others.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn facts(path: &Path, entries: &Entries) -> Result<Facts, JournalError> {
    let survey = survey(entries)?;
    let range = survey.range();
    let mut all = Collector {
        timeline: range.clone().map(Timeline::new),
        lanes: range.clone().filter(|_| !survey.ranks.is_empty()).map(|range| Lanes::new(&survey, range)),
        ..Collector::default()
    };
    entries.for_each(|entry| all.take(entry))?;
    Ok(all.finish(path, entries, &survey, range))
}

/// Returns what the first look finds.
fn survey(entries: &Entries) -> Result<Survey, JournalError> {
    let (mut survey, mut untimed) = (Survey::default(), false);
    entries.for_each(|entry| match entry {
        Entry::Job(job) => {
            let job = Job::new(job);
            untimed |= job.span_us().is_none();
            survey.add(&job);
        }
        Entry::Owner(_) => survey.begin_run(),
        Entry::Ranks(fields) => {
            let mut run = RunFacts::default();
            run.set_about(fields);
            run.began_us.into_iter().for_each(|began| survey.see(began));
        }
        // A moment is of interest only if jobs before it have no times.
        Entry::Moment(us) if std::mem::take(&mut untimed) => survey.see(*us),
        _ => {}
    })?;
    Ok(survey)
}

impl Collector {
    fn take(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Job(job) => self.take_job(&Job::new(job)),
            Entry::Owner(fields) => {
                let run = RunFacts::of_owner(fields);
                // To the second only: such a start may be before the first job by chance.
                self.phases.begin_run(None);
                self.untimed = Untimed::default();
                self.runs.push(run);
                if self.runs.len() > MOST_RUNS {
                    self.runs.remove(0);
                    self.earlier_runs += 1;
                }
            }
            Entry::Spec(spec) => self.spec = Spec::clone(spec),
            Entry::Ranks(fields) => {
                if let Some(run) = self.runs.last_mut() {
                    run.set_about(fields);
                    self.phases.set_began(run.began_us);
                    self.untimed.since_us = run.began_us;
                }
            }
            Entry::Moment(us) => self.take_moment(*us),
            Entry::Statistics(fields) => self.runs.last_mut().into_iter().for_each(|run| run.set_statistics(fields)),
            Entry::Complete => self.end_run(RunEnd::Complete),
            Entry::Closed => self.end_run(RunEnd::Closed),
        }
    }

    fn end_run(&mut self, end: RunEnd) {
        if let Some(run) = self.runs.last_mut() {
            run.end = Some(end);
        }
    }

    fn take_job(&mut self, job: &Job<'_>) {
        self.counts.add(job.status);
        self.counts.garbled += u64::from(job.is_garbled);
        if let Some(ns) = job.ns {
            self.times.add(ns);
            if job.has_failed() {
                self.failed_times.add(ns);
            }
            if let Some(cpu) = job.cpu_seconds() {
                self.cpu_seconds += cpu;
                self.cpu_wall += ns as f64 / 1e9;
            }
        }
        if let Some(bytes) = job.fields.max_rss.filter(|bytes| *bytes > 0) {
            self.memory.add(bytes);
        }
        if let Some(attempts) = job.fields.attempts {
            self.retries.known += 1;
            self.retries.most = self.retries.most.max(attempts);
            if attempts > 1 {
                self.retries.jobs += 1;
                self.retries.succeeded += u64::from(!job.has_failed());
                self.retries.attempts += u64::from(attempts) - 1;
            }
        }
        self.named.add(job);
        self.sorter.add(job);
        self.phases.add(job);
        match (job.span_us(), &mut self.timeline) {
            (Some(span), Some(timeline)) => {
                self.counts.timed += 1;
                self.last_end_us = self.last_end_us.max(span.1);
                timeline.add(span, job.has_failed());
                if let (Some(rank), Some(lanes)) = (job.fields.rank, &mut self.lanes) {
                    lanes.add(rank, job.fields.slot.unwrap_or(1), job.number, span, job.has_failed());
                }
            }
            _ => {
                self.untimed.jobs += 1;
                self.untimed.failed += u64::from(job.has_failed());
            }
        }
    }

    fn take_moment(&mut self, us: u64) {
        let since = self.untimed.since_us.unwrap_or(us).min(us);
        if let Some(timeline) = self.timeline.as_mut().filter(|_| self.untimed.jobs > 0) {
            timeline.add_ended((since, us), self.untimed.jobs, self.untimed.failed);
        }
        self.untimed = Untimed { since_us: Some(us), ..Untimed::default() };
        // The last moment of a run is when all its outputs are written.
        self.output_seconds = (self.last_end_us > 0).then(|| us.saturating_sub(self.last_end_us) as f64 / 1e6);
    }

    fn finish(mut self, path: &Path, entries: &Entries, survey: &Survey, range: Option<Range>) -> Facts {
        let (by_name, by_host) = self.sorter.finish();
        let slots = self.phases.finish().map(|(time, count, wall)| Slots {
            count: count as u64,
            ranks: survey.ranks.len() as u64,
            hosts: survey.hosts.len() as u64,
            most_on_host: survey.most_slots_on_host(),
            time,
            wall,
        });
        Facts {
            path: path.to_owned(),
            kind: entries.kind(),
            condition: entries.condition().clone(),
            runs: self.runs,
            earlier_runs: self.earlier_runs,
            spec: self.spec,
            counts: self.counts,
            range,
            timeline: self.timeline,
            lanes: self.lanes,
            times: self.times,
            failed_times: self.failed_times,
            by_name,
            by_host: Classes { name: "host".into(), ..by_host },
            slots,
            queued: self.phases.queued,
            returned: self.phases.returned,
            output_seconds: self.output_seconds,
            memory: self.memory,
            cpus_per_job: (self.cpu_wall > 0.0).then(|| self.cpu_seconds / self.cpu_wall),
            retries: self.retries,
            slowest: self.named.slowest().cloned().collect(),
            failed: self.named.failed().to_vec(),
            reasons: self.named.reasons().into_iter().cloned().collect(),
            failed_again: None,
            notes: Vec::new(),
            missing: Vec::new(),
        }
    }
}
