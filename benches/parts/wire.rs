//! Chunks of inputs and of results, from values to a message and back.

use criterion::{Criterion, Throughput};
use rankpool::Value;
use rankpool::internals::wire::{Inputs, decode_inputs, decode_results, encode_results};
use serde::{Deserialize, Serialize};

/// The number of small values in a chunk.
const SMALL: u64 = 1000;
const MEGABYTE: usize = 1_000_000;

/// An input as a program would declare it: some parameters of a model.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    mean: f64,
    widths: [f64; 3],
    seed: Option<u32>,
}

impl Record {
    fn new(id: u64) -> Record {
        let x = id as f64;
        Record { id, name: format!("station-{id:05}"), mean: x / 7.0, widths: [x, x + 0.5, x + 1.5], seed: Some(17) }
    }
}

/// Measures a chunk with these values, in all four ways.
fn measure<T: Value + Clone>(criterion: &mut Criterion, name: &str, values: &[T], throughput: Throughput) {
    let mut group = criterion.benchmark_group(format!("wire/{name}"));
    group.throughput(throughput);
    let mut inputs = Inputs::default();
    group.bench_function("encode inputs", |bencher| bencher.iter(|| inputs.encode(values)));
    let message = inputs.encode(values);
    group.bench_function("decode inputs", |bencher| {
        bencher.iter(|| decode_inputs(message.clone(), |input: T| drop(std::hint::black_box(input))));
    });
    group.bench_function("encode results", |bencher| bencher.iter(|| encode_results(values)));
    let message = encode_results(values);
    group.bench_function("decode results", |bencher| {
        bencher.iter(|| decode_results(message.clone(), |result: T| drop(std::hint::black_box(result))));
    });
    group.finish();
}

pub fn benches(criterion: &mut Criterion) {
    let small = Throughput::Elements(SMALL);
    measure(criterion, "u64", &(0..SMALL).collect::<Vec<_>>(), small.clone());
    let texts: Vec<_> = (0..SMALL).map(|x| format!("/data/run-7/input-{x:05}.dat")).collect();
    measure(criterion, "String", &texts, small.clone());
    measure(criterion, "record", &(0..SMALL).map(Record::new).collect::<Vec<_>>(), small);
    let large = Throughput::Bytes(MEGABYTE as u64);
    let numbers: Vec<f64> = (0..MEGABYTE / 8).map(|x| x as f64).collect();
    measure(criterion, "Vec<f64> of 1 MB", &[numbers], large.clone());
    measure(criterion, "Vec<u8> of 1 MB", &[vec![7_u8; MEGABYTE]], large);
}
