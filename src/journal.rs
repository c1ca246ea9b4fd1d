//! What became of each job, as JSON Lines: one object for each, written when the job's output was.
//!
//! A file of records can be read while the run goes on and after it was killed: then at most its last line is torn. Several
//! runs may append to one file, one after the other; for each job its last record counts.
//!
//! A record tells where the job's output is: `"output":{"file":"/data/out","length":5,"hash":"a1b2c3d4e5f60718","at":0       }`,
//! bytes of `out` or, as long as that is not whole, of `out.partial`. The hash is XXH3 (64 bits). The last number has blanks
//! behind it, so that it can be changed in its place when the file is put into order.

pub(crate) mod amend;
mod last;
mod places;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::output::{Existing, Moved, OutputError, Target, Writer};

pub use last::LastRecords;
pub(crate) use places::{Found, OutputFiles};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should.
    Ok,
    /// With another exit code than 0, or an exception.
    Failed,
    /// By a signal.
    Signal,
    /// It took too long and was ended.
    Timeout,
    /// It could not be started.
    Spawn,
    /// The ranks that had it are gone.
    Lost,
    /// It was given up before it started.
    Cancelled,
}

/// What is recorded of one job. What is not known is left out.
#[derive(Clone, Debug)]
pub struct JobRecord<'a> {
    /// The job's number.
    pub number: u64,
    /// The input record.
    pub input: &'a RawValue,
    /// How it ended.
    pub status: Status,
    /// The exit code.
    pub exit: Option<i32>,
    /// The signal that ended it. Its name is written beside it, as `signal_name`.
    pub signal: Option<i32>,
    /// How often it was tried.
    pub attempts: u32,
    /// Where it ran last.
    pub host: Option<&'a str>,
    /// The rank that ran it.
    pub rank: Option<u32>,
    /// The slot that it ran in.
    pub slot: Option<u64>,
    /// When its last attempt started. Written in UTC, as `2026-01-31T23:59:59.123Z`.
    pub start: Option<SystemTime>,
    /// How long that took. Written in seconds.
    pub seconds: Option<Duration>,
    /// Processor time of its processes. Written in seconds.
    pub user: Option<Duration>,
    /// Processor time of the system on their behalf. Written in seconds.
    pub system: Option<Duration>,
    /// The most memory that one of its processes had, in bytes.
    pub max_rss: Option<u64>,
    /// How much it put out, in bytes: standard output and standard error.
    pub output_bytes: Option<u64>,
    /// What the failure says.
    pub message: Option<&'a str>,
    /// Where in the user's program it was.
    pub traceback: Option<&'a str>,
}

impl<'a> JobRecord<'a> {
    /// A record of which nothing else is known.
    pub fn new(number: u64, input: &'a RawValue, status: Status) -> JobRecord<'a> {
        JobRecord {
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
            seconds: None,
            user: None,
            system: None,
            max_rss: None,
            output_bytes: None,
            message: None,
            traceback: None,
        }
    }
}

impl Serialize for JobRecord<'_> {
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

        let mut fields = Fields(serializer.serialize_struct("JobRecord", 18)?);
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
        fields.optional("seconds", self.seconds.map(seconds))?;
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
        // A clock that was never set is no reason to panic.
        let time = self.0.max(SystemTime::UNIX_EPOCH);
        serializer.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

/// Microseconds are as much as clocks know.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// What a record tells of the place of a job's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputPlace<'a> {
    /// The output, as the system calls it.
    pub file: &'a str,
    pub at: u64,
    pub length: u64,
    pub hash: u64,
}

/// How many characters the place has: numbers of 64 bits.
const AT_WIDTH: usize = 20;

/// A record as a line without its end, to which [`finish_line`] adds what is known later.
///
/// # Errors
/// If it has no JSON form.
pub(crate) fn begin_line(record: &JobRecord<'_>) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    // Only blanks between the values of an input can be line ends.
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    line.pop();
    Ok(line)
}

/// Ends a line: with the place of the output, if there is one.
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

/// Writes records.
pub struct Records {
    writer: Writer,
    path: Option<PathBuf>,
    /// The same file, to change places in: it may be renamed while the run goes on.
    file: Option<File>,
}

impl Records {
    /// Opens a file of records, which is there at once. To go on with one, a last line that a killed run has torn is cut off
    /// first.
    ///
    /// # Errors
    /// If it cannot be written, or another run writes it; if what it ends with is not a record.
    pub fn open(target: &Target, existing: Existing) -> Result<Records, OutputError> {
        let writer = Writer::open_direct(target, existing)?;
        let path = match target {
            Target::File(path) if path.is_file() => Some(path.clone()),
            Target::File(_) | Target::Stdout | Target::Stderr => None,
        };
        if let (Some(path), Existing::Append) = (&path, existing) {
            last::mend(path).map_err(|source| OutputError::from_io(&target.name(), source))?;
        }
        let file = path.as_ref().map(|path| File::options().read(true).write(true).open(path)).transpose();
        let file = file.map_err(|source| OutputError::from_io(&target.name(), source))?;
        Ok(Records { writer, path, file })
    }

    /// How messages call the file.
    pub(crate) fn name(&self) -> &std::sync::Arc<str> {
        self.writer.name()
    }

    /// The file, if it is one that can be read again.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes one record.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&mut self, record: &JobRecord<'_>) -> Result<(), OutputError> {
        let mut line =
            begin_line(record).map_err(|source| OutputError::Value { name: self.writer.name().clone(), source })?;
        finish_line(&mut line, None);
        self.write_line(&line)
    }

    /// Writes a whole line.
    ///
    /// # Errors
    /// If writing fails.
    pub(crate) fn write_line(&mut self, line: &[u8]) -> Result<(), OutputError> {
        self.writer.write_all(line)
    }

    /// Changes the places of outputs in all records that were handed to the system, those of earlier runs too.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn change_places(&self, moved: &Moved) -> Result<(), OutputError> {
        let changed = self.file.as_ref().map_or(Ok(()), |file| places::change_places(file, moved));
        changed.map_err(|source| OutputError::from_io(self.name(), source))
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// If writing fails.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        self.writer.flush()
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// If writing fails now or failed before.
    pub fn finish(self) -> Result<(), OutputError> {
        self.writer.finish()
    }
}
