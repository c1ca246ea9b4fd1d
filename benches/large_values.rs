//! Measures the time that a large value takes to cross ranks, as an input and as a result.
//!
//! `cargo bench --no-default-features --bench large_values` uses two ranks that are threads of this process. Started by
//! `mpiexec -n 2` (the program is in `target/release/deps`) it uses MPI ranks. `made` is the time to make the value, which is
//! included in the time of the result. The limit was set for 50 MB on two idle cores.

use std::time::{Duration, Instant};

use rankpool::{DriverResult, ExitCode, Launch, Pool, Value};

const BYTES: usize = 50_000_000;
const ROUNDS: usize = 11;
const LIMIT: Duration = Duration::from_millis(40);

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a table for people")]
fn measure<T: Value>(
    pool: &Pool,
    name: &str,
    make: impl Fn(usize) -> T + Copy + Send + Sync + 'static,
) -> DriverResult {
    let (mut made, mut results, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let value = std::hint::black_box(make(BYTES));
        made.push(begin.elapsed());
        drop(value);
        let begin = Instant::now();
        let value = pool.apply(make, BYTES)?;
        results.push(begin.elapsed());
        let begin = Instant::now();
        pool.apply(|value: T| drop(value), value)?;
        inputs.push(begin.elapsed());
    }
    let (made, result, input) = (median(made), median(results), median(inputs));
    let verdict = if result <= LIMIT { "ok" } else { "MISSED" };
    println!("{name:<20} made {made:>9.1?}   result {result:>9.1?}   input {input:>9.1?}   {verdict}");
    Ok(())
}

fn main() -> ExitCode {
    let launch = match std::env::var_os("OMPI_COMM_WORLD_SIZE").or(std::env::var_os("PMI_SIZE")) {
        Some(_) => Launch::new(),
        None => Launch::new().local(2),
    };
    launch.threads(1).run(|pool| {
        measure(pool, "Vec<f64>", |bytes| vec![1.5_f64; bytes / 8])?;
        measure(pool, "Vec<u8>", |bytes| vec![7_u8; bytes])?;
        measure(pool, "String", |bytes| "x".repeat(bytes))?;
        measure(pool, "(u64, Vec<f64>)", |bytes| (1_u64, vec![1.5_f64; bytes / 8]))
    })
}
