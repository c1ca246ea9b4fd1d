//! Measures the cost of a call. `cargo test --release --lib measure -- --ignored --nocapture` prints it.

use std::thread;
use std::time::Instant;

use super::*;

/// Returns the microseconds for each record with `workers` workers at once.
fn microseconds(module: &Module, workers: u32, batch: Option<usize>, records: u32) -> f64 {
    let mut ready: Vec<_> = (0..workers)
        .map(|_| {
            let call = PythonCall { batch: batch.and_then(NonZeroUsize::new), ..module.call("f") };
            let mut worker = worker(&call, |_| {});
            answered(&mut worker, list(0..1000));
            worker
        })
        .collect();
    let lists: Vec<_> = (0..workers).map(|_| list(0..records)).collect();
    let since = Instant::now();
    thread::scope(|scope| {
        for (worker, list) in ready.iter_mut().zip(lists) {
            scope.spawn(|| answered(worker, list));
        }
    });
    since.elapsed().as_secs_f64() * 1e6 / f64::from(records * workers)
}

#[test]
#[ignore = "a measurement"]
fn measure_the_cost_of_a_call() {
    let module = module("def f(x):\n    return x\n");
    for (workers, batch) in [(1, None), (2, None), (1, Some(256)), (2, Some(256))] {
        let best = (0..3).map(|_| microseconds(&module, workers, batch, 100_000)).fold(f64::INFINITY, f64::min);
        println!("{workers} workers, batch {batch:?}: {best:.2} µs for each record");
    }
}
