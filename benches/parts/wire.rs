//! Chunks of inputs and of results, from values to a message and back.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use rankpool::Value;
use rankpool::internals::wire::{Inputs, Results, decode_inputs};
use serde::{Deserialize, Serialize};

/// The number of small values in a chunk.
const SMALL: u64 = 1000;

/// An input as a program would declare it: some parameters of a model.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
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
fn measure<T>(criterion: &mut Criterion, name: &str, values: &[T], throughput: Throughput)
where
    T: Value + Clone + PartialEq,
{
    let mut group = criterion.benchmark_group(format!("wire/{name}"));
    group.throughput(throughput);
    let mut inputs = Inputs::default();
    let (mut decoded_inputs, mut decoded_results) = (Vec::new(), Vec::new());
    decode_inputs(inputs.encode(values), |input: T| decoded_inputs.push(input));
    Results::encode(values.to_vec()).decode(|result: T| decoded_results.push(result));
    assert!(decoded_inputs == values && decoded_results == values, "what is decoded is what was encoded");
    group.bench_function("encode inputs", |bencher| bencher.iter(|| inputs.encode(values)));
    let packet = inputs.encode(values);
    group.bench_function("decode inputs", |bencher| {
        bencher.iter(|| decode_inputs(packet.clone(), |input: T| drop(black_box(input))));
    });
    group.bench_function("encode results", |bencher| {
        bencher.iter_batched(|| values.to_vec(), Results::encode, BatchSize::LargeInput);
    });
    group.bench_function("decode results", |bencher| {
        let decode = |results: Results| results.decode(|result: T| drop(black_box(result)));
        bencher.iter_batched(|| Results::encode(values.to_vec()), decode, BatchSize::LargeInput);
    });
    group.finish();
}

pub fn benches(criterion: &mut Criterion) {
    let small = Throughput::Elements(SMALL);
    measure(criterion, "u64", &(0..SMALL).collect::<Vec<_>>(), small.clone());
    let texts: Vec<_> = (0..SMALL).map(|x| format!("/data/run-7/input-{x:05}.dat")).collect();
    measure(criterion, "String", &texts, small.clone());
    measure(criterion, "record", &(0..SMALL).map(Record::new).collect::<Vec<_>>(), small);
    for (name, bytes) in [("100 kB", 100_000_u32), ("1 MB", 1_000_000)] {
        let numbers: Vec<f64> = (0..bytes / 8).map(f64::from).collect();
        measure(criterion, &format!("Vec<f64> of {name}"), &[numbers], Throughput::Bytes(bytes.into()));
    }
    let bytes = 1_000_000;
    measure(criterion, "Vec<u8> of 1 MB", &[vec![7_u8; bytes]], Throughput::Bytes(bytes as u64));
}
