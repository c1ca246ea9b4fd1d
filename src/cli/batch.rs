//! How a subcommand runs its batch: the launch of all ranks, errors before the first job, `--dry-run`, and what is shown at the end.

use std::error::Error;
use std::io::{self, IsTerminal};

use super::config::{Config, Verbosity};
use super::stdout::print;
use super::time_limit::Asked;
use super::{files, info};
use crate::batch::runners::Runner;
use crate::batch::{Batch, NoThread};
use crate::console;
use crate::input::InputError;
use crate::launch::{self, ExitCode, Launch};
use crate::pool::Pool;
use crate::process::spawn;

/// Runs a batch of processes on all ranks, or shows its jobs with `--dry-run`.
pub(super) fn run_processes<R: Runner + Send>(config: &Config, batch: Batch<R>) -> ExitCode
where
    Batch<R>: Sync,
{
    if config.dry_run {
        return if launch::is_first() { to_code(show(&batch)) } else { ExitCode::Success };
    }
    // The helper is started before MPI, because a process that runs MPI must not fork.
    if let Err(message) = spawn::start() {
        return launch::refuse_as(&message, ExitCode::Failure);
    }
    let asked = Asked::now(config);
    let prepared = batch.runner.prepare(config.launch());
    let code = launch(config, prepared, |pool| drive(config, &batch, pool, &asked));
    batch.runner.end();
    code
}

/// Launches all ranks and calls `drive` on rank 0, unless a rank reports that it cannot run the jobs.
pub(super) fn launch(
    config: &Config,
    launch: Launch<'_>,
    drive: impl FnOnce(&Pool) -> Result<ExitCode, Box<dyn Error>> + Send,
) -> ExitCode {
    launch.run_to_code(|pool| {
        info::announce(config, pool);
        if report_complaints(pool) { ExitCode::Usage } else { to_code(drive(pool)) }
    })
}

/// Runs a batch to its end, or to its time limit, and shows its report.
///
/// # Errors
/// If an option or a file is bad and so no job was started.
pub(super) fn drive<R: Runner>(
    config: &Config,
    batch: &Batch<R>,
    pool: &Pool,
    asked: &Asked,
) -> Result<ExitCode, Box<dyn Error>> {
    files::refuse_conflicts(config)?;
    let quiet = config.verbosity == Verbosity::Quiet;
    let report = batch.run_until(pool, asked.end(quiet))?;
    report.show(quiet);
    Ok(report.code())
}

/// Returns the exit code of a batch. An error, for which the batch did not start, is shown.
pub(super) fn to_code(result: Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    result.unwrap_or_else(|error| {
        match error.downcast_ref::<InputError>() {
            Some(bad) if bad.is_bad_record() => {
                console::eprint_error(format_args!("{bad} (--skip-bad leaves bad records out)"));
            }
            _ => console::eprint_error(&error),
        }
        if error.is::<NoThread>() { ExitCode::Failure } else { ExitCode::Usage }
    })
}

/// Shows why ranks cannot run the jobs, once for each host. Returns false if all can.
fn report_complaints(pool: &Pool) -> bool {
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for rank in pool.ranks() {
        let Some(complaint) = rank.facts.complaint.as_deref() else { continue };
        let this = (complaint, rank.facts.host.as_str());
        if !shown.contains(&this) {
            console::eprint_error(format_args!("on {}: {complaint}", rank.facts.host));
            shown.push(this);
        }
    }
    !shown.is_empty()
}

/// Prints a line for each job that would be run, and starts nothing.
///
/// # Errors
/// If a record or a file is bad.
pub(super) fn show<R: Runner>(batch: &Batch<R>) -> Result<ExitCode, Box<dyn Error>> {
    let is_terminal = io::stdout().is_terminal();
    let mut code = ExitCode::Success;
    let mut is_open = true;
    let bad = batch.show(|line| {
        let escaped;
        let line = if is_terminal {
            escaped = console::escaped(&String::from_utf8_lossy(line)).into_owned();
            escaped.as_bytes()
        } else {
            line
        };
        (is_open, code) = print(line);
        is_open
    })?;
    if let Some(bad) = bad {
        console::eprint_error(bad);
    }
    Ok(code)
}
