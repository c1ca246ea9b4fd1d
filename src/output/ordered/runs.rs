//! Outputs of jobs with consecutive places that are taken together, so that a job among them costs no memory of its own.

use super::{Entry, Order, Ordered};
use crate::output::OutputError;

impl Ordered {
    /// Marks `count` outputs with consecutive places, from `first` on, as handed on, if it is their turn; false if it is not, and
    /// then nothing changes.
    pub fn pass_run(&mut self, first: u64, count: u64) -> bool {
        if !self.large.is_empty() {
            return false;
        }
        match self.order {
            Order::Settled => self.settled.is_empty(),
            Order::Places if first != self.head => false,
            Order::Places => {
                self.pass(count);
                true
            }
        }
    }

    /// The turn of the next `count` places, which are open or those of a run, is over.
    fn pass(&mut self, count: u64) {
        let known = self.waiting.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.waiting.drain(..known);
        self.head += count;
    }

    /// Takes the outputs of `count` jobs with consecutive places, from `first` on, one behind the other. They wait for their turn
    /// together.
    ///
    /// # Errors
    /// If the temporary file cannot be written: the outputs are kept in memory then.
    pub fn settle_run(&mut self, first: u64, count: u64, out: Vec<u8>) -> Result<(), OutputError> {
        if self.order == Order::Settled {
            return self.settle(first, out, &[], &[]);
        }
        if !self.is_open(first) {
            return Ok(());
        }
        let (entry, kept) = self.keep(first, out, &[], &[]);
        self.kept += 1;
        self.runs.insert(first, (count, entry));
        kept
    }

    /// One more than the last place that is known to be settled, if one is.
    pub(super) fn end(&self) -> u64 {
        let run = self.runs.last_key_value().map_or(0, |(first, (count, _))| first + count);
        run.max(self.head + self.waiting.len() as u64)
    }

    /// The number of places from the one whose turn it is to the last one that is known.
    pub fn waiting_places(&self) -> u64 {
        self.end() - self.head
    }

    pub(super) fn is_in_run(&self, place: u64) -> bool {
        let run = self.runs.range(..=place).next_back();
        run.is_some_and(|(first, (count, _))| place - first < *count)
    }

    /// The run whose turn it is.
    pub(super) fn next_run(&mut self) -> Option<(u64, Entry)> {
        let run = self.runs.first_entry().filter(|run| *run.key() == self.head)?;
        let (first, (count, entry)) = run.remove_entry();
        self.kept -= 1;
        self.pass(count);
        Some((first, entry))
    }

    /// Turns the runs into outputs of their first places.
    pub(super) fn part_runs(&mut self) {
        for (first, (count, entry)) in std::mem::take(&mut self.runs) {
            self.kept -= 1;
            self.put(first, entry);
            (first + 1..first + count).for_each(|place| self.put(place, Entry::Empty));
        }
    }
}
