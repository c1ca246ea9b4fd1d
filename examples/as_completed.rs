//! Jobs of different length, taken as they end; a failure is one of the results.
//!
//! `mpiexec -n 4 target/release/examples/as_completed`

use std::time::Duration;

fn doze(millis: u64) -> u64 {
    assert!(millis != 50, "50 ms is refused");
    std::thread::sleep(Duration::from_millis(millis));
    millis
}

fn main() -> rankpool::ExitCode {
    rankpool::launch(|pool| {
        let naps = [300, 50, 100, 200];
        let handles = naps.map(|millis| pool.submit(doze, millis));
        let mut slept = 0;
        for handle in rankpool::as_completed(handles) {
            match handle.wait() {
                Ok(millis) => slept += millis,
                Err(error) => println!("job {} failed: {}", error.job, error.message),
            }
        }
        println!("slept {slept} ms in all");

        // The same as a map: results as they come.
        let total: u64 = pool.map(doze, [30, 20, 10]).unordered().sum::<Result<_, _>>()?;
        println!("and {total} ms more");
        Ok(())
    })
}
