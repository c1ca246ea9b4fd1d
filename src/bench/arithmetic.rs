//! Measures arithmetic that uses no memory on several threads: it gets slower only if they share CPUs.

use std::time::{Duration, Instant};

use super::median;

/// Returns by which factor arithmetic that uses no memory gets slower if this number of threads does it instead of one.
pub(crate) fn slowdown_of_arithmetic(threads: u32) -> f64 {
    let alone = arithmetic(1);
    arithmetic(threads) / alone.max(1e-9)
}

/// The time that arithmetic is to take.
const ARITHMETIC: Duration = Duration::from_millis(60);

/// Returns the seconds that each of these threads needs for the same arithmetic; the median of three tries.
fn arithmetic(threads: u32) -> f64 {
    static STEPS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let steps = *STEPS.get_or_init(|| {
        let (begin, some) = (Instant::now(), 1 << 20);
        std::hint::black_box(steps_of_arithmetic(some));
        (ARITHMETIC.as_secs_f64() / begin.elapsed().as_secs_f64() * some as f64) as u64
    });
    let tries: Vec<f64> = (0..3)
        .map(|_| {
            std::thread::scope(|scope| {
                let work = move || {
                    let begin = Instant::now();
                    std::hint::black_box(steps_of_arithmetic(steps));
                    begin.elapsed().as_secs_f64()
                };
                let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
                let own = work();
                let times: Vec<f64> =
                    others.into_iter().map(|other| other.join().unwrap_or(own)).chain([own]).collect();
                median(&times)
            })
        })
        .collect();
    median(&tries)
}

/// A chain of multiplications, each of which needs the one before.
fn steps_of_arithmetic(steps: u64) -> f64 {
    (0..steps).fold(1.0, |x: f64, _| std::hint::black_box(x) * 1.000_000_1)
}
