//! A map from the command line: its results become lines, its end becomes an exit code.

use std::io::{self, IsTerminal};
use std::iter::Empty;
use std::time::{Duration, Instant};

use super::batch::{after_summary, with_places};
use super::config::{Config, Talk};
use super::jobs::Jobs;
use crate::batch::{Stopping, Trickle};
use crate::console;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::stats::Stats;
use crate::input::InputError;
use crate::launch::ExitCode;
use crate::output::{Failure, JsonLines, OutputError, Target};
use crate::pool::{Map, MapWaited, Pool, RunningMap, Turn};
use crate::report::{Progress, Summary};

/// What it takes to run a map: the pool, and outputs that can be written.
pub(super) struct Session<'p> {
    name: &'static str,
    config: &'p Config,
    pool: &'p Pool,
    stopping: &'p Stopping,
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
        stopping: &'p Stopping,
    ) -> Result<Self, OutputError> {
        let results = JsonLines::open(&config.output)?;
        let summary = config.summary.as_ref().map(JsonLines::open).transpose()?;
        Ok(Session { name, config, pool, stopping, results, summary })
    }

    /// Runs the map that `start` makes, with these jobs, to its end. The map itself has no inputs.
    pub(super) fn run<T, O>(
        self,
        mut jobs: Jobs<T>,
        start: impl FnOnce(&'p Pool, Empty<T>) -> Map<'p, Empty<T>, O>,
    ) -> ExitCode
    where
        T: Value + Send + 'static,
        O: Value,
    {
        let Session { name, config, pool, stopping, mut results, summary } = self;
        let options = config.map;
        let mut map = start(pool, std::iter::empty())
            .chunk_size(options.chunk)
            .window(options.window)
            .retries(options.retries)
            .progress(progress(config), name);
        if options.unordered {
            map = map.unordered();
        }
        let mut writing = Writing {
            jobs: &mut jobs,
            results: &mut results,
            tally: Tally::default(),
            stopping,
            unordered: options.unordered,
            stopped: false,
            left_out: Vec::new(),
        };
        let end = match map.open(writing.jobs.total) {
            // What has not started at the end is given up, and the progress bar taken away before anything else is said.
            Ok(mut map) => writing.write_results(&mut map).unwrap_or_else(|end| end),
            Err(failure) => End::Broken(JobError::of(0, failure)),
        };
        let tally = writing.tally;
        let no_reader = matches!(end, End::NoReader);
        let code = conclude(end, results, &tally, jobs.take_fault());
        if let Some(error) = tally.first_failure.filter(|_| !no_reader) {
            let error = JobError { job: jobs.number(error.job), ..error };
            console::eprint_error(format_args!("{} job(s) failed; the first was {error}", tally.failed));
        }
        let code = after_summary(code, sum_up(name, pool, config.talk != Talk::Quiet && !no_reader, summary, |_| {}));
        if jobs.bad_records().count() > 0 {
            console::eprint_error(jobs.bad_records());
        }
        code
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

/// The results of a map on their way to the output.
struct Writing<'w, T> {
    jobs: &'w mut Jobs<T>,
    results: &'w mut JsonLines,
    tally: Tally,
    stopping: &'w Stopping,
    unordered: bool,
    /// A signal has kept jobs from being run.
    stopped: bool,
    /// Jobs that will have no result. Lines stand for them only if a result comes behind them.
    left_out: Vec<u64>,
}

impl<T: Value + Send + 'static> Writing<'_, T> {
    /// Writes results until there are no more, or for as long as it makes sense: the error is why it does not.
    fn write_results<O: Value>(&mut self, map: &mut RunningMap<T, O>) -> Result<End, End> {
        let mut trickle = Trickle::new();
        let mut deadline = None;
        loop {
            match map.turn(&mut || self.jobs.next(self.stopping)) {
                Turn::Item(result) => {
                    self.write(result)?;
                    deadline = None;
                    if trickle.is_due(self.tally.done) {
                        self.results.flush().map_err(End::of)?;
                    }
                    continue;
                }
                Turn::Wait => {}
                Turn::Over(None) => break,
                Turn::Over(Some(error)) => return Err(End::Broken(error)),
                Turn::Broken(failure) => return Err(End::Broken(JobError::of(0, failure))),
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + PAUSE);
            match map.wait(Some(until), self.jobs.wake()) {
                MapWaited::Done => {}
                MapWaited::Late => {
                    self.pause(map)?;
                    deadline = None;
                }
                MapWaited::Broken(error) => return Err(End::Broken(error)),
            }
        }
        Ok(if self.stopped || self.jobs.was_cut() { End::Stopped } else { End::Whole })
    }

    /// No result has come for a while.
    fn pause<O: Value>(&mut self, map: &mut RunningMap<T, O>) -> Result<(), End> {
        let since = self.stopping.since().map(|since| since.elapsed());
        if since.is_some_and(|since| since > GRACE) {
            return Err(End::Stopped);
        }
        if since.is_some_and(|since| since > BRIEF) {
            map.wait_no_longer();
        }
        self.results.flush().map_err(End::of)
    }

    fn write<O: Value>(&mut self, result: Result<O, JobError>) -> Result<(), End> {
        if let Err(error) = &result {
            if error.kind == JobErrorKind::Stopped {
                self.jobs.close();
                self.stopped = true;
                self.left_out.extend((!self.unordered).then_some(error.job));
                return Ok(());
            }
        }
        write_left_out(self.results, &mut self.left_out, |job| self.jobs.number(job)).map_err(End::of)?;
        match result {
            Ok(value) => self.results.write(&value).map_err(End::of)?,
            Err(error) => match error.kind {
                JobErrorKind::Closed | JobErrorKind::Refused | JobErrorKind::Input => return Err(End::Broken(error)),
                _ => {
                    let number = self.jobs.number(error.job);
                    write_failure(self.results, &mut self.tally, number, error).map_err(End::of)?;
                }
            },
        }
        self.tally.done += 1;
        Ok(())
    }
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
fn conclude(end: End, results: JsonLines, tally: &Tally, fault: Option<InputError>) -> ExitCode {
    let left = [results.partial_name(), None];
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
    console::eprint_error(with_places(message, finished.err(), &left));
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
        console::eprint(&String::from_utf8_lossy(&text));
    }
    match file {
        None => Ok(()),
        Some(mut file) => {
            file.write(&summary)?;
            file.finish()
        }
    }
}
