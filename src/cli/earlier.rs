//! What earlier runs of a batch have left, and how its outputs are opened: anew, or to go on with them.

use std::path::Path;

use super::batch::BatchConfig;
use super::config::Config;
use super::files::is_same_file;
use crate::batch::{Handover, Sinks};
use crate::console;
use crate::input::InputError;
use crate::journal::{LastRecords, OutputFiles, Records};
use crate::output::{Existing, OutputError, Target, Writer, real_path};
use crate::pool::Pool;

/// What earlier runs have left, as far as this one goes on with it.
pub(super) struct Earlier {
    /// Which jobs are done.
    pub done: Option<LastRecords>,
    /// Where their results are, if this run's output goes on with them.
    files: Option<OutputFiles>,
    /// The records, if they go on.
    records: Option<Records>,
}

/// Reads the records of `--only-failed`, and whether the results that they tell of are there.
pub(super) fn read_earlier(
    batch: &BatchConfig,
    output: &Target,
) -> Result<(Option<LastRecords>, Option<OutputFiles>), InputError> {
    let Some(records) = &batch.only_failed else { return Ok((None, None)) };
    let mut files = match output {
        Target::File(path) => Some(OutputFiles::new(path)),
        Target::Stdout | Target::Stderr => None,
    };
    let done = LastRecords::read(records, files.as_mut())?;
    Ok((Some(done), files))
}

impl Earlier {
    /// # Errors
    /// If the records cannot be read, or another run writes them; if the output is another run's.
    pub(super) fn read(config: &Config, batch: &BatchConfig) -> Result<Earlier, Box<dyn std::error::Error>> {
        let goes_on = batch.records.as_deref().filter(|path| {
            batch.only_failed.as_deref().is_some_and(|before| is_same_file(before, path)) && path.is_file()
        });
        // From here on no other run adds to them.
        let records = goes_on.map(|path| Records::open(&Target::new(path), Existing::Append)).transpose()?;
        let (done, files) = read_earlier(batch, &config.output)?;
        if let Some(partial) = files.as_ref().filter(|_| records.is_some()).and_then(OutputFiles::unknown) {
            Err(format!(
                "{} has results of an earlier run, and the records do not tell which: give another --output, or move it away",
                partial.display()
            ))?;
        }
        let files = files.filter(OutputFiles::is_told_of);
        match (&files, &config.output) {
            (None, Target::File(path)) if done.is_some() && has_something(path) => Err(format!(
                "{} has the results of another run, which --only-failed does not make again: give another --output",
                path.display()
            ))?,
            _ => {}
        }
        let missing = files.as_ref().zip(done.as_ref());
        let missing = missing.map_or(0, |(files, done)| files.missing(|number| done.is_ok(number)));
        if missing > 0 {
            console::eprint_error(format_args!(
                "{missing} result(s) that the records call ok are not in {}: these jobs are run again",
                config.output.name()
            ));
        }
        Ok(Earlier { done, files, records })
    }

    /// Opens what is written. If it `takes_back` answers, lines of the output may be replaced at the end.
    pub(super) fn open_sinks(
        self,
        config: &Config,
        batch: &BatchConfig,
        pool: &Pool,
        takes_back: bool,
    ) -> Result<(Sinks, Option<LastRecords>), OutputError> {
        let Earlier { done, files, records } = self;
        let out = if files.is_some() { Writer::open_behind(&config.output) } else { Writer::open(&config.output) }?;
        let err = if done.is_some() { Writer::open_after(&batch.stderr) } else { Writer::open(&batch.stderr) }?;
        let records = match (&batch.records, records) {
            (Some(path), None) => Some(Records::open(&Target::new(path), Existing::Replace)?),
            (_, records) => records,
        };
        let named = out.partial_name().and(match &config.output {
            // The next run may be started in another folder. A name that is not text is recognised all the same.
            Target::File(path) => Some(real_path(path).to_string_lossy().into_owned()),
            Target::Stdout | Target::Stderr => None,
        });
        let unordered = config.map.unordered;
        let mut handover = Handover::new(out, err, records, unordered, named);
        if takes_back {
            handover.keep_layout();
        }
        if let (Some(mut files), Some(done)) = (files, &done) {
            let found = files.take_found(|number| done.is_ok(number));
            handover.go_on(&files, &found)?;
        }
        let hosts = pool.ranks().iter().map(|rank| rank.facts.host.clone()).collect();
        Ok((Sinks::new(batch.lines, unordered, handover, hosts), done))
    }
}

pub(super) fn has_something(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}
