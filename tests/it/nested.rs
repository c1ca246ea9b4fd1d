//! Jobs that use rayon themselves: the rank's idle threads help, and no job starts inside another one.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::{self, ThreadId};
use std::time::Duration;

use rankpool::{Pool, current_job};
use rayon::prelude::*;

use crate::support::{Gate, local, until};

/// Work that is split and takes long enough to be stolen.
fn split(n: u64) -> u64 {
    (0..n as u32)
        .into_par_iter()
        .with_max_len(1)
        .map(|x| {
            thread::sleep(Duration::from_micros(200));
            u64::from(x)
        })
        .sum()
}

#[test]
fn a_lock_held_over_a_parallel_iterator_does_not_deadlock() {
    static LOCK: Mutex<u64> = Mutex::new(0);
    for threads in [1, 2, 4] {
        for chunk in [0, 1, 7] {
            *LOCK.lock().unwrap() = 0;
            local(1, threads, move |pool| {
                let job = |_: u64| {
                    let mut sum = LOCK.lock().unwrap();
                    *sum += split(8);
                };
                assert_eq!(pool.map(job, 0..60).chunk_size(chunk).filter(Result::is_ok).count(), 60);
            });
            assert_eq!(*LOCK.lock().unwrap(), 60 * 28);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn a_cell_of_the_thread_may_be_borrowed_over_a_parallel_iterator() {
    local(2, 2, |pool| {
        let job = |n: u64| {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.clear();
                scratch.push(split(n));
                scratch.iter().sum::<u64>()
            })
        };
        let handles: Vec<_> = (0..40).map(|n| pool.submit(job, n)).collect();
        for (n, handle) in (0..40u64).zip(handles) {
            assert_eq!(handle.wait(), Ok(n * n.saturating_sub(1) / 2));
        }
        assert_eq!(pool.map(job, 0..40).chunk_size(1).filter(Result::is_ok).count(), 40);
    });
}

/// The ways to wait in rayon.
const WAYS: [fn(); 6] = [
    || assert_eq!(split(6), 15),
    || assert_eq!(rayon::join(|| split(4), || split(5)), (6, 10)),
    || {
        rayon::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move |_| _ = split(n));
            }
        });
    },
    || {
        rayon::in_place_scope(|scope| {
            for n in 0..4 {
                scope.spawn(move |_| _ = split(n));
            }
        });
    },
    || _ = rayon::broadcast(|context| context.index()),
    || {
        // A waiting thread that asks rayon for work by itself.
        let (sender, receiver) = std::sync::mpsc::channel();
        rayon::spawn(move || sender.send(split(3)).unwrap());
        while receiver.try_recv().is_err() {
            rayon::yield_now();
        }
    },
];

#[test]
fn no_job_begins_while_another_one_waits_on_the_same_thread() {
    for threads in [1, 3] {
        local(2, threads, |pool| {
            let job = |x: usize| {
                let inside = INSIDE.replace(1);
                let before = current_job();
                WAYS[x % WAYS.len()]();
                INSIDE.set(0);
                (inside, before == current_job())
            };
            for result in pool.map(job, 0..240).chunk_size(1).unordered() {
                assert_eq!(result, Ok((0, true)));
            }
        });
    }
}

#[test]
fn a_job_that_splits_finds_all_idle_threads_of_its_rank() {
    const THREADS: u32 = 4;
    static THERE: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);
    static ALL: Gate = Gate::new();
    fn piece() {
        let mut there = THERE.lock().unwrap();
        let there_now = there.get_or_insert_default();
        there_now.insert(thread::current().id());
        if there_now.len() == THREADS as usize {
            ALL.open();
        }
        drop(there);
        ALL.pass();
    }
    local(1, THREADS, |pool| {
        let job = |_: u8| {
            assert_eq!(rayon::current_num_threads(), THREADS as usize);
            (0..THREADS).into_par_iter().with_max_len(1).for_each(|_| piece());
        };
        assert_eq!(pool.apply(job, 0), Ok(()));
        assert_eq!(THERE.lock().unwrap().take().map(|there| there.len()), Some(THREADS as usize));
    });
}

#[test]
fn jobs_nest_as_deeply_as_they_like() {
    fn sum(from: u64, to: u64) -> u64 {
        if to - from < 2 {
            return (from..to).sum();
        }
        let middle = from.midpoint(to);
        let (low, high) = rayon::join(|| sum(from, middle), || sum(middle, to));
        low + high
    }
    fn nested(depth: u32) -> u64 {
        if depth == 0 { sum(0, 100) } else { (0..2).into_par_iter().map(|_| nested(depth - 1)).sum() }
    }
    local(2, 2, |pool| {
        for result in pool.map(nested, (0..8).cycle().take(80)).chunk_size(1) {
            assert_eq!(result.map(|sum| sum % 4950), Ok(0));
        }
    });
}

#[test]
fn tasks_that_a_job_spawns_and_does_not_wait_for_still_run() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    for threads in [1, 2] {
        RAN.store(0, SeqCst);
        local(1, threads, |pool| {
            let job = |_: u32| rayon::spawn(|| _ = RAN.fetch_add(1, SeqCst));
            assert_eq!(pool.map(job, 0..100).filter(Result::is_ok).count(), 100);
            until("all that was spawned has run", || RAN.load(SeqCst) == 100);
        });
    }
}

#[test]
fn jobs_that_run_at_once_have_slots_of_their_own_also_when_they_split() {
    static TAKEN: Mutex<Option<HashSet<u32>>> = Mutex::new(None);
    local(2, 3, |pool: &Pool| {
        let job = |n: u64| {
            let slot = current_job().unwrap().slot;
            assert!(TAKEN.lock().unwrap().get_or_insert_default().insert(slot), "slot {slot} is taken");
            split(n % 9);
            TAKEN.lock().unwrap().get_or_insert_default().remove(&slot);
            slot
        };
        let slots: HashSet<u32> = pool.map(job, 0..200).chunk_size(1).map(Result::unwrap).collect();
        assert!(slots.iter().all(|slot| *slot < 6), "{slots:?}");
    });
}
