//! What each slot did when: one lane for each slot, for each rank, or for each group of ranks, so that there are never too many.

use std::collections::BTreeMap;

use super::survey::Survey;
use super::timeline::{Activity, Range};

/// The most lanes.
const MOST_LANES: usize = 40;
/// The number of equal parts of the time in which jobs are summed up, if they are too many to be shown one by one.
pub(crate) const CELLS: usize = 100;
/// Up to this number, jobs are shown one by one.
const MOST_SPANS: u64 = 1_500;

/// One job in its lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub number: u64,
    pub start_us: u64,
    pub end_us: u64,
    pub has_failed: bool,
}

/// The jobs of a slot, a rank or several ranks.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub label: String,
    /// How many slots it stands for.
    pub slots: u64,
    pub jobs: u64,
    pub failed: u64,
    /// The jobs one by one, if there are few.
    pub spans: Vec<Span>,
    activity: Activity,
    /// How many jobs ended in each cell, and how many of them failed.
    pub ended_in: Vec<u32>,
    pub failed_in: Vec<u32>,
}

impl Lane {
    fn new(label: String, slots: u64, cells: usize) -> Lane {
        Lane {
            label,
            slots,
            jobs: 0,
            failed: 0,
            spans: Vec::new(),
            activity: Activity::new(cells.max(1)),
            ended_in: vec![0; cells.max(1)],
            failed_in: vec![0; cells.max(1)],
        }
    }

    /// Returns the part of its slots that was busy, from 0 to 1, in each cell.
    pub(crate) fn busy(&self) -> Vec<f64> {
        let slots = self.slots.max(1) as f64;
        self.activity.means().into_iter().map(|mean| (mean / slots).clamp(0.0, 1.0)).collect()
    }
}

/// What a lane stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneOf {
    Slot,
    Rank,
    Ranks,
}

/// All lanes.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    pub range: Range,
    pub of: LaneOf,
    pub lanes: Vec<Lane>,
    pub has_spans: bool,
    /// The first lane of each rank.
    by_rank: BTreeMap<u32, (usize, u64)>,
}

impl Lanes {
    /// Makes lanes for the ranks and slots of a survey.
    pub(crate) fn new(survey: &Survey, range: Range) -> Lanes {
        let ranks = survey.ranks.len();
        let of = match (survey.slots() as usize, ranks) {
            (slots, _) if slots <= MOST_LANES => LaneOf::Slot,
            (_, ranks) if ranks <= MOST_LANES => LaneOf::Rank,
            _ => LaneOf::Ranks,
        };
        let mut lanes = Lanes {
            range,
            of,
            lanes: Vec::new(),
            has_spans: of == LaneOf::Slot && survey.timed <= MOST_SPANS,
            by_rank: BTreeMap::new(),
        };
        let group = ranks.div_ceil(MOST_LANES).max(1);
        let all: Vec<_> = survey.ranks.iter().collect();
        match of {
            LaneOf::Slot => {
                for (rank, seen) in all {
                    lanes.by_rank.insert(*rank, (lanes.lanes.len(), seen.slots.0));
                    for slot in seen.slots.0..=seen.slots.1 {
                        lanes.lanes.push(Lane::new(format!("rank {rank}, slot {slot}"), 1, CELLS));
                    }
                }
            }
            LaneOf::Rank | LaneOf::Ranks => {
                for ranks in all.chunks(group) {
                    let label = match ranks {
                        [(rank, _)] => format!("rank {rank}"),
                        [(first, _), .., (last, _)] => format!("ranks {first} to {last}"),
                        [] => continue,
                    };
                    let slots = ranks.iter().map(|(_, seen)| seen.slot_count()).sum();
                    for (rank, _) in ranks {
                        lanes.by_rank.insert(**rank, (lanes.lanes.len(), 0));
                    }
                    lanes.lanes.push(Lane::new(label, slots, CELLS));
                }
            }
        }
        lanes
    }

    /// Adds a job that ran there for this time.
    pub(crate) fn add(&mut self, rank: u32, slot: u64, number: u64, (start, end): (u64, u64), has_failed: bool) {
        let Some((first, first_slot)) = self.by_rank.get(&rank) else { return };
        let offset = if self.of == LaneOf::Slot { slot.saturating_sub(*first_slot) as usize } else { 0 };
        let places = (self.range.place(start, CELLS), self.range.place(end, CELLS));
        let Some(lane) = self.lanes.get_mut(first.saturating_add(offset)) else { return };
        lane.jobs += 1;
        lane.failed += u64::from(has_failed);
        let (from, to) = places;
        lane.activity.add(from, to);
        let cell = (to as usize).min(CELLS - 1);
        lane.ended_in[cell] = lane.ended_in[cell].saturating_add(1);
        lane.failed_in[cell] = lane.failed_in[cell].saturating_add(u32::from(has_failed));
        if self.has_spans && (lane.spans.len() as u64) < MOST_SPANS {
            lane.spans.push(Span { number, start_us: start, end_us: end, has_failed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey::RankSeen;
    use super::*;

    fn range() -> Range {
        Range::new(0, 1_200)
    }

    fn survey(ranks: u32, slots: u64, timed: u64) -> Survey {
        let seen = |rank: u32| {
            (rank, RankSeen { slots: (u64::from(rank) * slots + 1, (u64::from(rank) + 1) * slots), host: None })
        };
        Survey { ranks: (0..ranks).map(seen).collect(), timed, jobs: timed, ..Survey::default() }
    }

    #[test]
    fn there_are_never_too_many_lanes_and_each_job_is_in_one() {
        for (ranks, slots, of, lanes) in [
            (4, 2, LaneOf::Slot, 8),
            (16, 64, LaneOf::Rank, 16),
            (1_000, 128, LaneOf::Ranks, 40),
            (1, 1_000, LaneOf::Rank, 1),
        ] {
            let mut all = Lanes::new(&survey(ranks, slots, 10_000_000), range());
            assert_eq!(all.of, of, "{ranks} × {slots}");
            assert!(all.lanes.len() <= MOST_LANES && all.lanes.len() <= lanes, "{ranks} × {slots}");
            for rank in 0..ranks {
                all.add(rank, u64::from(rank) * slots + slots, 1, (100, 400), rank == 0);
            }
            assert_eq!(all.lanes.iter().map(|lane| lane.jobs).sum::<u64>(), u64::from(ranks));
            assert_eq!(all.lanes.iter().map(|lane| lane.slots).sum::<u64>(), u64::from(ranks) * slots);
            assert!(all.lanes[..].iter().all(|lane| lane.spans.is_empty()));
            assert_eq!(all.lanes.iter().filter(|lane| lane.failed_in.iter().any(|failed| *failed > 0)).count(), 1);
        }
    }

    #[test]
    fn few_jobs_are_shown_one_by_one_and_a_slot_is_busy_while_it_has_one() {
        let mut lanes = Lanes::new(&survey(2, 2, 3), range());
        assert_eq!(
            lanes.lanes.iter().map(|lane| &*lane.label).collect::<Vec<_>>()[2..],
            ["rank 1, slot 3", "rank 1, slot 4"]
        );
        lanes.add(1, 4, 9, (600, 1_200), true);
        lanes.add(7, 1, 1, (0, 1), false);
        let lane = &lanes.lanes[3];
        assert_eq!(lane.spans, [Span { number: 9, start_us: 600, end_us: 1_200, has_failed: true }]);
        assert_eq!((lane.busy()[49], lane.busy()[50], lane.busy()[CELLS - 1]), (0.0, 1.0, 1.0));
    }
}
