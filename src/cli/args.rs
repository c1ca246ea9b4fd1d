//! The definition of the command line, with the texts of `--help`.
//!
//! What the options mean together is decided in [`config`](super::config).

mod batch;
mod bench;
mod input;
mod kernels;
mod python;
mod report;
mod stop;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ArgGroup, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::parse::{Chunk, address, from_one, positive_time};

pub(super) use batch::{FailureArgs, JournalArgs, MapArgs, RetryOn, RunCommandArgs};
pub(super) use bench::BenchArgs;
pub(super) use input::{FormatArg, InputArgs};
pub(super) use kernels::{IndexArgs, KernelArgs, ParzenArgs, RunKernelArgs};
pub(super) use python::{CallWorkerArgs, PythonArgs, ServeArgs};
pub(super) use report::{Form, ReportArgs};

const EXAMPLES: &str = "\
Examples:
  rankpool run --input files.txt -- gzip -k {}      a command for every line, on this machine
  mpiexec -n 4 rankpool run --range 1:1000 --records jobs.jsonl -- ./simulate --seed {}
  mpiexec -n 4 rankpool map --python model.py:predict --input jobs.jsonl --output results.jsonl
  mpiexec -n 8 rankpool python script.py            a Python script whose executor has all ranks as workers
  srun rankpool kernel parzen --samples data.csv    inside a Slurm allocation
  rankpool --local 3 kernel nop --jobs 1000000      three ranks as threads, without MPI
  mpiexec -n 4 rankpool info                        where the ranks are, and with how many threads
  rankpool report run.journal -o report.html        what a run did, as a page with charts

Exit codes:
  0   every job succeeded
  1   rankpool itself failed (a full disk, a broken connection)
  2   wrong usage or bad input
  3   some jobs failed: the first ones are named on standard error, all of them in the job log
  75  stopped early, by a signal or a time limit: --only-failed runs the remaining jobs

Environment:
  RANKPOOL_THREADS, RANKPOOL_LOCAL    defaults for --threads and --local
  RANKPOOL_LOST_AFTER                 default for --lost-after, in seconds";

/// Runs a command or a function for every record, on all cores of all nodes.
///
/// `mpiexec -n N rankpool …` or `srun rankpool …` starts N ranks of this program. Rank 0 sends the jobs to all ranks, which run
/// them on all their cores, and writes the results in the order of the records.
#[derive(Debug, Parser)]
#[command(name = "rankpool", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(subcommand)]
    pub task: TaskArgs,
}

/// Options of every subcommand, accepted before and after it.
#[derive(Debug, ArgGroup)]
pub(super) struct RunArgs {
    /// The number of compute threads on each rank [default: its CPUs]
    #[arg(long, value_name = "N", global = true, value_parser = from_one::<NonZeroU32>, help_heading = RANKS)]
    pub threads: Option<NonZeroU32>,
    /// Run N ranks as threads of this process, without MPI
    #[arg(long, value_name = "N", global = true, value_parser = from_one::<NonZeroU32>, help_heading = RANKS)]
    pub local: Option<NonZeroU32>,
    /// Let rank 0 only serve the other ranks and compute nothing
    #[arg(long, global = true, help_heading = RANKS)]
    pub dedicated_master: bool,
    /// Give the jobs of a rank to others when it was silent for this long (it died, or its node), and go on without it
    #[arg(long, value_name = "TIME", global = true, value_parser = positive_time, help_heading = RANKS)]
    pub lost_after: Option<Duration>,
    /// The number of jobs in a message, or `auto`: it follows the measured duration of the jobs
    #[arg(long, value_name = "N", global = true, default_value = "auto", help_heading = JOBS)]
    pub chunk: Chunk,
    /// The largest number of jobs that are read and not yet done [default: enough to keep the ranks busy]
    #[arg(long, value_name = "N", global = true, value_parser = from_one::<NonZeroUsize>, help_heading = JOBS)]
    pub window: Option<NonZeroUsize>,
    /// Write results as jobs end, and not in the order of the records
    #[arg(long, global = true, help_heading = JOBS)]
    pub unordered: bool,
    /// Run a failed job up to N times more
    #[arg(long, value_name = "N", global = true, default_value_t = 0, help_heading = JOBS)]
    pub retries: u32,
    /// The seed of everything random: the same seed gives the same output on any number of ranks
    #[arg(long, value_name = "N", global = true, default_value_t = 0, help_heading = JOBS)]
    pub seed: u64,
    /// The file for the results. A regular file is called FILE.partial until it is complete
    #[arg(short, long, value_name = "FILE", global = true, default_value = "-", help_heading = REPORT)]
    pub output: PathBuf,
    /// Write a summary of the run as one JSON object: jobs, failures, times, messages, ranks
    #[arg(long, value_name = "FILE", global = true, help_heading = REPORT)]
    pub summary: Option<PathBuf>,
    /// Show progress on standard error: a bar, a line every five seconds, or nothing [default: auto, a bar on a terminal, also on that of mpiexec]
    #[arg(long, value_name = "HOW", global = true, value_enum, help_heading = REPORT)]
    pub progress: Option<ProgressArg>,
    /// Write what the run is doing to this file every few seconds, as JSON: `rankpool top FILE` shows it
    #[arg(long, value_name = "FILE", global = true, help_heading = REPORT)]
    pub status: Option<PathBuf>,
    /// Write which job ran when on which slot, for ui.perfetto.dev or chrome://tracing. Bounded: of more than 200000 attempts, short
    /// ones are put together
    #[arg(long, value_name = "FILE", global = true, help_heading = REPORT)]
    pub trace: Option<PathBuf>,
    /// Serve a status page that refreshes itself, and /metrics for Prometheus. A port alone: to this host only; another address in
    /// full, as 0.0.0.0:9000, is open to everyone who reaches it
    #[arg(long, value_name = "PORT|ADDRESS", global = true, value_parser = address, help_heading = REPORT)]
    pub serve_status: Option<SocketAddr>,
    /// Show the ranks, their hosts and threads at the start
    #[arg(short, long, global = true, help_heading = REPORT)]
    pub verbose: bool,
    /// Show only errors and warnings about results on standard error
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = REPORT)]
    pub quiet: bool,
}

const RANKS: &str = "Ranks";
const JOBS: &str = "Jobs";
const REPORT: &str = "Results and messages";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressArg {
    Auto,
    Bar,
    Line,
    Off,
}

#[derive(Debug, Subcommand)]
pub(super) enum TaskArgs {
    Run(Box<RunCommandArgs>),
    Map(Box<MapArgs>),
    Kernel(Box<RunKernelArgs>),
    Python(Box<PythonArgs>),
    #[command(hide = true)]
    Serve(Box<ServeArgs>),
    Bench(Box<BenchArgs>),
    /// Show the ranks, their hosts and threads, and warn of mistakes in that
    #[command(after_help = "\
Start it exactly as you would start a run:
  mpiexec -n 4 rankpool info
  srun -n 2 -c 8 rankpool info --json")]
    Info {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show what a run is doing, by its status file (--status)
    #[command(after_help = "\
Examples:
  mpiexec -n 4 rankpool run --status run.json --input files.txt -- gzip -k {}     in one terminal, or in a job script
  rankpool top run.json                                                           in another one, or on the login node
  rankpool top run.json | head                                                    once, as plain text")]
    Top {
        /// The status file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show, check, export or compact a journal (--journal)
    #[command(after_help = "\
Examples:
  rankpool journal show run.journal                       is it complete, how many jobs are settled, who writes it
  rankpool journal check run.journal                      which bytes are damaged; exit code 1 if some are
  rankpool journal export run.journal | jq 'select(.status != \"ok\")'
  rankpool journal compact run.journal                    without replaced entries")]
    Journal {
        #[command(subcommand)]
        task: JournalTask,
    },
    Report(ReportArgs),
    /// Write a completion script for a shell
    #[command(after_help = "\
Examples:
  rankpool completions bash > ~/.local/share/bash-completion/completions/rankpool
  rankpool completions zsh > ~/.zfunc/_rankpool
  rankpool completions fish > ~/.config/fish/completions/rankpool.fish")]
    Completions {
        shell: Shell,
    },
    /// Write the manual page
    #[command(after_help = "\
Examples:
  rankpool man > rankpool.1
  rankpool man kernel parzen | man -l -")]
    Man {
        /// The page of a subcommand
        #[arg(value_name = "SUBCOMMAND")]
        words: Vec<String>,
    },
}

/// What is done with a journal.
#[derive(Debug, Subcommand)]
pub(super) enum JournalTask {
    /// Show whether it is complete, how many jobs are settled, and what they have in common
    Show {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show which regions are damaged, and how many jobs are kept
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a JSON line for each settled job: number, status, key, entry as in the job log, out, err
    Export {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Write it anew without entries that were replaced and output that does not count
    Compact {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl TaskArgs {
    /// Returns the options about failures, if the subcommand runs a batch.
    pub(super) fn failures(&self) -> Option<&FailureArgs> {
        match self {
            TaskArgs::Run(args) => Some(&args.failures),
            TaskArgs::Map(args) => Some(&args.failures),
            TaskArgs::Kernel(args) => Some(&args.failures),
            TaskArgs::Python(args) => Some(&args.failures),
            TaskArgs::Serve(args) => Some(&args.failures),
            TaskArgs::Bench(_)
            | TaskArgs::Info { .. }
            | TaskArgs::Top { .. }
            | TaskArgs::Journal { .. }
            | TaskArgs::Report(_)
            | TaskArgs::Completions { .. }
            | TaskArgs::Man { .. } => None,
        }
    }

    /// Returns the number of `--job-cpus`.
    pub(super) fn job_cpus(&self) -> Option<NonZeroU32> {
        match self {
            TaskArgs::Run(args) => args.process.job_cpus,
            TaskArgs::Map(args) => args.process.job_cpus,
            _ => None,
        }
    }
}

/// Returns clap's definition of the command line.
pub(super) fn command() -> Command {
    let mut command = Args::command();
    let run_options: Vec<_> =
        command.get_arguments().filter(|arg| arg.is_global_set()).map(|arg| arg.get_id().clone()).collect();
    // This adds the global options to all subcommands. Where they have no effect, they are accepted and not shown.
    command.build();
    let hide = |names: &'static [&str]| {
        let run_options = run_options.clone();
        move |command: Command| {
            command.mut_args(|arg| {
                let shown = names.contains(&arg.get_id().as_str()) || !run_options.contains(arg.get_id());
                arg.hide(!shown)
            })
        }
    };
    command
        .mut_subcommand("bench", hide(&["threads", "local", "dedicated_master", "quiet"]))
        .mut_subcommand("info", hide(&["threads", "local", "dedicated_master"]))
        .mut_subcommand("journal", |journal| {
            let names: Vec<_> = journal.get_subcommands().map(|task| task.get_name().to_string()).collect();
            let hidden = hide(&[])(journal);
            names.into_iter().fold(hidden, |journal, name| journal.mut_subcommand(name, hide(&[])))
        })
        .mut_subcommand("report", hide(&["output"]))
        .mut_subcommand("top", hide(&[]))
        .mut_subcommand("completions", hide(&[]))
        .mut_subcommand("man", hide(&[]))
}

pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    let mut args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (TaskArgs::Kernel(kernel), Some((_, matches))) = (&mut args.task, matches.subcommand()) {
        kernel.name = matches.subcommand_name().unwrap_or_default().into();
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Args, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn clap_accepts_the_definition() {
        command().debug_assert();
    }

    #[test]
    fn options_are_accepted_before_and_after_the_subcommands() {
        for line in [
            "rankpool --threads 3 --chunk 7 kernel nop",
            "rankpool kernel --threads 3 nop --chunk 7",
            "rankpool --chunk 7 kernel nop --threads 3",
        ] {
            let args = parse_words(line).unwrap();
            assert_eq!((args.run.threads, args.run.chunk.jobs()), (NonZeroU32::new(3), 7), "{line}");
        }
    }

    #[test]
    fn every_built_in_function_is_a_subcommand_and_the_other_way_round() {
        let command = command();
        let kernel = command.find_subcommand("kernel").unwrap();
        let names: Vec<_> = kernel.get_subcommands().map(Command::get_name).collect();
        let expected: Vec<_> = crate::kernels::ALL.iter().map(|kernel| kernel.name).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn help_shows_only_options_that_have_an_effect_there() {
        let help = |line: &str| parse_words(line).unwrap_err().to_string();
        assert!(help("rankpool kernel nop --help").contains("--chunk"));
        assert!(help("rankpool info --help").contains("--threads"));
        assert!(!help("rankpool info --help").contains("--chunk"));
        assert!(!help("rankpool completions --help").contains("--threads"));
    }
}
