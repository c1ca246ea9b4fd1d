//! A batch of 100 000 jobs through its ledger, without a pool.

use criterion::{BatchSize, Criterion, Throughput};
use rankpool::internals::ledger::Batch;

use crate::LESS;

const JOBS: u64 = 100_000 / LESS;
/// One in this number of jobs fails at first: three percent.
const FAILS: u64 = 33;

pub fn benches(criterion: &mut Criterion) {
    let plain = Batch { jobs: JOBS, window: 4096, chunk: 64, is_logged: false, fails: 0 };
    let batches = [
        ("plain", plain),
        ("retries", Batch { fails: FAILS, ..plain }),
        ("job log", Batch { is_logged: true, ..plain }),
        ("job log and retries", Batch { is_logged: true, fails: FAILS, ..plain }),
    ];
    let mut group = criterion.benchmark_group("ledger");
    for (name, batch) in batches {
        let retries = batch.jobs.checked_div(batch.fails).unwrap_or(0);
        group.throughput(Throughput::Elements(JOBS + retries));
        group.bench_function(name, |bencher| {
            let run = |jobs| assert_eq!(batch.run(jobs), (JOBS, retries));
            bencher.iter_batched(|| batch.jobs(), run, BatchSize::PerIteration);
        });
    }
    group.finish();
}
