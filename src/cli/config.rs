//! What will be done: the command line and the environment, resolved and checked. No file is looked at here.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use clap_complete::Shell;

use super::args::{Args, InputArgs, KernelArgs, MapArgs, ProgressArg, RunArgs, RunCommandArgs, TaskArgs};
use super::batch::BatchConfig;
use super::command::RunTask;
use super::files::JobFiles;
use super::map::MapTask;
use super::parse::Widths;
use crate::batch::Lines;
use crate::batch::runners::worker::{WorkerPlan, WorkerProgram};
use crate::input::{Format, Inputs, Source};
use crate::kernels::Number;
use crate::launch::{LOCAL_VARIABLE, Launch, THREADS_VARIABLE, number_from};
use crate::output::Target;
use crate::process::python::PythonCall;
use crate::report::Progress;
use crate::template::{Template, TemplateError, Words};

/// One run of the program.
#[derive(Debug)]
pub(super) struct Config {
    pub threads: Option<NonZeroU32>,
    pub local: Option<NonZeroU32>,
    pub dedicated_master: bool,
    pub map: MapConfig,
    pub output: Target,
    pub summary: Option<Target>,
    /// `None`: nothing was said about it.
    pub progress: Option<Progress>,
    pub talk: Talk,
    /// What the jobs are made of.
    pub job_files: JobFiles,
    pub task: Task,
}

/// The options of a map, as [`Map`](crate::Map) takes them: 0 is automatic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapConfig {
    pub chunk: u32,
    pub window: usize,
    pub unordered: bool,
    pub retries: u32,
}

/// How much is said on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// What is wrong.
    Quiet,
    /// Warnings and the end summary, too.
    Normal,
    /// The ranks at the start, too.
    Verbose,
}

#[derive(Debug)]
pub(super) enum Task {
    Run(Box<RunTask>),
    Map(Box<MapTask>),
    Kernel(KernelTask),
    Info { json: bool },
    Completions(Shell),
    Man(Vec<String>),
}

#[derive(Debug)]
pub(super) struct KernelTask {
    pub name: &'static str,
    /// Where the jobs come from; `None` stands for those that the options describe.
    pub input: Option<Inputs>,
    pub seed: u64,
    pub function: Function,
}

/// A built-in function with its parameters and the number of its default jobs.
#[derive(Debug, PartialEq)]
pub(super) enum Function {
    Square,
    Cube,
    Sqrt,
    Power { y: Number },
    PowerOfPair { y: Number },
    Sum,
    RandString { jobs: u64, length: usize },
    SleepSquare { duration: Duration },
    SlowFn { jobs: u64, n: NonZeroU64 },
    SlowFnMalloc { jobs: u64, n: NonZeroU64 },
    Parzen { samples: Source, point: Option<Vec<f64>>, widths: Widths },
    Nop { jobs: u64 },
    Spin { jobs: u64, duration: Duration },
    Sleep { jobs: u64, duration: Duration },
}

impl Config {
    /// # Errors
    /// A sentence, if options contradict each other or the environment is wrong.
    pub(super) fn new(args: Args, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
        let RunArgs { threads, local, dedicated_master, chunk, window, unordered, retries, seed, .. } = args.run;
        let from_environment = |option: Option<NonZeroU32>, name| match option {
            Some(number) => Ok(Some(number)),
            None => number_from(&environment, name),
        };
        let output = Target::new(args.run.output);
        let summary = args.run.summary.map(Target::new);
        let progress = args.run.progress.map(|progress| match progress {
            ProgressArg::Auto => Progress::Auto,
            ProgressArg::Bar => Progress::Bar,
            ProgressArg::Line => Progress::Line,
            ProgressArg::Off => Progress::Off,
        });
        let job_files = job_files(&args.task);
        let task = match args.task {
            TaskArgs::Run(args) => Task::Run(Box::new(run_task(*args, retries, seed)?)),
            TaskArgs::Map(args) => Task::Map(Box::new(map_task(*args, retries, seed)?)),
            TaskArgs::Kernel(args) => Task::Kernel(KernelTask::new(args.kernel, seed)?),
            TaskArgs::Info { json } => Task::Info { json },
            TaskArgs::Completions { shell } => Task::Completions(shell),
            TaskArgs::Man { words } => Task::Man(words),
        };
        Ok(Config {
            threads: from_environment(threads, THREADS_VARIABLE)?,
            local: from_environment(local, LOCAL_VARIABLE)?,
            dedicated_master,
            map: MapConfig { chunk: chunk.jobs(), window: window.map_or(0, Into::into), unordered, retries },
            output,
            summary,
            progress,
            talk: match (args.run.quiet, args.run.verbose) {
                (true, _) => Talk::Quiet,
                (false, true) => Talk::Verbose,
                (false, false) => Talk::Normal,
            },
            job_files,
            task,
        })
    }

    /// How the ranks are started.
    pub(super) fn launch<'a>(&self) -> Launch<'a> {
        Launch::new()
            .threads(self.threads.map_or(0, NonZeroU32::get))
            .local(self.local.map_or(0, NonZeroU32::get))
            .dedicated_master(self.dedicated_master)
            // What a job of ours has started is ended with it, and that may take its time.
            .grace(Duration::MAX)
    }
}

impl KernelTask {
    fn new(args: KernelArgs, seed: u64) -> Result<KernelTask, String> {
        let name = args.name();
        let (input, function) = resolve(args)?;
        let input = input.resolve(seed, None)?;
        if let Function::Parzen { samples, .. } = &function {
            if *samples == Source::Stdin && input.as_ref().is_some_and(|input| input.reads(samples)) {
                return Err("--samples and --input cannot both be read from standard input".into());
            }
        }
        Ok(KernelTask { name, input, seed, function })
    }
}

/// What is named of the files that the jobs are made of.
fn job_files(task: &TaskArgs) -> JobFiles {
    match task {
        TaskArgs::Run(args) => {
            // A folder of its own for each record is known only with the record.
            let folder = args.batch.cwd.as_deref().filter(|cwd| !cwd.contains('{'));
            JobFiles::of_command(&args.command, args.shell, folder)
        }
        TaskArgs::Map(args) => {
            let folder = args.batch.cwd.as_deref();
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

/// What `rankpool run` does.
fn run_task(args: RunCommandArgs, retries: u32, seed: u64) -> Result<RunTask, String> {
    let RunCommandArgs { input, batch, shell, stdin, tag, stderr, command } = args;
    let words = Words {
        command: &command,
        shell,
        stdin: stdin.as_deref(),
        cwd: batch.cwd.as_deref(),
        env: &batch.env,
        tag: tag.as_deref(),
    };
    let template = Template::parse(&words).map_err(|error| error.to_string())?;
    let inputs = records(input, seed)?;
    let has_own_folders = batch.cwd.as_ref().is_some_and(|cwd| cwd.contains('{'));
    let cwd = batch.cwd.clone().filter(|_| !has_own_folders);
    let batch = BatchConfig::new(&batch, retries, seed, stderr, Lines::AsWritten);
    Ok(RunTask { inputs, template, cwd, has_own_folders, batch })
}

/// What `rankpool map` does.
fn map_task(args: MapArgs, retries: u32, seed: u64) -> Result<MapTask, String> {
    let MapArgs {
        input,
        batch,
        python,
        python_exe,
        setup,
        star,
        batch_size,
        text,
        max_worker_jobs,
        worker_ids,
        worker,
    } = args;
    let program = match python {
        Some(target) => {
            let batch = batch_size.and_then(|size| NonZeroUsize::try_from(size).ok());
            WorkerProgram::Python(PythonCall { target, exe: python_exe, setup, star, batch })
        }
        None => WorkerProgram::Command(worker),
    };
    let env = batch.env.iter().map(|word| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(TemplateError::Variable(word.clone()).to_string()),
    });
    let plan = WorkerPlan {
        program,
        cwd: batch.cwd.clone(),
        env: env.collect::<Result<_, _>>()?,
        job_cpus: batch.job_cpus,
        timeout: batch.timeout,
        kill_after: batch.kill_after,
        max_jobs: max_worker_jobs,
        ids: worker_ids,
        token: None,
    };
    let inputs = records(input, seed)?;
    let batch_config = BatchConfig::new(&batch, retries, seed, None, Lines::OneForEach);
    Ok(MapTask { inputs, plan, text, batch_size, batch: batch_config })
}

/// The records of a batch, which has no default ones.
fn records(input: InputArgs, seed: u64) -> Result<Inputs, String> {
    input.resolve(seed, Some(Format::Lines))?.ok_or_else(|| {
        "there are no records: say --input FILE (- is standard input), --range 1:100, --args A B C or --grid name=1,2,3".into()
    })
}

fn resolve(args: KernelArgs) -> Result<(InputArgs, Function), String> {
    Ok(match args {
        KernelArgs::Square(input) => (input, Function::Square),
        KernelArgs::Cube(input) => (input, Function::Cube),
        KernelArgs::Sqrt(input) => (input, Function::Sqrt),
        KernelArgs::Power { input, y, each_y } => {
            if each_y && y.is_some() && input.has_source() {
                return Err("with --each-y every record has its own exponent; --y is one too many".into());
            }
            let y = y.unwrap_or(Number::Int(2));
            (input, if each_y { Function::PowerOfPair { y } } else { Function::Power { y } })
        }
        KernelArgs::Sum(input) => (input, Function::Sum),
        KernelArgs::RandString { mut input, jobs, length } => {
            let jobs = input.take_lone_count().unwrap_or(jobs);
            (input, Function::RandString { jobs, length })
        }
        KernelArgs::SleepSquare { input, seconds } => (input, Function::SleepSquare { duration: seconds }),
        KernelArgs::SlowFn { input, jobs, n } => (input, Function::SlowFn { jobs, n }),
        KernelArgs::SlowFnMalloc { input, jobs, n } => (input, Function::SlowFnMalloc { jobs, n }),
        KernelArgs::Parzen(args) => {
            let samples = Source::new(args.samples);
            let point = args.point.map(|point| point.0);
            (args.input, Function::Parzen { samples, point, widths: args.widths })
        }
        KernelArgs::Nop { input, jobs } => (input, Function::Nop { jobs: jobs.jobs }),
        KernelArgs::Spin { input, jobs, micros } => (input, Function::Spin { jobs: jobs.jobs, duration: micros }),
        KernelArgs::Sleep { input, jobs, seconds } => (input, Function::Sleep { jobs, duration: seconds }),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::args;
    use super::*;

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

    fn function(line: &str) -> Function {
        match config(line).unwrap().task {
            Task::Kernel(task) => task.function,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_everything_is_automatic() {
        let config = config("kernel square").unwrap();
        assert_eq!((config.threads, config.local, config.dedicated_master), (None, None, false));
        assert_eq!(config.map, MapConfig { chunk: 0, window: 0, unordered: false, retries: 0 });
        assert_eq!((config.output, config.summary, config.progress), (Target::Stdout, None, None));
        assert_eq!(config.talk, Talk::Normal);
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
    fn numbers_that_make_no_sense_are_refused_in_words() {
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
        assert_eq!(function("kernel power"), Function::Power { y: Number::Int(2) });
        assert_eq!(function("kernel power --exponent -3"), Function::Power { y: Number::Int(-3) });
        assert_eq!(function("kernel power --y -0.5 --each-y"), Function::PowerOfPair { y: Number::Float(-0.5) });
        assert!(config("kernel power --y two").unwrap_err().contains("not a finite number"));
        assert!(config("kernel power --y 2 --each-y --input f").unwrap_err().contains("one too many"));
    }

    #[test]
    fn parzen_needs_samples_from_another_place_than_its_jobs() {
        let Function::Parzen { samples, point, widths } = function("kernel parzen --samples s.csv --point -1,2") else {
            panic!("another function")
        };
        assert_eq!((samples, point), (Source::File("s.csv".into()), Some(vec![-1.0, 2.0])));
        assert_eq!((widths, widths.count), ("1.0:1.2:100".parse().unwrap(), 100));
        assert!(config("kernel parzen").unwrap_err().contains("--samples <FILE>"));
        assert!(config("kernel parzen --samples - --input -").unwrap_err().contains("standard input"));
        assert!(config("kernel parzen --samples s --input w --widths 1:2:3").unwrap_err().contains("--widths"));
    }

    #[test]
    fn the_default_jobs_are_those_of_the_list() {
        let n = |n| NonZeroU64::new(n).unwrap();
        assert_eq!(function("kernel slow-fn"), Function::SlowFn { jobs: 512, n: n(10_000) });
        assert_eq!(function("kernel slow-fn-malloc"), Function::SlowFnMalloc { jobs: 4096, n: n(100_000) });
        assert_eq!(function("kernel rand-string --count 9"), Function::RandString { jobs: 9, length: 5 });
        assert_eq!(function("kernel sleep-square"), Function::SleepSquare { duration: Duration::from_secs(1) });
        let spin = function("kernel spin --jobs 3 --micros 50");
        assert_eq!(spin, Function::Spin { jobs: 3, duration: Duration::from_micros(50) });
        assert!(config("kernel nop --jobs 3 --input f").unwrap_err().contains("cannot be used with"));
    }
}
