//! What `rankpool run` and `rankpool map` have in common: their options, resolved, and a batch from its inputs to its exit code.

use std::io::IsTerminal;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::args::{BatchArgs, RetryOn};
use super::config::{Config, Talk};
use super::earlier::{Earlier, has_something, read_earlier};
use super::files;
use super::session::{progress, sum_up};
use super::{info, print};
use crate::batch::doubts::{self, Doubt, Token};
use crate::batch::{
    Attempt, Batch, End, Intake, Ledger, Limits, Lines, NoThread, Outcome, Planned, Sinks, Stopping, Tally,
};
use crate::console;
use crate::console::reason;
use crate::engine::board::Settled;
use crate::engine::error::JobErrorKind;
use crate::engine::func::Value;
use crate::input::{InputError, Inputs, Reading, Record};
use crate::journal::amend;
use crate::journal::{LastRecords, Status};
use crate::launch::{self, ExitCode, Launch};
use crate::output::{Failure, JsonLines, OutputError, Target, failure_line};
use crate::pool::{JobStream, Pacer, Pool};
use crate::process::spawn;

/// The options of both commands.
#[derive(Debug, PartialEq)]
pub(super) struct BatchConfig {
    pub limits: Limits,
    pub timeout: Option<Duration>,
    pub records: Option<PathBuf>,
    pub only_failed: Option<PathBuf>,
    pub job_cpus: Option<NonZeroU32>,
    pub dry_run: bool,
    /// Where the jobs' standard error goes.
    pub stderr: Target,
    pub lines: Lines,
    pub seed: u64,
}

impl BatchConfig {
    pub(super) fn new(args: &BatchArgs, retries: u32, seed: u64, stderr: Option<PathBuf>, lines: Lines) -> BatchConfig {
        let retry_on = args.retry_on.iter().map(|status| match status {
            RetryOn::Failed => Status::Failed,
            RetryOn::Timeout => Status::Timeout,
            RetryOn::Signal => Status::Signal,
            RetryOn::Spawn => Status::Spawn,
            RetryOn::Lost => Status::Lost,
        });
        BatchConfig {
            limits: Limits {
                retries,
                retry_on: retry_on.collect(),
                retry_pause: args.retry_pause,
                kill_after: args.kill_after,
                max_failures: args.max_failures.map(|most| most.0),
                stop_on_success: args.stop_on_success,
            },
            timeout: args.timeout,
            records: args.records.clone(),
            only_failed: args.only_failed.clone(),
            job_cpus: args.job_cpus,
            dry_run: args.dry_run,
            stderr: stderr.map_or(Target::Stderr, Target::new),
            lines,
            seed,
        }
    }
}

/// Up to so many jobs are compared with the records of `--only-failed` before the first is run.
const LOOKED_AT_TWICE: u64 = 1 << 24;

/// What a batch does: its name, where its records come from, and how each becomes work for a rank.
pub(super) struct Plan<P> {
    pub name: &'static str,
    pub inputs: Inputs,
    pub bind: P,
    /// Where the workers have to be asked, at the end, whether their answers were what they seemed.
    pub token: Option<Token>,
}

/// The way in which a batch is launched, with what starts processes. This belongs before MPI.
///
/// # Errors
/// The exit code, when nothing can be started, which was said.
pub(super) fn prepare<'a>(config: &Config, batch: &BatchConfig) -> Result<Launch<'a>, ExitCode> {
    spawn::start().map_err(|error| {
        launch::refuse_as(
            &format!("cannot start the process that starts the others: {}", reason(&error)),
            ExitCode::Failure,
        )
    })?;
    Ok(config.launch().cpus_per_job(batch.job_cpus.map_or(0, Into::into)))
}

/// Runs a batch on all ranks, unless something is in the way of the jobs on one of them.
pub(super) fn launch(
    config: &Config,
    launch: Launch<'_>,
    drive: impl FnOnce(&Pool, &Stopping) -> Result<ExitCode, Box<dyn std::error::Error>> + Send,
) -> ExitCode {
    let stopping = Stopping::default();
    launch.listener(&stopping).run_to_code(|pool| {
        info::announce(config, pool);
        if has_complaints(pool) {
            return ExitCode::Usage;
        }
        drive(pool, &stopping).unwrap_or_else(|error| {
            let code = if error.is::<NoThread>() { ExitCode::Failure } else { ExitCode::Usage };
            console::complain(error);
            code
        })
    })
}

/// Whether the jobs' folder is there.
///
/// # Errors
/// That it is not, in words.
pub(super) fn check_folder(cwd: Option<&Path>) -> Result<(), String> {
    match cwd {
        Some(folder) if !folder.is_dir() => Err(format!("no such directory: {}, which --cwd names", folder.display())),
        Some(_) | None => Ok(()),
    }
}

/// Says what is in the way of the jobs, once for each host; true if something is.
fn has_complaints(pool: &Pool) -> bool {
    let mut said: Vec<(&str, &str)> = Vec::new();
    for rank in pool.ranks() {
        let Some(complaint) = rank.facts.complaint.as_deref() else { continue };
        let this = (complaint, rank.facts.host.as_str());
        if !said.contains(&this) {
            console::complain(format_args!("on {}: {complaint}", rank.facts.host));
            said.push(this);
        }
    }
    !said.is_empty()
}

/// Runs a batch to its end.
///
/// # Errors
/// What is wrong with a file, if no job was started for that reason.
pub(super) fn run<'p, W, P, S>(
    config: &'p Config,
    batch: &'p BatchConfig,
    Plan { name, inputs, bind, token }: Plan<P>,
    pool: &'p Pool,
    stopping: &Stopping,
    chunk: u32,
    start: S,
) -> Result<ExitCode, Box<dyn std::error::Error>>
where
    W: Value + Clone + Send + 'static,
    P: Fn(&Record) -> Result<W, InputError> + Clone + Send + 'static,
    S: FnOnce(&Pool, u32) -> Result<JobStream<Attempt<W>, Outcome>, crate::engine::error::Failure>,
{
    files::refuse_conflicts(config)?;
    let earlier = Earlier::read(config, batch)?;
    let total = count(&inputs, &bind, earlier.done.as_ref())?;
    let summary = config.summary.as_ref().map(JsonLines::open).transpose()?;
    let (mut sinks, done) = earlier.open_sinks(config, batch, pool, token.is_some())?;
    let reading = inputs.open();
    let bad = reading.bad_records();
    let planned = planned(reading, bind, done, batch.records.is_some());
    let intake = if inputs.is_stream() { Intake::piped(planned)? } else { Intake::ready(planned) };
    let mut ledger = Ledger::new(intake, batch.seed, batch.limits.retries);
    let meter = Arc::new(Settled::default());
    sinks.show(progress(config).start(name, total, meter.clone()));
    let mut driver = Batch {
        ledger: &mut ledger,
        limits: &batch.limits,
        stopping,
        sinks: &mut sinks,
        meter,
        total,
        tally: Tally::default(),
    };
    let pacer = Pacer::new(config.map.window as u64, pool.threads()).whole_chunks(chunk);
    let end = driver.run(start(pool, chunk), pacer);
    let (end, doubts) = ask_workers(pool, token, end, &mut driver.tally);
    let tally = driver.tally;
    sinks.show(None);
    let fault = ledger.take_fault();
    let records = sinks.records().map(PathBuf::from).filter(|path| path.is_file());
    let quiet = matches!(&end, End::Sink(error) if error.is_closed());
    let kept = doubtful(&doubts, &mut sinks);
    let code = conclude(end, fault, sinks, &tally);
    take_back(&doubts, records.as_deref(), kept);
    let wanted = batch.limits.stop_on_success && tally.succeeded > 0;
    let code = if wanted && code == ExitCode::JobsFailed { ExitCode::Success } else { code };
    if quiet {
        return Ok(code);
    }
    if bad.count() > 0 {
        console::complain(bad);
    }
    if let Some(text) = tally.failures(records.as_deref()).filter(|_| !wanted) {
        console::complain(text);
    }
    if let Some(text) = tally.given_up().filter(|_| config.talk != Talk::Quiet) {
        console::complain(text);
    }
    for text in pool.stats().iter().flat_map(crate::engine::stats::Stats::failing_ranks) {
        console::complain(text);
    }
    let counted = |stats: &mut crate::engine::stats::Stats| {
        (stats.jobs, stats.failed) = (tally.done - tally.cancelled, tally.failed);
    };
    Ok(after_summary(code, sum_up(name, pool, config.talk != Talk::Quiet, summary, counted)))
}

/// The exit code of a run whose summary may not have been written.
pub(super) fn after_summary(code: ExitCode, summary: Result<(), OutputError>) -> ExitCode {
    match summary {
        Err(error) if !error.is_closed() => {
            console::complain(error);
            if code == ExitCode::Success { ExitCode::Failure } else { code }
        }
        Ok(()) | Err(_) => code,
    }
}

/// Asks the workers whether their answers were what they seemed, if there is a token to ask with and anybody to be asked.
fn ask_workers(pool: &Pool, token: Option<Token>, end: End, tally: &mut Tally) -> (End, Vec<Doubt>) {
    let asks = matches!(end, End::Whole | End::Sink(_));
    let Some(token) = token.filter(|_| asks) else { return (end, Vec::new()) };
    match doubts::gather(pool, token) {
        Ok(doubts) => {
            for doubt in &doubts {
                doubt.jobs().for_each(|number| tally.take_back(number, doubt.message()));
            }
            (end, doubts)
        }
        Err(error) => (if matches!(end, End::Whole) { End::Broken(error) } else { end }, Vec::new()),
    }
}

/// Says which jobs have answers that may be those of others, and takes them back where they were written.
fn take_back(doubts: &[Doubt], records: Option<&Path>, lines: Result<(), OutputError>) {
    let Some(summary) = doubts::summary(doubts) else { return };
    console::complain(summary);
    let jobs = doubts.iter().flat_map(|doubt| doubt.jobs().map(|number| (number, doubt.message())));
    let told =
        records.map_or(Ok(()), |path| amend::take_back(path, &jobs.collect()).map_err(|error| error.to_string()));
    for error in [told, lines.map_err(|error| error.to_string())].into_iter().filter_map(Result::err) {
        console::complain(format_args!("these answers could not be taken back where they were written: {error}"));
    }
}

/// Puts failures in the places of doubtful answers, where the output is a file.
fn doubtful(doubts: &[Doubt], sinks: &mut Sinks) -> Result<(), OutputError> {
    let line =
        |doubt: &Doubt, number| failure_line(Failure { job: number, kind: "surplus", message: &doubt.message() });
    let lines = doubts.iter().flat_map(|doubt| doubt.jobs().map(|number| (number, line(doubt, number))));
    sinks.replace_lines(&lines.collect())
}

/// Looks at the records before any job is started, as far as that is possible, and counts the jobs.
fn count<W, P>(inputs: &Inputs, bind: &P, done: Option<&LastRecords>) -> Result<Option<u64>, InputError>
where
    W: Send + 'static,
    P: Fn(&Record) -> Result<W, InputError> + Clone + Send + 'static,
{
    Ok(match (inputs.check(bind)?, done) {
        (Some(total), Some(done)) if total <= LOOKED_AT_TWICE => {
            let mut left = planned(inputs.open(), bind.clone(), Some(done.clone()), false);
            Some(left.try_fold(0, |count, planned| planned.map(|_| count + 1))?)
        }
        (total, done) => total.map(|total| total.saturating_sub(done.map_or(0, LastRecords::ok_count))),
    })
}

/// Says for each job what `line` makes of its number and its work, and starts nothing.
pub(super) fn show<W, P>(
    config: &Config,
    batch: &BatchConfig,
    inputs: &Inputs,
    bind: P,
    line: impl Fn(u64, &W) -> Vec<u8>,
) -> ExitCode
where
    W: Send + 'static,
    P: Fn(&Record) -> Result<W, InputError> + Clone + Send + 'static,
{
    let done = match read_earlier(batch, &config.output) {
        Ok((done, _)) => done,
        Err(error) => return launch::refuse(&error.to_string()),
    };
    let reading = inputs.open();
    let bad = reading.bad_records();
    let is_terminal = std::io::stdout().is_terminal();
    for planned in planned(reading, bind, done, false) {
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => return launch::refuse(&error.to_string()),
        };
        let mut line = line(planned.number, &planned.work);
        if is_terminal {
            line = console::escaped(&String::from_utf8_lossy(&line)).into_owned().into_bytes();
        }
        match print(&line) {
            ExitCode::Success => {}
            code => return code,
        }
    }
    if bad.count() > 0 {
        console::complain(bad);
    }
    ExitCode::Success
}

/// The jobs of a batch.
fn planned<W, P>(
    reading: Reading,
    bind: P,
    done: Option<LastRecords>,
    recorded: bool,
) -> impl Iterator<Item = Result<Planned<W>, InputError>> + Send + 'static
where
    W: Send + 'static,
    P: Fn(&Record) -> Result<W, InputError> + Send + 'static,
{
    let keep_input = recorded || done.is_some();
    let jobs = reading.jobs(move |record: &Record| {
        let input = if keep_input { Some(json_of(record)?) } else { None };
        Ok((bind(record)?, input, record.place().clone()))
    });
    jobs.filter_map(move |(number, job)| {
        let (work, input, place) = match job {
            Ok(job) => job,
            Err(error) => return Some(Err(error)),
        };
        if let Some(done) = &done {
            if input.as_deref().is_some_and(|input| done.is_of_another(number, input)) {
                let message = format!(
                    "record {number} is not the one that job {number} had by --only-failed; the input must be the same as then"
                );
                return Some(Err(InputError::Refused { place, message }));
            }
            if done.is_ok(number) {
                return None;
            }
        }
        Some(Ok(Planned { number, work, input }))
    })
}

/// A record as its JSON text.
fn json_of(record: &Record) -> Result<Box<RawValue>, InputError> {
    let mut json = Vec::new();
    record.push_json(false, &mut json);
    let refused = |error: &dyn std::fmt::Display| InputError::Refused {
        place: record.place().clone(),
        message: format!("it has no JSON form: {error}"),
    };
    let text = String::from_utf8(json).map_err(|error| refused(&error))?;
    RawValue::from_string(text).map_err(|error| refused(&error))
}

/// Ends the outputs in the way that the end of the batch asks for, says what was wrong, and gives the exit code.
fn conclude(end: End, fault: Option<InputError>, sinks: Sinks, tally: &Tally) -> ExitCode {
    let left = sinks.partial_names();
    let is_whole = matches!((&end, &fault), (End::Whole, None));
    let finished = sinks.finish(is_whole);
    let (message, code) = match (end, fault) {
        (End::Sink(error), _) if error.is_closed() => return ExitCode::Success,
        (End::Sink(error), _) => (error.to_string(), ExitCode::Failure),
        // Why the pool has ended was told.
        (End::Broken(error), _) if error.kind == JobErrorKind::Closed => {
            ("the run has failed".into(), ExitCode::Failure)
        }
        (End::Broken(error), _) => (error.to_string(), ExitCode::Failure),
        (End::Stopped, _) => (format!("stopped early by a signal, after {} job(s)", tally.done), ExitCode::Stopped),
        (End::Whole, Some(fault)) => (fault.to_string(), ExitCode::Usage),
        (End::Whole, None) => match &finished {
            Err(error) if error.is_closed() => return ExitCode::Success,
            Err(error) => (error.to_string(), ExitCode::Failure),
            Ok(()) if tally.failed > 0 => return ExitCode::JobsFailed,
            Ok(()) => return ExitCode::Success,
        },
    };
    console::complain(with_places(message, finished.err(), &left));
    code
}

/// A message with what was wrong besides, and with the names under which outputs are left that did not become whole.
pub(super) fn with_places(mut message: String, besides: Option<OutputError>, left: &[Option<PathBuf>; 2]) -> String {
    if let Some(error) = besides.filter(|error| !error.is_closed()).map(|error| error.to_string()) {
        if error != message {
            message += &format!("; {error}");
        }
    }
    for (what, path) in ["the output", "the standard error"].iter().zip(left) {
        if let Some(path) = path.as_deref().filter(|path| has_something(path)) {
            message += &format!("; {what} so far is in {}", path.display());
        }
    }
    message
}
