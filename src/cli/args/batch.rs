//! The options of all subcommands with jobs, and those of `rankpool run` and `rankpool map`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ArgGroup, ValueEnum};

use super::InputArgs;
use super::stop::StopArgs;
use crate::cli::parse::{Failures, JobMem, from_one, module, positive_time, time};

const FAILURES: &str = "Failures";
const PROCESSES: &str = "Processes";
const JOURNAL: &str = "Journal";

/// Options about failures, which all subcommands with jobs have.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct FailureArgs {
    /// The time limit of a job: 10s, 1.5m, 2h. Its process group gets TERM, and KILL after --kill-after. (The start of a
    /// worker does not count. With --batch the limit is for a call, and the records of a call that exceeds it are tried one by
    /// one. A built-in function cannot be ended: its job fails, its result is dropped, and jobs are sent one by one)
    #[arg(long, value_name = "TIME", global = true, value_parser = positive_time, help_heading = FAILURES)]
    pub timeout: Option<Duration>,
    /// The statuses of failed jobs that --retries runs again. Only the output of the last attempt is written
    #[arg(
        long,
        value_name = "STATUS",
        value_enum,
        value_delimiter = ',',
        global = true,
        default_value = "failed,timeout,signal,lost",
        help_heading = FAILURES
    )]
    pub retry_on: Vec<RetryOn>,
    /// The pause before a failed job is run again; it doubles each time
    #[arg(long, value_name = "TIME", global = true, value_parser = time, default_value = "1s", help_heading = FAILURES)]
    pub retry_pause: Duration,
    /// Start no more jobs when more than N jobs, or more than N% of the jobs, have failed
    #[arg(long, value_name = "N|N%", global = true, help_heading = FAILURES)]
    pub max_failures: Option<Failures>,
    /// End the run when the first job succeeds
    #[arg(long, global = true, help_heading = FAILURES)]
    pub stop_on_success: bool,
    /// Write a job log: a JSON line for each job, written after its output, with number, input, status, exit code or signal,
    /// attempts, host, times, memory. An existing file is replaced, unless --only-failed names it, too: then lines are appended
    #[arg(long, value_name = "FILE", global = true, help_heading = super::REPORT)]
    pub records: Option<PathBuf>,
    /// Run only the jobs that did not succeed according to this job log (--records) of an earlier run with the same input. With
    /// the same --output as before, new results are added to it
    #[arg(long, value_name = "FILE", global = true, help_heading = FAILURES)]
    pub only_failed: Option<PathBuf>,
    #[command(flatten)]
    pub stop: StopArgs,
    #[command(flatten)]
    pub journal: JournalArgs,
    /// Show the jobs that would be run, and run nothing
    #[arg(long, global = true, help_heading = FAILURES)]
    pub dry_run: bool,
}

/// Options about the journal.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct JournalArgs {
    /// Keep a journal: each job is in it, with its output, as soon as it is done, whatever ends the run. `rankpool journal` shows
    /// what is in it
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "only_failed", help_heading = JOURNAL)]
    pub journal: Option<PathBuf>,
    /// Continue the run of the journal: jobs that are in it are not run again, and the output is as if the run had never been
    /// interrupted. Without a journal there, start one
    #[arg(long, global = true, requires = "journal", help_heading = JOURNAL)]
    pub resume: bool,
    /// With --resume: run the jobs again that have failed
    #[arg(long, global = true, requires = "resume", help_heading = JOURNAL)]
    pub retry_failed: bool,
    /// With --resume: keep the results in the journal also if the command, the function or an option is another one now
    #[arg(long, global = true, requires = "resume", help_heading = JOURNAL)]
    pub accept_changed: bool,
    /// With --resume: continue also if another run seems to write the journal
    #[arg(long, global = true, requires = "resume", help_heading = JOURNAL)]
    pub break_lock: bool,
    /// The longest time for which a finished job may not be on the disk yet; a power failure or the crash of a node costs this much
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        global = true,
        default_value = "1s",
        requires = "journal",
        help_heading = JOURNAL
    )]
    pub sync: Duration,
}

/// Options about the processes of jobs.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct ProcessArgs {
    /// The time between TERM and KILL for the processes of a job
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s", help_heading = FAILURES)]
    pub kill_after: Duration,
    /// The number of CPUs for each job: a rank runs as many jobs at once as it has CPUs, divided by N. OMP_NUM_THREADS is set to N
    /// if it is not set already
    #[arg(long, value_name = "N", value_parser = from_one::<NonZeroU32>, help_heading = PROCESSES)]
    pub job_cpus: Option<NonZeroU32>,
    /// The memory that a job needs: 500M, 2G, 1.5GiB. A rank runs as many jobs at once as its part of the node's memory, or of the
    /// allocation's, has room for. In any case, a job that was killed for lack of memory is run again, first with half of the
    /// others beside it, then alone; this does not count as one of --retries. none: it has failed
    #[arg(long, value_name = "SIZE", default_value = "auto", help_heading = PROCESSES)]
    pub job_mem: JobMem,
    /// Run the jobs in this folder
    #[arg(long, value_name = "DIR", help_heading = PROCESSES)]
    pub cwd: Option<String>,
    /// Set an environment variable of the jobs
    #[arg(long, value_name = "NAME=VALUE", help_heading = PROCESSES)]
    pub env: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum RetryOn {
    /// Ended with another exit code than 0, or with an error
    Failed,
    /// Took longer than --timeout
    Timeout,
    /// Was killed by a signal
    Signal,
    /// Could not be started
    Spawn,
    /// It was lost with several ranks, so that it may be the cause, or its rank's spawn helper was killed
    Lost,
}

/// Run a command for every record
#[derive(Debug, ArgGroup)]
#[command(
    override_usage = "rankpool run [OPTIONS] -- COMMAND [ARG]...",
    after_help = "\
In every argument, and in --stdin, --cwd, --env and --tag:
  {}      the record                      {#}     the job's number, from 1
  {.}     without its extension           {%}     the slot: no two jobs of a host share one
  {/}     its last part                   {name}  a column or key
  {//}    its folder                      {2}     the second column
  {/.}    last part without extension     {{ }}   braces
No shell is involved, so records need no quoting. --shell passes the command to a shell and quotes the values.
RANKPOOL_JOB, _RANK, _SLOT, _ATTEMPT and _SEED are in the environment.

Examples:
  rankpool run --input files.txt -- gzip -k {}
  mpiexec -n 4 rankpool run --range 1:1000 --records jobs.jsonl -- ./simulate --seed {}
  find . -name '*.wav' -print0 | rankpool run -i - --null -- sox {} {.}.mp3
  rankpool run --grid lr=0.1,0.01 --grid batch=32,64 -- python train.py --lr {lr} --batch {batch}
  rankpool run --input jobs.csv --shell -- 'sort {file} | uniq -c > {out}'
  rankpool run --input commands.txt --shell -- {}             every line is a command line
  rankpool run --input files.txt --records jobs.jsonl --only-failed jobs.jsonl -- gzip -k {}    the rest"
)]
pub(in crate::cli) struct RunCommandArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub failures: FailureArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Pass the command to /bin/sh: pipes, redirections and $VARIABLES work, and the values of placeholders are quoted
    #[arg(long, help_heading = PROCESSES)]
    pub shell: bool,
    /// The standard input of the command, such as '{}' [default: empty]
    #[arg(long, value_name = "TEXT", help_heading = PROCESSES)]
    pub stdin: Option<String>,
    /// Put the record, or the text of --tag=TEXT, and a tab before every line of output
    #[arg(
        long,
        value_name = "TEXT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "{}",
        help_heading = super::REPORT
    )]
    pub tag: Option<String>,
    /// The file for the jobs' standard error, in the same order as their output [default: standard error]
    #[arg(long, value_name = "FILE", help_heading = super::REPORT)]
    pub stderr: Option<PathBuf>,
    /// The command, run once for every record
    #[arg(value_name = "COMMAND", last = true, required = true, num_args = 1.., allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Call a Python function, or ask a worker program that stays, for every record
#[derive(Debug, ArgGroup)]
#[command(
    override_usage = "rankpool map [OPTIONS] --python FILE.py:FUNCTION\n       rankpool map [OPTIONS] -- WORKER [ARG]...",
    after_help = "\
Every thread of every rank has a process that stays: the file is imported once, a model is loaded once. Results are JSON Lines: line k has the result of record k, or {\"error\":{\"job\":…,\"kind\":…,\"message\":…}} if the job failed.

--python calls FUNCTION of FILE.py with each record: a JSON value as it is, a table's row as a dict, a line or a word as a string or number. It needs Python 3.9 or newer and no packages. A WORKER is any program that reads JSON values, one on each line, and writes one line of JSON for each. A surplus line shifts all answers after it: these jobs are run again or fail. With --worker-ids each answer names its record.

Examples:
  rankpool map --python model.py:predict --input jobs.jsonl --output results.jsonl
  mpiexec -n 8 rankpool map --python sim.py:run --setup load --range 1:100000
  rankpool map --python fit.py:fit --star --grid alpha=0.1,1,10 --grid beta=2,3
  rankpool map --python model.py:classify --batch 64 --input texts.txt
  seq 10 | rankpool map -i - -- ./worker.sh"
)]
pub(in crate::cli) struct MapArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub failures: FailureArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
    /// The Python function: FILE.py:FUNCTION, or package.module:function
    #[arg(long, value_name = "FILE.py:FUNCTION", conflicts_with = "worker", required_unless_present = "worker", help_heading = WORKERS)]
    pub python: Option<String>,
    /// The Python interpreter [default: python3]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "worker", help_heading = WORKERS)]
    pub python_exe: Option<String>,
    /// Import these modules once on each node, and fork its workers from there: they start at once and share the memory
    #[arg(long, value_name = "MODULE", value_delimiter = ',', value_parser = module, conflicts_with = "worker", help_heading = WORKERS)]
    pub preload: Vec<String>,
    /// Call this function of the same file once in each process, before the first record
    #[arg(long, value_name = "FUNCTION", conflicts_with = "worker", help_heading = WORKERS)]
    pub setup: Option<String>,
    /// Pass a record that is a list or a dict as the function's arguments
    #[arg(long, conflicts_with = "worker", help_heading = WORKERS)]
    pub star: bool,
    /// Call the function with a list of up to N records; it returns a list of as many results
    #[arg(
        long = "batch",
        value_name = "N",
        value_parser = from_one::<NonZeroU32>,
        conflicts_with_all = ["star", "worker"],
        help_heading = WORKERS
    )]
    pub batch_size: Option<NonZeroU32>,
    /// Pass fields and lines as text, also if they are numbers
    #[arg(long, help_heading = WORKERS)]
    pub text: bool,
    /// Start each process anew after N jobs, for programs that leak memory
    #[arg(long, value_name = "N", value_parser = from_one::<NonZeroU64>, help_heading = WORKERS)]
    pub max_worker_jobs: Option<NonZeroU64>,
    /// Send {"id": N, "record": …} to the worker program for each record; it answers {"id": N, "result": …} or
    /// {"id": N, "error": …}. A wrong id is noticed at once
    #[arg(long, conflicts_with = "python", help_heading = WORKERS)]
    pub worker_ids: bool,
    /// The worker program
    #[arg(value_name = "WORKER", last = true, num_args = 1.., allow_hyphen_values = true)]
    pub worker: Vec<String>,
}

const WORKERS: &str = "Workers";
