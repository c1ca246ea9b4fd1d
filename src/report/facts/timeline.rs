//! What happened when: jobs that ended, jobs that failed, and jobs that ran, in a fixed number of equal parts of the time.

use std::sync::Arc;

/// The number of parts.
pub(crate) const PARTS: usize = 240;

/// The time that a report covers, in µs since 1970. Pauses between runs are left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u64,
    pub end: u64,
    /// The pauses, in order, each with the time of all pauses before it.
    pauses: Arc<[Pause]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pause {
    from: u64,
    to: u64,
    before: u64,
}

impl Range {
    pub(crate) fn new(start: u64, end: u64) -> Range {
        Range { start, end, pauses: Arc::new([]) }
    }

    /// Returns the same range without these pauses, which are in order and do not overlap.
    pub(crate) fn without(self, pauses: &[(u64, u64)]) -> Range {
        let mut before = 0;
        let pauses = pauses.iter().map(|(from, to)| {
            let pause = Pause { from: *from, to: *to, before };
            before += to.saturating_sub(*from);
            pause
        });
        Range { pauses: pauses.collect(), ..self }
    }

    /// Returns the number of pauses, and their time in s.
    pub(crate) fn pauses(&self) -> (usize, f64) {
        (self.pauses.len(), self.paused_before(u64::MAX) as f64 / 1e6)
    }

    /// Returns the time of all pauses before this moment.
    fn paused_before(&self, us: u64) -> u64 {
        let after = self.pauses.partition_point(|pause| pause.from < us);
        let last = after.checked_sub(1).and_then(|at| self.pauses.get(at));
        last.map_or(0, |pause| pause.before + us.min(pause.to).saturating_sub(pause.from))
    }

    pub(crate) fn us(&self) -> u64 {
        self.end.saturating_sub(self.start).saturating_sub(self.paused_before(self.end)).max(1)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.us() as f64 / 1e6
    }

    /// Returns the time from the start to a moment, in s; moments outside of the range are at its ends.
    pub(crate) fn since_start(&self, us: u64) -> f64 {
        let us = us.clamp(self.start, self.end.max(self.start));
        (us - self.start).saturating_sub(self.paused_before(us)) as f64 / 1e6
    }

    /// Returns where a moment is, in `parts` parts.
    pub(crate) fn place(&self, us: u64, parts: usize) -> f64 {
        self.since_start(us) / self.seconds() * parts as f64
    }
}

/// How much of a time something went on, in each of equal parts; adding a span costs the same however long it is.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    /// The sum over spans of the part of each cell that they cover, without the cells that they cover as a whole.
    edges: Vec<f64>,
    /// Where spans begin and end to cover cells as a whole.
    steps: Vec<i32>,
}

impl Activity {
    pub(crate) fn new(parts: usize) -> Activity {
        Activity { edges: vec![0.0; parts], steps: vec![0; parts + 1] }
    }

    /// Adds a span between two places, each from 0 to the number of parts.
    pub(crate) fn add(&mut self, from: f64, to: f64) {
        let last = self.edges.len() - 1;
        let (first, end) = ((from as usize).min(last), (to as usize).min(last));
        if first == end {
            self.edges[first] += (to - from).max(0.0);
            return;
        }
        self.edges[first] += first as f64 + 1.0 - from;
        self.edges[end] += to - end as f64;
        self.steps[first + 1] += 1;
        self.steps[end] -= 1;
    }

    /// Returns the mean number of spans in each part.
    pub(crate) fn means(&self) -> Vec<f64> {
        let mut whole = 0;
        let cells = self.edges.iter().zip(&self.steps).map(|(edge, step)| {
            whole += step;
            *edge + f64::from(whole)
        });
        cells.collect()
    }
}

/// The course of the jobs.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    pub range: Range,
    /// How many jobs ended in each part, and how many of them failed.
    pub ended: Vec<u64>,
    pub failed: Vec<u64>,
    running: Activity,
    /// Whether it is known when jobs ran.
    pub has_running: bool,
}

impl Timeline {
    pub(crate) fn new(range: Range) -> Timeline {
        Timeline {
            range,
            ended: vec![0; PARTS],
            failed: vec![0; PARTS],
            running: Activity::new(PARTS),
            has_running: false,
        }
    }

    /// Adds a job that ran for this time.
    pub(crate) fn add(&mut self, (start, end): (u64, u64), has_failed: bool) {
        let (from, to) = (self.range.place(start, PARTS), self.range.place(end, PARTS));
        self.running.add(from, to);
        self.has_running = true;
        self.end_at(to, 1, u64::from(has_failed));
    }

    /// Adds jobs of which it is only known that they ended in this time.
    pub(crate) fn add_ended(&mut self, (start, end): (u64, u64), jobs: u64, failed: u64) {
        let (from, to) = (self.range.place(start, PARTS), self.range.place(end, PARTS));
        // They are spread evenly over this time; none is lost by rounding.
        let (first, last) = ((from as usize).min(PARTS - 1), (to as usize).min(PARTS - 1));
        let before = |all: u64, place: f64| {
            let part = if to > from { ((place - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
            (all as f64 * part).round() as u64
        };
        for part in first..=last {
            let (begin, end) = (if part == first { 0.0 } else { part as f64 }, part as f64 + 1.0);
            let share = |all: u64| match part {
                _ if part == last => all - if part == first { 0 } else { before(all, begin) },
                _ if part == first => before(all, end),
                _ => before(all, end) - before(all, begin),
            };
            self.end_at(part as f64, share(jobs), share(failed));
        }
    }

    fn end_at(&mut self, place: f64, jobs: u64, failed: u64) {
        let part = (place as usize).min(PARTS - 1);
        self.ended[part] += jobs;
        self.failed[part] += failed;
    }

    /// Returns the mean number of running jobs in each part.
    pub(crate) fn running(&self) -> Vec<f64> {
        self.running.means()
    }

    /// Returns the length of a part in s.
    pub(crate) fn part_seconds(&self) -> f64 {
        self.range.seconds() / PARTS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_is_the_mean_number_of_spans_however_long_they_are() {
        let mut activity = Activity::new(4);
        for (from, to) in [(0.0, 4.0), (0.5, 0.75), (1.5, 3.5), (4.0, 4.0), (2.0, 3.0)] {
            activity.add(from, to);
        }
        assert_eq!(activity.means(), [1.25, 1.5, 3.0, 1.5]);
    }

    #[test]
    fn jobs_are_counted_where_they_end_and_moments_outside_are_at_the_ends() {
        let mut timeline = Timeline::new(Range::new(1_000, 241_000));
        timeline.add((0, 2_500), false);
        timeline.add((2_000, 999_000), true);
        timeline.add_ended((1_000, 241_000), 481, 3);
        assert_eq!(timeline.ended.iter().sum::<u64>(), 483);
        assert_eq!(timeline.failed.iter().sum::<u64>(), 4);
        assert_eq!((timeline.ended[1], timeline.failed[PARTS - 1]), (3, 1));
        assert!((timeline.running().iter().sum::<f64>() - 240.5).abs() < 1e-3);
        assert!((timeline.part_seconds() - 0.001).abs() < 1e-9);
    }

    #[test]
    fn an_even_course_has_no_peaks_where_it_is_noted() {
        let mut timeline = Timeline::new(Range::new(0, 240_000));
        for (from, to) in [(0, 100_500), (100_500, 100_700), (100_700, 240_000)] {
            timeline.add_ended((from, to), (to - from) / 100, 0);
        }
        assert!(timeline.ended.iter().all(|jobs| (9..=11).contains(jobs)), "{:?}", timeline.ended);
        assert_eq!(timeline.ended.iter().sum::<u64>(), 2_400);
    }

    #[test]
    fn pauses_between_runs_take_no_time() {
        let range = Range::new(100, 1_100).without(&[(200, 700), (800, 1_000)]);
        assert_eq!((range.us(), range.pauses()), (300, (2, 0.000_7)));
        let places = [0, 100, 150, 200, 450, 700, 750, 900, 1_000, 1_050, 2_000].map(|us| range.place(us, 300).round());
        assert_eq!(places, [0.0, 0.0, 50.0, 100.0, 100.0, 100.0, 150.0, 200.0, 200.0, 250.0, 300.0]);
    }
}
