//! A journal in a temporary folder: entries are appended, synced and read back.
//!
//! The folder is `TMPDIR`. The system keeps what is appended in memory until it is synced, which is measured by itself.

use std::fs;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput};
use rankpool::internals::journal::{Journal, read_back};

use crate::LESS;

/// The sizes of outputs, and the numbers of jobs of a journal with them.
const SIZES: [(&str, usize, u64); 2] = [("16 B", 16, 10_000 / LESS), ("10 kB", 10_000, 1_000 / LESS)];

fn records(jobs: u64) -> Vec<Vec<u8>> {
    (1..=jobs).map(|job| format!(r#"{{"file":"input-{job:06}.dat","n":{job}}}"#).into_bytes()).collect()
}

fn append(journal: &mut Journal, records: &[Vec<u8>], output: &[u8]) {
    for (number, record) in (1..).zip(records) {
        journal.settle(number, record, output).expect("an entry is written");
    }
    journal.flush().expect("the entries are written");
}

/// Makes a new journal in place of the one that is there.
fn create(path: &Path) -> Journal {
    let _ = fs::remove_file(path);
    Journal::create(path).expect("a journal")
}

pub fn benches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    for (name, bytes, jobs) in SIZES {
        let mut group = criterion.benchmark_group(format!("journal/{name}"));
        let (records, output) = (records(jobs), vec![b'x'; bytes]);
        group.throughput(if bytes < 100 { Throughput::Elements(jobs) } else { Throughput::Bytes(jobs * bytes as u64) });
        group.bench_function("append", |bencher| {
            let append = |mut journal: Journal| {
                append(&mut journal, &records, &output);
                journal
            };
            bencher.iter_batched(|| create(&path), append, BatchSize::PerIteration);
        });
        group.bench_function("read back", |bencher| {
            append(&mut create(&path), &records, &output);
            let read = || read_back(&path, records.iter().map(Vec::as_slice)).expect("it is read");
            bencher.iter(|| assert_eq!(read(), (jobs, jobs * bytes as u64)));
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("journal/sync");
    group.sample_size(20);
    for (name, bytes, _) in SIZES {
        let (records, output) = (records(1), vec![b'x'; bytes]);
        group.bench_function(format!("an entry of {name}"), |bencher| {
            let settle = || {
                let mut journal = create(&path);
                append(&mut journal, &records, &output);
                journal
            };
            let sync = |mut journal: Journal| {
                journal.sync().expect("it is synced");
                journal
            };
            bencher.iter_batched(settle, sync, BatchSize::PerIteration);
        });
    }
    group.finish();
}
