//! How a batch is closed: outputs are finished or left as they are, and the end gives an exit code.

use std::path::PathBuf;

use super::about;
use super::drive::{Driven, End};
use super::earlier::has_something;
use super::job::Cause;
use super::policy::StopPolicy;
use super::report::Report;
use super::runners::doubtful::{self, DoubtfulAnswers, Token};
use super::sinks::Sinks;
use crate::engine::error::JobErrorKind;
use crate::input::InputError;
use crate::journal::amend;
use crate::launch::ExitCode;
use crate::output::{ErrorLine, OutputError, error_line};
use crate::pool::Pool;

/// Closes the sinks of a batch and reports how it ended. With a `token`, the answers of the workers are checked first.
pub(super) fn end(driven: Driven, mut sinks: Sinks, pool: &Pool, token: Option<Token>, stop: StopPolicy) -> Report {
    let Driven { end, counts, failed, needs, traced: _, out_of_time, left, fault } = driven;
    let mut report = Report::new(counts, failed, needs);
    let (end, doubtful) = check_workers(pool, token, end, &mut report);
    sinks.set_progress(None);
    let job_log = sinks.log_path().map(PathBuf::from).filter(|path| path.is_file());
    report.set_silent(matches!(&end, End::Sink(error) if error.is_closed()));
    let replaced = replace_doubtful(&doubtful, &mut sinks);
    let stopped = stopped_message(out_of_time, counts.done, left);
    report.add_journal(sinks.journal_note(report.counts));
    // A journal that cannot be written is reported when it is closed.
    let _ = sinks.add_statistics(&about::statistics(pool));
    let code = conclude(end, fault, stopped, sinks, &mut report);
    report_doubtful(&doubtful, job_log.as_deref(), replaced, &mut report);
    let has_success = stop.on_success && report.counts.succeeded > 0;
    report.set_code(if has_success && code == ExitCode::JobsFailed { ExitCode::Success } else { code });
    report.set_job_log(job_log, has_success);
    report
}

/// Closes the workers and counts jobs with doubtful answers as failed, if there is a token and the batch was not broken off.
fn check_workers(pool: &Pool, token: Option<Token>, end: End, report: &mut Report) -> (End, Vec<DoubtfulAnswers>) {
    let is_checked = matches!(end, End::Complete | End::Sink(_));
    let Some(token) = token.filter(|_| is_checked) else { return (end, Vec::new()) };
    match doubtful::collect(pool, token) {
        Ok(doubtful) => {
            for answers in &doubtful {
                let cause = Cause::new("surplus", answers.message());
                answers.jobs().for_each(|number| report.recount_as_failed(number, &cause));
            }
            (end, doubtful)
        }
        Err(error) => (if matches!(end, End::Complete) { End::Broken(error) } else { end }, Vec::new()),
    }
}

/// Replaces doubtful answers by error lines, if the output is a file.
fn replace_doubtful(doubtful: &[DoubtfulAnswers], sinks: &mut Sinks) -> Result<(), OutputError> {
    let line = |message: &str, number| (number, error_line(ErrorLine { job: number, kind: "surplus", message }));
    let lines = doubtful.iter().flat_map(|answers| answers.jobs().map(|number| line(&answers.message(), number)));
    sinks.replace_lines(&lines.collect())
}

/// Reports which jobs have doubtful answers, and appends entries to the job log that they have failed.
fn report_doubtful(
    doubtful: &[DoubtfulAnswers],
    job_log: Option<&std::path::Path>,
    replaced: Result<(), OutputError>,
    report: &mut Report,
) {
    let Some(summary) = doubtful::summary(doubtful) else { return };
    report.add(summary);
    let jobs = doubtful.iter().flat_map(|answers| answers.jobs().map(|number| (number, answers.message())));
    let logged =
        job_log.map_or(Ok(()), |path| amend::mark_failed(path, &jobs.collect()).map_err(|error| error.to_string()));
    for error in [logged, replaced.map_err(|error| error.to_string())].into_iter().filter_map(Result::err) {
        report.add(format_args!("these answers could not be corrected where they were written: {error}"));
    }
}

/// Finishes the outputs, or leaves them as they are, and reports why the batch ended early.
fn conclude(end: End, fault: Option<InputError>, stopped: String, sinks: Sinks, report: &mut Report) -> ExitCode {
    let left = sinks.partial_names();
    let resume = sinks.journal_name().map(|name| format!("; {name} has all finished jobs: --resume continues"));
    let is_whole = matches!((&end, &fault), (End::Complete, None));
    let finished = sinks.finish(Some(report.counts).filter(|_| is_whole));
    let (message, code) = match (end, fault) {
        (End::Sink(error), _) if error.is_closed() => return ExitCode::Success,
        (End::Sink(error), _) => (error.to_string(), ExitCode::Failure),
        // The reason why the pool has ended is on standard error already.
        (End::Broken(error), _) if error.kind == JobErrorKind::Closed => {
            ("the run has failed".into(), ExitCode::Failure)
        }
        (End::Broken(error), _) => (error.to_string(), ExitCode::Failure),
        (End::Stopped, _) => (stopped, ExitCode::Stopped),
        (End::Complete, Some(fault)) => (fault.to_string(), ExitCode::Usage),
        (End::Complete, None) => match &finished {
            Err(error) if error.is_closed() => return ExitCode::Success,
            Err(error) => (error.to_string(), ExitCode::Failure),
            Ok(()) if report.counts.failed > 0 => return ExitCode::JobsFailed,
            Ok(()) => return ExitCode::Success,
        },
    };
    report.add(with_places(message, finished.err(), &left, is_whole) + &resume.unwrap_or_default());
    code
}

/// Returns why a run was stopped early, and how much of it is done and left.
fn stopped_message(out_of_time: Option<&str>, done: u64, left: Option<u64>) -> String {
    let Some(limit) = out_of_time else { return format!("stopped early by a signal, after {done} job(s)") };
    let left = left.map_or(String::new(), |left| format!("; {left} job(s) are left"));
    format!("stopped early, because the time limit is near ({limit}), after {done} job(s){left}")
}

/// Adds another error and the names of unfinished outputs to a message.
fn with_places(
    mut message: String,
    besides: Option<OutputError>,
    left: &[Option<PathBuf>; 2],
    is_whole: bool,
) -> String {
    if let Some(error) = besides.filter(|error| !error.is_closed()).map(|error| error.to_string()) {
        if error != message {
            message += &format!("; {error}");
        }
    }
    for (what, path) in ["the output", "the standard error"].iter().zip(left) {
        if let Some(path) = path.as_deref().filter(|path| has_something(path)) {
            message += &format!("; {what} so far is in {}", path.display());
            continue;
        }
        // A complete output has its final name.
        if let Some(path) =
            path.as_deref().map(|path| path.with_extension("")).filter(|path| is_whole && path.is_file())
        {
            message += &format!("; {what} is complete in {}", path.display());
        }
    }
    message
}
