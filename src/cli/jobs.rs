//! The jobs of a run as an iterator that a map can pull from, in constant memory.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::batch::{Intake, Next, Stopping};
use crate::input::{BadRecords, InputError, Inputs, Record};
use crate::pool::Pause;

/// What the reader of results and the [`Feed`] have to tell each other.
pub(super) struct Control<'a> {
    pub stopping: &'a Stopping,
    /// No more jobs are wanted.
    pub enough: Cell<bool>,
    /// The jobs were cut off by a signal: there may have been more.
    pub cut: Cell<bool>,
    /// The bad record at which the jobs ended.
    pub fault: RefCell<Option<InputError>>,
    /// The bad records that were left out.
    pub bad: RefCell<BadRecords>,
    numbers: RefCell<Numbers>,
}

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

impl<'a> Control<'a> {
    pub(super) fn new(stopping: &'a Stopping) -> Self {
        Control {
            stopping,
            enough: Cell::new(false),
            cut: Cell::new(false),
            fault: RefCell::new(None),
            bad: RefCell::default(),
            numbers: RefCell::default(),
        }
    }

    /// The number of the record that a job of the map is.
    pub(super) fn number(&self, job: u64) -> u64 {
        self.numbers.borrow().get(job)
    }
}

/// A job with the number of its record.
type Numbered<T> = (u64, Result<T, InputError>);

/// Where jobs come from, and how many they are if that is known.
pub(super) struct Jobs<T> {
    intake: Intake<Numbered<T>>,
    total: Option<u64>,
    bad: BadRecords,
}

impl<T: Send + 'static> Jobs<T> {
    /// So many jobs that need no input.
    pub(super) fn made(jobs: impl Iterator<Item = T> + Send + 'static, total: u64) -> Self {
        Jobs { intake: Intake::ready((1..).zip(jobs.map(Ok))), total: Some(total), bad: BadRecords::default() }
    }

    /// The records of a run. Files are read once now, so that nothing starts if something in them is wrong, and again, a
    /// little at a time, while the jobs run.
    pub(super) fn read(inputs: &Inputs, parse: fn(&Record) -> Result<T, InputError>) -> Result<Self, InputError> {
        let total = inputs.check(parse)?;
        let reading = inputs.open();
        let bad = reading.bad_records();
        let jobs = reading.jobs(parse);
        let intake = if inputs.is_stream() { Intake::piped(jobs) } else { Intake::ready(jobs) };
        Ok(Jobs { intake, total, bad })
    }

    /// What a map pulls from.
    pub(super) fn feed<'c>(self, control: &'c Control<'c>) -> Feed<'c, T> {
        control.bad.replace(self.bad);
        Feed { intake: self.intake, left: self.total, control }
    }
}

/// The inputs of a map. It ends early at a bad record, which is left in [`Control::fault`], and when there is enough.
pub(super) struct Feed<'c, T> {
    intake: Intake<Numbered<T>>,
    left: Option<u64>,
    control: &'c Control<'c>,
}

impl<T> Iterator for Feed<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.control.enough.get() {
            return None;
        }
        match self.intake.next() {
            Next::Item((number, Ok(item))) => {
                self.control.numbers.borrow_mut().push(number);
                self.left = self.left.map(|left| left.saturating_sub(1));
                Some(item)
            }
            Next::Item((_, Err(fault))) => {
                self.control.enough.set(true);
                self.control.fault.replace(Some(fault));
                None
            }
            // The driver waits for results meanwhile.
            Next::Later if self.control.stopping.since().is_none() => {
                self.intake.paused().store(true, Ordering::Relaxed);
                None
            }
            Next::Later => {
                self.control.enough.set(true);
                self.control.cut.set(true);
                None
            }
            Next::End => {
                self.control.enough.set(true);
                None
            }
        }
    }

    /// Exact where the number of jobs is known: it is what progress is measured against.
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.left.map(usize::try_from) {
            Some(Ok(left)) => (left, Some(left)),
            _ => (0, None),
        }
    }
}

impl<T> Feed<'_, T> {
    /// How the map learns that there is nothing at the moment.
    pub(super) fn pause(&self) -> Pause {
        self.intake.pause()
    }
}

/// Endless vectors of five numbers, evenly distributed from 0 to 1, that depend on the seed alone.
pub(super) fn random_vectors(seed: u64) -> impl Iterator<Item = Vec<f64>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || (0..5).map(|_| generator.random()).collect())
}
