//! A map from the command line: its results become lines, its end becomes an exit code.

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::batch::{after_summary, with_places};
use super::config::{Config, Talk};
use super::jobs::{Control, Feed, Jobs};
use crate::batch::Trickle;
use crate::console;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::stats::Stats;
use crate::launch::ExitCode;
use crate::output::{Failure, JsonLines, OutputError, Target};
use crate::pool::{Map, Pool};
use crate::report::{Progress, Summary};

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
/// How long running jobs are waited for while others are finished behind them.
const BRIEF: Duration = Duration::from_millis(300);

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
    done: u64,
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
        let code = conclude(end, results, &tally, control);
        if let Some(error) = tally.first_failure.filter(|_| !no_reader) {
            let error = JobError { job: control.number(error.job), ..error };
            console::complain(format_args!("{} job(s) failed; the first was {error}", tally.failed));
        }
        after_summary(code, sum_up(name, pool, config.talk != Talk::Quiet && !no_reader, summary, |_| {}))
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
    // Jobs that will have no result. Lines stand for them only if a result comes behind them.
    let mut left_out = Vec::new();
    while let Some(result) = map.next() {
        match &result {
            Err(error) if error.kind == JobErrorKind::Timeout => {
                let since = control.stopping.since().map(|since| since.elapsed());
                if since.is_some_and(|since| since > GRACE) {
                    return End::Stopped;
                }
                if since.is_some_and(|since| since > BRIEF) {
                    map.wait_no_longer();
                }
                if let Err(error) = results.flush() {
                    return End::of(error);
                }
                continue;
            }
            Err(error) if error.kind == JobErrorKind::Stopped => {
                control.enough.set(true);
                stopped = true;
                left_out.extend((!unordered).then_some(error.job));
                continue;
            }
            Ok(_) | Err(_) => {}
        }
        let written = write_left_out(results, &mut left_out, |job| control.number(job)).and_then(|()| match result {
            Ok(value) => results.write(&value).map(|()| None),
            Err(error) => match error.kind {
                JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input => Ok(Some(error)),
                _ => write_failure(results, tally, control.number(error.job), error).map(|()| None),
            },
        });
        match written {
            Ok(None) => {}
            Ok(Some(error)) => return End::Broken(error),
            Err(error) => return End::of(error),
        }
        tally.done += 1;
        if trickle.is_due(tally.done) {
            if let Err(error) = results.flush() {
                return End::of(error);
            }
        }
    }
    if stopped || control.cut.get() { End::Stopped } else { End::Whole }
}

/// Lines in the places of jobs that have no result, so that what comes behind them answers the right inputs.
fn write_left_out(
    results: &mut JsonLines,
    left_out: &mut Vec<u64>,
    number_of: impl Fn(u64) -> u64,
) -> Result<(), OutputError> {
    left_out.drain(..).try_for_each(|job| {
        let message = "the run was stopped before its end";
        results.write_failure(Failure { job: number_of(job), kind: "stopped", message })
    })
}

fn write_failure(results: &mut JsonLines, tally: &mut Tally, number: u64, error: JobError) -> Result<(), OutputError> {
    let line = Failure { job: number, kind: &error.kind.to_string(), message: &error.message };
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
fn conclude(end: End, results: JsonLines, tally: &Tally, control: &Control<'_>) -> ExitCode {
    let left = [results.partial_name(), None];
    let fault = control.fault.take();
    let is_whole = matches!((&end, &fault), (End::Whole, None));
    let finished = if is_whole { results.finish() } else { results.leave_partial() };
    let (message, code) = match end {
        End::NoReader => return ExitCode::Success,
        End::Unwritable(error) => (error.to_string(), ExitCode::Failure),
        End::Broken(error) => (error.to_string(), ExitCode::Failure),
        End::Stopped => (format!("stopped early by a signal, after {} job(s)", tally.done), ExitCode::Stopped),
        End::Whole => match (fault, &finished) {
            (Some(fault), _) => (fault.to_string(), ExitCode::Usage),
            (None, Err(error)) if !error.is_closed() => (error.to_string(), ExitCode::Failure),
            (None, Err(_)) => return ExitCode::Success,
            (None, Ok(())) if tally.failed > 0 => return ExitCode::JobsFailed,
            (None, Ok(())) => return ExitCode::Success,
        },
    };
    console::complain(with_places(message, finished.err(), &left));
    code
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
        console::say(&String::from_utf8_lossy(&text));
    }
    match file {
        None => Ok(()),
        Some(mut file) => {
            file.write(&summary)?;
            file.finish()
        }
    }
}
