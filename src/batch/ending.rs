//! How a batch is closed: outputs are finished or left as they are, and the end gives an exit code.

use std::path::PathBuf;

use super::drive::{Driven, End};
use super::earlier::has_something;
use super::job::Cause;
use super::policy::StopPolicy;
use super::report::Report;
use super::runners::doubts::{self, Doubt, Token};
use super::sinks::Sinks;
use crate::engine::error::JobErrorKind;
use crate::input::InputError;
use crate::journal::amend;
use crate::launch::ExitCode;
use crate::output::{Failure, OutputError, failure_line};
use crate::pool::Pool;

/// Closes the sinks of a batch and reports how it ended. `token`: the workers have to be asked whether their answers were right.
pub(super) fn end(driven: Driven, mut sinks: Sinks, pool: &Pool, token: Option<Token>, stop: StopPolicy) -> Report {
    let Driven { end, counts, failed, fault } = driven;
    let mut report = Report::new(counts, failed);
    let (end, doubts) = ask_workers(pool, token, end, &mut report);
    sinks.show(None);
    let records = sinks.records().map(PathBuf::from).filter(|path| path.is_file());
    report.set_silent(matches!(&end, End::Sink(error) if error.is_closed()));
    let replaced = replace_doubtful(&doubts, &mut sinks);
    let code = conclude(end, fault, sinks, &mut report);
    take_back(&doubts, records.as_deref(), replaced, &mut report);
    let has_success = stop.on_success && report.counts.succeeded > 0;
    report.set_code(if has_success && code == ExitCode::JobsFailed { ExitCode::Success } else { code });
    report.set_records(records, has_success);
    report
}

/// Asks the workers whether their answers were right, if there is a token to ask with and the batch has come so far.
fn ask_workers(pool: &Pool, token: Option<Token>, end: End, report: &mut Report) -> (End, Vec<Doubt>) {
    let asks = matches!(end, End::Complete | End::Sink(_));
    let Some(token) = token.filter(|_| asks) else { return (end, Vec::new()) };
    match doubts::gather(pool, token) {
        Ok(doubts) => {
            for doubt in &doubts {
                doubt.jobs().for_each(|number| report.take_back(number, &Cause::new("surplus", doubt.message())));
            }
            (end, doubts)
        }
        Err(error) => (if matches!(end, End::Complete) { End::Broken(error) } else { end }, Vec::new()),
    }
}

/// Puts errors in the places of doubtful answers, where the output is a file.
fn replace_doubtful(doubts: &[Doubt], sinks: &mut Sinks) -> Result<(), OutputError> {
    let line =
        |doubt: &Doubt, number| failure_line(Failure { job: number, kind: "surplus", message: &doubt.message() });
    let lines = doubts.iter().flat_map(|doubt| doubt.jobs().map(|number| (number, line(doubt, number))));
    sinks.replace_lines(&lines.collect())
}

/// Reports which jobs have doubtful answers, and takes their records back.
fn take_back(
    doubts: &[Doubt],
    records: Option<&std::path::Path>,
    replaced: Result<(), OutputError>,
    report: &mut Report,
) {
    let Some(summary) = doubts::summary(doubts) else { return };
    report.add(summary);
    let jobs = doubts.iter().flat_map(|doubt| doubt.jobs().map(|number| (number, doubt.message())));
    let recorded =
        records.map_or(Ok(()), |path| amend::take_back(path, &jobs.collect()).map_err(|error| error.to_string()));
    for error in [recorded, replaced.map_err(|error| error.to_string())].into_iter().filter_map(Result::err) {
        report.add(format_args!("these answers could not be taken back where they were written: {error}"));
    }
}

/// Finishes the outputs, or leaves them as they are, and reports what was wrong.
fn conclude(end: End, fault: Option<InputError>, sinks: Sinks, report: &mut Report) -> ExitCode {
    let left = sinks.partial_names();
    let is_whole = matches!((&end, &fault), (End::Complete, None));
    let finished = sinks.finish(is_whole);
    let (message, code) = match (end, fault) {
        (End::Sink(error), _) if error.is_closed() => return ExitCode::Success,
        (End::Sink(error), _) => (error.to_string(), ExitCode::Failure),
        // The reason why the pool has ended is on standard error already.
        (End::Broken(error), _) if error.kind == JobErrorKind::Closed => {
            ("the run has failed".into(), ExitCode::Failure)
        }
        (End::Broken(error), _) => (error.to_string(), ExitCode::Failure),
        (End::Stopped, _) => {
            (format!("stopped early by a signal, after {} job(s)", report.counts.done), ExitCode::Stopped)
        }
        (End::Complete, Some(fault)) => (fault.to_string(), ExitCode::Usage),
        (End::Complete, None) => match &finished {
            Err(error) if error.is_closed() => return ExitCode::Success,
            Err(error) => (error.to_string(), ExitCode::Failure),
            Ok(()) if report.counts.failed > 0 => return ExitCode::JobsFailed,
            Ok(()) => return ExitCode::Success,
        },
    };
    report.add(with_places(message, finished.err(), &left));
    code
}

/// Adds another error and the names of unfinished outputs to a message.
fn with_places(mut message: String, besides: Option<OutputError>, left: &[Option<PathBuf>; 2]) -> String {
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
