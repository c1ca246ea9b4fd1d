//! What the file does not say, in sentences, each with what would have to be done for it to be there.

use super::{Facts, RunEnd};
use crate::journal::Status;
use crate::journal::entries::FileKind;

/// Returns a sentence for each thing that a reader may look for and that is not known.
pub(super) fn sentences(facts: &Facts) -> Vec<String> {
    let mut all = of_file(facts);
    all.extend(of_runs(facts));
    all.extend(of_jobs(facts));
    all
}

fn of_file(facts: &Facts) -> Vec<String> {
    let mut all = Vec::new();
    let condition = &facts.condition;
    if condition.is_in_use {
        all.push("A run writes this file now: this is its state at the moment when it was read.".into());
    }
    if condition.torn > 0 {
        all.push(format!(
            "The last {} bytes of the file were not written completely, as after a kill: they are left out.",
            condition.torn
        ));
    }
    if !condition.damage.is_empty() {
        let frames: u64 = condition.damage.iter().map(|damage| u64::from(damage.frames)).sum();
        all.push(format!(
            "The file is damaged in {} place(s), and about {frames} entries in it are lost: `rankpool journal check` shows where.",
            condition.damage.len()
        ));
    }
    if condition.unreadable > 0 {
        all.push(format!("{} line(s) of the file are no entries of a job log and are left out.", condition.unreadable));
    }
    all
}

fn of_runs(facts: &Facts) -> Vec<String> {
    let mut all = Vec::new();
    if facts.kind == FileKind::JobLog {
        all.push(
            "A job log does not have the command line, the number of ranks without jobs, the memory of a node, lost ranks, and \
             whether the run is complete: a journal (--journal FILE) has them."
                .into(),
        );
        return all;
    }
    let Some(run) = facts.last_run() else {
        all.push("The journal does not say which run has written it.".into());
        return all;
    };
    if run.end.is_none() && !facts.condition.is_in_use {
        all.push(
            "The last run has not closed the journal, as after a kill: jobs that ran at that time are not in it. --resume continues."
                .into(),
        );
    }
    if run.end == Some(RunEnd::Closed) {
        all.push("The last run was stopped before all jobs were settled: --resume continues.".into());
    }
    if run.about.ranks.is_none() {
        all.push(
            "The journal was written by an earlier version of rankpool, or was compacted by one: the command line, the ranks \
             and the memory of a node are not in it."
                .into(),
        );
    } else if run.statistics.is_none() {
        all.push("Whether ranks were lost is written at the end of a run, which is not in the journal.".into());
    }
    all
}

fn of_jobs(facts: &Facts) -> Vec<String> {
    let mut all = Vec::new();
    let counts = &facts.counts;
    if counts.garbled > 0 {
        all.push(format!("The descriptions of {} job(s) cannot be read.", counts.garbled));
    }
    let untimed = counts.run().saturating_sub(counts.timed);
    if untimed > 0 {
        let why = match facts.kind {
            FileKind::Journal => {
                "A journal has no times of built-in functions that succeeded: add --records FILE, and make the report of that file."
            }
            FileKind::JobLog => "They were restored from a journal that has no times, or could not be started.",
        };
        all.push(format!("When and for how long {untimed} of {} job(s) ran is not in the file. {why}", counts.run()));
    }
    if counts.timed > 0 {
        if facts.memory.count() == 0 {
            all.push("The memory and the CPU time of jobs are not in the file: they are measured for commands.".into());
        }
        if facts.retries.attempts > 0 {
            all.push(format!(
                "Only the last attempt of each job is in the file: {} earlier attempt(s) of jobs that were run again are pauses in \
                 the pictures.",
                facts.retries.attempts
            ));
        }
        if facts.queued.count() == 0 {
            all.push(
                "How long jobs were queued, and how long their results took to rank 0, is not in the file: it was written by an \
                 earlier version of rankpool, or its jobs were restored."
                    .into(),
            );
        }
    }
    if counts.cancelled > 0 {
        all.push(format!(
            "{} job(s) were {}: they were not run, because --max-failures or --stop-on-success ended the run.",
            counts.cancelled,
            status_name(Status::Cancelled)
        ));
    }
    all
}

/// Returns the word for a status.
pub(crate) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Failed => "failed",
        Status::Signal => "signal",
        Status::Timeout => "timeout",
        Status::Spawn => "spawn",
        Status::Lost => "lost",
        Status::Cancelled => "cancelled",
    }
}
