//! Batches of commands for programs that use the library.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use super::ledger::Counts;
use super::report::Report;
use super::runners::command::{CommandRunner, Commands, bind};
use super::{Batch, Jobs, MaxFailures, Options};
use crate::console;
use crate::input::Inputs;
use crate::launch::ExitCode;
use crate::output::Target;
use crate::pool::Pool;
use crate::process::spawn;
use crate::report::Progress;
use crate::template::{Template, Words};

/// Commands, one for each input, run on all ranks: what `rankpool run` does, from a program.
///
/// ```no_run
/// use rankpool::CommandBatch;
///
/// fn main() -> rankpool::ExitCode {
///     CommandBatch::init();
///     rankpool::launch(|pool| {
///         let files = ["a.txt", "b.txt"];
///         let report = CommandBatch::new(["gzip", "-k", "{}"], files)?.retries(2).records("jobs.jsonl").run(pool)?;
///         println!("{} of {} files are compressed", report.succeeded(), files.len());
///         Ok(())
///     })
/// }
/// ```
///
/// Each job's standard output goes to [`output`](Self::output), in the order of the inputs. A command that fails does not stop
/// the others.
#[must_use = "a batch does nothing until it is run"]
pub struct CommandBatch {
    options: Options,
    inputs: Inputs,
    template: Template,
    timeout: Option<Duration>,
}

impl CommandBatch {
    /// Prepares the process for commands. This is the first thing that `main` does, before MPI is started by a
    /// [`launch`](crate::launch()): commands are started by a helper process, which is this program again.
    ///
    /// In the helper process this function does not return.
    pub fn init() {
        let end = |message: String| {
            console::eprint_error(message);
            std::process::exit(i32::from(ExitCode::Failure as u8))
        };
        match spawn::serve_if_helper() {
            Some(Ok(())) => std::process::exit(i32::from(ExitCode::Success as u8)),
            Some(Err(message)) => end(message),
            None => spawn::start().unwrap_or_else(end),
        }
    }

    /// Makes a batch that runs the command with these words for each of the inputs. In each word `{}` stands for the input, `{#}`
    /// for its number from 1, `{/}` for its last part if it is a path, and so on, as for `rankpool run`.
    ///
    /// # Errors
    /// A sentence, if there are no words, or a placeholder does not exist.
    pub fn new<W, I>(words: W, inputs: I) -> Result<CommandBatch, String>
    where
        W: IntoIterator<Item: Into<String>>,
        I: IntoIterator<Item: Into<String>>,
    {
        let command: Vec<String> = words.into_iter().map(Into::into).collect();
        let words = Words { command: &command, shell: false, stdin: None, cwd: None, env: &[], tag: None };
        let template = Template::parse(&words).map_err(|error| error.to_string())?;
        let options = Options::new("run");
        let inputs = Inputs::words(inputs.into_iter().map(Into::into).collect());
        Ok(CommandBatch { options, inputs, template, timeout: None })
    }

    /// Sets the file for the commands' standard output, which appears when it is complete; standard output by default.
    pub fn output(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.output = Target::new(file);
        self
    }

    /// Sets the file for the commands' standard error; standard error by default.
    pub fn stderr(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.stderr = Target::new(file);
        self
    }

    /// Sets the file for the job log: a JSON line for each job, written after its output. An existing file is replaced, unless
    /// [`only_failed`](Self::only_failed) names it, too: then entries are appended.
    pub fn records(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.job_log = Some(file.into());
        self
    }

    /// Runs only the jobs that did not succeed according to this job log of an earlier run.
    pub fn only_failed(mut self, job_log: impl Into<PathBuf>) -> Self {
        self.options.only_failed = Some(job_log.into());
        self
    }

    /// Sets the number of times that a failed command is run again, after a pause of 1 s that doubles each time.
    pub fn retries(mut self, times: u32) -> Self {
        self.options.retry.retries = times;
        self
    }

    /// Sets the number of failed jobs that are accepted: after one more, no more jobs are started.
    pub fn max_failures(mut self, jobs: u64) -> Self {
        self.options.stop.max_failures = Some(MaxFailures::Jobs(jobs));
        self
    }

    /// Sets the time limit of each command.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sets how long running commands may go on after a signal has asked for the end of the run; the default is 20 s. No command is
    /// started then. When the time is over, they get TERM, and KILL after another 5 s.
    pub fn grace(mut self, limit: Duration) -> Self {
        self.options.grace = limit;
        self
    }

    /// Writes output as commands end, and not in the order of the inputs.
    pub fn unordered(mut self) -> Self {
        self.options.unordered = true;
        self
    }

    /// Sets the display of progress on standard error; off by default.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.options.progress = progress;
        self
    }

    /// Runs the batch to its end.
    ///
    /// # Errors
    /// If a file is bad, or two outputs are one file, and so no command was started.
    pub fn run(self, pool: &Pool) -> Result<BatchReport, Box<dyn Error + Send + Sync>> {
        let CommandBatch { options, inputs, template, timeout } = self;
        let kill_after = options.kill_after;
        let commands = Commands { template: template.clone(), job_cpus: None, job_mem: None, timeout, kill_after };
        let runner = CommandRunner { commands, cwd: None, has_own_folders: false };
        let jobs = Jobs::of_records(inputs, move |record| bind(&template, record));
        let report = Batch { options, jobs, runner, client: None }.run(pool);
        report.map(BatchReport).map_err(|error| error.to_string().into())
    }
}

/// The report on a batch of commands.
#[derive(Debug)]
pub struct BatchReport(Report);

impl BatchReport {
    fn counts(&self) -> Counts {
        self.0.counts
    }

    /// Returns the number of jobs that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.counts().succeeded
    }

    /// Returns the number of jobs that failed, after all their retries.
    pub fn failed(&self) -> u64 {
        self.counts().failed
    }

    /// Returns the number of jobs that were not run, because [`max_failures`](CommandBatch::max_failures) was exceeded.
    pub fn cancelled(&self) -> u64 {
        self.counts().cancelled
    }

    /// Returns the exit code with which `rankpool run` would end.
    pub fn exit_code(&self) -> ExitCode {
        self.0.code()
    }

    /// Shows on standard error what `rankpool run` shows at its end: which jobs failed, errors of files, a summary.
    pub fn show(&self) {
        self.0.show(false);
    }
}
