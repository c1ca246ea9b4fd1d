//! The jobs of a run as an iterator that a map can pull from, in constant memory.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TrySendError, bounded};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::input::{BadRecords, InputError, Inputs, Record};
use crate::notice::{Listener, Notice};

/// The moment at which a signal asked for the end of the run.
#[derive(Debug, Default)]
pub(super) struct Stopping(OnceLock<Instant>);

impl Stopping {
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

impl Listener for &Stopping {
    fn notice(&mut self, notice: Notice<'_>) {
        if matches!(notice, Notice::Stopping) {
            self.0.get_or_init(Instant::now);
        }
    }
}

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
}

impl<'a> Control<'a> {
    pub(super) fn new(stopping: &'a Stopping) -> Self {
        Control {
            stopping,
            enough: Cell::new(false),
            cut: Cell::new(false),
            fault: RefCell::new(None),
            bad: RefCell::default(),
        }
    }
}

/// Where jobs come from, and how many they are if that is known.
pub(super) struct Jobs<T> {
    items: Items<T>,
    total: Option<u64>,
    bad: BadRecords,
}

enum Items<T> {
    Made(Box<dyn Iterator<Item = T>>),
    Read(Box<dyn Iterator<Item = Result<T, InputError>>>),
    Piped(Piped<T>),
}

impl<T: Send + 'static> Jobs<T> {
    /// So many jobs that need no input.
    pub(super) fn made(jobs: impl Iterator<Item = T> + 'static, total: u64) -> Self {
        Jobs { items: Items::Made(Box::new(jobs)), total: Some(total), bad: BadRecords::default() }
    }

    /// The records of a run. Files are read once now, so that nothing starts if something in them is wrong, and again, a
    /// little at a time, while the jobs run.
    pub(super) fn read(inputs: &Inputs, parse: fn(&Record) -> Result<T, InputError>) -> Result<Self, InputError> {
        let total = inputs.check(parse)?;
        let reading = inputs.open();
        let bad = reading.bad_records();
        let jobs = reading.jobs(parse).map(|(_, job)| job);
        let items = if inputs.is_stream() { Items::Piped(Piped::start(jobs)) } else { Items::Read(Box::new(jobs)) };
        Ok(Jobs { items, total, bad })
    }

    /// What a map pulls from.
    pub(super) fn feed<'c>(self, control: &'c Control<'c>) -> Feed<'c, T> {
        control.bad.replace(self.bad);
        Feed { items: self.items, left: self.total, control }
    }
}

/// The inputs of a map. It ends early at a bad record, which is left in [`Control::fault`], and when there is enough.
pub(super) struct Feed<'c, T> {
    items: Items<T>,
    left: Option<u64>,
    control: &'c Control<'c>,
}

impl<T> Iterator for Feed<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.control.enough.get() {
            return None;
        }
        let item = match &mut self.items {
            Items::Made(items) => items.next().map(Ok),
            Items::Read(items) => items.next(),
            Items::Piped(items) => items.next(self.control),
        };
        match item {
            Some(Ok(item)) => {
                self.left = self.left.map(|left| left.saturating_sub(1));
                Some(item)
            }
            Some(Err(fault)) => {
                self.control.enough.set(true);
                self.control.fault.replace(Some(fault));
                None
            }
            None => {
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

/// Records of standard input or of a pipe. They are read on a thread of their own, because nothing else could be done while
/// this one waits for the next line: not even end.
struct Piped<T> {
    batches: Receiver<Vec<Result<T, InputError>>>,
    batch: std::vec::IntoIter<Result<T, InputError>>,
}

/// How long the driver waits for a line before it looks whether the run is to end.
const LOOK_UP: Duration = Duration::from_millis(100);
/// The most records that are read ahead in one go.
const BATCH: usize = 1024;

impl<T: Send + 'static> Piped<T> {
    fn start(jobs: impl Iterator<Item = Result<T, InputError>> + Send + 'static) -> Self {
        let (sender, batches) = bounded(1);
        thread::spawn(move || {
            // While the driver is busy the batch grows; a driver that waits gets every line at once.
            let mut batch = Vec::new();
            for job in jobs {
                batch.push(job);
                match sender.try_send(std::mem::take(&mut batch)) {
                    Ok(()) => {}
                    Err(TrySendError::Full(unsent)) if unsent.len() < BATCH => batch = unsent,
                    Err(TrySendError::Full(unsent)) => {
                        if sender.send(unsent).is_err() {
                            return;
                        }
                    }
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            let _ = sender.send(batch);
        });
        Piped { batches, batch: Vec::new().into_iter() }
    }
}

impl<T> Piped<T> {
    fn next(&mut self, control: &Control<'_>) -> Option<Result<T, InputError>> {
        loop {
            if let Some(job) = self.batch.next() {
                return Some(job);
            }
            match self.batches.recv_timeout(LOOK_UP) {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(RecvTimeoutError::Timeout) if control.stopping.since().is_none() => {}
                Err(RecvTimeoutError::Timeout) => {
                    control.cut.set(true);
                    return None;
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Endless vectors of five numbers, evenly distributed from 0 to 1, that depend on the seed alone.
pub(super) fn random_vectors(seed: u64) -> impl Iterator<Item = Vec<f64>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    std::iter::repeat_with(move || (0..5).map(|_| generator.random()).collect())
}
