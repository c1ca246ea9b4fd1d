//! Thousands of worlds, each judged at every step. `SEED=123 cargo test simulated` replays one.

use std::num::NonZeroU32;

use super::report::{cases, measure, world};
use super::{Fate, MICRO, MILLI, MapPlan, Mix, RankPlan, Run, World, events, run};
use crate::engine::schedule::{Action, ChunkSize, Event, MapId, Outcome, Policy, Schedule};

/// Runs `check` for every seed, or for the one in the variable `SEED`; prints the seed that fails. The variable `WORLDS` is how many
/// times more seeds are tried.
fn for_seeds(seeds: std::ops::Range<u64>, check: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = variable("SEED") {
        check(seed);
        return;
    }
    for seed in seeds.start..seeds.end * variable("WORLDS").unwrap_or(1) {
        if let Err(panic) = std::panic::catch_unwind(|| check(seed)) {
            eprintln!("this is seed {seed}; replay it with SEED={seed} cargo test simulated");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn simulated_worlds_keep_every_promise() {
    for_seeds(0..1_500, |seed| {
        let _ = run(&World::draw(seed));
    });
}

#[test]
fn simulated_small_maps_keep_every_promise() {
    for_seeds(0..300, |seed| {
        let _ = run(&World::small_maps(seed));
    });
}

#[test]
fn simulated_small_maps_of_short_jobs_are_not_sent_to_and_fro() {
    for_seeds(0..1_000, |seed| {
        let mut world = World::small_maps(seed);
        for map in &mut world.maps {
            (map.jobs, map.window, map.mix) = (map.jobs.min(10), u64::MAX, Mix::Constant(MICRO));
        }
        let run = run(&world);
        // Two messages for each job; recalls are for jobs that wait longer than a thread takes to wake.
        let jobs: u64 = world.maps.iter().map(|map| map.jobs).sum();
        assert!(run.recalls <= jobs / 5, "{} recalls for {jobs} jobs", run.recalls);
        assert!(run.messages <= 3 * jobs, "{} messages for {jobs} jobs", run.messages);
    });
}

#[test]
fn simulated_runs_of_one_seed_have_one_trace() {
    for_seeds(0..100, |seed| assert_eq!(run(&World::draw(seed)), run(&World::draw(seed))));
}

#[test]
fn the_events_of_a_simulated_run_bring_another_scheduler_to_its_end() {
    let mut world = world(4, 2, 3_000, Mix::Exponential(10 * MICRO), 100);
    world.maps[0].window = 100;
    for (block, most) in [(1, 1), (64, 64), (u64::MAX, 100)] {
        let (mut schedule, mut actions, mut blocks) = (Schedule::new(), Vec::new(), Vec::new());
        for event in events(&world, block) {
            if let Event::Submitted { count, .. } = &event {
                blocks.push(*count);
            }
            schedule.handle(event, &mut actions);
        }
        let settled = |action: &Action| if let Action::Settle { count, .. } = action { *count } else { 0 };
        assert!(schedule.is_finished() && actions.iter().map(settled).sum::<u64>() == 3_000);
        assert!(blocks.iter().max() == Some(&most) && blocks.iter().sum::<u64>() == 3_000, "{blocks:?}");
    }
}

#[test]
fn simulated_outcomes_do_not_depend_on_the_ranks() {
    for_seeds(0..200, |seed| {
        let mut world = World::draw(2 * seed);
        for map in &mut world.maps {
            (map.poison, map.abandoned) = (None, None);
            map.cancels.clear();
        }
        let expected = run(&world.moved(0)).outcomes;
        assert!(expected.iter().flatten().all(|job| matches!(job, Some(Outcome::Done | Outcome::Failed))));
        for other in 1..4 {
            assert_eq!(run(&world.moved(seed * 10 + other)).outcomes, expected);
        }
    });
}

#[test]
fn simulated_worlds_are_rich() {
    let runs: Vec<_> = (0..500).map(|seed| run(&World::draw(seed))).collect();
    let outcomes = || runs.iter().flat_map(|run| run.outcomes.iter().flatten());
    let sum = |one: Outcome| outcomes().filter(|job| **job == Some(one)).count();
    let all = [Outcome::Done, Outcome::Failed, Outcome::Lost, Outcome::Cancelled, Outcome::Stopped].map(sum);
    let recalls: u64 = runs.iter().map(|run| run.recalls).sum();
    assert!(all.iter().all(|jobs| *jobs > 100), "{all:?}");
    assert!(recalls > 300, "{recalls}");
}

#[test]
fn simulated_pools_lose_little_against_a_greedy_one_without_messages() {
    for (name, mix, slowness) in cases(10 * MILLI) {
        let line = measure(name, 64, 4, 25_600, mix, slowness);
        // Whether a slow rank gets one of the last jobs is luck, for either.
        let most = if slowness == 100 { line.greedy * 104 } else { line.ideal * 130 };
        assert!(line.run.makespan * 100 <= most, "{line:?}");
        assert!(line.run.messages <= 3 * line.jobs, "{line:?}");
    }
}

#[test]
fn simulated_pools_do_not_send_jobs_to_and_fro_when_they_are_few_and_short() {
    for (name, mix, slowness) in cases(MILLI / 100) {
        let line = measure(name, 2_048, 1, 204_800, mix, slowness);
        assert!(line.run.recalls <= u64::from(line.ranks), "{line:?}");
    }
}

#[test]
fn a_slow_rank_gets_fewer_jobs() {
    let line = measure("slow", 8, 2, 4_000, Mix::Constant(10 * MILLI), 1_000);
    let jobs = &line.run.jobs_of_rank;
    assert!(jobs[1] * 8 < jobs[0] && jobs[1] * 12 > jobs[0], "{jobs:?}");
}

/// Returns a world of three ranks and 400 jobs of 50 ms in chunks of one, after `change`.
fn world_of_three(change: impl FnOnce(&mut World)) -> World {
    let plan = || RankPlan { threads: 1, joins: 0, slowness: 100, broken: (0, 0), waking: 0, fate: Fate::Stays };
    let map = MapPlan {
        opens: 0,
        policy: Policy { chunk: ChunkSize::Fixed(NonZeroU32::MIN), retries: 0 },
        function: 0,
        jobs: 400,
        window: u64::MAX,
        mix: Mix::Constant(50 * MILLI),
        failing: 0,
        poison: None,
        abandoned: None,
        cancels: Vec::new(),
    };
    let mut world = World {
        seed: 1,
        ranks: vec![plan(), plan(), plan()],
        maps: vec![map],
        in_a_row: false,
        latency: (5 * MICRO, 50 * MICRO),
        service: MICRO,
        drains: None,
        judged: true,
    };
    change(&mut world);
    world
}

#[test]
fn simulated_jobs_that_kill_their_ranks_are_found_and_no_other_job_is_lost() {
    for_seeds(0..600, |seed| {
        let mut world = World::draw(2 * seed).moved(seed);
        // Rank 0 is the master's process; a job that is first assigned to it ends the run.
        let plan = world.ranks[0].clone();
        world.ranks.resize(8, plan);
        let threads = |rank: usize| u32::try_from(1 + (seed as usize + rank) % 8).expect("it is small");
        for (number, rank) in world.ranks.iter_mut().enumerate() {
            (rank.threads, rank.fate, rank.broken, rank.joins) = (threads(number), Fate::Stays, (0, 0), 0);
        }
        world.maps.truncate(1);
        let map = &mut world.maps[0];
        (map.abandoned, map.failing) = (None, 0);
        map.cancels.clear();
        map.jobs = map.jobs.max(1);
        let poison = seed * 31 % map.jobs;
        map.poison = Some(poison);
        let run = run(&world);
        for (job, outcome) in (0..).zip(&run.outcomes[0]) {
            let expected = if job == poison { Outcome::Lost } else { Outcome::Done };
            assert_eq!(*outcome, Some(expected), "job {job} of {}, {} ranks killed", run.outcomes[0].len(), run.killed);
        }
        assert!((3..=4).contains(&run.killed), "{} ranks killed", run.killed);
    });
}

fn failed(run: &Run) -> usize {
    run.outcomes.iter().flatten().filter(|job| **job == Some(Outcome::Failed)).count()
}

#[test]
fn simulated_ranks_on_which_everything_fails_at_once_do_not_eat_the_jobs() {
    let one = run(&world_of_three(|world| world.ranks[1].broken = (0, u64::MAX)));
    assert!(failed(&one) <= 24, "{} jobs failed", failed(&one));
    let two = run(&world_of_three(|world| {
        world.ranks[1].broken = (0, u64::MAX);
        world.ranks[2].broken = (0, u64::MAX);
    }));
    assert!(failed(&two) <= 48, "{} jobs failed", failed(&two));
    for retries in 1..4 {
        let run = run(&world_of_three(|world| {
            world.ranks[1].broken = (0, u64::MAX);
            world.maps[0].policy.retries = retries;
        }));
        assert_eq!(failed(&run), 0, "{retries} retries");
    }
}

#[test]
fn simulated_ranks_that_were_broken_for_a_while_are_used_again() {
    let recovered = run(&world_of_three(|world| world.ranks[1].broken = (0, 2_000 * MILLI)));
    assert!(recovered.jobs_of_rank[1] >= 80, "{:?}", recovered.jobs_of_rank);
    let whole = run(&world_of_three(|_| ()));
    assert!(recovered.makespan < whole.makespan * 5 / 4, "{} and {}", recovered.makespan, whole.makespan);
}

#[test]
fn simulated_jobs_that_fail_everywhere_keep_all_ranks_busy() {
    let whole = run(&world_of_three(|_| ())).makespan;
    for failing in [30, 60, 90, 97, 100] {
        let run = run(&world_of_three(|world| world.maps[0].failing = failing));
        assert!(run.makespan < whole * 5 / 4, "{failing} % fail: {} instead of {whole}", run.makespan);
    }
    let all = run(&world_of_three(|world| {
        for rank in &mut world.ranks {
            rank.broken = (0, u64::MAX);
        }
    }));
    assert_eq!(failed(&all), 400);
}

#[test]
fn simulated_ranks_that_are_merely_slow_are_not_suspected() {
    let slow = run(&world_of_three(|world| world.ranks[1].slowness = 300));
    let jobs = &slow.jobs_of_rank;
    assert!(jobs[1] * 2 < jobs[0] && jobs[1] * 4 > jobs[0], "{jobs:?}");
}

#[test]
fn simulated_short_jobs_do_not_wait_for_those_that_hardly_end() {
    for_seeds(0..400, |seed| {
        let mut world = world_of_three(|_| ());
        world.seed = seed;
        let chunk =
            [ChunkSize::Auto, ChunkSize::Fixed(NonZeroU32::MIN)][usize::try_from(seed % 2).expect("it is small")];
        world.ranks.iter_mut().for_each(|rank| rank.threads = 2);
        let map = &mut world.maps[0];
        map.policy.chunk = chunk;
        // Up to five of six threads are blocked at last.
        map.mix = Mix::Bimodal { short: 2 * MICRO, long: 10_000 * MILLI, percent: 2 };
        (map.jobs, map.window) = (20 + seed % 180, if seed % 4 < 2 { u64::MAX } else { 10 + seed % 30 });
        let jobs = map.jobs;
        let long = (0..jobs).filter(|job| world.duration(MapId(0), *job) > MILLI).count();
        // Jobs that have not begun by then are stopped.
        world.drains = Some(5_000 * MILLI);
        let outcomes = run(&world).outcomes;
        let stopped = outcomes[0].iter().filter(|job| **job != Some(Outcome::Done)).count();
        let submitted_late = jobs - u64::try_from(outcomes[0].len()).expect("a number");
        assert!(long > 5 || stopped == 0 && submitted_late == 0, "{stopped} of {jobs} jobs behind {long} long ones");
    });
}
