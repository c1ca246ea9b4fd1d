//! `rankpool journal`: shows, checks, exports and compacts a journal.

use std::path::Path;

use super::args::JournalTask;
use super::stdout::print;
use crate::console;
use crate::journal::JournalError;
use crate::journal::inspect::{self, Summary};
use crate::launch::{self, ExitCode};

pub(super) fn run(task: &JournalTask) -> ExitCode {
    if !launch::is_first() {
        return ExitCode::Success;
    }
    let code = match task {
        JournalTask::Show { file } => inspect::summary(file).map(|summary| print(show(file, &summary).as_bytes()).1),
        JournalTask::Check { file } => inspect::summary(file).map(|summary| {
            let (text, is_whole) = check(file, &summary);
            let (_, code) = print(text.as_bytes());
            if is_whole { code } else { ExitCode::Failure }
        }),
        JournalTask::Export { file } => export(file),
        JournalTask::Compact { file } => inspect::compact(file).map(|(before, after)| {
            let text = format!("{}: {before} bytes before, {after} bytes now\n", escaped(file));
            print(text.as_bytes()).1
        }),
    };
    code.unwrap_or_else(|error| {
        console::eprint_error(&error);
        if matches!(error, JournalError::Io { .. }) { ExitCode::Failure } else { ExitCode::Usage }
    })
}

fn escaped(file: &Path) -> String {
    console::escaped(&file.to_string_lossy()).into_owned()
}

/// Returns a line for each thing that is known of a journal.
fn show(file: &Path, summary: &Summary) -> String {
    let Summary { owner, is_in_use, is_complete, cancelled, spec, settled, failed, bytes, .. } = summary;
    let yes = |is: bool| if is { "yes" } else { "no" };
    let mut text = format!("journal: {}, {bytes} bytes\n", escaped(file));
    text += &format!("complete: {}\n", yes(*is_complete));
    text += &format!("settled: {settled} job(s), {failed} of them failed\n");
    if *cancelled > 0 {
        text += &format!(
            "cancelled: {cancelled} job(s), by --max-failures or --stop-on-success: --resume without that option runs them\n"
        );
    }
    text += &format!("in use: {}\n", yes(*is_in_use));
    if let Some(owner) = owner {
        text += &format!("last run: {}\n", console::escaped(&owner.to_string()));
    }
    for (name, value) in spec {
        text += &format!("{}: {}\n", console::escaped(name), console::escaped(value));
    }
    text
}

/// Returns which regions of a journal are damaged, and whether it is whole.
fn check(file: &Path, summary: &Summary) -> (String, bool) {
    let Summary { settled, frames, bytes, damage, torn, .. } = summary;
    let mut text = format!("{}: {bytes} bytes, {frames} entries readable, {settled} job(s) kept\n", escaped(file));
    for damage in damage {
        let (start, end) = (damage.bytes.start, damage.bytes.end);
        text += &format!("damaged: bytes {start} to {end}, {} entries lost\n", damage.frames);
    }
    if *torn > 0 {
        text += &format!("incomplete: the last {torn} bytes were not written completely\n");
    }
    let is_whole = damage.is_empty();
    if is_whole {
        text += "not damaged\n";
    } else {
        text += "A run with --resume keeps the damaged file as FILE.broken and runs the lost jobs again\n";
    }
    (text, is_whole)
}

/// Prints a JSON object for each settled job.
fn export(file: &Path) -> Result<ExitCode, JournalError> {
    let mut code = ExitCode::Success;
    inspect::export(file, |line| {
        let (is_open, printed) = print(line);
        code = printed;
        is_open
    })?;
    Ok(code)
}
