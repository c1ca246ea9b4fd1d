//! The queued jobs of one map, as ranges in the order in which they will be dealt.
//!
//! Decides nothing: it keeps order and finds a job by its index. A million jobs submitted together are one range,
//! and cancelling one of them splits it, all in logarithmic time.

use std::collections::BTreeMap;

use super::event::RankId;

/// How many ranges are looked at for one that suits.
const LOOKED_AT: usize = 256;

/// Consecutive jobs with the same past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) count: u64,
    /// How often each of them ran and failed.
    pub(super) failures: u32,
    /// How often each of them was lost with the rank that had it.
    pub(super) losses: u32,
    /// How often each of them was given back by the rank that had it.
    pub(super) recalls: u32,
    /// They were asked for because nothing happened: one of them may be what takes so long.
    pub(super) parted: bool,
    /// They go to another rank than this one if there is one.
    pub(super) avoid: Option<RankId>,
}

impl Range {
    /// How often these jobs ran, as far as anybody knows.
    pub(super) fn runs(&self) -> u32 {
        self.failures.saturating_add(self.losses)
    }

    /// One past the last job.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// Disjoint ranges in dealing order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Queue {
    /// Keyed by place in the line, then by first job, so that the two halves of a split range keep its place.
    line: BTreeMap<(i64, u64), Range>,
    /// First job of each range, to its place.
    place: BTreeMap<u64, i64>,
    len: u64,
    /// Ranges that were given back by a rank.
    given_back: usize,
}

impl Queue {
    /// How many jobs are queued.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range that is dealt from next.
    pub(super) fn front(&self) -> Option<Range> {
        self.line.values().next().copied()
    }

    /// The first jobs that suit; those that are far behind others, which do not, are not looked for.
    pub(super) fn first_that(&self, suits: impl Fn(&Range) -> bool) -> Option<Range> {
        self.line.values().take(LOOKED_AT).find(|range| suits(range)).copied()
    }

    /// Whether some jobs were given back by a rank.
    pub(super) fn has_given_back(&self) -> bool {
        self.given_back > 0
    }

    /// Puts jobs last. Ranges that follow on from one another are one range, so that a stream of single submissions
    /// is dealt in chunks too.
    pub(super) fn push_back(&mut self, range: Range) {
        let last = self.line.last_entry();
        let place = last.as_ref().map_or(0, |entry| entry.key().0.saturating_add(1));
        if let Some(mut entry) = last {
            let last = entry.get_mut();
            let new = |range: &Range| range.runs() == 0 && range.recalls == 0;
            if new(last) && new(&range) && last.avoid == range.avoid && last.end() == range.first {
                last.count += range.count;
                self.len += range.count;
                return;
            }
        }
        self.insert(place, range);
    }

    /// Puts jobs first.
    pub(super) fn push_front(&mut self, range: Range) {
        let place = self.line.first_key_value().map_or(0, |(key, _)| key.0.saturating_sub(1));
        self.insert(place, range);
    }

    /// Takes up to `count` jobs from the front of the range that begins with this job.
    pub(super) fn take_some(&mut self, first: u64, count: u64) -> Option<Range> {
        let place = *self.place.get(&first)?;
        let range = *self.line.get(&(place, first))?;
        self.remove(place, first);
        let taken = Range { count: count.clamp(1, range.count), ..range };
        self.insert(place, Range { first: taken.end(), count: range.count - taken.count, ..range });
        Some(taken)
    }

    /// Takes one job out of the line.
    pub(super) fn take(&mut self, job: u64) -> Option<Range> {
        let (&first, &place) = self.place.range(..=job).next_back()?;
        let range = *self.line.get(&(place, first))?;
        if job >= range.end() {
            return None;
        }
        self.remove(place, first);
        self.insert(place, Range { count: job - first, ..range });
        self.insert(place, Range { first: job + 1, count: range.end() - job - 1, ..range });
        Some(Range { first: job, count: 1, ..range })
    }

    /// The ranges in dealing order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.line.values()
    }

    fn insert(&mut self, place: i64, range: Range) {
        if range.count > 0 {
            self.len += range.count;
            self.given_back += usize::from(range.recalls > 0);
            self.line.insert((place, range.first), range);
            self.place.insert(range.first, place);
        }
    }

    fn remove(&mut self, place: i64, first: u64) {
        self.place.remove(&first);
        if let Some(range) = self.line.remove(&(place, first)) {
            self.len -= range.count;
            self.given_back -= usize::from(range.recalls > 0);
        }
    }

    /// Asserts what must hold between the fields.
    pub(super) fn check(&self) {
        assert_eq!(self.len, self.line.values().map(|range| range.count).sum::<u64>(), "queue length");
        assert_eq!(self.line.len(), self.place.len(), "every range has a place");
        let given_back = self.line.values().filter(|range| range.recalls > 0).count();
        assert_eq!(self.given_back, given_back, "ranges that were given back");
        for ((place, first), range) in &self.line {
            assert!(range.count > 0 && range.first == *first, "range {range:?} at {first}");
            assert_eq!(self.place.get(first), Some(place), "place of {range:?}");
        }
    }
}
