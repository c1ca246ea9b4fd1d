//! The source of a batch's jobs, read without waiting: an iterator that has the next job at once, or a pipe that is read on a
//! thread of its own.

use std::sync::Arc;
use std::time::SystemTime;
use std::{io, thread};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use serde::Serialize;
use serde_json::value::RawValue;

use super::job::micros_of;
use super::ledger::Planned;
use crate::console::reason;
use crate::input::{BadRecords, InputError, Inputs, Place, Record};
use crate::journal::{Key, LastEntries};
use crate::pool::Next as Pulled;

/// The number of jobs that are read ahead from a pipe.
const AHEAD: usize = 64;

/// Up to this number, jobs are compared with the job log of `--only-failed` before the first is run.
const CHECKED_FIRST: u64 = 1 << 24;

/// The error that the thread that reads a pipe cannot be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start the thread that reads the inputs: {}; let this user have more threads (ulimit -u, or the limit of the job's \
     cgroup), or give the inputs as a file",
    reason(.0)
)]
pub(crate) struct NoThread(#[source] io::Error);

/// Items that are read without waiting.
pub(crate) enum Source<T> {
    /// The next item is there at once.
    Ready(Box<dyn Iterator<Item = T> + Send>),
    /// Another thread reads the items, and may wait long for the next one.
    Piped(Receiver<T>),
}

impl<T: Send + 'static> Source<T> {
    /// Makes a source of an iterator whose next item is there at once.
    pub(crate) fn ready(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        Source::Ready(Box::new(items))
    }

    /// Makes a source of an iterator that may wait, and starts the thread that reads it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn piped(items: impl Iterator<Item = T> + Send + 'static) -> Result<Self, NoThread> {
        // The thread is never joined: it may wait for a line that never comes.
        Self::read_by(items, |read| thread::Builder::new().name("rankpool input".into()).spawn(read).map(drop))
    }

    fn read_by(
        items: impl Iterator<Item = T> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Result<Self, NoThread> {
        let (sender, read) = bounded(AHEAD);
        spawn(Box::new(move || {
            for item in items {
                if sender.send(item).is_err() {
                    return;
                }
            }
        }))
        .map_err(NoThread)?;
        Ok(Source::Piped(read))
    }
}

impl<T> Source<T> {
    /// Returns the next item, or [`Pulled::Later`] if it is not there yet.
    pub(crate) fn next(&mut self) -> Pulled<T> {
        match self {
            Source::Ready(items) => items.next().map_or(Pulled::End, Pulled::Item),
            Source::Piped(items) => match items.try_recv() {
                Ok(item) => Pulled::Item(item),
                Err(TryRecvError::Empty) => Pulled::Later,
                Err(TryRecvError::Disconnected) => Pulled::End,
            },
        }
    }

    /// Returns the channel that becomes ready when [`next`](Self::next) should be called again after [`Pulled::Later`].
    pub(crate) fn wake(&self) -> Option<&Receiver<T>> {
        match self {
            Source::Ready(_) => None,
            Source::Piped(items) => Some(items),
        }
    }
}

/// Makes the work of a job from a record.
type Bind<W> = Arc<dyn Fn(&Record) -> Result<W, InputError> + Send + Sync>;
/// Makes the jobs that need no records, from the first one.
type Make<W> = Arc<dyn Fn() -> Box<dyn Iterator<Item = W> + Send> + Send + Sync>;

/// Returns the jobs that another process asks for, with this kept of each.
type Ask<W> = Arc<dyn Fn(Keep) -> PlannedJobs<W> + Send + Sync>;

/// The jobs of a batch before they are read.
pub(crate) enum Jobs<W> {
    /// A job for each record.
    Records { inputs: Inputs, bind: Bind<W> },
    /// `total` jobs that need no records.
    Made { make: Make<W>, total: u64 },
    /// The jobs that another process asks for, as long as it runs.
    Asked(Ask<W>),
}

/// Jobs in the order of their records.
pub(crate) type PlannedJobs<W> = Box<dyn Iterator<Item = Result<Planned<W>, InputError>> + Send>;

impl<W: Serialize + Send + 'static> Jobs<W> {
    /// Makes a job for each record with `bind`.
    pub(crate) fn of_records(
        inputs: Inputs,
        bind: impl Fn(&Record) -> Result<W, InputError> + Send + Sync + 'static,
    ) -> Self {
        Jobs::Records { inputs, bind: Arc::new(bind) }
    }

    /// Takes the `total` jobs of the iterator that `make` returns.
    pub(crate) fn made<I>(make: impl Fn() -> I + Send + Sync + 'static, total: u64) -> Self
    where
        I: Iterator<Item = W> + Send + 'static,
    {
        Jobs::Made { make: Arc::new(move || Box::new(make())), total }
    }

    /// Takes the jobs that another process asks for, which `ask` waits for.
    pub(super) fn asked<I>(ask: impl Fn(Keep) -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = Result<Planned<W>, InputError>> + Send + 'static,
    {
        Jobs::Asked(Arc::new(move |keep| Box::new(ask(keep))))
    }

    /// Whether the jobs can be read only once.
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Jobs::Records { inputs, .. } => inputs.is_stream(),
            Jobs::Made { .. } => false,
            Jobs::Asked(_) => true,
        }
    }

    /// Checks the records, as far as that is possible before the run, and counts the jobs that have not succeeded by `done`. Returns
    /// `None` if their number is not known.
    ///
    /// # Errors
    /// If a record is bad.
    pub(super) fn count(&self, done: Option<&LastEntries>) -> Result<Option<u64>, InputError> {
        let total = match self {
            Jobs::Made { total, .. } => Some(*total),
            Jobs::Asked(_) => None,
            Jobs::Records { inputs, bind } => {
                let bind = bind.clone();
                inputs.check(move |record: &Record| bind(record))?
            }
        };
        Ok(match (total, done) {
            (Some(total), Some(done)) if total <= CHECKED_FIRST => {
                let (mut left, _) = self.open(Some(done.clone()), Keep::default());
                Some(left.try_fold(0, |count, planned| planned.map(|_| count + 1))?)
            }
            (total, done) => total.map(|total| total.saturating_sub(done.map_or(0, LastEntries::ok_count))),
        })
    }

    /// Returns the jobs that have not succeeded by `done`, and the bad records, which are counted as they are found. `keep`: what is
    /// kept of each record.
    pub(crate) fn open(&self, done: Option<LastEntries>, keep: Keep) -> (PlannedJobs<W>, BadRecords) {
        let keep = Keep { input: keep.input || done.is_some(), ..keep };
        match self {
            Jobs::Asked(ask) => (ask(keep), BadRecords::default()),
            Jobs::Made { make, .. } if keep == Keep::default() => {
                let jobs = (1..).zip(make()).map(|(number, work)| Ok(Planned::new(number, work, None, 0)));
                (Box::new(jobs), BadRecords::default())
            }
            Jobs::Made { make, .. } => {
                let mut json = Vec::new();
                let jobs = (1..).zip(make()).map(move |(number, work)| {
                    let place = || Place { file: "the default jobs".into(), line: number, column: None };
                    json.clear();
                    serde_json::to_writer(&mut json, &work).map_err(|error| without_json(&place(), &error))?;
                    let (input, content) = keep.of(&json, number).map_err(|error| without_json(&place(), &error))?;
                    Ok((
                        Planned::new(number, work, input, content).read_at(keep.now_us()),
                        Some(place()).filter(|_| keep.input),
                    ))
                });
                (left_of(jobs, done), BadRecords::default())
            }
            Jobs::Records { inputs, bind } => {
                let (reading, bind) = (inputs.open(), bind.clone());
                let bad = reading.bad_records();
                let jobs = reading.jobs(move |record: &Record| {
                    let mut json = Vec::new();
                    if keep != Keep::default() {
                        record.push_json(false, &mut json);
                    }
                    Ok((bind(record)?, json, Some(record.place().clone())))
                });
                let jobs = jobs.map(move |(number, job)| {
                    let (work, json, place) = job?;
                    let named =
                        || place.clone().unwrap_or_else(|| Place { file: "".into(), line: number, column: None });
                    let (input, content) = keep.of(&json, number).map_err(|error| without_json(&named(), &error))?;
                    Ok((Planned::new(number, work, input, content).read_at(keep.now_us()), place))
                });
                (left_of(jobs, done), bad)
            }
        }
    }
}

/// What is kept of each record beside its job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// The record as JSON.
    pub input: bool,
    /// The hash of the record.
    pub content: bool,
    /// The hash depends on the job's number, too.
    pub numbered: bool,
}

/// The record of a job, and its hash.
type Kept = (Option<Box<RawValue>>, u128);

impl Keep {
    /// Returns the time in µs since 1970, if an entry will describe the job; otherwise 0.
    pub(super) fn now_us(self) -> u64 {
        if self.input { micros_of(SystemTime::now()) } else { 0 }
    }

    /// Returns what is kept of a record with this JSON text.
    fn of(self, json: &[u8], number: u64) -> Result<Kept, Box<dyn std::error::Error>> {
        let content = if self.content { Key::content_of(json, self.numbered.then_some(number)) } else { 0 };
        let input = match self.input {
            true => Some(RawValue::from_string(std::str::from_utf8(json)?.to_owned())?),
            false => None,
        };
        Ok((input, content))
    }
}

/// Returns the jobs that have not succeeded by `done`.
fn left_of<W: 'static>(
    jobs: impl Iterator<Item = Result<(Planned<W>, Option<Place>), InputError>> + Send + 'static,
    done: Option<LastEntries>,
) -> PlannedJobs<W> {
    let Some(done) = done else { return Box::new(jobs.map(|job| job.map(|(planned, _)| planned))) };
    Box::new(jobs.filter_map(move |job| {
        let (planned, place) = match job {
            Ok(job) => job,
            Err(error) => return Some(Err(error)),
        };
        let number = planned.number;
        let is_another = planned.input.as_deref().is_some_and(|input| done.is_of_another(number, input));
        if let Some(place) = place.filter(|_| is_another) {
            return Some(Err(InputError::NotAsLogged { place, number }));
        }
        (!done.is_ok(number)).then_some(Ok(planned))
    }))
}

fn without_json(place: &Place, error: &dyn std::fmt::Display) -> InputError {
    InputError::Refused { place: place.clone(), message: format!("it has no JSON form: {error}") }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn items_of_a_pipe_come_when_they_are_there_and_then_the_end() {
        let (sender, lines) = mpsc::channel();
        let mut intake = Source::piped(lines.into_iter()).expect("there are threads");
        assert!(matches!(intake.next(), Pulled::Later));
        sender.send(7).expect("it is read");
        while !matches!(intake.next(), Pulled::Item(7)) {}
        assert!(matches!(intake.next(), Pulled::Later));
        drop(sender);
        let wake = intake.wake().expect("it is a pipe").clone();
        assert!(wake.recv().is_err(), "the end wakes, too");
        assert!(matches!(intake.next(), Pulled::End));
    }

    #[test]
    fn a_system_without_threads_is_an_error_in_words() {
        let none_left = |_: Box<dyn FnOnce() + Send>| Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let error = Source::read_by(0..3, none_left).err().expect("there is no thread").to_string();
        assert!(error.starts_with("cannot start the thread that reads the inputs: Resource temporarily"), "{error}");
        assert!(error.contains("ulimit -u") && !error.contains("os error"), "{error}");
    }
}
