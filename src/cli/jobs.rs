//! The jobs of a run, read one at a time, in constant memory.

use std::error::Error;

use crossbeam_channel::Receiver;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::batch::{Intake, Stopping};
use crate::input::{BadRecords, InputError, Inputs, Record};
use crate::pool::Next;

/// Which records the jobs of a map are: for each run of jobs whose records follow each other, the first job's index and its
/// record's number. There is one, and one more for each place where records were left out.
#[derive(Default)]
struct Numbers {
    runs: Vec<(u64, u64)>,
    /// Jobs so far.
    count: u64,
}

impl Numbers {
    /// The next job is this record.
    fn push(&mut self, number: u64) {
        let follows = self.runs.last().is_some_and(|(index, first)| number - first == self.count - index);
        if !follows {
            self.runs.push((self.count, number));
        }
        self.count += 1;
    }

    fn get(&self, index: u64) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1);
        run.map_or(index + 1, |run| self.runs[run].1 + (index - self.runs[run].0))
    }
}

/// A job with the number of its record.
type Numbered<T> = (u64, Result<T, InputError>);

/// The inputs of a map. They end early at a bad record, and when there are enough.
pub(super) struct Jobs<T> {
    intake: Intake<Numbered<T>>,
    /// How many there are, if that is known.
    pub total: Option<u64>,
    numbers: Numbers,
    /// No more jobs are wanted.
    enough: bool,
    /// The jobs were cut off by a signal: there may have been more.
    cut: bool,
    /// The bad record at which the jobs ended.
    fault: Option<InputError>,
    bad: BadRecords,
}

impl<T: Send + 'static> Jobs<T> {
    /// So many jobs that need no input.
    pub(super) fn made(jobs: impl Iterator<Item = T> + Send + 'static, total: u64) -> Self {
        Jobs::new(Intake::ready((1..).zip(jobs.map(Ok))), Some(total), BadRecords::default())
    }

    fn new(intake: Intake<Numbered<T>>, total: Option<u64>, bad: BadRecords) -> Self {
        Jobs { intake, total, numbers: Numbers::default(), enough: false, cut: false, fault: None, bad }
    }

    /// The records of a run. Files are read once now, so that nothing starts if something in them is wrong, and again, a
    /// little at a time, while the jobs run.
    pub(super) fn read(inputs: &Inputs, parse: fn(&Record) -> Result<T, InputError>) -> Result<Self, Box<dyn Error>> {
        let total = inputs.check(parse)?;
        let reading = inputs.open();
        let bad = reading.bad_records();
        let jobs = reading.jobs(parse);
        let intake = if inputs.is_stream() { Intake::piped(jobs)? } else { Intake::ready(jobs) };
        Ok(Jobs::new(intake, total, bad))
    }
}

impl<T> Jobs<T> {
    /// The number of the record that a job of the map is.
    pub(super) fn number(&self, job: u64) -> u64 {
        self.numbers.get(job)
    }

    /// No more jobs are wanted.
    pub(super) fn close(&mut self) {
        self.enough = true;
    }

    /// Whether a signal has cut the jobs off.
    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }

    /// The bad record at which the jobs ended.
    pub(super) fn take_fault(&mut self) -> Option<InputError> {
        self.fault.take()
    }

    /// The bad records that were left out.
    pub(super) fn bad_records(&self) -> &BadRecords {
        &self.bad
    }

    /// What has something when it is worth asking again after [`Next::Later`].
    pub(super) fn wake(&self) -> Option<&Receiver<Numbered<T>>> {
        self.intake.wake()
    }

    /// The next job, without waiting for it.
    pub(super) fn next(&mut self, stopping: &Stopping) -> Next<T> {
        if self.enough {
            return Next::End;
        }
        match self.intake.next() {
            Next::Item((number, Ok(item))) => {
                self.numbers.push(number);
                return Next::Item(item);
            }
            Next::Item((_, Err(fault))) => self.fault = Some(fault),
            Next::Later if stopping.since().is_none() => return Next::Later,
            Next::Later => self.cut = true,
            Next::End => {}
        }
        self.enough = true;
        Next::End
    }
}

/// Endless vectors of five numbers, evenly distributed from 0 to 1, that depend on the seed alone.
pub(super) fn random_vectors(seed: u64) -> impl Iterator<Item = Vec<f64>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || (0..5).map(|_| generator.random()).collect())
}
