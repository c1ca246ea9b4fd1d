//! What a journal contains, for people: its state, its entries as JSON Lines, and a shorter copy.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use super::compact;
use super::frame::{Header, Kind};
use super::index::{Index, IndexBuilder};
use super::open::{Contents, read_contents};
use super::owner::{Owner, lock};
use super::presence::is_there;
use super::scan::{Damage, FrameReader, Scan};
use super::settled::Settled;
use super::{JournalError, Spec, Status};
use crate::engine::exchange::OutputStream;

/// What a journal contains.
#[derive(Debug)]
pub(crate) struct Summary {
    /// The last run that has opened it.
    pub owner: Option<Owner>,
    /// Whether a run has locked it now.
    pub is_in_use: bool,
    /// Whether the last run has ended by itself, and its output is complete: all its jobs are settled, but for the cancelled ones.
    pub is_complete: bool,
    /// The number of jobs that the stop policy of that run has cancelled.
    pub cancelled: u64,
    /// What all jobs have in common.
    pub spec: Spec,
    /// The number of settled jobs.
    pub settled: u64,
    pub failed: u64,
    /// The number of readable frames.
    pub frames: u64,
    pub bytes: u64,
    pub damage: Vec<Damage>,
    /// The number of bytes at the end that were not written completely.
    pub torn: u64,
}

pub(super) fn open(path: &Path) -> Result<File, JournalError> {
    let fault = |source| JournalError::Io { path: path.to_owned(), source };
    // A pipe without a writer is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fault)?;
    if file.metadata().map_err(fault)?.is_file() { Ok(file) } else { Err(JournalError::NotAJournal(path.to_owned())) }
}

/// Reads a whole journal.
///
/// # Errors
/// If it cannot be read, is of a later version, or is not a journal.
fn read<'f>(path: &Path, file: &'f File) -> Result<(Scan<'f>, Index, Contents), JournalError> {
    let fault = |source| JournalError::Io { path: path.to_owned(), source };
    let mut scan = Scan::new(file).map_err(fault)?;
    if let Header::Newer(version) = scan.header() {
        return Err(JournalError::Newer { path: path.to_owned(), version });
    }
    let mut builder = IndexBuilder::default();
    let contents = read_contents(&mut scan, &mut builder).map_err(fault)?;
    if contents.frames == 0 && scan.header() != Header::Intact {
        return Err(JournalError::NotAJournal(path.to_owned()));
    }
    Ok((scan, builder.build(), contents))
}

/// Reads a journal, which may be in use.
///
/// # Errors
/// If it cannot be read, or is not a journal.
pub(crate) fn summary(path: &Path) -> Result<Summary, JournalError> {
    let file = open(path)?;
    let (scan, index, contents) = read(path, &file)?;
    let Contents { owner, spec, complete, frames, .. } = contents;
    let positions = index.positions();
    Ok(Summary {
        owner,
        // The lock is free again when the file is closed.
        is_in_use: lock(&file).is_ok_and(|locked| !locked),
        is_complete: complete.is_some(),
        cancelled: complete.as_ref().and_then(cancelled).unwrap_or_default(),
        spec: spec.unwrap_or_default(),
        settled: positions.len() as u64,
        failed: positions.iter().filter(|position| position.has_failed).count() as u64,
        frames,
        bytes: scan.length(),
        damage: scan.damage().to_vec(),
        torn: scan.length().saturating_sub(scan.end()),
    })
}

/// Returns the number of cancelled jobs in the entry of a complete run.
fn cancelled(counts: &Spec) -> Option<u64> {
    counts.iter().find(|(name, _)| name == "cancelled")?.1.parse().ok()
}

/// The JSON object of a settled job.
#[derive(Serialize)]
struct Exported<'a> {
    number: u64,
    status: Status,
    /// The hash of the record, in hexadecimal digits, and the number of equal records before it.
    key: String,
    /// What the job log has of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a RawValue>,
    out: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    err: String,
}

/// Calls `line` with a JSON object for each settled job, in the order of the file, until it returns false. Bytes of outputs that
/// are not UTF-8 are replaced.
///
/// # Errors
/// If it cannot be read, or is not a journal.
pub(crate) fn export(path: &Path, mut line: impl FnMut(&[u8]) -> bool) -> Result<(), JournalError> {
    let file = open(path)?;
    let fault = |source| JournalError::Io { path: path.to_owned(), source };
    let (_, index, _) = read(path, &file)?;
    let mut reader = FrameReader::new();
    let mut json = Vec::new();
    for position in index.positions() {
        let Some((Kind::Settled, payload)) = reader.read(&file, position.at).map_err(fault)? else { continue };
        let payload = payload.to_vec();
        let Some(settled) = Settled::read(&payload) else { continue };
        let (out, err) = outputs(&file, &mut reader, &settled).map_err(fault)?;
        let entry = [settled.description, b"}"].concat();
        let exported = Exported {
            number: settled.number,
            status: settled.status,
            key: format!("{:032x}-{}", settled.key.content, settled.key.occurrence),
            entry: serde_json::from_slice(&entry).ok(),
            out: String::from_utf8_lossy(&out).into_owned(),
            err: String::from_utf8_lossy(&err).into_owned(),
        };
        json.clear();
        serde_json::to_writer(&mut json, &exported).map_err(|error| fault(error.into()))?;
        json.push(b'\n');
        if !line(&json) {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns the whole standard output and standard error of a job.
fn outputs(file: &File, reader: &mut FrameReader, settled: &Settled<'_>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for part in settled.parts.iter() {
        if let Some((stream, bytes)) = reader.read_piece(file, part)? {
            match stream {
                OutputStream::Stdout => out.extend_from_slice(bytes),
                OutputStream::Stderr => err.extend_from_slice(bytes),
            }
        }
    }
    out.extend_from_slice(settled.out);
    err.extend_from_slice(settled.err);
    Ok((out, err))
}

/// Writes a journal anew without what is of no use any more: replaced entries, output of jobs that were run again, damaged
/// regions. Returns its length before and after.
///
/// # Errors
/// If it cannot be read or written, is not a journal, or is in use. Then it is as it was.
pub(crate) fn compact(path: &Path) -> Result<(u64, u64), JournalError> {
    let fault = |source| JournalError::Io { path: path.to_owned(), source };
    let before = summary(path)?;
    // A link stays, and the file that it leads to is replaced.
    let path = &path.canonicalize().map_err(fault)?;
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(fault)?;
    if !lock(&file).map_err(fault)? || !is_there(&file, path) {
        return Err(JournalError::InUse { path: path.to_owned(), owner: Box::new(before.owner.unwrap_or_default()) });
    }
    // Read again: until the lock was taken, a run may have written more.
    let (_, index, _) = read(path, &file)?;
    let new = compact::write(&file, &index, path).map_err(fault)?;
    Ok((before.bytes, new.metadata().map_err(fault)?.len()))
}
