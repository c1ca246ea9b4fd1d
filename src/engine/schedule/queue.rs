//! The queued jobs of one map, as ranges in the order in which they will be assigned.
//!
//! Decides nothing: it keeps the order and finds a job by its index. A million jobs submitted together are one range,
//! and cancelling one of them splits it, all in logarithmic time.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::event::RankId;

/// The number of ranges that [`Queue::first_suitable`] looks at.
const SEARCH_DEPTH: usize = 256;

/// Consecutive jobs with the same history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) count: u64,
    /// The number of times each of them ran and failed.
    pub(super) failures: u32,
    /// The number of times each of them was lost with its rank.
    pub(super) losses: u32,
    /// The number of times each of them was given back by its rank.
    pub(super) recalls: u32,
    /// Whether they were recalled because nothing happened: one of them may be the job that takes so long.
    pub(super) split: bool,
    /// They are assigned to another rank than this one if there is one.
    pub(super) avoid: Option<RankId>,
}

impl Range {
    /// Returns the number of times each of these jobs was started, as far as is known.
    pub(super) fn runs(&self) -> u32 {
        self.failures.saturating_add(self.losses)
    }

    /// Returns the index after the last job.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// Disjoint ranges in the order of assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Queue {
    /// Keyed by the position in the queue, then by the end of the range, which stays when jobs are taken from its start. So the two
    /// halves of a split range keep its position.
    ranges: BTreeMap<(i64, u64), Range>,
    /// The position of each range, by its end.
    positions: BTreeMap<u64, i64>,
    len: u64,
    /// The number of ranges whose jobs were given back by a rank.
    given_back: usize,
}

impl Queue {
    /// Returns the number of queued jobs.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the range that is assigned next.
    pub(super) fn front(&self) -> Option<Range> {
        self.ranges.values().next().copied()
    }

    /// Returns the first range that `suits` accepts, among the first `SEARCH_DEPTH` ranges.
    pub(super) fn first_suitable(&self, suits: impl Fn(&Range) -> bool) -> Option<Range> {
        self.ranges.values().take(SEARCH_DEPTH).find(|range| suits(range)).copied()
    }

    /// Returns whether some jobs were given back by a rank.
    pub(super) fn has_given_back(&self) -> bool {
        self.given_back > 0
    }

    /// Adds jobs at the end. New jobs that continue the last range are added to it, so that jobs submitted one by one are
    /// assigned in chunks, too.
    pub(super) fn push_back(&mut self, range: Range) {
        let Some(last) = self.ranges.last_entry() else { return self.insert(0, range) };
        let position = last.key().0;
        let new = |range: &Range| range.runs() == 0 && range.recalls == 0;
        let last = *last.get();
        if new(&last) && new(&range) && last.avoid == range.avoid && last.end() == range.first {
            self.remove(position, last.end());
            self.insert(position, Range { count: last.count + range.count, ..last });
        } else {
            self.insert(position.saturating_add(1), range);
        }
    }

    /// Adds jobs at the front, to the first range if they precede it and have the same history.
    pub(super) fn push_front(&mut self, range: Range) {
        if let Some(front) = self.front().filter(|front| range.losses > 0 && range.end() == front.first) {
            let joined = Range { count: range.count + front.count, ..range };
            if joined == (Range { first: range.first, count: joined.count, ..front }) {
                let position = self.ranges.first_key_value().map_or(0, |(key, _)| key.0);
                self.remove(position, front.end());
                self.insert(position, joined);
                return;
            }
        }
        let position = self.ranges.first_key_value().map_or(0, |(key, _)| key.0.saturating_sub(1));
        self.insert(position, range);
    }

    /// Removes and returns up to `count` jobs from the start of a queued range.
    pub(super) fn take_some(&mut self, range: &Range, count: u64) -> Option<Range> {
        let end = range.end();
        let position = *self.positions.get(&end)?;
        let range = self.ranges.get_mut(&(position, end))?;
        let taken = Range { count: count.clamp(1, range.count), ..*range };
        if taken.count == range.count {
            self.remove(position, end);
        } else {
            range.first += taken.count;
            range.count -= taken.count;
            self.len -= taken.count;
        }
        Some(taken)
    }

    /// Removes and returns one job.
    pub(super) fn take(&mut self, job: u64) -> Option<Range> {
        let (&end, &position) = self.positions.range((Bound::Excluded(job), Bound::Unbounded)).next()?;
        let range = *self.ranges.get(&(position, end))?;
        if job < range.first {
            return None;
        }
        self.remove(position, end);
        self.insert(position, Range { count: job - range.first, ..range });
        self.insert(position, Range { first: job + 1, count: range.end() - job - 1, ..range });
        Some(Range { first: job, count: 1, ..range })
    }

    /// Returns the ranges in the order of assignment.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.values()
    }

    fn insert(&mut self, position: i64, range: Range) {
        if range.count > 0 {
            self.len += range.count;
            self.given_back += usize::from(range.recalls > 0);
            self.ranges.insert((position, range.end()), range);
            self.positions.insert(range.end(), position);
        }
    }

    fn remove(&mut self, position: i64, end: u64) {
        self.positions.remove(&end);
        if let Some(range) = self.ranges.remove(&(position, end)) {
            self.len -= range.count;
            self.given_back -= usize::from(range.recalls > 0);
        }
    }

    /// Asserts the invariants of the fields.
    pub(super) fn check(&self) {
        assert_eq!(self.len, self.ranges.values().map(|range| range.count).sum::<u64>(), "queue length");
        assert_eq!(self.ranges.len(), self.positions.len(), "every range has a position");
        let given_back = self.ranges.values().filter(|range| range.recalls > 0).count();
        assert_eq!(self.given_back, given_back, "ranges that were given back");
        for ((position, end), range) in &self.ranges {
            assert!(range.count > 0 && range.end() == *end, "range {range:?} at {end}");
            assert_eq!(self.positions.get(end), Some(position), "position of {range:?}");
        }
    }
}
