//! Thousands of worlds, each judged at every step. `SEED=123 cargo test simulated` replays one.

use super::report::{cases, measure};
use super::{MICRO, MILLI, Mix, World, run};
use crate::schedule::Outcome;

/// Runs a check for every seed, or for the one asked for; names the seed that fails.
fn for_seeds(seeds: std::ops::Range<u64>, check: impl Fn(u64) + std::panic::RefUnwindSafe) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        check(seed);
        return;
    }
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| check(seed)) {
            eprintln!("this is seed {seed}; replay it with SEED={seed} cargo test simulated");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn simulated_worlds_keep_every_promise() {
    for_seeds(0..3_000, |seed| {
        let _ = run(&World::draw(seed));
    });
}

#[test]
fn simulated_small_maps_keep_every_promise() {
    for_seeds(0..1_000, |seed| {
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
        // There and back once for each job; recalls are for those whose duration is unknown.
        let jobs: u64 = world.maps.iter().map(|map| map.jobs).sum();
        assert!(run.recalls <= jobs / 10 && run.messages <= 3 * jobs, "{} messages for {jobs} jobs", run.messages);
    });
}

#[test]
fn simulated_runs_of_one_seed_have_one_trace() {
    for_seeds(0..100, |seed| assert_eq!(run(&World::draw(seed)), run(&World::draw(seed))));
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
