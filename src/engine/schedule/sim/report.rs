//! Measures the scheduling policy: makespan and idle time of large pools, so that its constants are chosen by numbers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Fate, MICRO, MILLI, MapPlan, Mix, RankPlan, Run, World, run};
use crate::engine::schedule::{ChunkSize, Policy};

/// The measurement of one case: a pool of a given size and a kind of jobs.
#[derive(Clone, Debug)]
pub struct Line {
    /// The kind of jobs.
    pub name: &'static str,
    /// The number of ranks.
    pub ranks: u32,
    /// The number of jobs.
    pub jobs: u64,
    /// The result of the simulated run.
    pub run: Run,
    /// The least possible makespan (ns): all work spread evenly, or the longest job.
    pub ideal: u64,
    /// The makespan of a pool without messages (ns), in which a thread that is free takes the next job: the best that a scheduler
    /// can reach that does not know durations in advance.
    pub greedy: u64,
    /// The share of thread time spent outside jobs, in thousandths.
    pub idle_per_mille: u64,
}

/// Returns the cases to measure: name, durations, and the slowness of rank 1 in percent. `mean` is the mean duration in ns.
#[must_use]
pub fn cases(mean: u64) -> Vec<(&'static str, Mix, u64)> {
    // 95 % short and 5 % long jobs, ten times as long.
    let short = mean * 100 / 145;
    let bimodal = Mix::Bimodal { short, long: 10 * short, percent: 5 };
    vec![
        ("constant", Mix::Constant(mean), 100),
        ("exponential", Mix::Exponential(mean), 100),
        ("bimodal", bimodal, 100),
        ("one slow rank", Mix::Exponential(mean), 1_000),
    ]
}

/// Returns the duration of the jobs of a rank, in percent of the normal one, if rank 1 has this one.
fn speed(rank: u32, slowness: u64) -> u64 {
    if rank == 1 { slowness } else { 100 }
}

/// Returns the world of a case: a map whose jobs are all submitted at once. Jobs on rank 1 take `slowness` percent of their time on
/// the other ranks.
#[must_use]
pub fn world(ranks: u32, threads: u32, jobs: u64, mix: Mix, slowness: u64) -> World {
    let plan = |rank| {
        let slowness = speed(rank, slowness);
        RankPlan { threads, joins: 0, slowness, broken: (0, 0), waking: 0, fate: Fate::Stays }
    };
    let map = MapPlan {
        opens: 0,
        policy: Policy { chunk: ChunkSize::Auto, retries: 0 },
        function: 0,
        jobs,
        window: u64::MAX,
        mix,
        failing: 0,
        poison: None,
        abandoned: None,
        cancels: Vec::new(),
    };
    World {
        seed: 1,
        ranks: (0..ranks).map(plan).collect(),
        maps: vec![map],
        in_a_row: false,
        latency: (5 * MICRO, 50 * MICRO),
        service: MICRO,
        drains: None,
        judged: false,
    }
}

/// Measures one case: a [`world`].
#[must_use]
pub fn measure(name: &'static str, ranks: u32, threads: u32, jobs: u64, mix: Mix, slowness: u64) -> Line {
    let world = world(ranks, threads, jobs, mix, slowness);
    let speed = |rank: u32| speed(rank, slowness);
    let durations = || (0..jobs).map(|job| world.duration(super::MapId(0), job));
    let total: u64 = durations().sum();
    let speeds: u64 = (0..ranks).map(|rank| 10_000 / speed(rank) * u64::from(threads)).sum();
    let ideal = (total / speeds * 100).max(durations().max().unwrap_or(0));
    let greedy = greedy(durations(), ranks, threads, speed);
    let run = run(&world);
    let offered = run.makespan * u64::from(ranks) * u64::from(threads) / 1_000;
    let idle_per_mille = 1_000 - (run.busy / offered.max(1)).min(1_000);
    Line { name, ranks, jobs, run, ideal, greedy, idle_per_mille }
}

/// Returns the makespan if each job is run by the thread that is free first.
fn greedy(durations: impl Iterator<Item = u64>, ranks: u32, threads: u32, slowness: impl Fn(u32) -> u64) -> u64 {
    let mut free: BinaryHeap<_> = (0..ranks * threads).map(|thread| Reverse((0, thread % ranks))).collect();
    let mut makespan = 0;
    for duration in durations {
        let Some(Reverse((time, rank))) = free.pop() else { break };
        let ends = time + duration * slowness(rank) / 100;
        makespan = makespan.max(ends);
        free.push(Reverse((ends, rank)));
    }
    makespan
}

/// Measures all cases with jobs of 100 ms on average.
#[must_use]
pub fn report(ranks: u32, threads: u32, jobs_per_thread: u64) -> Vec<Line> {
    let jobs = u64::from(ranks) * u64::from(threads) * jobs_per_thread;
    let cases = cases(100 * MILLI).into_iter();
    cases.map(|(name, mix, slowness)| measure(name, ranks, threads, jobs, mix, slowness)).collect()
}
