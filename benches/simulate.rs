//! Measures the scheduling policy: makespan and idle time of simulated pools, without running jobs.
//!
//! `cargo bench --bench simulate -- [RANKS [THREADS [JOBS_PER_THREAD]]]`; the numbers depend on nothing but the sources.

use std::time::Instant;

use rankpool::engine::schedule::sim::report::{cases, measure};

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a table for people")]
fn main() {
    let mut sizes = std::env::args().skip(1).filter_map(|arg| arg.parse::<u32>().ok());
    let ranks = sizes.next().unwrap_or(16_384);
    let threads = sizes.next().unwrap_or(1);
    let jobs_per_thread = sizes.next().unwrap_or(100);
    let jobs = u64::from(ranks) * u64::from(threads) * u64::from(jobs_per_thread);
    println!(
        "{ranks} ranks x {threads} threads x {jobs_per_thread} jobs, latency 5-50 us, 1 us of master time per message"
    );
    println!(
        "{:<14} {:>9} {:>10} {:>10} {:>7} {:>7} {:>9} {:>8} {:>6}",
        "mix", "mean", "makespan", "greedy", "over", "idle", "messages", "recalls", "real"
    );
    for (mean, unit) in [(100_000_000, "100 ms"), (1_000_000, "1 ms"), (10_000, "10 us")] {
        for (name, mix, slowness) in cases(mean) {
            let start = Instant::now();
            let line = measure(name, ranks, threads, jobs, mix, slowness);
            println!(
                "{:<14} {:>9} {:>8.3} s {:>8.3} s {:>5.1} % {:>5.1} % {:>9} {:>8} {:>4.1} s",
                line.name,
                unit,
                line.run.makespan as f64 / 1e9,
                line.greedy as f64 / 1e9,
                100.0 * (line.run.makespan as f64 / line.greedy as f64 - 1.0),
                line.idle_per_mille as f64 / 10.0,
                line.run.messages,
                line.run.recalls,
                start.elapsed().as_secs_f64(),
            );
        }
    }
}
