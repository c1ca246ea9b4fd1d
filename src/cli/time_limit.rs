//! Finds out when a run has to end: by `--time-limit`, or by the allocation that it runs in.
//!
//! Only rank 0 asks, once, while MPI starts and before any job does. Slurm says it in an environment variable (since version 22.05),
//! or through `scontrol`; PBS through `qstat`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, bounded};

use super::config::Config;
use super::parse::Limit;
use crate::batch::{Ends, TIME_LIMIT_QUESTION};
use crate::console;
use crate::engine::environment::environment;
use crate::launch;
use crate::process::command::{self, EndReason, TimeLimit};
use crate::process::program::Program;
use crate::process::spawn;

/// The question when the run has to end.
pub(super) enum Asked {
    Known(Option<Ends>),
    /// The batch system is asked, on a thread.
    Pending(Receiver<Result<Option<Ends>, String>>),
}

impl Asked {
    /// Asks. This must come before MPI is started, because it may start a process.
    pub(super) fn now(config: &Config) -> Asked {
        let (limit, began) = config.time_limit;
        match limit {
            Limit::None => Asked::Known(None),
            // Beyond the clock's range there is no limit.
            Limit::After(time) => Asked::Known(began.checked_add(time).map(|at| Ends { at, source: "--time-limit" })),
            Limit::Auto if !launch::is_first() => Asked::Known(None),
            Limit::Auto => Asked::allocation(),
        }
    }

    fn allocation() -> Asked {
        match Allocation::of(environment) {
            None => Asked::Known(None),
            Some(Allocation::Ends(end)) => Asked::Known(ends_at(end, SLURM)),
            Some(asked @ (Allocation::Slurm(_) | Allocation::Pbs(_))) => {
                let (answer, pending) = bounded(1);
                let ask = move || {
                    let _ = answer.send(asked.ask(&run));
                };
                // Without a helper or a thread the question has no answer: there is no limit.
                if spawn::start().is_ok() {
                    let _ = std::thread::Builder::new().name("rankpool time limit".into()).spawn(ask);
                }
                Asked::Pending(pending)
            }
        }
    }

    /// Returns when the run has to end; `None` if there is no limit, or if it is not known. Then it says so, unless it is to be
    /// `quiet`.
    pub(super) fn end(&self, quiet: bool) -> Option<Ends> {
        let answer = match self {
            Asked::Known(end) => return *end,
            Asked::Pending(answer) => answer.recv_timeout(2 * TIME_LIMIT_QUESTION).ok()?,
        };
        answer.unwrap_or_else(|why| {
            if !quiet {
                console::eprint_error(format_args!(
                    "the run does not know when its allocation ends: {why}; --time-limit TIME sets a limit"
                ));
            }
            None
        })
    }
}

const SLURM: &str = "the end of the Slurm allocation";
const PBS: &str = "the end of the PBS allocation";

/// Converts seconds since 1970. An end that is over belongs to another allocation, whose variables are still there.
fn ends_at(end: u64, source: &'static str) -> Option<Ends> {
    let left = Duration::from_secs(end).checked_sub(since_1970())?;
    Instant::now().checked_add(left).map(|at| Ends { at, source })
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The allocation of a process, by its environment.
#[derive(Debug, PartialEq, Eq)]
enum Allocation {
    /// It ends at this time, in seconds since 1970.
    Ends(u64),
    /// Slurm's job with this number: `scontrol` says when it ends.
    Slurm(String),
    /// The PBS job with this number: `qstat` says when it ends.
    Pbs(String),
}

/// Runs a program and returns what it has printed.
type Run<'r> = &'r dyn Fn(&str, &[&str], &[(&str, &str)]) -> Result<String, String>;

impl Allocation {
    fn of(environment: impl Fn(&str) -> Option<String>) -> Option<Allocation> {
        if let Some(job) = environment("SLURM_JOB_ID") {
            let end = environment("SLURM_JOB_END_TIME").and_then(|end| end.parse().ok());
            return Some(end.map_or(Allocation::Slurm(job), Allocation::Ends));
        }
        environment("PBS_JOBID").map(Allocation::Pbs)
    }

    /// Asks the batch system.
    ///
    /// # Errors
    /// A sentence, if it does not answer.
    fn ask(&self, run: Run<'_>) -> Result<Option<Ends>, String> {
        let now = since_1970().as_secs();
        let (left, source) = match self {
            Allocation::Ends(end) => return Ok(ends_at(*end, SLURM)),
            Allocation::Slurm(job) => {
                let text = run("scontrol", &["show", "job", job], &[("SLURM_TIME_FORMAT", "%s")])?;
                (slurm_left(&text, now), SLURM)
            }
            Allocation::Pbs(job) => {
                let text = run("qstat", &["-f", job], &[])?;
                // The time is written in words, in this host's time zone.
                let start = pbs_field(&text, "stime").or_else(|| pbs_field(&text, "start_time"));
                let start = start.and_then(|start| run("date", &["-d", start, "+%s"], &[("LC_ALL", "C")]).ok());
                (pbs_left(&text, start.and_then(|start| start.trim().parse().ok()), now), PBS)
            }
        };
        let end = left.and_then(|left| Instant::now().checked_add(left));
        Ok(end.map(|at| Ends { at, source }))
    }
}

/// Runs a program through the spawn helper.
fn run(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
    let own = |text: &&str| (*text).to_string();
    let program = Program {
        name: name.into(),
        args: args.iter().map(own).collect(),
        env: env.iter().map(|(name, value)| (own(name), own(value))).collect(),
        ..Program::default()
    };
    let limit = TimeLimit { timeout: Some(TIME_LIMIT_QUESTION), kill_after: Duration::ZERO };
    let mut printed = Vec::new();
    let end = command::run(&program, None, &limit, None, &mut |_, bytes| printed.extend_from_slice(bytes))
        .map_err(|gone| gone.to_string())?;
    match end.reason {
        EndReason::Exited(0) => Ok(String::from_utf8_lossy(&printed).into_owned()),
        EndReason::TimedOut => Err(format!("{name} has not answered for {} s", TIME_LIMIT_QUESTION.as_secs())),
        EndReason::NotStarted(why) => Err(why),
        _ => Err(match String::from_utf8_lossy(&printed).lines().next() {
            Some(line) => format!("{name} has failed: {}", console::escaped(line)),
            None => format!("{name} has failed"),
        }),
    }
}

/// Returns the time that a job has left, by the output of `scontrol show job` with times in seconds since 1970; `None` without a
/// limit.
fn slurm_left(text: &str, now: u64) -> Option<Duration> {
    let field = |name: &str| text.split_whitespace().find_map(|word| word.strip_prefix(name));
    if let Some(end) = field("EndTime=").and_then(|end| end.parse::<u64>().ok()) {
        return end.checked_sub(now).map(Duration::from_secs);
    }
    let (limit, used) = (clock(field("TimeLimit=")?)?, clock(field("RunTime=")?)?);
    limit.checked_sub(used)
}

/// Returns the value of an attribute in the output of `qstat -f`.
fn pbs_field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    lines.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

/// Returns the time that a job has left, by the output of `qstat -f` and the time of its start, in seconds since 1970, if that is
/// known; `None` without a limit.
fn pbs_left(text: &str, start: Option<u64>, now: u64) -> Option<Duration> {
    let limit = clock(pbs_field(text, "Resource_List.walltime")?)?;
    let since_start = start.and_then(|start| now.checked_sub(start)).map(Duration::from_secs);
    // What PBS has measured may be some minutes old.
    let used = since_start.or_else(|| clock(pbs_field(text, "resources_used.walltime")?)).unwrap_or_default();
    limit.checked_sub(used)
}

/// Parses a time as batch systems write it: `HH:MM:SS`, `D-HH:MM:SS`, `MM:SS`, or seconds.
fn clock(text: &str) -> Option<Duration> {
    let (days, time) = text.split_once('-').unwrap_or(("0", text));
    let parts = time.split(':').map(|part| part.parse::<u64>().ok());
    let seconds = parts.reduce(|sum, part| sum?.checked_mul(60)?.checked_add(part?))??;
    Some(Duration::from_secs(days.parse::<u64>().ok()?.checked_mul(86_400)?.checked_add(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(variables: &[(&str, &str)]) -> Option<Allocation> {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string());
        Allocation::of(value)
    }

    #[test]
    fn the_environment_says_which_allocation_it_is() {
        assert_eq!(allocation(&[("HOME", "/"), ("SLURM_CONF", "x")]), None);
        let slurm = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_END_TIME", "1800000000")];
        assert_eq!(allocation(&slurm), Some(Allocation::Ends(1_800_000_000)));
        assert_eq!(allocation(&slurm[..1]), Some(Allocation::Slurm("7".into())));
        assert_eq!(allocation(&[("PBS_JOBID", "9.host")]), Some(Allocation::Pbs("9.host".into())));
        assert_eq!(allocation(&[slurm[0], ("PBS_JOBID", "9")]), Some(Allocation::Slurm("7".into())), "Slurm's qsub");
    }

    const SCONTROL: &str = "JobId=7 JobName=rankpool.sbatch\n   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0\n   \
        RunTime=00:10:00 TimeLimit=01:00:00 TimeMin=N/A\n   SubmitTime=1000 EligibleTime=1000\n   \
        StartTime=1400 EndTime=5000 Deadline=N/A\n";

    #[test]
    fn scontrol_says_the_end_or_the_limit_and_the_time_that_is_used() {
        assert_eq!(slurm_left(SCONTROL, 2000), Some(Duration::from_secs(3000)));
        assert_eq!(slurm_left(SCONTROL, 6000), None, "another allocation, which is over");
        let old = SCONTROL.replace("EndTime=5000", "EndTime=2026-11-29T12:00:00");
        assert_eq!(slurm_left(&old, 2000), Some(Duration::from_secs(3000)), "50 of 60 minutes");
        let days = old.replace("TimeLimit=01:00:00", "TimeLimit=2-00:00:10");
        assert_eq!(slurm_left(&days, 2000), Some(Duration::from_secs(2 * 86_400 + 10 - 600)));
        let endless = SCONTROL.replace("EndTime=5000", "EndTime=Unknown").replace("01:00:00", "UNLIMITED");
        assert_eq!(slurm_left(&endless, 2000), None);
        assert_eq!(slurm_left("slurm_load_jobs error", 2000), None);
    }

    const QSTAT: &str = "Job Id: 9.host\n    Job_Name = rankpool\n    resources_used.walltime = 00:05:00\n    job_state = R\n    \
        Resource_List.ncpus = 64\n    Resource_List.walltime = 01:00:00\n    stime = Sun Nov 29 11:00:00 2026\n    \
        Variable_List = A=b,\n\tC=Resource_List.walltime\n";

    #[test]
    fn qstat_says_the_limit_and_the_start_or_the_time_that_is_used() {
        assert_eq!(pbs_left(QSTAT, Some(1000), 1600), Some(Duration::from_secs(3000)));
        assert_eq!(pbs_left(QSTAT, None, 1600), Some(Duration::from_secs(3300)));
        assert_eq!(pbs_left(&QSTAT.replace("resources_used", "x"), None, 1600), Some(Duration::from_secs(3600)));
        assert_eq!(pbs_left(QSTAT, Some(1000), 9000), None, "it is over");
        assert_eq!(pbs_left("Job Id: 9.host\n", Some(1000), 1600), None, "no limit");
        assert_eq!(pbs_field(QSTAT, "stime"), Some("Sun Nov 29 11:00:00 2026"));
    }

    #[test]
    fn the_batch_system_is_asked_for_this_job() {
        let asked = |allocation: Allocation| {
            let end = allocation.ask(&|name, args, _| match (name, args) {
                ("scontrol", ["show", "job", "7"]) => Ok(SCONTROL.replace("EndTime=5000", "EndTime=Unknown")),
                ("qstat", ["-f", "9.host"]) => Ok(QSTAT.into()),
                ("date", ["-d", "Sun Nov 29 11:00:00 2026", "+%s"]) => Ok((since_1970().as_secs() - 600).to_string()),
                _ => Err(format!("{name} {args:?}")),
            });
            end.map(|end| end.map(|end| (end.at - Instant::now(), end.source)))
        };
        for (allocation, source) in [(Allocation::Slurm("7".into()), SLURM), (Allocation::Pbs("9.host".into()), PBS)] {
            let (left, of) = asked(allocation).unwrap().unwrap();
            assert_eq!(of, source);
            assert!(left <= Duration::from_secs(3000) && left > Duration::from_secs(2900), "{left:?}");
        }
        assert_eq!(asked(Allocation::Slurm("8".into())), Err("scontrol [\"show\", \"job\", \"8\"]".into()));
    }

    #[test]
    fn times_of_batch_systems_are_read() {
        for (text, seconds) in
            [("01:02:03", 3723), ("1-00:00:00", 86_400), ("02:30", 150), ("45", 45), ("100:00:00", 360_000)]
        {
            assert_eq!(clock(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "UNLIMITED", "1:x", "Partition_Limit", "-1", "99999999999999999999:00", "18446744073709551615:59"]
        {
            assert_eq!(clock(wrong), None, "{wrong}");
        }
    }
}
