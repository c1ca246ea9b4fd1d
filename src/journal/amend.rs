//! Appends entries for jobs that were logged as successful and turned out to have failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JobEntry, JobLog, Status};
use crate::output::{Existing, Target};

/// The fields of an entry that another entry of the same job repeats.
#[derive(Deserialize)]
struct Line<'a> {
    number: u64,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default)]
    attempts: u32,
}

/// Appends an entry to a log for each of these jobs that it contains: the job has failed, with this message. The last entry of a
/// job counts.
///
/// # Errors
/// If the file cannot be read or written.
pub(crate) fn mark_failed(path: &Path, jobs: &BTreeMap<u64, String>) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Ok(());
    }
    let mut missing: BTreeSet<u64> = jobs.keys().copied().collect();
    let reader = BufReader::new(File::open(path)?);
    let mut log = JobLog::open(&Target::new(path), Existing::Append).map_err(io::Error::other)?;
    for line in reader.lines() {
        let line = line?;
        let Ok(Line { number, input, attempts }) = serde_json::from_str::<Line<'_>>(&line) else { continue };
        if missing.remove(&number) {
            let message = jobs.get(&number).map(String::as_str);
            let entry = JobEntry { message, attempts, ..JobEntry::new(number, input, Status::Failed) };
            log.write(&entry).map_err(io::Error::other)?;
        }
        if missing.is_empty() {
            break;
        }
    }
    log.finish().map_err(io::Error::other)
}
