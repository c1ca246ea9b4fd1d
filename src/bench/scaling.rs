//! Runs the same work with more and more threads or ranks.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Instant;

use nix::sys::resource::UsageWho;
use serde::{Deserialize, Serialize};

use super::machine::{busy_cpu_seconds, cpu_seconds};
use super::median;
use super::tail::Tail;
use crate::journal::JournalError;
use crate::process::environment;

/// The work, and how it is started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub program: PathBuf,
    /// The words of a launcher, in which `{}` is the number of ranks. `None`: one rank with that number of threads.
    pub launcher: Option<Vec<String>>,
    /// The words behind the program: a subcommand, its options and its arguments.
    pub words: Vec<OsString>,
    /// The numbers of threads or ranks, the first of which is 1.
    pub counts: Vec<u32>,
    /// How often each is run.
    pub runs: usize,
}

/// The system counts the time of CPUs in steps: in less time than this, in seconds, that of other work is not known.
const LEAST_WALL: f64 = 0.5;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Once {
    /// From the start of the program to its end.
    pub wall_seconds: f64,
    /// The CPU time of its processes on this host.
    pub user_seconds: f64,
    pub system_seconds: f64,
    /// How many CPUs of this host were busy with other work. Of ranks this is not known: their launcher may start them elsewhere, or
    /// not as its own processes.
    pub other_cpus: Option<f64>,
    #[serde(flatten)]
    pub summary: Summary,
}

/// What a run says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub jobs: u64,
    pub failed: u64,
    /// From the first job's dispatch to the last result.
    #[serde(rename(serialize = "run_seconds"))]
    pub wall_seconds: f64,
    /// The share of the threads' time that was spent in the function of the jobs.
    pub efficiency: Option<f64>,
    #[serde(default, skip_serializing)]
    per_rank: Vec<RankSummary>,
    /// The time in the function of the jobs, summed over all threads.
    #[serde(default)]
    pub busy_seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct RankSummary {
    busy_seconds: f64,
}

/// All runs with one number of threads or ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub count: u32,
    pub runs: Vec<Once>,
}

impl Row {
    /// Returns the median of a figure of the runs.
    pub(crate) fn median(&self, figure: impl Fn(&Once) -> f64) -> f64 {
        median(&self.runs.iter().map(figure).collect::<Vec<_>>())
    }

    pub(crate) fn wall(&self) -> f64 {
        self.median(|run| run.wall_seconds)
    }

    /// Returns how many CPUs of this host were busy with other work during all runs; `None` if they are too short to tell.
    pub(crate) fn other_cpus(&self) -> Option<f64> {
        let wall: f64 = self.runs.iter().map(|run| run.wall_seconds).sum();
        let busy = self.runs.iter().map(|run| Some(run.other_cpus? * run.wall_seconds)).sum::<Option<f64>>()?;
        (wall >= LEAST_WALL).then(|| busy / wall)
    }

    /// Returns the shortest and the longest wall time.
    pub(crate) fn range(&self) -> (f64, f64) {
        let walls = self.runs.iter().map(|run| run.wall_seconds);
        (walls.clone().fold(f64::INFINITY, f64::min), walls.fold(0.0, f64::max))
    }

    /// Returns the mean time in the function of a job, in seconds.
    pub(crate) fn job_seconds(&self) -> f64 {
        self.median(|run| run.summary.busy_seconds / run.summary.jobs.max(1) as f64)
    }

    /// Returns the CPU time for each job, in seconds.
    pub(crate) fn cpu_of_job(&self) -> f64 {
        self.median(|run| (run.user_seconds + run.system_seconds) / run.summary.jobs.max(1) as f64)
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScalingError {
    #[error("{program} cannot be started: {error}")]
    NotStarted { program: String, error: io::Error },
    #[error("a run with {count} {what} ended with {end}: {command}")]
    Failed { count: u32, what: &'static str, end: String, command: String },
    #[error("a file of a run cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] JournalError),
    #[error("interrupted")]
    Interrupted,
}

impl Plan {
    /// What the numbers count.
    pub(crate) fn what(&self) -> &'static str {
        if self.launcher.is_some() { "ranks" } else { "threads" }
    }

    /// Runs everything: each number once in each round, so that a change of the machine meets them all. `begin` is called before each
    /// run. `stop` ends it.
    ///
    /// # Errors
    /// If a run fails. Failed jobs are none of these.
    pub(crate) fn rows(&self, stop: &Stop, begin: &mut dyn FnMut(usize, u32)) -> Result<Vec<Row>, ScalingError> {
        let mut rows: Vec<Row> = self.counts.iter().map(|&count| Row { count, runs: Vec::new() }).collect();
        for round in 0..self.runs {
            for row in &mut rows {
                begin(round, row.count);
                row.runs.push(self.run(row.count, None, stop)?);
            }
        }
        Ok(rows)
    }

    /// Runs the work once more with the largest number, and returns what its job log says.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub(crate) fn tail(&self, stop: &Stop) -> Result<Tail, ScalingError> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("jobs.jsonl");
        let count = self.counts.iter().copied().max().unwrap_or(1);
        self.run(count, Some(&log), stop)?;
        Ok(Tail::read(&log, count)?)
    }

    fn command(&self, count: u32, summary: &Path, log: Option<&Path>) -> (OsString, Vec<OsString>) {
        let mut words: Vec<OsString> = Vec::new();
        match &self.launcher {
            Some(launcher) => {
                words.extend(launcher.iter().map(|word| word.replace("{}", &count.to_string()).into()));
                words.push(self.program.clone().into());
                words.extend(["--threads", "1"].map(OsString::from));
            }
            None => {
                words.push(self.program.clone().into());
                words.extend(["--local", "1", "--threads"].map(OsString::from));
                words.push(count.to_string().into());
            }
        }
        words.extend(["--quiet", "--progress", "off", "--output", "/dev/null", "--summary"].map(OsString::from));
        words.push(summary.into());
        let (subcommand, others) = self.words.split_at(1.min(self.words.len()));
        words.extend_from_slice(subcommand);
        if let Some(log) = log {
            words.extend([OsString::from("--records"), log.into()]);
        }
        words.extend_from_slice(others);
        let arguments = words.split_off(1);
        (words.remove(0), arguments)
    }

    fn run(&self, count: u32, log: Option<&Path>, stop: &Stop) -> Result<Once, ScalingError> {
        let folder = tempfile::tempdir()?;
        let summary = folder.path().join("summary.json");
        let (program, arguments) = self.command(count, &summary, log);
        let shown = || program.to_string_lossy().into_owned();
        let busy_before = self.launcher.is_none().then(busy_cpu_seconds).flatten();
        let (user_before, system_before) = cpu_seconds(UsageWho::RUSAGE_CHILDREN);
        let begin = Instant::now();
        let mut command = Command::new(&program);
        // If a launcher has started this process, it has not started those.
        for name in environment::launcher_variables() {
            command.env_remove(name);
        }
        let mut child = command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| ScalingError::NotStarted { program: shown(), error })?;
        stop.watch(child.id());
        let status = child.wait();
        stop.unwatch();
        let status = status?;
        let wall_seconds = begin.elapsed().as_secs_f64();
        let busy_after = busy_before.and_then(|_| busy_cpu_seconds());
        if stop.is_asked() {
            return Err(ScalingError::Interrupted);
        }
        let code = status.code();
        // 3: some jobs failed.
        if !matches!(code, Some(0 | 3)) {
            let end = code.map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
            let command = std::iter::once(&program).chain(&arguments).map(|word| word.to_string_lossy().into_owned());
            let command = shlex::try_join(command.collect::<Vec<_>>().iter().map(String::as_str)).unwrap_or_default();
            return Err(ScalingError::Failed { count, what: self.what(), end, command });
        }
        let text = std::fs::read(&summary)?;
        let mut summary: Summary = serde_json::from_slice(&text).map_err(io::Error::from)?;
        summary.busy_seconds = summary.per_rank.iter().map(|rank| rank.busy_seconds).sum();
        let (user, system) = cpu_seconds(UsageWho::RUSAGE_CHILDREN);
        let (user_seconds, system_seconds) = (user - user_before, system - system_before);
        let others = |(before, after)| (after - before - user_seconds - system_seconds) / wall_seconds.max(1e-9);
        Ok(Once {
            wall_seconds,
            user_seconds,
            system_seconds,
            other_cpus: busy_before.zip(busy_after).map(others).map(|cpus: f64| cpus.max(0.0)),
            summary,
        })
    }
}

/// A request to end the measurement, which is passed on to the run that goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    is_asked: Arc<AtomicBool>,
    /// The process of the run; 0 between runs.
    running: Arc<AtomicI32>,
}

impl Stop {
    /// Takes SIGINT and SIGTERM for such a request.
    ///
    /// # Errors
    /// If the system refuses a handler or a thread.
    pub(crate) fn at_signals() -> io::Result<Stop> {
        let stop = Stop::default();
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
        let its = stop.clone();
        std::thread::Builder::new().name("rankpool signals".into()).spawn(move || {
            for signal in signals.forever() {
                its.is_asked.store(true, Ordering::SeqCst);
                its.pass_on(signal);
            }
        })?;
        Ok(stop)
    }

    fn pass_on(&self, signal: i32) {
        let signal = nix::sys::signal::Signal::try_from(signal);
        let pid = self.running.load(Ordering::SeqCst);
        if let (Ok(signal), true) = (signal, pid > 0) {
            // It may just have ended.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }

    fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Notes the process of a run that has begun.
    fn watch(&self, pid: u32) {
        self.running.store(i32::try_from(pid).unwrap_or(0), Ordering::SeqCst);
        if self.is_asked() {
            self.pass_on(signal_hook::consts::SIGTERM);
        }
    }

    fn unwatch(&self) {
        self.running.store(0, Ordering::SeqCst);
    }
}

/// Returns the default numbers up to a largest one: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on, and that one.
pub(crate) fn counts_up_to(largest: u32) -> Vec<u32> {
    let powers = std::iter::successors(Some(2_u32), |power| power.checked_mul(2));
    let mut counts: Vec<u32> = std::iter::once(1)
        .chain(powers.flat_map(|power| [power, power / 2 * 3]))
        .take_while(|count| *count < largest)
        .collect();
    counts.push(largest.max(1));
    counts.dedup();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_grow_by_halves_and_end_with_the_largest() {
        assert_eq!(counts_up_to(1), [1]);
        assert_eq!(counts_up_to(2), [1, 2]);
        assert_eq!(counts_up_to(7), [1, 2, 3, 4, 6, 7]);
        assert_eq!(counts_up_to(24), [1, 2, 3, 4, 6, 8, 12, 16, 24]);
    }

    #[test]
    fn a_launcher_gets_the_number_of_ranks() {
        let plan = Plan {
            program: "rankpool".into(),
            launcher: Some(["mpiexec", "-n", "{}"].map(String::from).to_vec()),
            words: ["kernel", "nop"].map(OsString::from).to_vec(),
            counts: vec![1, 2],
            runs: 1,
        };
        let (program, arguments) = plan.command(3, Path::new("s"), Some(Path::new("l")));
        let arguments: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(program, "mpiexec");
        assert_eq!(arguments[..4], ["-n", "3", "rankpool", "--threads"]);
        assert_eq!(arguments[arguments.len() - 4..], ["kernel", "--records", "l", "nop"]);
    }
}
