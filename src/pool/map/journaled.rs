//! A map with a journal: results are written to it as they come, and inputs whose results are in it are not computed again.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::path::Path;
use std::time::{Duration, Instant};

use super::record::Record;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::Value;
use crate::engine::wire;
use crate::journal::{Journal, JournalOptions, Key, Place, Settled, Spec, Status};
use crate::output::OutputError;
use crate::pool::Input;
use crate::pool::pacer::Next;
use crate::pool::stream::Event;

/// The most results of an earlier run that wait to be yielded.
const RESTORED_MAX: usize = 4096;
/// Results are passed to the system at least this often, while results come.
const FLUSH_PERIOD: Duration = Duration::from_millis(100);

/// The journal of a map.
pub(super) struct JournaledMap<O> {
    journal: Option<Journal>,
    /// The keys of the jobs that have no result yet, from job `first` on.
    keys: VecDeque<Option<Key>>,
    first: u64,
    /// Results of an earlier run, each with the number of jobs that come before it, and the index of its input.
    restored: VecDeque<(u64, u64, Place)>,
    /// The number of inputs that were pulled.
    inputs: u64,
    /// For each run of jobs whose inputs follow each other: its first job, and the index of that job's input.
    runs: Vec<(u64, u64)>,
    encoded: Vec<u8>,
    flushed: Instant,
    failure: Option<Failure>,
    output: PhantomData<fn() -> O>,
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(JobErrorKind::Refused, error.to_string())
}

impl<O: Value> JournaledMap<O> {
    /// Continues the journal at `path`, or starts one. `spec` is what all jobs have in common.
    ///
    /// # Errors
    /// If it cannot be used, see [`Journal::open`].
    pub(super) fn open(path: &Path, spec: &Spec) -> Result<Self, Failure> {
        let journal = Journal::open(&JournalOptions::new(path), spec, None).map_err(failure)?;
        journal.messages().iter().for_each(crate::console::eprint_error);
        Ok(JournaledMap {
            journal: Some(journal),
            keys: VecDeque::new(),
            first: 0,
            restored: VecDeque::new(),
            inputs: 0,
            runs: Vec::new(),
            encoded: Vec::new(),
            flushed: Instant::now(),
            failure: None,
            output: PhantomData,
        })
    }

    /// Looks for the result of an input, which is in `encoded`. Returns its key and, if there is one, its place.
    fn find(&mut self) -> Result<Option<(Key, Option<Place>)>, OutputError> {
        let Some(journal) = &mut self.journal else { return Ok(None) };
        let (key, place) = journal.find(Key::content_of(&self.encoded, None));
        let place = match place {
            // Only what can be read now is not computed.
            Some(place) => journal.read(place, self.inputs)?.map(|_| place),
            None => None,
        };
        Ok(Some((key, place)))
    }

    fn settle(&mut self, job: u64, result: Option<&[u8]>) -> Result<(), OutputError> {
        let at = job.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let key = at.and_then(|at| self.keys.get_mut(at)).and_then(Option::take);
        let number = self.input_number(job) + 1;
        while let Some(None) = self.keys.front() {
            self.keys.pop_front();
            self.first += 1;
        }
        match (&mut self.journal, key, result) {
            (Some(journal), Some(key), Some(out)) => {
                journal.settle(Settled { out, ..Settled::new(key, Status::Ok, number) }, Vec::new())
            }
            // A job that has failed is run again by the next run.
            _ => Ok(()),
        }
    }

    fn input_number(&self, job: u64) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first <= job).checked_sub(1);
        run.map_or(job, |run| self.runs[run].1 + (job - self.runs[run].0))
    }

    fn flush_if_due(&mut self) -> Result<(), OutputError> {
        if self.flushed.elapsed() < FLUSH_PERIOD {
            return Ok(());
        }
        self.flushed = Instant::now();
        self.journal.as_mut().map_or(Ok(()), Journal::flush)
    }
}

impl<I: Input, O: Value> Record<I, O> for JournaledMap<O> {
    fn next(&mut self, pull: &mut dyn FnMut() -> Next<I>) -> Next<I> {
        while self.restored.len() < RESTORED_MAX && self.failure.is_none() {
            let input = match pull() {
                Next::Item(input) => input,
                none => return none,
            };
            self.encoded.clear();
            // An input that cannot be encoded fails later, in the stream.
            let _ = input.write(&mut self.encoded);
            let (job, index) = (self.first + self.keys.len() as u64, self.inputs);
            self.inputs += 1;
            match self.find() {
                Ok(Some((_, Some(place)))) => self.restored.push_back((job, index, place)),
                Ok(found) => {
                    if self.input_number(job) != index || self.runs.is_empty() {
                        self.runs.push((job, index));
                    }
                    self.keys.push_back(found.map(|(key, _)| key));
                    return Next::Item(input);
                }
                Err(error) => self.failure = Some(failure(error)),
            }
        }
        Next::Later
    }

    fn restored(&mut self, next: Option<u64>) -> Option<Result<O, JobError>> {
        let (_, index, place) =
            *self.restored.front().filter(|(before, ..)| next.is_none_or(|next| *before <= next))?;
        self.restored.pop_front();
        let unreadable = |message: String| JobError::new(index, JobErrorKind::Decode, message);
        Some(match self.journal.as_mut()?.read(place, index + 1) {
            Ok(Some(settled)) => {
                let read = wire::decode_value(settled.out);
                let name = std::any::type_name::<O>();
                read.map_err(|error| unreadable(format!("the result in the journal cannot be read as {name}: {error}")))
            }
            Ok(None) => Err(unreadable("the result in the journal is gone".into())),
            Err(error) => Err(unreadable(error.to_string())),
        })
    }

    fn take(&mut self, event: &Event<O>) -> Result<(), Failure> {
        match event {
            Event::Done(results) => {
                let mut results = results.again();
                while let Some((job, value)) = results.next_value() {
                    self.settle(job, value.ok().as_deref()).map_err(failure)?;
                }
            }
            Event::Failed(error) => self.settle(error.job, None).map_err(failure)?,
            Event::Unrun(unrun) => {
                for job in unrun.jobs() {
                    self.settle(job, None).map_err(failure)?;
                }
            }
            Event::Early(_) | Event::Started { .. } | Event::Part(_) | Event::Wake | Event::Idle | Event::Ended => {}
        }
        self.flush_if_due().map_err(failure)
    }

    fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    fn input_of(&self, job: u64) -> u64 {
        self.input_number(job)
    }

    fn complete(&mut self) -> Result<(), Failure> {
        let counts = vec![("jobs".to_string(), self.inputs.to_string())];
        self.journal.take().map_or(Ok(()), |journal| journal.complete(&counts)).map_err(failure)
    }
}

impl<O> Drop for JournaledMap<O> {
    /// Keeps the results of a map that is dropped early.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.journal.take().map(Journal::leave) {
            crate::console::eprint_error(error);
        }
    }
}
