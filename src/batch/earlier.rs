//! The outputs and the job log that earlier runs of a batch have left, and whether this run continues them or writes new ones.

use std::path::Path;

use super::Options;
use super::handover::Handover;
use crate::console;
use crate::input::InputError;
use crate::journal::{JobLog, Journal, LastEntries, OutputFiles};
use crate::output::{Existing, OutputError, Target, Writer, is_same_file, real_path};

/// The files of earlier runs that this run continues.
pub(super) struct Earlier {
    /// The jobs that have succeeded, by the log of `--only-failed`.
    pub done: Option<LastEntries>,
    /// The places of their results, if this run appends to the same output.
    files: Option<OutputFiles>,
    /// The opened job log, if this run appends to it.
    log: Option<JobLog>,
}

/// Reads the job log of `--only-failed`, and looks for the results at the places in it.
pub(super) fn read_log(options: &Options) -> Result<(Option<LastEntries>, Option<OutputFiles>), InputError> {
    let Some(log) = &options.only_failed else { return Ok((None, None)) };
    let mut files = match &options.output {
        Target::File(path) => Some(OutputFiles::new(path)),
        Target::Stdout | Target::Stderr => None,
    };
    let done = LastEntries::read(log, files.as_mut())?;
    Ok((Some(done), files))
}

impl Earlier {
    /// Reads the job log of an earlier run, if `--only-failed` names one, and finds out which results are there.
    ///
    /// # Errors
    /// If the log cannot be read, or another run writes it; if the output is another run's.
    pub(super) fn read(options: &Options) -> Result<Earlier, Box<dyn std::error::Error>> {
        let continued = options.job_log.as_deref().filter(|path| {
            options.only_failed.as_deref().is_some_and(|before| is_same_file(before, path)) && path.is_file()
        });
        // Opening locks the log: from here on no other run appends to it.
        let log = continued.map(|path| JobLog::open(&Target::new(path), Existing::Append)).transpose()?;
        let (done, files) = read_log(options)?;
        if let Some(partial) = files.as_ref().filter(|_| log.is_some()).and_then(OutputFiles::unknown) {
            Err(format!(
                "{} has results of an earlier run, but the job log does not contain their places: give another --output, or move \
                 that file away",
                partial.display()
            ))?;
        }
        let files = files.filter(OutputFiles::has_places);
        match (&files, &options.output) {
            (None, Target::File(path)) if done.is_some() && has_something(path) => Err(format!(
                "{} has the results of another run, which --only-failed would not compute again: give another --output",
                path.display()
            ))?,
            _ => {}
        }
        let missing = files.as_ref().zip(done.as_ref());
        let missing = missing.map_or(0, |(files, done)| files.missing(|number| done.is_ok(number)));
        if missing > 0 {
            console::eprint_error(format_args!(
                "{missing} result(s) with the status ok are no longer in {}: these jobs are run again",
                options.output.name()
            ));
        }
        Ok(Earlier { done, files, log })
    }

    /// Opens the outputs and the job log of this run. `may_replace`: lines of the output may be replaced at the end.
    pub(super) fn open_outputs(
        self,
        options: &Options,
        journal: Option<&Journal>,
        may_replace: bool,
    ) -> Result<(Handover, Option<LastEntries>), OutputError> {
        let Earlier { done, files, log } = self;
        // What an earlier run has written is in the journal, from which it is written again.
        let is_in_journal = journal.is_some_and(|journal| match &options.output {
            Target::File(path) => journal.had_output(&real_path(path)),
            Target::Stdout | Target::Stderr => false,
        });
        let out = match files {
            Some(_) => Writer::open_behind(&options.output),
            None if is_in_journal => Writer::open_again(&options.output),
            None => Writer::open(&options.output),
        }?;
        let err = match done {
            Some(_) => Writer::open_after(&options.stderr),
            None if is_in_journal => Writer::open_again(&options.stderr),
            None => Writer::open(&options.stderr),
        }?;
        let log = match (&options.job_log, log) {
            (Some(path), None) => Some(JobLog::open(&Target::new(path), Existing::Replace)?),
            (_, log) => log,
        };
        let named = out.partial_name().and(match &options.output {
            // The path is absolute, because the next run may be started in another folder. A lossy name is compared with a lossy name.
            Target::File(path) => Some(real_path(path).to_string_lossy().into_owned()),
            Target::Stdout | Target::Stderr => None,
        });
        let mut handover = Handover::new(out, err, log, options.unordered, named);
        if may_replace {
            handover.keep_layout();
        }
        if let (Some(mut files), Some(done)) = (files, &done) {
            let found = files.take_found(|number| done.is_ok(number));
            handover.append_to_earlier(&files, &found)?;
        }
        Ok((handover, done))
    }
}

/// Whether there is a regular file of this name that is not empty.
pub(super) fn has_something(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}
