//! The facts of a report, computed once from a journal or a job log, in memory that does not depend on the number of jobs.
//!
//! The file is read three times: to find each job's last entry, to find out which time, ranks and hosts there are, and to sort the
//! jobs into fixed numbers of parts. Renderers only write down what is here.
//!
//! | file | |
//! |---|---|
//! | `run` | the runs that wrote the file |
//! | `survey` | the first look: time, ranks, hosts |
//! | `timeline`, `lanes` | what happened when, and where |
//! | `spread`, `classes`, `named`, `phases` | times, classes, single jobs, phases |
//! | `missing` | what the file does not say |
//! | `notes` | what could be changed, with the figure behind it |

mod classes;
mod collect;
mod lanes;
mod missing;
mod named;
mod notes;
mod phases;
mod run;
mod spread;
mod survey;
#[cfg(test)]
mod tests;
mod timeline;

use std::path::{Path, PathBuf};

pub(crate) use classes::{Class, Classes, members};
pub(crate) use lanes::{CELLS, LaneOf, Lanes};
pub(crate) use missing::status_name;
pub(crate) use named::{NamedJob, Reason};
pub(crate) use notes::Note;
pub(crate) use phases::SlotTime;
pub(crate) use run::{RunEnd, RunFacts};
pub(crate) use spread::Spread;
pub(crate) use timeline::{Range, Timeline};

use crate::journal::entries::{Condition, Entries, FileKind};
use crate::journal::{JournalError, Spec, Status};

/// How to run jobs again, in words for a shell.
pub(crate) trait Commands {
    /// Returns the command that runs all failed jobs again.
    fn failed_jobs(&self, facts: &Facts) -> Option<String>;
    /// Returns the command that runs this job alone.
    fn job(&self, facts: &Facts, job: &NamedJob) -> Option<String>;
}

/// Everything that a report says.
#[derive(Debug)]
pub(crate) struct Facts {
    pub path: PathBuf,
    pub kind: FileKind,
    pub condition: Condition,
    /// The last runs that wrote the file, and how many there were before them.
    pub runs: Vec<RunFacts>,
    pub earlier_runs: u64,
    /// What all jobs have in common.
    pub spec: Spec,
    pub counts: Counts,
    /// The time from the first job's start to the last job's end.
    pub range: Option<Range>,
    pub timeline: Option<Timeline>,
    pub lanes: Option<Lanes>,
    /// The wall times of jobs, in ns: of all, and of those that failed.
    pub times: Spread,
    pub failed_times: Spread,
    /// The jobs by the values of their records.
    pub by_name: Vec<Classes>,
    pub by_host: Classes,
    pub slots: Option<Slots>,
    /// How long jobs waited until they were run, and their results until they were on rank 0, in ns.
    pub queued: Spread,
    pub returned: Spread,
    /// From the end of the last job to the end of the run, in s.
    pub output_seconds: Option<f64>,
    /// The largest resident sets, in bytes.
    pub memory: Spread,
    /// The mean number of CPUs that a job kept busy.
    pub cpus_per_job: Option<f64>,
    pub retries: Retries,
    pub slowest: Vec<NamedJob>,
    pub failed: Vec<NamedJob>,
    pub reasons: Vec<Reason>,
    /// The command that runs all failed jobs again.
    pub failed_again: Option<String>,
    pub notes: Vec<Note>,
    /// What the file does not say, in sentences.
    pub missing: Vec<String>,
}

/// How many jobs ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub ok: u64,
    pub failed: u64,
    pub signal: u64,
    pub timeout: u64,
    pub spawn: u64,
    pub lost: u64,
    pub cancelled: u64,
    /// Those whose entry says when they ran and for how long.
    pub timed: u64,
    /// Those whose entry has a description that cannot be read.
    pub garbled: u64,
}

impl Counts {
    fn add(&mut self, status: Status) {
        let count = match status {
            Status::Ok => &mut self.ok,
            Status::Failed => &mut self.failed,
            Status::Signal => &mut self.signal,
            Status::Timeout => &mut self.timeout,
            Status::Spawn => &mut self.spawn,
            Status::Lost => &mut self.lost,
            Status::Cancelled => &mut self.cancelled,
        };
        *count += 1;
    }

    /// Returns the number of jobs that were run and did not succeed.
    pub(crate) fn all_failed(&self) -> u64 {
        self.failed + self.signal + self.timeout + self.spawn + self.lost
    }

    /// Returns the number of jobs that were run.
    pub(crate) fn run(&self) -> u64 {
        self.ok + self.all_failed()
    }

    /// Returns each status with its number of jobs, without those that have none.
    pub(crate) fn each(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("ok", self.ok),
            ("failed", self.failed),
            ("signal", self.signal),
            ("timeout", self.timeout),
            ("spawn", self.spawn),
            ("lost", self.lost),
            ("cancelled", self.cancelled),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// The slots that jobs ran in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slots {
    pub count: u64,
    /// The number of ranks and of hosts that jobs ran on.
    pub ranks: u64,
    pub hosts: u64,
    pub most_on_host: u64,
    pub time: SlotTime,
    /// The wall time of all runs, in s.
    pub wall: f64,
}

/// Attempts beyond the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Retries {
    /// Jobs with more than one attempt.
    pub jobs: u64,
    /// Those of them that succeeded.
    pub succeeded: u64,
    /// All attempts beyond the first.
    pub attempts: u64,
    /// The most attempts of a job.
    pub most: u32,
    /// Jobs whose number of attempts is known.
    pub known: u64,
}

impl Facts {
    /// Reads a journal or a job log.
    ///
    /// # Errors
    /// If it cannot be read, or is neither.
    pub(crate) fn read(path: &Path, commands: &dyn Commands) -> Result<Facts, JournalError> {
        let entries = Entries::open(path)?;
        let mut facts = collect::facts(path, &entries)?;
        facts.failed_again = commands.failed_jobs(&facts).filter(|_| facts.counts.all_failed() > 0);
        let (mut slowest, mut failed) = (std::mem::take(&mut facts.slowest), std::mem::take(&mut facts.failed));
        for job in slowest.iter_mut().chain(&mut failed) {
            job.command = commands.job(&facts, job);
        }
        (facts.slowest, facts.failed) = (slowest, failed);
        facts.missing = missing::sentences(&facts);
        facts.notes = notes::notes(&facts);
        Ok(facts)
    }

    /// Returns the options that have the command of the run run its failed jobs again.
    pub(crate) fn again_options(&self) -> String {
        let file = self.path.to_string_lossy();
        let file = shlex::try_quote(&file).map_or_else(|_| file.to_string(), |quoted| quoted.to_string());
        match self.kind {
            FileKind::JobLog => format!("--only-failed {file}"),
            FileKind::Journal => format!("--journal {file} --resume --retry-failed"),
        }
    }

    /// Returns the last run that wrote the file.
    pub(crate) fn last_run(&self) -> Option<&RunFacts> {
        self.runs.last()
    }

    /// Whether all jobs are settled, if the file says so.
    pub(crate) fn is_complete(&self) -> Option<bool> {
        self.last_run().map(|run| run.end == Some(RunEnd::Complete))
    }

    /// Returns the wall time of all runs, in s: from their start to the end of their last job.
    pub(crate) fn wall(&self) -> Option<f64> {
        let slots = self.slots.map(|slots| slots.wall);
        let statistics = self.last_run().and_then(|run| run.statistics.as_ref()).map(|statistics| statistics.wall);
        slots.or(statistics).or_else(|| self.range.as_ref().map(Range::seconds))
    }

    /// Returns the ranks that were lost, of all runs whose end is known.
    pub(crate) fn lost_ranks(&self) -> Vec<(&str, u32, f64)> {
        let statistics = self.runs.iter().filter_map(|run| run.statistics.as_ref());
        let ranks = statistics.flat_map(|statistics| &statistics.ranks);
        ranks.filter_map(|rank| Some((rank.host.as_str(), rank.rank, rank.lost?))).collect()
    }

    /// Returns the memory of a node, if a run says it.
    pub(crate) fn node_memory(&self) -> Option<u64> {
        self.runs.iter().rev().find_map(|run| run.about.node_memory)
    }
}
