//! Useful time: what the function of a job takes, without the reading of its input and the writing of its result.

use std::thread;
use std::time::{Duration, Instant};

use rankpool::{Pool, RankStats};

use crate::support::{local, until};

const JOBS: u32 = 20;
const LONG: Duration = Duration::from_millis(2);

fn spin(duration: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < duration {}
}

/// What the only rank has done since it had done `before` jobs, as soon as it has done so many more.
fn rank_after(pool: &Pool, jobs: u64) -> RankStats {
    until("all jobs are counted", || pool.stats().unwrap().ranks[0].jobs == jobs);
    pool.stats().unwrap().ranks.remove(0)
}

/// [`JOBS`] jobs.
type Work = fn(&Pool);

/// How much useful time `work`, which is [`JOBS`] jobs, adds, and how much time on chunks.
fn added(pool: &Pool, work: impl FnOnce(&Pool)) -> (Duration, Duration) {
    let before = pool.stats().unwrap().ranks.remove(0);
    work(pool);
    let after = rank_after(pool, before.jobs + u64::from(JOBS));
    (after.busy - before.busy, after.on_chunks - before.on_chunks)
}

#[test]
fn the_time_of_every_kind_of_function_is_useful() {
    local(1, 1, |pool| {
        let kinds: [(&str, Work); 7] = [
            ("map", |pool| pool.map(|_: u32| spin(LONG), 0..JOBS).for_each(drop)),
            ("map_with", |pool| pool.map_with(LONG, 0..JOBS, |long, _: u32| spin(*long)).for_each(drop)),
            ("map_init", |pool| pool.map_init(|| LONG, 0..JOBS, |long, _: u32| spin(*long)).for_each(drop)),
            ("map_ref", |pool| pool.map_ref(|_: &u32| spin(LONG), &Vec::from_iter(0..JOBS)).for_each(drop)),
            ("starmap", |pool| pool.starmap(|_: u32, _: u32| spin(LONG), (0..JOBS).map(|x| (x, x))).for_each(drop)),
            ("submit_with", |pool| {
                let handles: Vec<_> =
                    (0..JOBS).map(|x| pool.submit_with(LONG, |long, _: u32| spin(*long), x)).collect();
                handles.into_iter().for_each(|handle| handle.wait().unwrap());
            }),
            ("a panic", |pool| {
                let job = |_: u32| {
                    spin(LONG);
                    panic!("after its time")
                };
                assert!(pool.map::<_, _, ()>(job, 0..JOBS).all(|result| result.is_err()));
            }),
        ];
        for (kind, work) in kinds {
            let (useful, on_chunks) = added(pool, work);
            assert!((LONG * JOBS..=on_chunks).contains(&useful), "{kind}: {useful:?} of {on_chunks:?}");
        }
    });
}

#[test]
fn what_map_init_builds_takes_time_that_is_not_useful() {
    local(1, 1, |pool| {
        let long = Duration::from_millis(50);
        let map = |pool: &Pool| {
            pool.map_init(|| thread::sleep(Duration::from_millis(50)), 0..JOBS, |(), _: u32| spin(LONG)).for_each(drop);
        };
        let (useful, on_chunks) = added(pool, map);
        assert!(on_chunks - useful >= long, "{useful:?} of {on_chunks:?}");
    });
}

#[test]
fn reading_a_large_input_is_not_useful_time() {
    local(1, 1, |pool| {
        let input: Vec<Option<u64>> = (0..100_000).map(Some).collect();
        let (useful, on_chunks) = added(pool, move |pool| {
            let first = |list: Vec<Option<u64>>| list[7];
            let inputs = (0..JOBS).map(move |_| input.clone());
            assert!(pool.map(first, inputs).all(|result| result == Ok(Some(7))));
        });
        assert!(useful < on_chunks / 4, "{useful:?} of {on_chunks:?}");
        let stats = pool.stats().unwrap();
        assert!(stats.efficiency() < 0.25, "{stats:?}");
    });
}

#[test]
fn writing_a_large_result_is_not_useful_time() {
    local(1, 1, |pool| {
        // Made before the job begins.
        let made = || (0..100_000).map(Some).collect::<Vec<Option<u64>>>();
        let (useful, on_chunks) = added(pool, move |pool| {
            let map = pool.map_init(made, 0..JOBS, |list: &mut Vec<Option<u64>>, _: u32| std::mem::take(list));
            assert_eq!(map.map(|result| result.unwrap().len()).sum::<usize>(), 100_000);
        });
        assert!(useful < on_chunks / 4, "{useful:?} of {on_chunks:?}");
    });
}

#[test]
fn short_jobs_are_useful_for_a_part_of_their_time_that_is_near_the_truth() {
    const SHORT: Duration = Duration::from_micros(2);
    local(1, 1, |pool| {
        let jobs = 20_000;
        pool.map_with(SHORT, 0..jobs, |short, _: u32| spin(*short)).for_each(drop);
        let rank = rank_after(pool, u64::from(jobs));
        let least = SHORT * jobs;
        // A job is measured or not by chance, and never estimated above the time of its chunk.
        assert!((least * 9 / 10..=rank.on_chunks).contains(&rank.busy), "{rank:?}");
    });
}
