//! Functions of a known duration, for measuring the pool itself.
//!
//! They return their input, so that a test also sees whether jobs are lost, run twice or out of order.

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use super::arithmetic::square;

/// Returns the job's index at once, so that a run measures the pool alone.
pub fn nop(index: u64) -> u64 {
    index
}

/// Keeps a core busy until `duration` of wall time has passed, then returns the job's index.
///
/// The clock is monotonic. On a core that several threads share, the time spent waiting for it counts too.
pub fn spin(duration: &Duration, index: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < *duration {
        spin_loop();
    }
    index
}

/// Sleeps for `duration` without using a core, then returns the job's index.
pub fn sleep(duration: &Duration, index: u64) -> u64 {
    thread::sleep(*duration);
    index
}

/// Sleeps for `duration`, then returns x², exactly.
pub fn sleep_square(duration: &Duration, x: i64) -> i128 {
    thread::sleep(*duration);
    square(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answers_its_input_and_takes_at_least_its_time() {
        let duration = Duration::from_millis(2);
        let timed = |job: &dyn Fn()| {
            let start = Instant::now();
            job();
            start.elapsed()
        };
        assert_eq!(nop(u64::MAX), u64::MAX);
        assert!(timed(&|| assert_eq!(spin(&duration, 3), 3)) >= duration);
        assert!(timed(&|| assert_eq!(sleep(&duration, 4), 4)) >= duration);
        assert!(timed(&|| assert_eq!(sleep_square(&duration, -9), 81)) >= duration);
        assert_eq!(spin(&Duration::ZERO, 5), 5);
    }
}
