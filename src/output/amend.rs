//! Changes to what was already written: jobs whose results turn out not to be theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Existing, JobRecord, Records, Status, Target, partial_path};

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

/// Puts other lines, which have their ends, in the place of some lines of a file, counted from 0.
///
/// # Errors
/// If the file cannot be read or written; it is left as it was.
pub(crate) fn replace_lines(path: &Path, lines: &BTreeMap<u64, Vec<u8>>) -> io::Result<()> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    let path = path.canonicalize()?;
    let other = partial_path(&path);
    let mut out = BufWriter::new(File::create(&other)?);
    let mut reader = BufReader::new(File::open(&path)?);
    let mut line = Vec::new();
    for place in 0.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        out.write_all(lines.get(&place).unwrap_or(&line))?;
    }
    let file = out.into_inner()?;
    file.set_permissions(metadata.permissions())?;
    file.sync_all()?;
    std::fs::rename(&other, &path)
}
