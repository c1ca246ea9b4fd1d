//! The outputs and records that earlier runs of a batch have left, and how this run's are opened: anew, or to go on with them.

use std::path::Path;

use super::Options;
use super::handover::Handover;
use crate::console;
use crate::input::InputError;
use crate::journal::{LastRecords, OutputFiles, Records};
use crate::output::{Existing, OutputError, Target, Writer, is_same_file, real_path};

/// The part of earlier runs that this one goes on with.
pub(super) struct Earlier {
    /// Which jobs are done.
    pub done: Option<LastRecords>,
    /// The places of their results, if this run's output goes on with them.
    files: Option<OutputFiles>,
    /// The opened file of records, if this run appends to it.
    records: Option<Records>,
}

/// Reads the records of `--only-failed`, and whether the results that they tell of are there.
pub(super) fn read_records(options: &Options) -> Result<(Option<LastRecords>, Option<OutputFiles>), InputError> {
    let Some(records) = &options.only_failed else { return Ok((None, None)) };
    let mut files = match &options.output {
        Target::File(path) => Some(OutputFiles::new(path)),
        Target::Stdout | Target::Stderr => None,
    };
    let done = LastRecords::read(records, files.as_mut())?;
    Ok((Some(done), files))
}

impl Earlier {
    /// # Errors
    /// If the records cannot be read, or another run writes them; if the output is another run's.
    pub(super) fn read(options: &Options) -> Result<Earlier, Box<dyn std::error::Error>> {
        let goes_on = options.records.as_deref().filter(|path| {
            options.only_failed.as_deref().is_some_and(|before| is_same_file(before, path)) && path.is_file()
        });
        // From here on no other run adds to them.
        let records = goes_on.map(|path| Records::open(&Target::new(path), Existing::Append)).transpose()?;
        let (done, files) = read_records(options)?;
        if let Some(partial) = files.as_ref().filter(|_| records.is_some()).and_then(OutputFiles::unknown) {
            Err(format!(
                "{} has results of an earlier run, and the records do not tell which: give another --output, or move it away",
                partial.display()
            ))?;
        }
        let files = files.filter(OutputFiles::is_told_of);
        match (&files, &options.output) {
            (None, Target::File(path)) if done.is_some() && has_something(path) => Err(format!(
                "{} has the results of another run, which --only-failed does not make again: give another --output",
                path.display()
            ))?,
            _ => {}
        }
        let missing = files.as_ref().zip(done.as_ref());
        let missing = missing.map_or(0, |(files, done)| files.missing(|number| done.is_ok(number)));
        if missing > 0 {
            console::complain(format_args!(
                "{missing} result(s) that the records call ok are not in {}: these jobs are run again",
                options.output.name()
            ));
        }
        Ok(Earlier { done, files, records })
    }

    /// Opens what is written. `takes_back`: lines of the output may be replaced at the end.
    pub(super) fn open_outputs(
        self,
        options: &Options,
        takes_back: bool,
    ) -> Result<(Handover, Option<LastRecords>), OutputError> {
        let Earlier { done, files, records } = self;
        let out = if files.is_some() { Writer::open_behind(&options.output) } else { Writer::open(&options.output) }?;
        let err = if done.is_some() { Writer::open_after(&options.stderr) } else { Writer::open(&options.stderr) }?;
        let records = match (&options.records, records) {
            (Some(path), None) => Some(Records::open(&Target::new(path), Existing::Replace)?),
            (_, records) => records,
        };
        let named = out.partial_name().and(match &options.output {
            // The next run may be started in another folder. A name that is not text is recognised all the same.
            Target::File(path) => Some(real_path(path).to_string_lossy().into_owned()),
            Target::Stdout | Target::Stderr => None,
        });
        let mut handover = Handover::new(out, err, records, options.unordered, named);
        if takes_back {
            handover.keep_layout();
        }
        if let (Some(mut files), Some(done)) = (files, &done) {
            let found = files.take_found(|number| done.is_ok(number));
            handover.go_on(&files, &found)?;
        }
        Ok((handover, done))
    }
}

/// Whether there is a file of this name that is not empty.
pub(crate) fn has_something(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}
