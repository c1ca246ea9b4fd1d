//! Changes to what was already written: jobs whose results turn out not to be theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JobRecord, Records, Status};
use crate::output::{Existing, Target};

/// What is needed of a record to write another one of the same job.
#[derive(Deserialize)]
struct Line<'a> {
    number: u64,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default)]
    attempts: u32,
}

/// Adds a record to a file for each of these jobs: it has failed, with this message. The last record of a job counts.
///
/// # Errors
/// If the file cannot be read or written.
pub(crate) fn take_back(path: &Path, jobs: &BTreeMap<u64, String>) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Ok(());
    }
    let mut left: BTreeSet<u64> = jobs.keys().copied().collect();
    let reader = BufReader::new(File::open(path)?);
    let mut records = Records::open(&Target::new(path), Existing::Append).map_err(io::Error::other)?;
    for line in reader.lines() {
        let line = line?;
        let Ok(Line { number, input, attempts }) = serde_json::from_str::<Line<'_>>(&line) else { continue };
        if left.remove(&number) {
            let message = jobs.get(&number).map(String::as_str);
            let record = JobRecord { message, attempts, ..JobRecord::new(number, input, Status::Failed) };
            records.write(&record).map_err(io::Error::other)?;
        }
        if left.is_empty() {
            break;
        }
    }
    records.finish().map_err(io::Error::other)
}
