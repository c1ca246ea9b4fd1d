//! Jobs of different duration, whose results are used as they end; a failure is one of the results.
//!
//! `mpiexec -n 4 target/release/examples/as_completed`

use std::time::Duration;

fn sleep(millis: u64) -> u64 {
    assert!(millis != 50, "50 ms is refused");
    std::thread::sleep(Duration::from_millis(millis));
    millis
}

fn main() -> rankpool::ExitCode {
    rankpool::launch(|pool| {
        let handles = [300, 50, 100, 200].map(|millis| pool.submit(sleep, millis));
        let mut slept = 0;
        for handle in rankpool::as_completed(handles) {
            match handle.wait() {
                Ok(millis) => slept += millis,
                Err(error) => println!("job {} failed: {}", error.job, error.message),
            }
        }
        println!("slept {slept} ms in all");

        // The same as a map: results in the order of their arrival.
        let total: u64 = pool.map(sleep, [30, 20, 10]).unordered().sum::<Result<_, _>>()?;
        println!("and {total} ms more");
        Ok(())
    })
}
