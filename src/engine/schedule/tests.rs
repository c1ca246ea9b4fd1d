//! The effect of each event: one sentence, one test.

use std::num::NonZeroU32;

use super::{Action, ChunkId, ChunkSize, Event, MapId, Outcome, Policy, RankId, Schedule};

const MAP: MapId = MapId(7);

/// A schedule that is checked after each event.
#[derive(Default)]
struct Harness {
    schedule: Schedule,
    log: Vec<Action>,
}

impl Harness {
    /// Returns a schedule with one open map and the ranks 0, 1, …; `ranks` holds their numbers of threads.
    fn new(chunk: ChunkSize, retries: u32, ranks: &[u32]) -> Self {
        let mut harness = Self::default();
        harness.handle(Event::Opened { map: MAP, policy: Policy { chunk, retries }, function: 0 });
        for (rank, threads) in (0..).zip(ranks) {
            harness.join(rank, *threads);
        }
        harness
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.schedule.handle(event, &mut out);
        self.schedule.check();
        self.log.extend(out.iter().cloned());
        out
    }

    fn join(&mut self, rank: u32, threads: u32) -> Vec<Action> {
        self.handle(Event::Joined { rank: RankId(rank), threads: NonZeroU32::new(threads).unwrap() })
    }

    fn submit(&mut self, count: u64) -> Vec<Action> {
        self.handle(Event::Submitted { map: MAP, count, avoid: None })
    }

    fn finish(&mut self, rank: u32, chunk: u64, busy: u64, failed: &[u32]) -> Vec<Action> {
        let failed = failed.to_vec();
        self.handle(Event::Finished { rank: RankId(rank), chunk: ChunkId(chunk), busy, failed, failed_results: 0 })
    }

    fn give_back(&mut self, rank: u32, chunk: u64, kept: u32) -> Vec<Action> {
        self.handle(Event::Returned { rank: RankId(rank), chunk: ChunkId(chunk), kept })
    }

    fn delay(&mut self, rank: u32, chunk: u64) -> Vec<Action> {
        self.handle(Event::Delayed { rank: RankId(rank), chunk: ChunkId(chunk) })
    }

    fn lose(&mut self, rank: u32) -> Vec<Action> {
        self.handle(Event::Lost { rank: RankId(rank) })
    }
}

fn fixed(jobs: u32) -> ChunkSize {
    ChunkSize::Fixed(NonZeroU32::new(jobs).unwrap())
}

fn settle(first: u64, count: u64, outcome: Outcome, attempt: u32) -> Action {
    Action::Settle { map: MAP, first, count, outcome, attempt }
}

/// `(rank, chunk, first, count, attempt)` of each assignment.
fn assigned(actions: &[Action]) -> Vec<(u32, u64, u64, u32, u32)> {
    let mut assigned = Vec::new();
    for action in actions {
        if let Action::Assign { rank, chunk, first, count, attempt, .. } = action {
            assigned.push((rank.0, chunk.0, *first, *count, *attempt));
        }
    }
    assigned
}

fn recalled(actions: &[Action]) -> Vec<(u32, u64)> {
    let mut recalled = Vec::new();
    for action in actions {
        if let Action::Recall { rank, chunk } = action {
            recalled.push((rank.0, chunk.0));
        }
    }
    recalled
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn work_goes_to_every_rank_before_any_rank_gets_a_second_chunk() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 2, 1]);
    let ranks: Vec<_> = assigned(&harness.submit(20)).iter().map(|chunk| chunk.0).collect();
    assert_eq!(ranks, [0, 1, 2, 1, 0, 1, 2, 1]);
}

#[test]
fn a_rank_holds_two_long_chunks_per_thread_and_no_more() {
    let mut harness = Harness::new(fixed(5), 0, &[3]);
    assert_eq!(assigned(&harness.submit(100)).len(), 6);
    assert_eq!(assigned(&harness.finish(0, 0, SECOND, &[])).len(), 1);
}

#[test]
fn a_rank_holds_more_chunks_while_they_are_short() {
    let mut harness = Harness::new(fixed(1), 0, &[1]);
    harness.submit(100_000);
    harness.finish(0, 0, 10_000, &[]);
    let more = assigned(&harness.finish(0, 1, 10_000, &[]));
    assert!((399..=400).contains(&more.len()), "4 ms of work: {}", more.len());
}

#[test]
fn a_rank_never_holds_more_than_1024_chunks_per_thread() {
    let mut harness = Harness::new(fixed(1), 0, &[1]);
    harness.submit(100_000);
    for chunk in 0..4 {
        harness.finish(0, chunk, 1, &[]);
    }
    assert_eq!(assigned(&harness.log).len(), 4 + 1024);
}

#[test]
fn fixed_chunks_are_exact_but_for_the_last() {
    let mut harness = Harness::new(fixed(4), 0, &[8]);
    let counts: Vec<_> = assigned(&harness.submit(10)).iter().map(|chunk| (chunk.2, chunk.3)).collect();
    assert_eq!(counts, [(0, 4), (4, 4), (8, 2)]);
}

#[test]
fn chunks_of_short_jobs_grow_and_shrink_at_once_when_jobs_get_long() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[1]);
    harness.submit(10_000_000);
    let mut largest = 1;
    for chunk in 0..12 {
        let count = u64::from(harness.schedule.chunk(ChunkId(chunk)).unwrap().count);
        assert!(count <= largest * 8);
        largest = largest.max(count);
        harness.finish(0, chunk, count * 50, &[]);
    }
    assert_eq!(largest, 16_384);
    let held = harness.schedule.chunk(ChunkId(12)).unwrap().count;
    let next = assigned(&harness.finish(0, 12, u64::from(held) * 1_000_000, &[]));
    assert!(next.iter().all(|chunk| chunk.3 <= 16), "{next:?}");
}

#[test]
fn coarse_chunks_are_larger_and_shrink_all_the_same() {
    let largest_of = |chunk| {
        let mut harness = Harness::new(chunk, 0, &[1, 1]);
        let mut counts: Vec<_> = assigned(&harness.submit(1000)).iter().map(|chunk| chunk.3).collect();
        for chunk in 0.. {
            let Some(assignment) = harness.schedule.chunk(ChunkId(chunk)) else { break };
            let (rank, count) = (assignment.rank.0, u64::from(assignment.count));
            counts.extend(assigned(&harness.finish(rank, chunk, count * 1_000_000, &[])).iter().map(|chunk| chunk.3));
        }
        assert_eq!(counts.iter().sum::<u32>(), 1000);
        assert_eq!(counts.last(), Some(&1));
        counts.into_iter().max()
    };
    assert_eq!((largest_of(ChunkSize::Auto), largest_of(ChunkSize::Coarse)), (Some(2), Some(50)));
}

#[test]
fn chunks_shrink_towards_the_end_of_the_queue() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1]);
    harness.submit(4);
    for chunk in 0..4 {
        harness.finish(u32::try_from(chunk % 2).unwrap(), chunk, 40_000, &[]);
    }
    let counts: Vec<_> = assigned(&harness.submit(100)).iter().map(|chunk| chunk.3).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    assert!(counts[0] >= 20 && *counts.last().unwrap() <= 3, "{counts:?}");
}

#[test]
fn finished_jobs_settle_as_maximal_runs() {
    let mut harness = Harness::new(fixed(8), 0, &[1]);
    harness.submit(8);
    let done = harness.finish(0, 0, SECOND, &[0, 3, 4]);
    let failed = |first, count| settle(first, count, Outcome::Failed, 1);
    assert_eq!(done, [failed(0, 1), settle(1, 2, Outcome::Done, 1), failed(3, 2), settle(5, 3, Outcome::Done, 1)]);
}

#[test]
fn a_failed_job_is_tried_again_alone_until_its_retries_are_used_up() {
    let mut harness = Harness::new(fixed(3), 2, &[1]);
    harness.submit(3);
    let actions = harness.finish(0, 0, SECOND, &[1]);
    assert_eq!(actions[..2], [settle(0, 1, Outcome::Done, 1), settle(2, 1, Outcome::Done, 1)]);
    assert_eq!(assigned(&actions), [(0, 1, 1, 1, 2)]);
    assert_eq!(assigned(&harness.finish(0, 1, SECOND, &[0])), [(0, 2, 1, 1, 3)]);
    assert_eq!(harness.finish(0, 2, SECOND, &[0]), [settle(1, 1, Outcome::Failed, 3)]);
}

#[test]
fn jobs_of_a_lost_rank_are_assigned_again_in_smaller_chunks_and_in_front_without_being_charged() {
    let mut harness = Harness::new(fixed(10), 0, &[1, 1, 1]);
    harness.submit(100);
    assert!(harness.lose(1).is_empty(), "no credit");
    let mut again = Vec::new();
    for (rank, chunk) in [(0, 0), (2, 2), (0, 3), (2, 5)] {
        again.extend(assigned(&harness.finish(rank, chunk, SECOND, &[])));
    }
    // Rank 1 had jobs 10 .. 20 and 40 .. 50; rank 0 gets others.
    assert!(again.iter().all(|(rank, _, first, count, attempt)| {
        let was_lost = (10..20).contains(first) || (40..50).contains(first);
        *attempt == 1 && if was_lost { *rank == 2 && *count <= 4 } else { *rank == 0 && *count == 10 }
    }));
    assert!(again.iter().filter(|chunk| chunk.0 == 2).count() > 1, "{again:?}");
}

#[test]
fn a_job_that_was_lost_twice_is_alone_on_its_next_rank_and_then_settled_as_lost() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1, 1, 1]);
    harness.submit(1);
    assert_eq!(assigned(&harness.lose(0)), [(1, 1, 0, 1, 1)]);
    assert_eq!(assigned(&harness.lose(1)), [(2, 2, 0, 1, 1)]);
    assert!(assigned(&harness.submit(1)).iter().all(|chunk| chunk.0 == 3), "rank 2 gets nothing else");
    assert_eq!(harness.lose(2), [settle(0, 1, Outcome::Lost, 3)]);
}

#[test]
fn a_rank_is_kept_free_for_a_suspect_and_is_used_as_usual_afterwards() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1, 1, 1]);
    harness.submit(100);
    // Rank 1 holds the jobs 1 and 5; rank 2, which gets them, is lost as well.
    harness.lose(1);
    let again = assigned(&harness.finish(2, 2, SECOND, &[]));
    assert_eq!(again, [(2, 8, 1, 1, 1)]);
    assert!(harness.lose(2).is_empty(), "rank 3 has two jobs");
    assert!(assigned(&harness.finish(3, 3, SECOND, &[])).is_empty(), "it is kept free");
    assert_eq!(assigned(&harness.finish(3, 7, SECOND, &[])), [(3, 9, 1, 1, 1)]);
    let usual = assigned(&harness.finish(3, 9, SECOND, &[]));
    assert_eq!(usual.len(), 2, "{usual:?}");
}

#[test]
fn several_suspects_share_a_rank_of_many_threads_and_after_a_third_loss_each_is_alone() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 9, 9, 9]);
    harness.submit(36);
    harness.lose(1);
    // The jobs that rank 1 and then rank 2 had are suspects.
    harness.lose(2);
    let held = |harness: &Harness, rank| harness.schedule.ranks.get(RankId(rank)).unwrap().held.clone();
    let work_until = |harness: &mut Harness, rank, losses| {
        while harness.schedule.suspects_on(RankId(rank)) != Some(losses) {
            let chunk = held(harness, rank).get(0).expect("suspects wait for the rank");
            harness.finish(rank, chunk.0, SECOND, &[]);
        }
    };
    work_until(&mut harness, 3, 2);
    assert_eq!(held(&harness, 3).len(), 3, "the square root of 9");
    harness.join(4, 9);
    harness.lose(3);
    work_until(&mut harness, 4, 3);
    assert_eq!(held(&harness, 4).len(), 1);
    assert!(matches!(harness.lose(4)[..], [Action::Settle { count: 1, outcome: Outcome::Lost, attempt: 4, .. }, ..]));
}

#[test]
fn suspects_are_settled_as_lost_when_only_the_master_s_own_rank_is_left() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1, 1]);
    harness.submit(8);
    harness.lose(1);
    harness.finish(2, 2, SECOND, &[]);
    let over = harness.lose(2);
    let lost: Vec<_> = over.iter().filter(|action| matches!(action, Action::Settle { .. })).collect();
    assert_eq!(lost, [&settle(1, 1, Outcome::Lost, 2)], "job 5 was lost once: {over:?}");
}

#[test]
fn when_every_rank_is_lost_jobs_do_not_wait_for_ever() {
    let mut harness = Harness::new(fixed(1), 0, &[1]);
    harness.submit(4);
    let over = harness.lose(0);
    assert_eq!(over.len(), 3, "two that were held, the rest together: {over:?}");
    assert_eq!(harness.submit(2), [settle(4, 2, Outcome::Lost, 0)]);
    harness.join(1, 1);
    assert_eq!(assigned(&harness.submit(1)).len(), 1);
}

#[test]
fn jobs_wait_for_the_first_rank() {
    let mut harness = Harness::new(fixed(1), 0, &[]);
    assert!(harness.submit(3).is_empty());
    assert_eq!(assigned(&harness.join(3, 2)).len(), 3);
}

#[test]
fn later_messages_of_a_lost_rank_are_ignored() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(2);
    harness.lose(0);
    let before = harness.schedule.clone();
    assert!(harness.finish(0, 0, SECOND, &[]).is_empty());
    assert!(harness.give_back(0, 0, 0).is_empty());
    assert!(harness.join(0, 4).is_empty());
    assert!(harness.lose(0).is_empty());
    assert_eq!(harness.schedule, before);
}

#[test]
fn an_idle_thread_gets_the_last_waiting_chunk_of_the_rank_with_most_to_do() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1, 1]);
    harness.submit(6);
    harness.finish(0, 0, SECOND, &[]);
    assert_eq!(recalled(&harness.finish(0, 3, SECOND, &[])), [(2, 5)]);
    assert_eq!(assigned(&harness.give_back(2, 5, 0)), [(0, 6, 5, 1, 1)]);
    assert!(harness.give_back(2, 5, 0).is_empty());
}

#[test]
fn a_running_chunk_is_cut_and_its_rest_is_assigned_in_smaller_chunks() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1]);
    harness.submit(2);
    harness.finish(0, 0, 200_000, &[]);
    harness.finish(1, 1, 200_000, &[]);
    let chunks = assigned(&harness.submit(30));
    let (rank, cut, first, count, _) = chunks[0];
    assert!(count > 4, "{chunks:?}");
    for (rank, chunk, _, count, _) in chunks.into_iter().skip(1) {
        harness.finish(rank, chunk, u64::from(count) * 200_000, &[]);
    }
    for chunk in 0..100 {
        if chunk != cut {
            harness.finish(1, chunk, 200_000, &[]);
            harness.finish(0, chunk, 200_000, &[]);
        }
    }
    assert!(recalled(&harness.log).contains(&(rank, cut)));
    let again = assigned(&harness.give_back(rank, cut, 1));
    assert_eq!((again[0].0, again[0].2), (1 - rank, first + 1));
    assert!(again.iter().all(|chunk| chunk.3 < count), "{again:?}");
}

#[test]
fn a_job_that_failed_is_tried_again_on_another_rank_and_waits_for_it() {
    let mut harness = Harness::new(fixed(1), 1, &[1, 1]);
    harness.submit(4);
    // Rank 0 could take it at once, but has failed it.
    assert_eq!(assigned(&harness.finish(0, 0, SECOND, &[0])), []);
    assert_eq!(assigned(&harness.finish(1, 1, SECOND, &[])), [(1, 4, 0, 1, 2)]);
    // There is no other rank any more.
    harness.finish(1, 3, SECOND, &[]);
    harness.finish(1, 4, SECOND, &[]);
    harness.lose(1);
    harness.submit(1);
    assert_eq!(assigned(&harness.finish(0, 2, SECOND, &[0])), [(0, 6, 2, 1, 2)]);
}

#[test]
fn submitted_jobs_avoid_the_rank_that_is_named_and_others_pass_them() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    let avoid = Some(RankId(0));
    let first = assigned(&harness.handle(Event::Submitted { map: MAP, count: 3, avoid }));
    assert_eq!(first.iter().map(|chunk| chunk.0).collect::<Vec<_>>(), [1, 1]);
    // Jobs without a wish do not wait behind them.
    assert_eq!(assigned(&harness.submit(1)), [(0, 2, 3, 1, 1)]);
    assert_eq!(assigned(&harness.finish(1, 0, SECOND, &[])), [(1, 3, 2, 1, 1)]);
}

#[test]
fn a_rank_on_which_all_fails_gets_one_job_at_a_time_until_one_goes_well() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(1000);
    let held = |harness: &Harness, rank| {
        (0..1000)
            .filter(|id| harness.schedule.chunk(ChunkId(*id)).is_some_and(|chunk| chunk.rank == RankId(rank)))
            .collect::<Vec<_>>()
    };
    // A failure that only the job's result reports counts, too.
    let fail = |harness: &mut Harness| {
        let chunk = ChunkId(held(harness, 0)[0]);
        harness.handle(Event::Finished { rank: RankId(0), chunk, busy: SECOND, failed: Vec::new(), failed_results: 1 });
    };
    let succeed = |harness: &mut Harness| {
        let chunk = held(harness, 1)[0];
        harness.finish(1, chunk, SECOND, &[]);
    };
    for _ in 0..20 {
        succeed(&mut harness);
    }
    for failures in 0..3 {
        assert_eq!(held(&harness, 0).len(), 2, "{failures}");
        fail(&mut harness);
    }
    assert_eq!(held(&harness, 0).len(), 1);
    fail(&mut harness);
    for pause in [16, 32, 64, 64] {
        for _ in 0..pause {
            assert_eq!(held(&harness, 0).len(), 0);
            succeed(&mut harness);
        }
        assert_eq!(held(&harness, 0).len(), 1);
        succeed(&mut harness);
        assert_eq!(held(&harness, 0).len(), 1);
        if pause < 64 {
            fail(&mut harness);
        } else {
            break;
        }
    }
    let chunk = held(&harness, 0)[0];
    harness.finish(0, chunk, SECOND, &[]);
    assert_eq!(held(&harness, 0).len(), 2);
}

#[test]
fn jobs_that_failed_together_are_tried_again_apart() {
    let mut harness = Harness::new(fixed(3), 1, &[1, 1]);
    harness.submit(3);
    let again = assigned(&harness.finish(0, 0, SECOND, &[1, 2]));
    assert_eq!(again, [(1, 1, 1, 1, 2), (1, 2, 2, 1, 2)]);
}

#[test]
fn jobs_given_back_are_assigned_before_those_that_came_meanwhile() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(4);
    harness.finish(0, 0, SECOND, &[]);
    assert_eq!(recalled(&harness.finish(0, 2, SECOND, &[])), [(1, 3)]);
    harness.submit(10);
    assert_eq!(assigned(&harness.give_back(1, 3, 0)), []);
    assert_eq!(assigned(&harness.finish(1, 1, SECOND, &[]))[0], (1, 6, 3, 1, 1));
}

#[test]
fn short_chunks_that_wait_are_not_recalled_before_it_is_quiet() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(2);
    harness.finish(0, 0, 1_000, &[]);
    harness.finish(1, 1, 1_000, &[]);
    harness.submit(4);
    harness.finish(0, 2, 1_000, &[]);
    harness.finish(0, 4, 1_000, &[]);
    assert_eq!(recalled(&harness.log), []);
    assert!(harness.schedule.has_slack());
    // The job before it takes longer than was estimated.
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [(1, 5)]);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), []);
    assert_eq!(assigned(&harness.give_back(1, 5, 0)), [(0, 6, 5, 1, 1)]);
    assert!(!harness.schedule.has_slack());
}

#[test]
fn short_jobs_assigned_together_are_split_when_it_is_quiet() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[2]);
    harness.submit(3);
    for chunk in 0..3 {
        harness.finish(0, chunk, 1_000, &[]);
    }
    // Four of them in one chunk, though a thread is idle: they are too short for chunks of their own, unless one never ends.
    assert_eq!(assigned(&harness.submit(4)), [(0, 3, 3, 4, 1)]);
    assert_eq!(recalled(&harness.log), []);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [(0, 3)]);
    assert_eq!(assigned(&harness.give_back(0, 3, 1)), [(0, 4, 4, 1, 1)]);
    assert_eq!(assigned(&harness.finish(0, 4, 1_000, &[])), [(0, 5, 5, 1, 1)]);
}

#[test]
fn delayed_jobs_are_recalled_for_an_idle_thread_though_their_chunk_was_recalled_before() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1]);
    harness.submit(2);
    harness.finish(0, 0, 1_000, &[]);
    harness.finish(1, 1, 1_000, &[]);
    // All in one chunk. The rank has taken up four of them when it is asked.
    assert_eq!(assigned(&harness.submit(8)), [(0, 2, 2, 8, 1)]);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [(0, 2)]);
    assert_eq!(assigned(&harness.give_back(0, 2, 4)), [(1, 3, 6, 1, 1)]);
    assert_eq!(recalled(&harness.delay(0, 2)), [], "no thread is idle");
    assert_eq!(recalled(&harness.delay(1, 2)), [], "another rank");
    for (chunk, first) in (3..6).zip(7..) {
        assert_eq!(assigned(&harness.finish(1, chunk, 1_000, &[])), [(1, chunk + 1, first, 1, 1)]);
    }
    assert_eq!(recalled(&harness.finish(1, 6, 1_000, &[])), [(0, 2)]);
    assert_eq!(recalled(&harness.delay(0, 2)), [], "it is asked");
    assert_eq!(assigned(&harness.give_back(0, 2, 1)), [(1, 7, 3, 1, 1)]);
    assert_eq!(recalled(&harness.delay(0, 2)), [], "nothing is left");
}

#[test]
fn a_chunk_is_delayed_once_for_each_of_its_jobs() {
    let mut harness = Harness::new(fixed(4), 0, &[1, 1]);
    harness.submit(4);
    for _ in 0..3 {
        assert_eq!(recalled(&harness.delay(0, 0)), [(0, 0)]);
        assert_eq!(assigned(&harness.give_back(0, 0, 4)), []);
    }
    assert_eq!(recalled(&harness.delay(0, 0)), [], "it would be behind the last job");
}

#[test]
fn chunks_of_a_fixed_size_stay_whole() {
    let mut harness = Harness::new(fixed(8), 0, &[1, 1]);
    harness.submit(16);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [], "no thread is idle");
    harness.finish(0, 0, 8_000, &[]);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [], "it may run");
    harness.finish(1, 1, 8_000, &[]);
    harness.submit(32);
    harness.finish(0, 2, 8_000, &[]);
    harness.finish(0, 4, 8_000, &[]);
    assert_eq!(recalled(&harness.handle(Event::Quiet)), [(1, 5)]);
    assert_eq!(assigned(&harness.give_back(1, 5, 0)), [(0, 6, 40, 8, 1)]);
}

#[test]
fn a_chunk_that_is_known_to_be_short_is_not_recalled() {
    let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1]);
    harness.submit(4);
    harness.finish(0, 0, 1_000, &[]);
    harness.finish(0, 2, 1_000, &[]);
    assert_eq!(recalled(&harness.log), []);
}

#[test]
fn a_short_chunk_does_not_hide_a_long_one_from_idle_threads() {
    let mut harness = Harness::new(fixed(1), 0, &[2, 2]);
    let short = MapId(8);
    harness.handle(Event::Opened { map: short, policy: Policy { chunk: fixed(1), retries: 0 }, function: 1 });
    harness.handle(Event::Submitted { map: short, count: 1, avoid: None });
    harness.finish(0, 0, 1_000, &[]);
    assert_eq!(assigned(&harness.submit(6)).len(), 6);
    // Behind the job that waits on each rank there is a short one.
    assert_eq!(assigned(&harness.handle(Event::Submitted { map: short, count: 2, avoid: None })).len(), 2);
    let held = |harness: &Harness, rank| {
        (0..9)
            .filter(|id| harness.schedule.chunk(ChunkId(*id)).is_some_and(|chunk| chunk.rank == RankId(rank)))
            .collect::<Vec<_>>()
    };
    let waits = held(&harness, 0)[2];
    for chunk in held(&harness, 1) {
        harness.finish(1, chunk, SECOND, &[]);
    }
    assert_eq!(recalled(&harness.log), [(0, waits)]);
}

#[test]
fn a_job_that_was_given_back_gets_the_next_idle_thread_before_all_others() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(4);
    harness.finish(1, 1, SECOND, &[]);
    assert_eq!(recalled(&harness.finish(1, 3, SECOND, &[])), [(0, 2)]);
    // Before it is back, the idle thread has got other jobs. It does not wait behind another one once more.
    assert_eq!(assigned(&harness.submit(9)).len(), 2);
    assert_eq!(assigned(&harness.give_back(0, 2, 0)), []);
    assert_eq!(assigned(&harness.finish(1, 4, SECOND, &[])), []);
    let next = assigned(&harness.finish(1, 5, SECOND, &[]));
    assert_eq!(next[0], (1, 6, 2, 1, 1));
    assert_eq!(next.len(), 3, "now both ranks get what they may have: {next:?}");
}

#[test]
fn a_job_that_was_given_back_and_then_failed_gets_the_next_idle_thread_too() {
    let mut harness = Harness::new(fixed(1), 1, &[1, 1]);
    harness.submit(4);
    harness.finish(1, 1, SECOND, &[]);
    assert_eq!(recalled(&harness.finish(1, 3, SECOND, &[])), [(0, 2)]);
    assert_eq!(assigned(&harness.give_back(0, 2, 0)), [(1, 4, 2, 1, 1)]);
    harness.submit(9);
    // It fails, and is queued behind others. Nothing else is assigned before a thread is idle.
    assert_eq!(assigned(&harness.finish(1, 4, SECOND, &[0])), []);
    assert!(harness.schedule.queued(MAP) > 1);
}

#[test]
fn recalls_that_always_return_whole_chunks_come_to_an_end() {
    for busy in [1, 1_000, 1_000_000, 100_000_000] {
        let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1, 1]);
        for round in 0..4 {
            harness.submit(1 << (3 * round));
            let mut answered = 0;
            while let Some((rank, chunk)) = recalled(&harness.log).get(answered).copied() {
                answered += 1;
                harness.give_back(rank, chunk, 0);
            }
            while let Some(chunk) = (0..10_000).find(|id| harness.schedule.chunk(ChunkId(*id)).is_some()) {
                let Some(held) = harness.schedule.chunk(ChunkId(chunk)) else { break };
                harness.finish(held.rank.0, chunk, busy * u64::from(held.count), &[]);
                while let Some((rank, chunk)) = recalled(&harness.log).get(answered).copied() {
                    answered += 1;
                    harness.give_back(rank, chunk, 0);
                }
            }
        }
        let jobs = (0..4).map(|round| 1 << (3 * round)).sum::<usize>();
        assert!(recalled(&harness.log).len() <= 2 * jobs, "{} recalls", recalled(&harness.log).len());
    }
}

#[test]
fn an_abandoned_map_settles_its_queued_jobs_and_recalls_those_that_wait() {
    let mut harness = Harness::new(fixed(1), 3, &[1]);
    harness.submit(5);
    let actions = harness.handle(Event::Abandoned { map: MAP });
    assert_eq!(actions[0], settle(2, 3, Outcome::Cancelled, 0));
    assert_eq!(recalled(&actions), [(0, 1)]);
    assert_eq!(harness.give_back(0, 1, 0), [settle(1, 1, Outcome::Cancelled, 0)]);
    let last = harness.finish(0, 0, SECOND, &[0]);
    assert_eq!(last, [settle(0, 1, Outcome::Failed, 1), Action::Release { map: MAP }]);
}

#[test]
fn draining_stops_queued_and_later_jobs_and_lets_running_jobs_end() {
    let mut harness = Harness::new(fixed(1), 3, &[1]);
    harness.submit(5);
    let actions = harness.handle(Event::Draining);
    assert_eq!(actions[0], settle(2, 3, Outcome::Stopped, 0));
    assert_eq!(recalled(&actions), [(0, 1)]);
    assert_eq!(harness.submit(1), [settle(5, 1, Outcome::Stopped, 0)]);
    assert_eq!(harness.finish(0, 0, SECOND, &[0]), [settle(0, 1, Outcome::Failed, 1)]);
    assert_eq!(harness.finish(0, 1, SECOND, &[]), [settle(1, 1, Outcome::Done, 1)]);
    assert_eq!(harness.handle(Event::Closed { map: MAP }), [Action::Release { map: MAP }]);
}

#[test]
fn a_queued_job_is_cancelled_and_a_held_one_is_not() {
    let mut harness = Harness::new(fixed(1), 0, &[1]);
    harness.submit(10);
    assert!(harness.handle(Event::CancelAsked { map: MAP, job: 1 }).is_empty());
    let cancelled = harness.handle(Event::CancelAsked { map: MAP, job: 5 });
    assert_eq!(cancelled, [settle(5, 1, Outcome::Cancelled, 0)]);
    assert!(harness.handle(Event::CancelAsked { map: MAP, job: 5 }).is_empty());
    assert!(harness.handle(Event::CancelAsked { map: MAP, job: 10 }).is_empty());
    assert_eq!(harness.schedule.queued(MAP), 7);
}

#[test]
fn a_map_expects_the_durations_of_earlier_maps_of_its_function_and_begins_with_small_chunks() {
    for (function, jobs) in [(0, 64), (1, 1)] {
        let mut harness = Harness::new(ChunkSize::Auto, 0, &[1, 1]);
        harness.submit(1);
        harness.finish(0, 0, 1_000, &[]);
        harness.handle(Event::Closed { map: MAP });
        let (map, policy) = (MapId(8), Policy { chunk: ChunkSize::Auto, retries: 0 });
        harness.handle(Event::Opened { map, policy, function });
        let first = assigned(&harness.handle(Event::Submitted { map, count: 1_000, avoid: None }));
        assert_eq!(first[0].3, jobs, "the first chunk of function {function}");
    }
}

#[test]
fn maps_take_turns() {
    let mut harness = Harness::new(fixed(1), 0, &[]);
    harness.submit(10);
    harness.handle(Event::Opened { map: MapId(8), policy: Policy { chunk: fixed(1), retries: 0 }, function: 0 });
    harness.handle(Event::Submitted { map: MapId(8), count: 10, avoid: None });
    let mut maps = Vec::new();
    for action in harness.join(0, 2) {
        if let Action::Assign { map, .. } = action {
            maps.push(map.0);
        }
    }
    assert_eq!(maps, [7, 8, 7, 8]);
}

#[test]
fn ranks_are_dismissed_when_the_driver_left_and_every_map_is_released() {
    let mut harness = Harness::new(fixed(1), 0, &[1, 1]);
    harness.submit(1);
    assert!(harness.handle(Event::DriverLeft).is_empty());
    assert!(harness.handle(Event::Closed { map: MAP }).is_empty());
    let end = harness.finish(0, 0, SECOND, &[]);
    let dismiss = |rank| Action::Dismiss { rank: RankId(rank) };
    assert_eq!(end[1..], [Action::Release { map: MAP }, dismiss(0), dismiss(1)]);
    assert!(harness.schedule.is_finished());
    assert_eq!(harness.join(9, 1), [dismiss(9)]);
}

#[test]
fn events_about_unknown_ranks_chunks_and_maps_change_nothing() {
    let mut harness = Harness::new(fixed(2), 0, &[1]);
    harness.submit(3);
    let before = harness.schedule.clone();
    harness.finish(0, 99, 1, &[0]);
    harness.finish(3, 0, 1, &[0]);
    harness.give_back(0, 0, 1);
    harness.handle(Event::Submitted { map: MapId(1), count: 4, avoid: None });
    harness.handle(Event::Closed { map: MapId(1) });
    harness.handle(Event::Abandoned { map: MapId(1) });
    harness.handle(Event::CancelAsked { map: MapId(1), job: 0 });
    assert_eq!(harness.schedule, before);
    let done = harness.finish(0, 0, u64::MAX, &[u32::MAX, 1, 1, 2]);
    assert_eq!(done, [settle(0, 1, Outcome::Done, 1), settle(1, 1, Outcome::Failed, 1)]);
}
