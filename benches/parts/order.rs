//! Results that arrive in order, in reverse and at random, and leave in order.

use std::ops::Range;

use criterion::{BatchSize, Criterion, Throughput};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rankpool::internals::order::{Deliveries, outputs_in_order, runs_in_order};

use crate::LESS;

const JOBS: u64 = 100_000 / LESS;
/// The number of jobs in a chunk.
const CHUNK: u64 = 16;
/// The number of jobs that are under way at the same time: results are out of order within it.
const WINDOW: usize = 4096;

/// Permutes the chunks of a window: they arrive in this order.
type Permute = fn(&mut [Range<u64>]);

const ARRIVALS: [(&str, Permute); 3] = [
    ("in order", |_| {}),
    ("in reverse", |window| window.reverse()),
    ("at random", |window| window.shuffle(&mut ChaCha8Rng::seed_from_u64(window[0].start))),
];

/// Returns chunks of `chunk` jobs as they arrive.
fn arrivals(chunk: u64, permute: Permute) -> Vec<Range<u64>> {
    let mut chunks: Vec<_> = (0..JOBS).step_by(chunk as usize).map(|first| first..JOBS.min(first + chunk)).collect();
    chunks.chunks_mut(WINDOW / chunk as usize).for_each(permute);
    chunks
}

/// The output of a job of a batch.
fn output(job: u64) -> Vec<u8> {
    format!("{{\"job\":{job},\"value\":{}.25}}\n", job * 3).into_bytes()
}

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("order");
    group.throughput(Throughput::Elements(JOBS));
    let all = (0..JOBS).map(|job| output(job).len()).sum::<usize>();
    for (name, permute) in ARRIVALS {
        let chunks = arrivals(CHUNK, permute);
        group.bench_function(format!("map, {name}"), |bencher| {
            let take = |deliveries: Deliveries| {
                let mut next = 0;
                deliveries.in_order(|result| {
                    assert_eq!(result, next);
                    next += 1;
                });
                assert_eq!(next, JOBS);
            };
            bencher.iter_batched(|| Deliveries::of(&chunks), take, BatchSize::PerIteration);
        });
        let outputs: Vec<_> = arrivals(1, permute).into_iter().map(|job| (job.start, output(job.start))).collect();
        group.bench_function(format!("batch, jobs {name}"), |bencher| {
            let count = |outputs| {
                let mut bytes = 0;
                outputs_in_order(outputs, |output| bytes += output.len());
                assert_eq!(bytes, all);
            };
            bencher.iter_batched(|| outputs.clone(), count, BatchSize::PerIteration);
        });
        let run = |jobs: &Range<u64>| (jobs.start, jobs.end - jobs.start, jobs.clone().flat_map(output).collect());
        let runs: Vec<(_, _, Vec<u8>)> = chunks.iter().map(run).collect();
        group.bench_function(format!("batch, chunks {name}"), |bencher| {
            let count = |runs| {
                let mut bytes = 0;
                runs_in_order(runs, |outputs| bytes += outputs.len());
                assert_eq!(bytes, all);
            };
            bencher.iter_batched(|| runs.clone(), count, BatchSize::PerIteration);
        });
    }
    group.finish();
}
