//! `map_init`: a state that is made on the rank that uses it, once per compute thread.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::thread::{self, ThreadId};

use rankpool::{JobErrorKind, current_job};

use crate::support::local;

#[test]
fn a_state_is_made_at_most_once_per_thread() {
    static MADE: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
    local(2, 2, |pool| {
        let init = || {
            MADE.lock().unwrap().push(thread::current().id());
            0u64
        };
        let sum: u64 = pool
            .map_init(init, 0..5000, |calls, x: u64| {
                *calls += 1;
                x
            })
            .map(Result::unwrap)
            .sum();
        assert_eq!(sum, 4999 * 5000 / 2);
        let made = MADE.lock().unwrap().len();
        assert!((1..=4).contains(&made), "{made} states for four threads");
    });
}

#[test]
fn every_thread_that_works_has_a_state_of_its_own() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    static ALL_AT_ONCE: Barrier = Barrier::new(4);
    local(2, 2, |pool| {
        let job = |state: &mut u32, _: u32| {
            ALL_AT_ONCE.wait();
            *state
        };
        let mut states: Vec<_> =
            pool.map_init(|| MADE.fetch_add(1, SeqCst), 0..4, job).chunk_size(1).map(Result::unwrap).collect();
        states.sort_unstable();
        assert_eq!(states, [0, 1, 2, 3]);
    });
}

#[test]
fn a_state_is_kept_from_job_to_job() {
    local(1, 1, |pool| {
        let count = |calls: &mut u32, _: u32| {
            *calls += 1;
            *calls
        };
        let calls: Vec<_> = pool.map_init(|| 0, 0..100, count).map(Result::unwrap).collect();
        assert_eq!(calls, (1..=100).collect::<Vec<_>>());
        let again: Vec<_> = pool.map_init(|| 0, 0..3, count).map(Result::unwrap).collect();
        assert_eq!(again, [1, 2, 3], "another map has states of its own");
    });
}

#[test]
fn a_state_is_made_lazily_where_a_job_needs_it() {
    static MADE: Mutex<Vec<Option<u32>>> = Mutex::new(Vec::new());
    local(3, 1, |pool| {
        let init = || MADE.lock().unwrap().push(current_job().map(|job| job.rank));
        let ranks = |(): &mut (), _: u32| current_job().unwrap().rank;
        assert_eq!(pool.map_init(init, [0; 0], ranks).count(), 0);
        assert!(MADE.lock().unwrap().is_empty(), "no job, no state");
        let rank = pool.map_init(init, [1], ranks).next().unwrap().unwrap();
        assert_eq!(*MADE.lock().unwrap(), [Some(rank)], "on the one rank that has a job");
    });
}

#[test]
fn a_state_need_not_be_able_to_travel() {
    struct Model(Box<dyn Fn(u64) -> u64 + Send>);
    local(2, 1, |pool| {
        let load = || Model(Box::new(|x| x * 3));
        let results: Vec<_> = pool.map_init(load, 0..50, |model, x| (model.0)(x)).map(Result::unwrap).collect();
        assert_eq!(results, (0..50).map(|x| x * 3).collect::<Vec<_>>());
    });
}

#[test]
fn if_it_panics_every_job_of_the_map_fails_with_its_message_and_the_pool_lives() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    local(2, 1, |pool| {
        let init = || -> u32 {
            TRIES.fetch_add(1, SeqCst);
            panic!("the model is not there")
        };
        let results: Vec<_> = pool.map_init(init, 0..100, |_, x: u32| x).chunk_size(3).collect();
        assert_eq!(results.len(), 100);
        for (job, error) in (0..).zip(results.into_iter().map(Result::unwrap_err)) {
            assert_eq!((error.kind, error.job), (JobErrorKind::Init, job));
            assert!(error.message.contains("the model is not there"), "{error}");
            assert!(error.location.unwrap().contains("initialisation.rs"));
        }
        let tries = TRIES.load(SeqCst);
        assert!((1..=2).contains(&tries), "{tries} tries on two threads");
        assert_eq!(pool.map_init(|| 1, 0..3, |one, x: u32| *one + x).map(Result::unwrap).sum::<u32>(), 6);
    });
}

#[test]
fn a_result_of_the_initialisation_is_the_jobs_to_report() {
    local(2, 1, |pool| {
        let load = || "x".parse::<u32>().map_err(|error| error.to_string());
        let job = |model: &mut Result<u32, String>, x: u32| model.clone().map(|model| model + x);
        let results: Vec<_> = pool.map_init(load, 0..5, job).map(Result::unwrap).collect();
        assert_eq!(results, vec![Err("invalid digit found in string".to_string()); 5]);
    });
}

#[test]
fn a_job_that_panics_takes_its_state_with_it() {
    local(1, 1, |pool| {
        let job = |state: &mut Vec<u32>, x: u32| {
            state.push(x);
            assert_ne!(x, 2, "and leaves the state as it is");
            state.clone()
        };
        let results: Vec<_> =
            pool.map_init(Vec::new, 0..5, job).map(|result| result.map_err(|error| error.kind)).collect();
        let panicked = Err(JobErrorKind::Panic);
        assert_eq!(results, [Ok(vec![0]), Ok(vec![0, 1]), panicked, Ok(vec![3]), Ok(vec![3, 4])]);
    });
}

#[test]
fn states_are_dropped_when_the_map_is_over() {
    static LIVING: AtomicU32 = AtomicU32::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            LIVING.fetch_sub(1, SeqCst);
        }
    }
    local(2, 2, |pool| {
        let init = || {
            LIVING.fetch_add(1, SeqCst);
            Counted
        };
        for _ in 0..3 {
            assert!(pool.map_init(init, 0..100, |_, x: u32| x).all(|result| result.is_ok()));
        }
        crate::support::until("all states are dropped", || LIVING.load(SeqCst) == 0);
    });
}

#[test]
fn a_run_ends_after_the_functions_of_its_maps_are_dropped() {
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    /// As a function that ends its worker process.
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_millis(300));
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    for ranks in [1, 2] {
        DROPPED.store(0, SeqCst);
        let made = local(ranks, 1, |pool| {
            let made: Vec<u32> = pool.map_init(|| Slow, 0..100, |_, x: u32| x).map(Result::unwrap).collect();
            made.len()
        });
        assert!(made == 100 && DROPPED.load(SeqCst) >= 1, "the run has not waited");
    }
}
