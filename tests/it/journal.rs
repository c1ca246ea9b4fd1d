//! `.journal(path)` on a map: what was computed once is not computed again, whatever ended the run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rankpool::{JobErrorKind, Launch, Pool};

use crate::support::launched;

fn local() -> Launch<'static> {
    Launch::new().local(2).threads(1)
}

fn journal() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    (folder, path)
}

/// Defines a function that counts its calls; the input 13 panics.
macro_rules! counted {
    ($name:ident, $calls:ident) => {
        static $calls: AtomicU64 = AtomicU64::new(0);
        fn $name(x: u64) -> Vec<u64> {
            $calls.fetch_add(1, SeqCst);
            assert!(x != 13, "unlucky");
            vec![x; (x % 5) as usize]
        }
    };
}

fn expected(x: u64) -> Option<Vec<u64>> {
    (x != 13).then(|| vec![x; (x % 5) as usize])
}

#[test]
fn a_map_that_was_dropped_early_is_continued_by_the_next_one() {
    counted!(copies, CALLS);
    let (_folder, path) = journal();
    fn run(pool: &Pool, path: &Path, inputs: Vec<u64>, take: usize) -> Vec<Option<Vec<u64>>> {
        let map = pool.map(copies, inputs).chunk_size(3).window(10).journal(path);
        map.take(take).map(Result::ok).collect()
    }
    launched(local(), move |pool| {
        let inputs: Vec<u64> = (0..500).collect();
        assert_eq!(run(pool, &path, inputs.clone(), 100), (0..100).map(expected).collect::<Vec<_>>());
        let first = CALLS.load(SeqCst);
        assert!((100..200).contains(&first), "{first} calls");
        // In another order, with new inputs among the old ones.
        let inputs: Vec<u64> = (0..600).rev().collect();
        assert_eq!(run(pool, &path, inputs.clone(), 1000), inputs.iter().map(|x| expected(*x)).collect::<Vec<_>>());
        let second = CALLS.load(SeqCst);
        assert!((600..=700).contains(&second), "{second} calls");
        // Only the job that has failed is run again.
        assert_eq!(run(pool, &path, inputs.clone(), 1000).len(), 600);
        assert_eq!(CALLS.load(SeqCst), second + 1);
    });
}

#[test]
fn errors_name_their_inputs_and_unordered_maps_yield_everything_once() {
    counted!(copies, CALLS);
    let (_folder, path) = journal();
    launched(local(), move |pool| {
        let first: Vec<_> = pool.map(copies, [0_u64, 2, 4]).journal(&path).collect();
        assert!(first.iter().all(Result::is_ok));
        let results: Vec<_> = pool.map(copies, [0_u64, 1, 2, 13, 4, 5]).journal(&path).collect();
        let error = results[3].as_ref().expect_err("it panics");
        assert_eq!((error.job, error.kind, error.message.as_str()), (3, JobErrorKind::Panic, "unlucky"));
        let mut lengths: Vec<usize> = pool
            .map(copies, 0_u64..10)
            .unordered()
            .journal(&path)
            .map(|result| result.expect("it is ok").len())
            .collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    });
}

#[test]
fn another_function_or_context_is_refused_in_words_and_equal_inputs_are_jobs_of_their_own() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn times(factor: &u64, x: u64) -> u64 {
        CALLS.fetch_add(1, SeqCst);
        factor * x
    }
    fn plus(summand: &u64, x: u64) -> u64 {
        summand + x
    }
    let (_folder, path) = journal();
    launched(local(), move |pool| {
        for (inputs, calls) in [(vec![7_u64, 7, 8], 3), (vec![8, 7, 7, 7], 4), (vec![7], 4)] {
            let results: Vec<u64> = pool
                .map_with(2_u64, inputs.clone(), times)
                .journal(&path)
                .map(|result| result.expect("it is ok"))
                .collect();
            assert_eq!(results, inputs.iter().map(|x| 2 * x).collect::<Vec<_>>());
            assert_eq!(CALLS.load(SeqCst), calls);
        }
        let refused: Vec<_> = pool.map_with(3_u64, [7_u64], times).journal(&path).collect();
        let error = refused[0].as_ref().expect_err("it is refused");
        assert_eq!((refused.len(), error.kind), (1, JobErrorKind::Refused));
        assert!(
            error.message.contains("context in the journal") && error.message.contains("hash"),
            "{}",
            error.message
        );
        let other: Vec<_> = pool.map_with(2_u64, [7_u64], plus).journal(&path).collect();
        let message = &other[0].as_ref().expect_err("it is refused").message;
        assert!(message.contains("times") && message.contains("plus") && !message.contains("--"), "{message}");
    });
}

#[test]
fn a_driver_that_panics_loses_nothing_that_was_yielded() {
    counted!(copies, CALLS);
    let (_folder, path) = journal();
    launched(local(), move |pool| {
        let mut yielded = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            for result in pool.map(copies, 100_u64..1000).window(20).journal(&path) {
                result.expect("it is ok");
                yielded += 1;
                assert!(yielded < 50, "enough");
            }
        }));
        assert!(panicked.is_err());
        let before = CALLS.load(SeqCst);
        assert_eq!(pool.map(copies, 100_u64..150).journal(&path).filter(Result::is_ok).count(), 50);
        assert_eq!(CALLS.load(SeqCst), before, "all were in the journal");
    });
}

#[test]
fn many_results_of_an_earlier_run_are_yielded_before_and_among_new_ones() {
    counted!(copies, CALLS);
    let (_folder, path) = journal();
    launched(local(), move |pool| {
        let evens = (0..40_000_u64).filter(|x| x % 2 == 0 || *x < 15_000);
        assert_eq!(pool.map(copies, evens.filter(|x| *x != 13)).journal(&path).filter(Result::is_ok).count(), 27_499);
        let all: Vec<_> = pool.map(copies, 0..40_000_u64).journal(&path).map(Result::ok).collect();
        assert!(all.into_iter().eq((0..40_000).map(expected)));
        assert_eq!(CALLS.load(SeqCst), 40_000);
    });
}

#[test]
fn large_lists_are_in_the_journal_as_other_results_are() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn list(x: u64) -> Vec<u64> {
        CALLS.fetch_add(1, SeqCst);
        vec![x; 100_000]
    }
    let (_folder, path) = journal();
    launched(local(), move |pool| {
        for _ in 0..2 {
            let results: Vec<_> = pool.map(list, 0..6).journal(&path).map(Result::unwrap).collect();
            assert!((0..).zip(&results).all(|(x, result)| *result == vec![x; 100_000]));
        }
        assert_eq!(CALLS.load(SeqCst), 6);
    });
}
