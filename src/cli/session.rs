//! A map from the command line: its results become lines, its end becomes an exit code.

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::config::{Config, Talk};
use super::jobs::{Control, Feed, Jobs};
use crate::batch::Trickle;
use crate::failure::{JobError, JobErrorKind};
use crate::func::Value;
use crate::output::{Failure, JsonLines, OutputError, Target, partial_path};
use crate::pool::{Map, Pool};
use crate::report::{self, Progress, Summary};
use crate::run::ExitCode;
use crate::stats::Stats;

/// What it takes to run a map: the pool, and outputs that can be written.
pub(super) struct Session<'p> {
    name: &'static str,
    config: &'p Config,
    pool: &'p Pool,
    control: &'p Control<'p>,
    results: JsonLines,
    summary: Option<JsonLines>,
}

/// How long no result must come for the written ones to be handed to the system.
const PAUSE: Duration = Duration::from_millis(100);
/// How long running jobs are waited for after a signal: less than the time after which the run is ended from outside.
const GRACE: Duration = Duration::from_secs(8);

/// Why no more results are taken from a map.
enum End {
    /// There are no more.
    Whole,
    /// A signal.
    Stopped,
    /// The reader of a pipe has gone away.
    NoReader,
    /// The output cannot be written.
    Unwritable(OutputError),
    /// The pool has failed.
    Broken(JobError),
}

/// What has become of the jobs so far.
#[derive(Default)]
struct Tally {
    lines: u64,
    failed: u64,
    first_failure: Option<JobError>,
}

impl<'p> Session<'p> {
    /// Opens the outputs, so that no job runs whose result cannot be written.
    pub(super) fn open(
        name: &'static str,
        config: &'p Config,
        pool: &'p Pool,
        control: &'p Control<'p>,
    ) -> Result<Self, OutputError> {
        let results = JsonLines::open(&config.output)?;
        let summary = config.summary.as_ref().map(JsonLines::open).transpose()?;
        Ok(Session { name, config, pool, control, results, summary })
    }

    /// Runs the map that `start` makes of the jobs, to its end.
    pub(super) fn run<T, O>(
        self,
        jobs: Jobs<T>,
        start: impl FnOnce(&'p Pool, Feed<'p, T>) -> Map<'p, Feed<'p, T>, O>,
    ) -> ExitCode
    where
        T: Value + Send + 'static,
        O: Value,
    {
        let Session { name, config, pool, control, mut results, summary } = self;
        let options = config.map;
        let feed = jobs.feed(control);
        let pause = feed.pause();
        let mut map = start(pool, feed)
            .pausing(pause)
            .chunk_size(options.chunk)
            .window(options.window)
            .retries(options.retries)
            .timeout(PAUSE)
            .progress(progress(config), name);
        if options.unordered {
            map = map.unordered();
        }
        let mut tally = Tally::default();
        let end = write_results(&mut map, &mut results, &mut tally, control, options.unordered);
        // Gives up what has not started, and takes the progress bar away before anything else is said.
        drop(map);
        let no_reader = matches!(end, End::NoReader);
        let code = conclude(end, results, &tally, control, &config.output);
        if let Some(error) = tally.first_failure.filter(|_| !no_reader) {
            // Jobs are counted from 1 here, as lines are.
            let error = JobError { job: error.job + 1, ..error };
            report::complain(format_args!("{} job(s) failed; the first was {error}", tally.failed));
        }
        match sum_up(name, pool, config.talk != Talk::Quiet && !no_reader, summary, |_| {}) {
            Err(error) if !error.is_closed() => {
                report::complain(error);
                if code == ExitCode::Success { ExitCode::Failure } else { code }
            }
            Ok(()) | Err(_) => code,
        }
    }
}

/// A bar between results on one terminal would be unreadable.
pub(super) fn progress(config: &Config) -> Progress {
    let results_on_terminal = config.output == Target::Stdout && io::stdout().is_terminal();
    match config.progress {
        None if config.talk == Talk::Quiet => Progress::Off,
        None | Some(Progress::Auto) if results_on_terminal => Progress::Off,
        None => Progress::Auto,
        Some(progress) => progress,
    }
}

/// Hands over results until there are no more or something happens.
fn write_results<T, O>(
    map: &mut Map<'_, Feed<'_, T>, O>,
    results: &mut JsonLines,
    tally: &mut Tally,
    control: &Control<'_>,
    unordered: bool,
) -> End
where
    T: Value,
    O: Value,
{
    let mut trickle = Trickle::new();
    let mut stopped = false;
    for result in map {
        let written = match result {
            Ok(value) => results.write(&value),
            Err(error) => match error.kind {
                JobErrorKind::Timeout => {
                    if control.stopping.since().is_some_and(|since| since.elapsed() > GRACE) {
                        return End::Stopped;
                    }
                    if let Err(error) = results.flush() {
                        return End::of(error);
                    }
                    continue;
                }
                JobErrorKind::Stopped if unordered => {
                    control.enough.set(true);
                    stopped = true;
                    continue;
                }
                // What comes behind a gap would answer the wrong inputs.
                JobErrorKind::Stopped => return End::Stopped,
                JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input => return End::Broken(error),
                _ => write_failure(results, tally, error),
            },
        };
        if let Err(error) = written {
            return End::of(error);
        }
        tally.lines += 1;
        if trickle.is_due(tally.lines) {
            if let Err(error) = results.flush() {
                return End::of(error);
            }
        }
    }
    if stopped || control.cut.get() { End::Stopped } else { End::Whole }
}

fn write_failure(results: &mut JsonLines, tally: &mut Tally, error: JobError) -> Result<(), OutputError> {
    let line = Failure { job: error.job + 1, kind: &error.kind.to_string(), message: &error.message };
    let written = results.write_failure(line);
    tally.failed += 1;
    tally.first_failure.get_or_insert(error);
    written
}

impl End {
    fn of(error: OutputError) -> End {
        if error.is_closed() { End::NoReader } else { End::Unwritable(error) }
    }
}

/// Ends the output in the way that the end of the map asks for, says what was wrong, and gives the exit code.
fn conclude(end: End, results: JsonLines, tally: &Tally, control: &Control<'_>, output: &Target) -> ExitCode {
    let (message, code) = match end {
        End::NoReader => return ExitCode::Success,
        End::Unwritable(error) => (error.to_string(), ExitCode::Failure),
        End::Broken(error) => (error.to_string(), ExitCode::Failure),
        End::Stopped => {
            let what = format!("stopped early by a signal, after {} job(s)", tally.lines);
            (leave_partial(what, results.leave_partial(), output), ExitCode::Stopped)
        }
        End::Whole => match control.fault.take() {
            Some(fault) => (leave_partial(fault.to_string(), results.leave_partial(), output), ExitCode::Usage),
            None => match results.finish() {
                Err(error) if !error.is_closed() => (error.to_string(), ExitCode::Failure),
                Err(_) => return ExitCode::Success,
                Ok(()) if tally.failed > 0 => return ExitCode::JobsFailed,
                Ok(()) => return ExitCode::Success,
            },
        },
    };
    report::complain(&message);
    code
}

/// Says of an output that is not whole where it is left, or why it is not.
pub(super) fn leave_partial(message: String, left: Result<(), OutputError>, output: &Target) -> String {
    match (left, output) {
        (Err(error), _) if !error.is_closed() => format!("{message}; {error}"),
        (Ok(()), Target::File(path)) if partial_path(path).exists() => {
            format!("{message}; the output so far is in {}", partial_path(path).display())
        }
        _ => message,
    }
}

/// The summary for people and the one for programs. `correct` puts in what the pool does not know.
pub(super) fn sum_up(
    name: &str,
    pool: &Pool,
    aloud: bool,
    file: Option<JsonLines>,
    correct: impl FnOnce(&mut Stats),
) -> Result<(), OutputError> {
    // A pool that has failed has nothing to tell, and the reason was told.
    let Some(mut stats) = pool.stats() else { return Ok(()) };
    correct(&mut stats);
    let summary = Summary::new(name, &stats);
    if aloud {
        let mut text = Vec::new();
        // Into memory: nothing can fail.
        let _ = summary.write_text(&mut text);
        report::say(&String::from_utf8_lossy(&text));
    }
    match file {
        None => Ok(()),
        Some(mut file) => {
            file.write(&summary)?;
            file.finish()
        }
    }
}
