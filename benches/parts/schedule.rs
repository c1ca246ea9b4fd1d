//! The scheduler alone: the events of a simulated run are handled once more, without the simulation.

use std::cell::LazyCell;

use criterion::{BatchSize, Criterion, Throughput};
use rankpool::engine::schedule::sim::{MICRO, MILLI, Mix, events, report::world};
use rankpool::engine::schedule::{Action, Event, Schedule};

use crate::LESS;

const JOBS: u64 = 100_000 / LESS;
/// The number of jobs that are submitted and not settled.
const WINDOW: u64 = 16_384;
/// The number of jobs in a block of inputs, and how jobs are submitted one by one.
const BLOCKS: [(&str, u64); 2] = [("blocks", 4096), ("single", 1)];
/// The mean durations of jobs: with the short ones chunks have many jobs, with the long ones few or one.
const MEANS: [(&str, u64); 2] = [("10 us", 10 * MICRO), ("10 ms", 10 * MILLI)];

/// Handles all events and returns the number of actions.
fn replay(events: Vec<Event>, schedule: &mut Schedule, actions: &mut Vec<Action>) -> usize {
    let mut all = 0;
    for event in events {
        schedule.handle(event, actions);
        all += actions.len();
        actions.clear();
    }
    assert!(schedule.is_finished(), "all jobs are settled");
    all
}

pub fn benches(criterion: &mut Criterion) {
    for ranks in [4, 64, 1024] {
        let mut group = criterion.benchmark_group(format!("schedule/{ranks} ranks"));
        group.throughput(Throughput::Elements(JOBS)).sample_size(20);
        for (length, mean) in MEANS {
            for (name, block) in BLOCKS {
                let recorded = LazyCell::new(|| {
                    let mut world = world(ranks, 1, JOBS, Mix::Exponential(mean), 100);
                    world.maps[0].window = WINDOW;
                    events(&world, block)
                });
                let mut actions = Vec::new();
                group.bench_function(format!("{length}, {name}"), |bencher| {
                    bencher.iter_batched(
                        || (recorded.clone(), Schedule::new()),
                        |(events, mut schedule)| (replay(events, &mut schedule, &mut actions), schedule),
                        BatchSize::PerIteration,
                    );
                });
            }
        }
        group.finish();
    }
}
