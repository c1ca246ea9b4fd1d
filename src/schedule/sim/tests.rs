//! Thousands of worlds, each judged at every step. `SEED=123 cargo test simulated` replays one.

use super::{World, run};
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
fn simulated_runs_of_one_seed_have_one_trace() {
    for_seeds(0..100, |seed| {
        assert_eq!(run(&World::draw(seed)), run(&World::draw(seed)))
    });
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
        assert!(
            expected
                .iter()
                .flatten()
                .all(|job| matches!(job, Some(Outcome::Done | Outcome::Failed)))
        );
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
    let all = [
        Outcome::Done,
        Outcome::Failed,
        Outcome::Lost,
        Outcome::Cancelled,
        Outcome::Stopped,
    ]
    .map(sum);
    let recalls: u64 = runs.iter().map(|run| run.recalls).sum();
    let messages: u64 = runs.iter().map(|run| run.messages).sum();
    eprintln!("{all:?} recalls {recalls} messages {messages}");
    assert!(all.iter().all(|jobs| *jobs > 100), "{all:?}");
    assert!(recalls > 1_000);
}
