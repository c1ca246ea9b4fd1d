//! The job log that `--records` asks for: JSON Lines with an entry for each job, written after the job's output.
//!
//! A log can be read while the run goes on and after the run was killed: then at most its last line is incomplete. Several
//! runs may append to one log, one after the other; for each job its last entry counts.
//!
//! An entry has the place of the job's output: `"output":{"file":"/data/out","length":5,"hash":"a1b2c3d4e5f60718","at":0       }`,
//! bytes of `out` or, until `out` is complete, of `out.partial`. The hash is XXH3 (64 bits). The last number is padded with
//! blanks, so that it can be overwritten when the output file is put into order.
//!
//! | file | |
//! |---|---|
//! | `line` | a line as it is read back |
//! | `last` | reads a log: the last entry of each job; cuts off an incomplete last line |
//! | `places` | compares the places with the output files, and changes them when outputs move |
//! | `amend` | appends an entry that a job has failed, after one that said that it succeeded |

pub(crate) mod amend;
mod compact;
#[cfg(test)]
mod damages;
pub(crate) mod entries;
mod frame;
#[cfg(test)]
mod fuzz;
mod index;
pub(crate) mod inspect;
pub(crate) mod job;
mod key_set;
mod last;
mod line;
mod lookup;
mod open;
mod options;
mod owner;
mod places;
mod presence;
mod run;
mod scan;
mod settled;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::output::{Existing, Moved, OutputError, Target, Writer};

pub use last::LastEntries;
pub(crate) use lookup::{Lookup, Place};
pub(crate) use options::{JournalError, JournalOptions, Spec};
pub(crate) use places::{Found, OutputFiles};
pub(crate) use run::Journal;
pub(crate) use settled::{Key, Settled};

/// The status of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It succeeded.
    Ok,
    /// It ended with another exit code than 0, or with an exception.
    Failed,
    /// It was killed by a signal.
    Signal,
    /// It exceeded its time limit and was ended.
    Timeout,
    /// It could not be started.
    Spawn,
    /// The rank that ran it is gone.
    Lost,
    /// It was not run to its end, because the batch was stopped.
    Cancelled,
}

/// An entry of the job log. Fields that are `None` are left out of the line.
#[derive(Clone, Debug)]
pub struct JobEntry<'a> {
    /// The job's number.
    pub number: u64,
    /// The input record.
    pub input: &'a RawValue,
    /// Its status.
    pub status: Status,
    /// The exit code.
    pub exit: Option<i32>,
    /// The signal that killed it. Its name is written beside it, as `signal_name`.
    pub signal: Option<i32>,
    /// The number of attempts.
    pub attempts: u32,
    /// The host of the last attempt.
    pub host: Option<&'a str>,
    /// The rank of the last attempt.
    pub rank: Option<u32>,
    /// The slot of the last attempt, from 1.
    pub slot: Option<u64>,
    /// The time at which the last attempt started. Written in UTC, as `2026-01-31T23:59:59.123Z`.
    pub start: Option<SystemTime>,
    /// The wall time of the last attempt. Written in seconds, as `seconds`.
    pub duration: Option<Duration>,
    /// The time from when its record was read until the last attempt started. Written in seconds.
    pub queued: Option<Duration>,
    /// The time from the end of the last attempt until rank 0 had its result. Written in seconds.
    pub returned: Option<Duration>,
    /// User time of its processes. Written in seconds.
    pub user: Option<Duration>,
    /// System time of its processes. Written in seconds.
    pub system: Option<Duration>,
    /// The largest resident set of its processes, in bytes.
    pub max_rss: Option<u64>,
    /// The length of its standard output and standard error, in bytes.
    pub output_bytes: Option<u64>,
    /// The message of its failure.
    pub message: Option<&'a str>,
    /// The traceback of its failure.
    pub traceback: Option<&'a str>,
}

impl<'a> JobEntry<'a> {
    /// Returns an entry without optional fields.
    pub fn new(number: u64, input: &'a RawValue, status: Status) -> JobEntry<'a> {
        JobEntry {
            number,
            input,
            status,
            exit: None,
            signal: None,
            attempts: 0,
            host: None,
            rank: None,
            slot: None,
            start: None,
            duration: None,
            queued: None,
            returned: None,
            user: None,
            system: None,
            max_rss: None,
            output_bytes: None,
            message: None,
            traceback: None,
        }
    }
}

impl Serialize for JobEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// An object whose absent fields are left out.
        struct Fields<T>(T);

        impl<T: SerializeStruct> Fields<T> {
            fn optional<V: Serialize>(&mut self, name: &'static str, value: Option<V>) -> Result<(), T::Error> {
                match value {
                    Some(value) => self.0.serialize_field(name, &value),
                    None => self.0.skip_field(name),
                }
            }
        }

        let mut fields = Fields(serializer.serialize_struct("JobEntry", 20)?);
        fields.optional("number", Some(self.number))?;
        fields.optional("input", Some(self.input))?;
        fields.optional("status", Some(self.status))?;
        fields.optional("exit", self.exit)?;
        fields.optional("signal", self.signal)?;
        fields.optional("signal_name", self.signal.and_then(signal_hook::low_level::signal_name))?;
        fields.optional("attempts", Some(self.attempts))?;
        fields.optional("host", self.host)?;
        fields.optional("rank", self.rank)?;
        fields.optional("slot", self.slot)?;
        fields.optional("start", self.start.map(Date))?;
        fields.optional("seconds", self.duration.map(seconds))?;
        fields.optional("queued", self.queued.map(seconds))?;
        fields.optional("returned", self.returned.map(seconds))?;
        fields.optional("user", self.user.map(seconds))?;
        fields.optional("system", self.system.map(seconds))?;
        fields.optional("max_rss", self.max_rss)?;
        fields.optional("output_bytes", self.output_bytes)?;
        fields.optional("message", self.message)?;
        fields.optional("traceback", self.traceback)?;
        fields.0.end()
    }
}

/// A time as RFC 3339 writes it, with milliseconds.
struct Date(SystemTime);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock that was never set must not cause a panic.
        let time = self.0.max(SystemTime::UNIX_EPOCH);
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

/// Returns the duration in seconds, to the microsecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The place of a job's output, as an entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputPlace<'a> {
    /// The absolute path of the output file, without `.partial`.
    pub file: &'a str,
    pub at: u64,
    pub length: u64,
    pub hash: u64,
}

/// The number of characters that `at` is padded to: enough for numbers of 64 bits.
const AT_WIDTH: usize = 20;

/// Returns the line of an entry without its end, which [`finish_line`] adds when the place of the output is known.
///
/// # Errors
/// If the entry has no JSON form.
pub(crate) fn begin_line(entry: &JobEntry<'_>) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    // A line end can only stand between the values of an input.
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    line.pop();
    Ok(line)
}

/// Adds the place of the output, if there is one, and the end of the line.
pub(crate) fn finish_line(line: &mut Vec<u8>, place: Option<OutputPlace<'_>>) {
    if let Some(OutputPlace { file, at, length, hash }) = place {
        let file = serde_json::to_string(file).unwrap_or_default();
        let place = format!(
            ",\"output\":{{\"file\":{file},\"length\":{length},\"hash\":\"{hash:016x}\",\"at\":{at:<AT_WIDTH$}}}"
        );
        line.extend_from_slice(place.as_bytes());
    }
    line.extend_from_slice(b"}\n");
}

/// Writes a job log.
pub struct JobLog {
    writer: Writer,
    path: Option<PathBuf>,
    /// The same file, opened for changing places in it: it may be renamed while the run goes on.
    file: Option<File>,
}

impl JobLog {
    /// Opens a job log; the file exists at once. Before entries are appended to an existing one, an incomplete last line of a
    /// killed run is cut off.
    ///
    /// # Errors
    /// If it cannot be written, or another run writes it; if its last line is not an entry.
    pub fn open(target: &Target, existing: Existing) -> Result<JobLog, OutputError> {
        let writer = Writer::open_direct(target, existing)?;
        let path = match target {
            Target::File(path) if path.is_file() => Some(path.clone()),
            Target::File(_) | Target::Stdout | Target::Stderr => None,
        };
        if let (Some(path), Existing::Append) = (&path, existing) {
            last::end_last_line(path).map_err(|source| OutputError::from_io(&target.name(), source))?;
        }
        let file = path.as_ref().map(|path| File::options().read(true).write(true).open(path)).transpose();
        let file = file.map_err(|source| OutputError::from_io(&target.name(), source))?;
        Ok(JobLog { writer, path, file })
    }

    /// Returns the file's name for messages.
    pub(crate) fn name(&self) -> &std::sync::Arc<str> {
        self.writer.name()
    }

    /// Returns the file's path, if it is a regular file.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&mut self, entry: &JobEntry<'_>) -> Result<(), OutputError> {
        let mut line =
            begin_line(entry).map_err(|source| OutputError::Value { name: self.writer.name().clone(), source })?;
        finish_line(&mut line, None);
        self.write_line(&line)
    }

    /// Writes a finished line.
    ///
    /// # Errors
    /// If writing fails.
    pub(crate) fn write_line(&mut self, line: &[u8]) -> Result<(), OutputError> {
        self.writer.write_all(line)
    }

    /// Changes the places of outputs in all flushed entries, those of earlier runs too.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn change_places(&self, moved: &Moved) -> Result<(), OutputError> {
        let changed = self.file.as_ref().map_or(Ok(()), |file| places::change_places(file, moved));
        changed.map_err(|source| OutputError::from_io(self.name(), source))
    }

    /// Flushes everything written so far.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        self.writer.flush()
    }

    /// Flushes and closes the log.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub fn finish(self) -> Result<(), OutputError> {
        self.writer.finish()
    }
}
