//! The configuration of a run: the command line and the environment, resolved and checked, without a look at any file.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap_complete::Shell;

use super::args::{
    Args, FailureArgs, InputArgs, JournalArgs, JournalTask, KernelArgs, MapArgs, ProgressArg, ReportArgs, RetryOn,
    RunArgs, RunCommandArgs, TaskArgs,
};
use super::bench::BenchTask;
use super::job_files::JobFiles;
use super::parse::{JobMem, Limit};
use super::python::{PythonTask, ServeTask};
use super::spec;
use crate::batch::runners::command::{CommandRunner, Commands};
use crate::batch::runners::doubtful::Token;
use crate::batch::runners::worker::{WorkerPlan, WorkerProgram, WorkerRunner};
use crate::batch::{LEFT_BEHIND, Options, RetryPolicy, StopPolicy};
use crate::engine::environment::number_from;
use crate::input::{Format, Inputs, Source};
use crate::journal::{JournalOptions, Status};
use crate::launch::{LOCAL_VARIABLE, Launch, THREADS_VARIABLE};
use crate::output::Target;
use crate::process::python::PythonCall;
use crate::report::{LiveOptions, Progress, Shown, stdout_is_shown};
use crate::template::{Template, TemplateError, Words};

/// One run of the program.
#[derive(Debug)]
pub(super) struct Config {
    pub threads: Option<NonZeroU32>,
    pub local: Option<NonZeroU32>,
    pub dedicated_master: bool,
    /// For how long a rank may be silent; `None` for the default.
    pub lost_after: Option<Duration>,
    pub verbosity: Verbosity,
    /// The number of CPUs for each job.
    pub job_cpus: Option<NonZeroU32>,
    /// Whether the jobs are only shown.
    pub dry_run: bool,
    /// The value of `--time-limit`, and the start of the run, from which it counts.
    pub time_limit: (Limit, Instant),
    /// The value of `--progress`.
    pub progress: Option<Progress>,
    /// The options of the task's batch, without `progress`, which [`options`](Self::options) decides.
    batch: Options,
    /// The files that the jobs read, as far as they are known.
    pub job_files: JobFiles,
    pub task: Task,
}

/// The amount of messages on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// Only errors, and warnings about results.
    Quiet,
    /// Also warnings about the ranks, and the summary at the end.
    Normal,
    /// Also the ranks at the start.
    Verbose,
}

#[derive(Debug)]
pub(super) enum Task {
    Run(Box<RunTask>),
    Map(Box<MapTask>),
    Kernel(Box<KernelTask>),
    Python(PythonTask),
    Serve(ServeTask),
    Bench(BenchTask),
    Info { json: bool },
    Top(PathBuf),
    Journal(JournalTask),
    Report(ReportArgs),
    Completions(Shell),
    Man(Vec<String>),
}

/// A command for each record.
#[derive(Debug)]
pub(super) struct RunTask {
    pub inputs: Inputs,
    pub runner: CommandRunner,
}

/// A request to a worker for each record.
#[derive(Debug)]
pub(super) struct MapTask {
    pub inputs: Inputs,
    pub runner: WorkerRunner,
    /// Whether fields stay text, also if they are numbers.
    pub text: bool,
}

/// A built-in function for each record.
#[derive(Debug)]
pub(super) struct KernelTask {
    /// The records; `None` for the default jobs of the function.
    pub input: Option<Inputs>,
    pub seed: u64,
    /// The time limit of a job.
    pub timeout: Option<Duration>,
    /// The function with its parameters and its default jobs.
    pub function: KernelArgs,
}

impl Config {
    /// Resolves the command line; `environment` returns the value of an environment variable.
    ///
    /// # Errors
    /// A sentence, if options contradict each other or the environment is wrong.
    pub(super) fn new(args: Args, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
        let Args { run, task } = args;
        let from_environment = |option: Option<NonZeroU32>, name| match option {
            Some(number) => Ok(Some(number)),
            None => number_from(&environment, name),
        };
        let job_files = job_files(&task);
        let failures = task.failures();
        let (batch, seed) = (options(&run, &task, failures), run.seed);
        let time_limit = failures.map_or(Limit::None, |failures| failures.stop.time_limit);
        let (dry_run, job_cpus) = (failures.is_some_and(|failures| failures.dry_run), task.job_cpus());
        let task = match task {
            TaskArgs::Run(args) => Task::Run(Box::new(RunTask::new(*args, seed)?)),
            TaskArgs::Map(args) => Task::Map(Box::new(MapTask::new(*args, seed)?)),
            TaskArgs::Kernel(args) => {
                Task::Kernel(Box::new(KernelTask::new(args.kernel, seed, args.failures.timeout)?))
            }
            TaskArgs::Python(args) => Task::Python(PythonTask::new(*args, run.retries)?),
            TaskArgs::Serve(args) => Task::Serve(ServeTask::new(*args)),
            TaskArgs::Bench(args) => Task::Bench(BenchTask::new(*args)?),
            TaskArgs::Info { json } => Task::Info { json },
            TaskArgs::Top { file } => Task::Top(file),
            TaskArgs::Journal { task } => Task::Journal(task),
            TaskArgs::Report(args) => Task::Report(args),
            TaskArgs::Completions { shell } => Task::Completions(shell),
            TaskArgs::Man { words } => Task::Man(words),
        };
        Ok(Config {
            threads: from_environment(run.threads, THREADS_VARIABLE)?,
            local: from_environment(run.local, LOCAL_VARIABLE)?,
            dedicated_master: run.dedicated_master,
            lost_after: run.lost_after,
            verbosity: match (run.quiet, run.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, true) => Verbosity::Verbose,
                (false, false) => Verbosity::Normal,
            },
            job_cpus,
            dry_run,
            time_limit: (time_limit, Instant::now()),
            progress: run.progress.map(|progress| match progress {
                ProgressArg::Auto => Progress::Auto,
                ProgressArg::Bar => Progress::Bar,
                ProgressArg::Line => Progress::Line,
                ProgressArg::Off => Progress::Off,
            }),
            batch,
            job_files,
            task,
        })
    }

    /// Returns the options of the task's batch.
    pub(super) fn batch(&self) -> &Options {
        &self.batch
    }

    /// Returns the options of the task's batch, with the display of progress that suits standard output.
    pub(super) fn options(&self) -> Options {
        let progress = match self.task {
            // What a script shows is its own matter.
            Task::Python(_) | Task::Serve(_) => self.progress.unwrap_or(Progress::Off),
            _ => {
                let shown = if self.batch.output == Target::Stdout { stdout_is_shown() } else { Shown::Elsewhere };
                Progress::beside(shown, self.progress, self.verbosity == Verbosity::Quiet)
            }
        };
        let uses_number = matches!(&self.task, Task::Run(task) if task.runner.commands.template.uses_number());
        Options { progress, is_numbered: self.batch.is_numbered || uses_number, ..self.batch.clone() }
    }

    /// Returns the launch of the ranks.
    pub(super) fn launch<'a>(&self) -> Launch<'a> {
        let launch = match self.lost_after {
            Some(silence) => Launch::new().lost_after(silence),
            None => Launch::new(),
        };
        launch
            .threads(self.threads.map_or(0, NonZeroU32::get))
            .local(self.local.map_or(0, NonZeroU32::get))
            .dedicated_master(self.dedicated_master)
            .cpus_per_job(self.job_cpus.map_or(0, NonZeroU32::get))
            // The processes of jobs are ended with the run, and that may take long. A built-in function cannot be ended.
            .grace(if matches!(self.task, Task::Kernel(_)) { LEFT_BEHIND } else { Duration::MAX })
    }
}

/// Returns the options of a task's batch.
fn options(run: &RunArgs, task: &TaskArgs, failures: Option<&FailureArgs>) -> Options {
    let retry_on = |status: &RetryOn| match status {
        RetryOn::Failed => Status::Failed,
        RetryOn::Timeout => Status::Timeout,
        RetryOn::Signal => Status::Signal,
        RetryOn::Spawn => Status::Spawn,
        RetryOn::Lost => Status::Lost,
    };
    let (name, kill_after, stderr) = match task {
        TaskArgs::Run(args) => ("run", args.process.kill_after, args.stderr.clone()),
        TaskArgs::Map(args) => ("map", args.process.kill_after, None),
        TaskArgs::Kernel(args) => (args.name.as_str(), Duration::ZERO, None),
        TaskArgs::Python(args) => ("python", args.workers.kill_after, None),
        TaskArgs::Serve(args) => ("serve", args.workers.kill_after, None),
        _ => ("", Duration::ZERO, None),
    };
    let gives_room = match task {
        TaskArgs::Run(args) => args.process.job_mem != JobMem::None,
        TaskArgs::Map(args) => args.process.job_mem != JobMem::None,
        _ => false,
    };
    Options {
        name: name.into(),
        retry: RetryPolicy {
            // A script's executor decides about its jobs.
            retries: if matches!(task, TaskArgs::Python(_)) { 0 } else { run.retries },
            on: failures.iter().flat_map(|failures| &failures.retry_on).map(retry_on).collect(),
            pause: failures.map_or(Duration::ZERO, |failures| failures.retry_pause),
        },
        stop: StopPolicy {
            max_failures: failures.and_then(|failures| failures.max_failures.map(|most| most.0)),
            on_success: failures.is_some_and(|failures| failures.stop_on_success),
        },
        gives_room,
        grace: failures.map_or(Duration::ZERO, |failures| failures.stop.grace),
        kill_after,
        output: Target::new(&run.output),
        stderr: stderr.map_or(Target::Stderr, Target::new),
        job_log: failures.and_then(|failures| failures.records.clone()),
        only_failed: failures.and_then(|failures| failures.only_failed.clone()),
        journal: failures.and_then(|failures| failures.journal.options()),
        spec: spec::of(task),
        is_numbered: run.seed != 0,
        summary: run.summary.as_ref().map(Target::new),
        unordered: run.unordered,
        chunk: run.chunk.jobs(),
        window: run.window.map_or(0, Into::into),
        seed: run.seed,
        progress: Progress::Auto,
        about: failures.filter(|failures| failures.journal.journal.is_some()).map_or_else(Vec::new, |_| spec::about()),
        live: LiveOptions { status: run.status.clone(), serve: run.serve_status },
        trace: run.trace.as_ref().map(Target::new),
    }
}

impl JournalArgs {
    fn options(&self) -> Option<JournalOptions> {
        let JournalArgs { journal, resume, retry_failed, accept_changed, break_lock, sync } = self;
        Some(JournalOptions {
            path: journal.clone()?,
            resume: *resume,
            retry_failed: *retry_failed,
            accept_changed: *accept_changed,
            break_lock: *break_lock,
            sync: *sync,
        })
    }
}

impl KernelTask {
    fn new(mut function: KernelArgs, seed: u64, timeout: Option<Duration>) -> Result<KernelTask, String> {
        let mut input = function.take_input();
        match &mut function {
            KernelArgs::Power { y: Some(_), each_y: true, .. } if input.has_source() => {
                return Err("--each-y takes the exponent from each record: leave out --y".into());
            }
            KernelArgs::RandString { jobs, .. } => *jobs = input.take_lone_count().unwrap_or(*jobs),
            _ => {}
        }
        let input = input.resolve(seed, None)?;
        if let KernelArgs::Parzen(args) = &function {
            let reads_stdin = |inputs: &Inputs| inputs.reads(&Source::Stdin);
            if args.source() == Source::Stdin && input.as_ref().is_some_and(reads_stdin) {
                return Err("--samples and --input cannot both be read from standard input".into());
            }
        }
        Ok(KernelTask { input, seed, timeout, function })
    }
}

/// Returns the files that the jobs of a task read, as far as the command line names them.
fn job_files(task: &TaskArgs) -> JobFiles {
    match task {
        TaskArgs::Run(args) => {
            // A folder that depends on the record is not known here.
            let folder = args.process.cwd.as_deref().filter(|cwd| !cwd.contains('{'));
            JobFiles::of_command(&args.command, args.shell, folder)
        }
        TaskArgs::Map(args) => {
            let folder = args.process.cwd.as_deref();
            match &args.python {
                Some(target) => {
                    JobFiles::of_python(target, Some(args.python_exe.as_deref().unwrap_or("python3")), folder)
                }
                None => JobFiles::of_command(&args.worker, false, folder),
            }
        }
        _ => JobFiles::default(),
    }
}

impl RunTask {
    fn new(args: RunCommandArgs, seed: u64) -> Result<RunTask, String> {
        let RunCommandArgs { input, failures, process, shell, stdin, tag, command, .. } = args;
        let words = Words {
            command: &command,
            shell,
            stdin: stdin.as_deref(),
            cwd: process.cwd.as_deref(),
            env: &process.env,
            tag: tag.as_deref(),
        };
        let template = Template::parse(&words).map_err(|error| error.to_string())?;
        let inputs = records(input, seed)?;
        let has_own_folders = process.cwd.as_ref().is_some_and(|cwd| cwd.contains('{'));
        let commands = Commands {
            template,
            job_cpus: process.job_cpus.map(Into::into),
            job_mem: process.job_mem.bytes(),
            timeout: failures.timeout,
            kill_after: process.kill_after,
        };
        let cwd = process.cwd.filter(|_| !has_own_folders);
        Ok(RunTask { inputs, runner: CommandRunner { commands, cwd, has_own_folders } })
    }
}

impl MapTask {
    fn new(args: MapArgs, seed: u64) -> Result<MapTask, String> {
        let MapArgs { input, failures, process, python, python_exe, preload, setup, star, batch_size, .. } = args;
        let is_command = python.is_none();
        let program = match python {
            Some(target) => {
                let batch = batch_size.and_then(|size| NonZeroUsize::try_from(size).ok());
                WorkerProgram::Python(PythonCall { target, exe: python_exe, preload, setup, star, batch })
            }
            None => WorkerProgram::Command(args.worker),
        };
        let env = process.env.iter().map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
            _ => Err(TemplateError::Variable(word.clone()).to_string()),
        });
        let plan = WorkerPlan {
            program,
            cwd: process.cwd.clone(),
            env: env.collect::<Result<_, _>>()?,
            job_cpus: process.job_cpus,
            job_mem: process.job_mem.bytes(),
            timeout: failures.timeout,
            kill_after: process.kill_after,
            max_jobs: args.max_worker_jobs,
            ids: args.worker_ids,
            // Where only their order tells which record an answer belongs to, the ends of the workers have to be looked at.
            token: (is_command && !args.worker_ids).then(Token::new),
        };
        let inputs = records(input, seed)?;
        Ok(MapTask { inputs, runner: WorkerRunner { plan, records_per_call: batch_size }, text: args.text })
    }
}

/// Resolves the records of a task that has no default jobs.
fn records(input: InputArgs, seed: u64) -> Result<Inputs, String> {
    input.resolve(seed, Some(Format::Lines))?.ok_or_else(|| {
        "there are no records: give --input FILE (- is standard input), --range 1:100, --args A B C or --grid name=1,2,3".into()
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::args::{self, IndexArgs};
    use super::super::parse::Point;
    use super::*;
    use crate::kernels::Number;

    fn config_with(line: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let words = ["rankpool"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let args = args::parse(words).map_err(|error| error.to_string())?;
        Config::new(args, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
        })
    }

    fn config(line: &str) -> Result<Config, String> {
        config_with(line, &[])
    }

    fn function(line: &str) -> KernelArgs {
        match config(line).unwrap().task {
            Task::Kernel(task) => task.function,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_everything_is_automatic() {
        let config = config("kernel square").unwrap();
        assert_eq!((config.threads, config.local, config.dedicated_master), (None, None, false));
        let Options { chunk, window, unordered, retry, output, summary, job_log, .. } = config.batch;
        assert_eq!((chunk, window, unordered, retry.retries), (0, 0, false, 0));
        assert_eq!((output, summary, config.progress, job_log), (Target::Stdout, None, None, None));
        assert_eq!((config.verbosity, config.batch.name.as_str()), (Verbosity::Normal, "square"));
    }

    #[test]
    fn an_option_comes_before_the_environment() {
        let environment = [("RANKPOOL_THREADS", "5"), ("RANKPOOL_LOCAL", "4")];
        let config = config_with("kernel square --threads 2", &environment).unwrap();
        assert_eq!((config.threads, config.local), (NonZeroU32::new(2), NonZeroU32::new(4)));
        let error = config_with("kernel square", &[("RANKPOOL_LOCAL", "0")]).unwrap_err();
        assert_eq!(error, "RANKPOOL_LOCAL=0 in the environment is not a number from 1");
    }

    #[test]
    fn values_out_of_range_are_refused_with_a_sentence() {
        for (line, message) in [
            ("--threads 0", "invalid value '0' for '--threads <N>': not a number from 1"),
            ("--local x", "invalid value 'x' for '--local <N>': not a number from 1"),
            ("--window 0", "invalid value '0' for '--window <N>': not a number from 1"),
            ("--chunk 0", "invalid value '0' for '--chunk <N>': neither `auto` nor a number from 1"),
            ("--retries -1", "unexpected argument '-1' found"),
            ("--progress loud", "invalid value 'loud' for '--progress <HOW>'"),
            ("-v -q", "the argument '--verbose' cannot be used with '--quiet'"),
        ] {
            let error = config(&format!("{line} kernel square")).unwrap_err();
            assert!(error.contains(message), "{line}: {error}");
        }
    }

    #[test]
    fn the_exponent_is_exact_if_it_is_an_integer() {
        let exponent = |line| match function(line) {
            KernelArgs::Power { y, each_y, .. } => (y, each_y),
            other => panic!("{other:?}"),
        };
        assert_eq!(exponent("kernel power"), (None, false));
        assert_eq!(exponent("kernel power --exponent -3"), (Some(Number::Int(-3)), false));
        assert_eq!(exponent("kernel power --y -0.5 --each-y"), (Some(Number::Float(-0.5)), true));
        assert!(config("kernel power --y two").unwrap_err().contains("not a finite number"));
        assert!(config("kernel power --y 2 --each-y --input f").unwrap_err().contains("leave out --y"));
    }

    #[test]
    fn parzen_needs_samples_from_another_place_than_its_jobs() {
        let KernelArgs::Parzen(args) = function("kernel parzen --samples s.csv --point -1,2") else {
            panic!("another function")
        };
        assert_eq!((args.source(), args.point), (Source::File("s.csv".into()), Some(Point(vec![-1.0, 2.0]))));
        assert_eq!((args.widths, args.widths.count), ("1.0:1.2:100".parse().unwrap(), 100));
        assert!(config("kernel parzen").unwrap_err().contains("--samples <FILE>"));
        assert!(config("kernel parzen --samples - --input -").unwrap_err().contains("standard input"));
        assert!(config("kernel parzen --samples s --input w --widths 1:2:3").unwrap_err().contains("--widths"));
    }

    #[test]
    fn the_default_jobs_and_parameters_are_those_of_the_help_texts() {
        let vectors = |line| match function(line) {
            KernelArgs::SlowFn { jobs, n, .. } | KernelArgs::SlowFnMalloc { jobs, n, .. } => (jobs, n.get()),
            other => panic!("{other:?}"),
        };
        assert_eq!(vectors("kernel slow-fn"), (512, 10_000));
        assert_eq!(vectors("kernel slow-fn-malloc"), (4096, 100_000));
        let strings = function("kernel rand-string --count 9");
        assert!(matches!(strings, KernelArgs::RandString { jobs: 9, length: 5, .. }), "{strings:?}");
        let sleep = function("kernel sleep-square");
        assert!(
            matches!(sleep, KernelArgs::SleepSquare { seconds, .. } if seconds == Duration::from_secs(1)),
            "{sleep:?}"
        );
        let spin = function("kernel spin --jobs 3 --micros 50");
        let is_asked = |micros| micros == Duration::from_micros(50);
        assert!(
            matches!(spin, KernelArgs::Spin { jobs: IndexArgs { jobs: 3 }, micros, .. } if is_asked(micros)),
            "{spin:?}"
        );
        assert!(config("kernel nop --jobs 3 --input f").unwrap_err().contains("cannot be used with"));
    }
}
