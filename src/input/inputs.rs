//! The records of a run: their sources, and the range that is used.

use std::sync::Arc;
use std::vec;

use super::bad::BadRecords;
use super::error::{InputError, Place};
use super::format::Layout;
use super::made::range::Range;
use super::made::sweep::Sweep;
use super::record::Record;
use super::seen::Seen;
use super::source::{Records, Source};

/// Most computed records that are checked before a run starts.
const CHECKED: u64 = 100_000;

/// The records of a run: files one after the other, or computed values.
///
/// Every record has a number: its place in all of them, from 1. Bad records count, and so do those that are skipped.
#[derive(Clone, Debug)]
pub struct Inputs {
    origin: Origin,
    skip: u64,
    take: Option<u64>,
    skip_bad: bool,
}

#[derive(Clone, Debug)]
enum Origin {
    Files { files: Vec<InputFile>, layout: Layout },
    Made(Made),
}

/// A source and the contents that earlier readings found.
#[derive(Clone, Debug)]
struct InputFile {
    source: Source,
    seen: Seen,
}

/// Records that are computed from their index.
#[derive(Clone, Debug)]
enum Made {
    Words(Arc<[String]>),
    Range(Range),
    Sweep(Arc<Sweep>),
}

impl Inputs {
    /// The records of these files, one after the other.
    pub fn files(sources: Vec<Source>, layout: Layout) -> Inputs {
        let file = |source| InputFile { source, seen: Seen::default() };
        Inputs::new(Origin::Files { files: sources.into_iter().map(file).collect(), layout })
    }

    /// A record for each word.
    pub fn words(words: Vec<String>) -> Inputs {
        Inputs::new(Origin::Made(Made::Words(words.into())))
    }

    /// A record for each number.
    pub fn range(range: Range) -> Inputs {
        Inputs::new(Origin::Made(Made::Range(range)))
    }

    /// The rows of a sweep; the names are its columns.
    pub fn sweep(sweep: Sweep) -> Inputs {
        Inputs::new(Origin::Made(Made::Sweep(Arc::new(sweep))))
    }

    fn new(origin: Origin) -> Inputs {
        Inputs { origin, skip: 0, take: None, skip_bad: false }
    }

    /// Leaves out the first `skip` records, good or bad.
    pub fn skip(self, skip: u64) -> Inputs {
        Inputs { skip, ..self }
    }

    /// Keeps the first `take` of the records that are not skipped, good or bad. The records behind them are not read.
    pub fn take(self, take: u64) -> Inputs {
        Inputs { take: Some(take), ..self }
    }

    /// Sets whether bad records are left out and counted instead of being errors.
    pub fn skip_bad(self, skip_bad: bool) -> Inputs {
        Inputs { skip_bad, ..self }
    }

    /// Whether this is one of the sources.
    pub fn reads(&self, source: &Source) -> bool {
        self.sources().any(|own| own == source)
    }

    /// Returns the sources: files and standard input.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        let files = match &self.origin {
            Origin::Files { files, .. } => files.as_slice(),
            Origin::Made(_) => &[],
        };
        files.iter().map(|file| &file.source)
    }

    /// Whether they can be read only once, because standard input or a FIFO is among them.
    pub fn is_stream(&self) -> bool {
        self.sources().any(Source::is_stream)
    }

    /// Returns the records from the beginning. Each file is opened when its turn comes. A regular file that was read before, by
    /// [`Inputs::check`] or another reading, must not have changed.
    pub fn open(&self) -> Reading {
        let items = match &self.origin {
            Origin::Files { files, layout } => {
                Items::Files { files: files.clone().into_iter(), layout: *layout, records: None }
            }
            Origin::Made(made) => Items::Made(made.clone()),
        };
        let last = self.take.map_or(u64::MAX, |take| self.skip.saturating_add(take));
        let number = match &self.origin {
            // Skipped records need not be computed.
            Origin::Made(made) => self.skip.min(made.count()),
            Origin::Files { .. } => 0,
        };
        Reading { items, number, skip: self.skip, last, skip_bad: self.skip_bad, bad: BadRecords::default() }
    }

    /// Reads the files once, so that a bad record is reported before any job starts, and returns how many records `parse`
    /// accepts. Returns `None` if a source can be read only once, so that the number is unknown; such sources are not read.
    ///
    /// # Errors
    /// The first error in opening, reading, or a record that `parse` refuses.
    pub fn check<T>(&self, mut parse: impl FnMut(&Record) -> Result<T, InputError>) -> Result<Option<u64>, InputError> {
        let (files, layout) = match &self.origin {
            Origin::Files { files, layout } => (files, *layout),
            Origin::Made(made) => return self.check_made(made, parse),
        };
        files.iter().for_each(|file| file.seen.forget());
        let stream = files.iter().position(|file| file.source.is_stream());
        let (known, behind) = files.split_at(stream.unwrap_or(files.len()));
        let mut count = |files: Vec<InputFile>| {
            let inputs = Inputs { origin: Origin::Files { files, layout }, ..self.clone() };
            inputs.open().jobs(&mut parse).try_fold(0_u64, |count, (_, job)| job.map(|_| count + 1))
        };
        let jobs = count(known.to_vec())?;
        if behind.is_empty() {
            return Ok(Some(jobs));
        }
        // With skip or take, the records that are used behind a stream depend on how many the stream has.
        if self.skip == 0 && self.take.is_none() {
            count(behind.iter().filter(|file| !file.source.is_stream()).cloned().collect())?;
        }
        Ok(None)
    }

    fn check_made<T>(
        &self,
        made: &Made,
        parse: impl FnMut(&Record) -> Result<T, InputError>,
    ) -> Result<Option<u64>, InputError> {
        let count = made.count().saturating_sub(self.skip).min(self.take.unwrap_or(u64::MAX));
        let checked = count.min(CHECKED);
        let good =
            self.clone().take(checked).open().jobs(parse).try_fold(0_u64, |count, (_, job)| job.map(|_| count + 1))?;
        // If all checked records are good, the others are taken to be good, too.
        Ok(if good == checked {
            Some(count)
        } else if checked == count {
            Some(good)
        } else {
            None
        })
    }
}

impl From<Source> for Inputs {
    fn from(source: Source) -> Inputs {
        Inputs::files(vec![source], Layout::default())
    }
}

impl Made {
    fn count(&self) -> u64 {
        match self {
            Made::Words(words) => words.len() as u64,
            Made::Range(range) => range.count(),
            Made::Sweep(sweep) => sweep.count(),
        }
    }

    fn record(&self, index: u64) -> Option<Record> {
        let line = |file: &str, text: &str| {
            let place = Place { file: file.into(), line: index + 1, column: None };
            Record::from_line(place, text.into())
        };
        match self {
            Made::Words(words) => words.get(usize::try_from(index).ok()?).map(|word| line("--args", word)),
            Made::Range(range) => range.get(index).map(|number| line("--range", &number)),
            Made::Sweep(sweep) => (index < sweep.count()).then(|| sweep.record(index)),
        }
    }
}

/// Records with their numbers, read as they are asked for.
///
/// A bad record is an `Err` in its place, and the next record follows; with [`Inputs::skip_bad`] it is left out and counted.
/// After a fault of a source (see [`InputError::is_bad_record`]) the iterator ends.
pub struct Reading {
    items: Items,
    /// The number of the record that was read last.
    number: u64,
    skip: u64,
    last: u64,
    skip_bad: bool,
    bad: BadRecords,
}

enum Items {
    Files { files: vec::IntoIter<InputFile>, layout: Layout, records: Option<Box<Records>> },
    Made(Made),
    Ended,
}

impl Reading {
    /// Returns the records that are left out, now and later.
    pub fn bad_records(&self) -> BadRecords {
        self.bad.clone()
    }

    /// Returns the jobs: each record as `parse` reads it. A record that it refuses is a bad record.
    pub fn jobs<T>(
        self,
        mut parse: impl FnMut(&Record) -> Result<T, InputError>,
    ) -> impl Iterator<Item = (u64, Result<T, InputError>)> {
        let (bad, skip_bad) = (self.bad.clone(), self.skip_bad);
        self.filter_map(move |(number, record)| match record.and_then(|record| parse(&record)) {
            Err(error) if skip_bad && error.is_bad_record() => {
                bad.add(&error);
                None
            }
            job => Some((number, job)),
        })
    }

    fn next_item(&mut self) -> Option<Result<Record, InputError>> {
        match &mut self.items {
            Items::Ended => None,
            Items::Made(made) => made.record(self.number).map(Ok),
            Items::Files { files, layout, records } => loop {
                if let Some(record) = records.as_mut().and_then(|records| records.next()) {
                    return Some(record);
                }
                let file = files.next()?;
                match file.source.open(*layout, &file.seen) {
                    Ok(opened) => *records = Some(Box::new(opened)),
                    Err(error) => return Some(Err(error)),
                }
            },
        }
    }
}

impl Iterator for Reading {
    type Item = (u64, Result<Record, InputError>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.number < self.last {
            let item = self.next_item()?;
            self.number += 1;
            match item {
                Err(error) if !error.is_bad_record() => {
                    self.items = Items::Ended;
                    return Some((self.number, Err(error)));
                }
                _ if self.number <= self.skip => {}
                Err(error) if self.skip_bad => self.bad.add(&error),
                item => return Some((self.number, item)),
            }
        }
        None
    }
}
