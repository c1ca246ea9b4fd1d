use std::cell::Cell;

use super::*;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    static READINGS: Cell<u64> = const { Cell::new(0) };
}

/// The duration of a reading of the clock.
const READING_NS: u64 = 25;

/// A clock that moves only when it is read, and by `pass`.
fn now() -> Instant {
    READINGS.set(READINGS.get() + 1);
    pass(READING_NS)
}

fn pass(ns: u64) -> Instant {
    let now = NOW.get().unwrap_or_else(Instant::now) + Duration::from_nanos(ns);
    NOW.set(Some(now));
    now
}

fn stopwatch() -> Stopwatch {
    READINGS.set(0);
    Stopwatch::new(now, READING_NS)
}

/// Runs a chunk of jobs of these durations, each with `overhead_ns` outside of the function. Returns the time in the function and
/// the useful time by the stopwatch.
fn run_chunk(stopwatch: &mut Stopwatch, overhead_ns: u64, jobs: impl IntoIterator<Item = u64>) -> (u64, u64) {
    let begin = pass(0);
    let mut useful = 0;
    for ns in jobs {
        pass(overhead_ns);
        stopwatch.time(|| pass(ns));
        useful += ns;
    }
    let wall_ns = nanos(pass(0).duration_since(begin));
    (useful, stopwatch.end_chunk(wall_ns))
}

/// Runs `chunks` chunks and returns the sums of both times.
fn run_chunks(stopwatch: &mut Stopwatch, overhead_ns: u64, chunks: u64, jobs: impl Fn(u64) -> Vec<u64>) -> (f64, f64) {
    (0..chunks)
        .map(|chunk| run_chunk(stopwatch, overhead_ns, jobs(chunk)))
        .fold((0.0, 0.0), |sums, (useful, measured)| (sums.0 + useful as f64, sums.1 + measured as f64))
}

#[track_caller]
fn assert_near((useful, measured): (f64, f64), part: f64) {
    assert!(
        (measured - useful).abs() <= part * useful,
        "the function took {useful} ns, the stopwatch measured {measured} ns"
    );
}

#[test]
fn every_long_job_is_measured_to_the_nanosecond_without_its_overhead() {
    let mut stopwatch = stopwatch();
    for chunk in 0..5 {
        let jobs = (0..100).map(|job| ALWAYS_NS as u64 + chunk + 1_000_000 * (job % 7));
        let (useful, measured) = run_chunk(&mut stopwatch, 3_000, jobs);
        assert_eq!(measured, useful);
    }
    assert_eq!(READINGS.get(), 2 * 500);
}

#[test]
fn measuring_short_jobs_takes_about_a_hundredth_of_their_time() {
    for ns in [30, 150, 1_000, 2_500] {
        let mut stopwatch = stopwatch();
        run_chunks(&mut stopwatch, 0, 500, |_| vec![ns; 1000]);
        let part = (READINGS.get() * READING_NS) as f64 / (500_000 * ns) as f64;
        // Two readings in the time of a job that is always measured; below the largest period, less.
        let wanted = (2 * READING_NS) as f64 / (ns as f64 * (ALWAYS_NS / ns as f64).min(LARGEST_PERIOD));
        assert!((0.8..=1.1).contains(&(part / wanted)), "{part} of the time of jobs of {ns} ns");
    }
}

#[test]
fn short_jobs_of_one_duration_are_estimated_without_their_overhead() {
    for (ns, overhead_ns) in [(0, 50), (20, 40), (300, 100), (1_000, 4_000)] {
        assert_near(run_chunks(&mut stopwatch(), overhead_ns, 100, |_| vec![ns; 1000]), 0.0001);
    }
}

#[test]
fn chunks_of_one_short_job_are_sampled_too() {
    let mut stopwatch = stopwatch();
    assert_near(run_chunks(&mut stopwatch, 200, 10_000, |_| vec![100]), 0.0001);
    // Every sixteenth or so, after a start with more.
    assert!((2 * 500..2 * 750).contains(&READINGS.get()), "{} readings", READINGS.get());
}

#[test]
fn the_sum_over_chunks_of_one_unequal_job_each_is_right() {
    assert_near(run_chunks(&mut stopwatch(), 200, 50_000, |chunk| vec![(chunk * 7919) % 2_000]), 0.05);
}

#[test]
fn the_estimate_is_near_the_mean_of_unequal_jobs_also_if_they_have_a_pattern() {
    let pattern = |_| (0..1024).map(|job| if job % 64 == 0 { 3_000 } else { 50 + job % 100 }).collect();
    assert_near(run_chunks(&mut stopwatch(), 50, 500, pattern), 0.05);
    // Some jobs that are a hundred times as long as the others, at places that wander.
    let some = |chunk| (0..1000).map(|job| if (job * 7 + chunk) % 100 == 0 { 10_000 } else { 100 }).collect();
    assert_near(run_chunks(&mut stopwatch(), 50, 2_000, some), 0.05);
}

#[test]
fn the_useful_time_of_a_chunk_is_at_most_its_wall_time() {
    let mut stopwatch = stopwatch();
    run_chunk(&mut stopwatch, 0, vec![4_000; 1000]);
    let begin = pass(0);
    for _ in 0..10 {
        stopwatch.time(|| pass(1));
    }
    let wall_ns = nanos(pass(0).duration_since(begin));
    assert_eq!(stopwatch.end_chunk(wall_ns), wall_ns);
    assert_eq!(stopwatch.end_chunk(7), 7, "what was too much is left for the next chunk");
    assert!(stopwatch.end_chunk(10 * CARRIED_NS) > 0, "and for the one after that");
    assert_eq!(stopwatch.end_chunk(10 * CARRIED_NS), 0, "until it is used up");
}

#[test]
fn a_thread_that_loses_its_core_in_a_measured_short_job_does_not_spoil_the_estimate_for_long() {
    let mut stopwatch = stopwatch();
    run_chunk(&mut stopwatch, 0, vec![30; 10_000]);
    let mut measured = 0;
    let begin = pass(0);
    while measured == 0 {
        let before = READINGS.get();
        stopwatch.time(|| {
            measured = READINGS.get() - before;
            pass(if measured > 0 { 4_000_000 } else { 30 })
        });
    }
    let wall_ns = nanos(pass(0).duration_since(begin));
    assert!(stopwatch.end_chunk(wall_ns) <= wall_ns);
    let (useful, measured) = run_chunks(&mut stopwatch, 30, 1000, |_| vec![30; 1000]);
    assert!(measured < useful + (2 * CARRIED_NS) as f64, "{measured} of {useful}");
}

#[test]
fn jobs_that_become_longer_are_all_measured_from_the_next_chunk_on() {
    let mut stopwatch = stopwatch();
    run_chunk(&mut stopwatch, 0, vec![30; 10_000]);
    let before = READINGS.get();
    run_chunk(&mut stopwatch, 0, vec![20_000; 64]);
    assert_eq!(READINGS.get(), before, "none of these is measured, which is left to chance: draw another gap");
    let (useful, measured) = run_chunk(&mut stopwatch, 0, vec![30_000; 1000]);
    assert_eq!((useful, READINGS.get() - before), (measured, 2 * 1000));
    // So are long jobs behind a first short one, soon.
    let mut stopwatch = self::stopwatch();
    let (useful, measured) = run_chunk(&mut stopwatch, 0, [1].into_iter().chain(vec![20_000; 100]));
    assert!(measured > useful * 9 / 10, "{measured} of {useful}");
}

#[test]
fn a_function_that_panics_counts_until_its_panic() {
    let mut stopwatch = stopwatch();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stopwatch.time(|| {
            pass(7_000);
            std::panic::resume_unwind(Box::new(()))
        })
    }));
    assert!(panic.is_err());
    stopwatch.stop();
    stopwatch.stop();
    pass(1_000);
    assert_eq!(stopwatch.end_chunk(9_000), 7_000);
}

#[test]
fn the_cost_of_a_reading_is_the_shortest_time_between_two() {
    assert_eq!(cost(now), READING_NS);
    assert!(cost(Instant::now) < 100_000);
}
