//! Runs of all shapes: one rank or many, with one thread or more, fast and slow ones.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rankpool::{Launch, Listener, Notice, current_job};

use crate::support::{Gate, launched, local, until};

fn rank_of(_: u64) -> u32 {
    current_job().expect("inside a job").rank
}

#[test]
fn one_two_three_and_five_ranks_give_the_same_results() {
    for ranks in [1, 2, 3, 5] {
        for threads in [1, 3] {
            local(ranks, threads, move |pool| {
                assert_eq!((pool.ranks().len(), pool.threads()), (ranks as usize, ranks * threads));
                let results: Vec<_> = pool.map(|x: u64| x * x, 0..500).map(Result::unwrap).collect();
                assert_eq!(results, (0..500).map(|x| x * x).collect::<Vec<_>>());
            });
        }
    }
}

#[test]
fn more_ranks_than_jobs() {
    local(5, 2, |pool| {
        for jobs in 0..5u64 {
            let results: Vec<_> = pool.map(|x: u64| x + 1, 0..jobs).map(Result::unwrap).collect();
            assert_eq!(results, (1..=jobs).collect::<Vec<_>>());
        }
    });
}

#[test]
fn more_ranks_than_cores() {
    local(24, 2, |pool| {
        let results: Vec<_> = pool.map(|x: u64| x + 1, 0..3000).map(Result::unwrap).collect();
        assert_eq!(results, (1..=3000).collect::<Vec<_>>());
    });
}

#[test]
fn every_rank_gets_jobs() {
    static SEEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    static ALL: Gate = Gate::new();
    local(5, 1, |pool| {
        // Each of the five jobs waits for the others.
        let job = |x: u64| {
            let mut seen = SEEN.lock().unwrap();
            seen.insert(rank_of(x));
            if seen.len() == 5 {
                ALL.open();
            }
            drop(seen);
            ALL.pass();
        };
        assert_eq!(pool.map(job, 0..5).filter(Result::is_ok).count(), 5);
    });
    assert_eq!(SEEN.lock().unwrap().iter().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn jobs_of_a_rank_run_on_all_its_threads_at_once() {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static ALL: Gate = Gate::new();
    local(2, 3, |pool| {
        let job = |_: u32| {
            if INSIDE.fetch_add(1, SeqCst) == 5 {
                ALL.open();
            }
            ALL.pass();
        };
        assert_eq!(pool.map(job, 0..6).filter(Result::is_ok).count(), 6);
    });
}

#[test]
fn a_dedicated_master_computes_nothing() {
    for ranks in [2, 3] {
        launched(Launch::new().local(ranks).threads(2).dedicated_master(true), move |pool| {
            assert_eq!(pool.ranks()[0].threads, 0);
            assert_eq!(pool.threads(), 2 * (ranks - 1));
            let where_run: BTreeSet<_> = pool.map(rank_of, 0..500).map(Result::unwrap).collect();
            assert!(!where_run.is_empty() && !where_run.contains(&0), "{where_run:?}");
            let shared = pool.broadcast(5u32).unwrap();
            assert_eq!(pool.apply(|x: rankpool::Shared<u32>| *x, shared), Ok(5));
            assert_eq!(pool.stats().unwrap().ranks[0].jobs, 0);
        });
    }
}

#[test]
fn rank_0_computes_too_unless_it_is_asked_not_to() {
    static ALL: Gate = Gate::new();
    static SEEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    local(2, 1, |pool| {
        let job = |x: u64| {
            let all = {
                let mut seen = SEEN.lock().unwrap();
                seen.insert(rank_of(x));
                seen.len() == 2
            };
            if all {
                ALL.open();
            }
            ALL.pass();
        };
        pool.map(job, 0..2).for_each(drop);
    });
    assert!(SEEN.lock().unwrap().contains(&0));
}

#[test]
fn a_dedicated_master_that_is_the_only_rank_computes_after_all() {
    launched(Launch::new().local(1).threads(2).dedicated_master(true), |pool| {
        assert_eq!(pool.apply(rank_of, 1), Ok(0));
    });
}

#[test]
fn a_slow_rank_gets_fewer_jobs() {
    static JOBS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    local(2, 1, |pool| {
        let job = |x: u64| {
            let rank = rank_of(x);
            JOBS[rank as usize].fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(if rank == 1 { 40 } else { 4 }));
        };
        assert_eq!(pool.map(job, 0..100).filter(Result::is_ok).count(), 100);
    });
    let [fast, slow] = JOBS.each_ref().map(|jobs| jobs.load(SeqCst));
    assert!(slow >= 1 && fast > 3 * slow, "the fast rank ran {fast} jobs, the slow one {slow}");
}

#[test]
fn a_straggler_does_not_leave_others_with_queued_work() {
    static GATES: [Gate; 30] = [const { Gate::new() }; 30];
    for straggler in [0, 1, 7, 15, 28, 29] {
        local(2, 1, move |pool| {
            let job = |straggler: &u64, x: u64| {
                if x == *straggler {
                    GATES[x as usize].pass();
                } else {
                    thread::sleep(Duration::from_millis(3));
                }
                x
            };
            // The rank that runs the slow job held other jobs, too; they end on other ranks while it is still running.
            let mut map = pool.map_with(straggler, 0..30, job).unordered();
            let mut others: Vec<_> = map.by_ref().take(29).map(Result::unwrap).collect();
            others.sort_unstable();
            assert_eq!(others, (0..30).filter(|x| *x != straggler).collect::<Vec<_>>());
            GATES[straggler as usize].open();
            assert_eq!(map.next(), Some(Ok(straggler)));
            assert_eq!(map.next(), None);
        });
    }
}

#[test]
fn jobs_submitted_behind_a_straggler_run_elsewhere() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u64| {
            if x == 0 {
                GATE.pass();
            }
            x
        };
        let handles: Vec<_> = (0..40).map(|x| pool.submit(job, x)).collect();
        for (x, handle) in (0..).zip(&handles).skip(1) {
            assert_eq!(handle.wait(), Ok(x));
        }
        assert!(!handles[0].is_done());
        GATE.open();
        assert_eq!(handles[0].wait(), Ok(0));
    });
}

#[test]
fn a_listener_is_told_of_all_ranks_before_the_first_job() {
    static STARTED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    struct Ears;
    impl Listener for Ears {
        fn notice(&mut self, notice: Notice<'_>) {
            if let Notice::Started { ranks } = notice {
                STARTED.lock().unwrap().push(ranks.len());
            }
        }
    }
    launched(Launch::new().local(3).threads(1).listener(Ears), |pool| {
        assert_eq!(*STARTED.lock().unwrap(), [3]);
        assert!(pool.apply(rank_of, 1).unwrap() < 3);
    });
    assert_eq!(STARTED.lock().unwrap().len(), 1);
}

#[test]
fn a_job_may_use_the_idle_threads_of_its_rank() {
    local(2, 2, |pool| {
        let handles: Vec<_> = (0..20u64).map(|n| pool.submit(halves, n)).collect();
        for (n, handle) in (0..).zip(handles) {
            assert_eq!(handle.wait(), Ok(n * (n + 1) / 2));
        }
    });

    fn halves(n: u64) -> u64 {
        fn sum(from: u64, to: u64) -> u64 {
            if to - from < 2 {
                return (from..to).sum();
            }
            let middle = from.midpoint(to);
            let (low, high) = rayon::join(|| sum(from, middle), || sum(middle, to));
            low + high
        }
        sum(0, n + 1)
    }
}

#[test]
fn statistics_name_every_rank() {
    local(3, 2, |pool| {
        pool.map(|x: u64| x, 0..100).for_each(drop);
        until("all jobs are counted", || pool.stats().unwrap().jobs == 100);
        let stats = pool.stats().unwrap();
        assert_eq!(
            stats.ranks.iter().map(|rank| (rank.rank, rank.threads)).collect::<Vec<_>>(),
            [(0, 2), (1, 2), (2, 2)]
        );
        assert!((0.0..=1.0).contains(&stats.efficiency()) && stats.threads() == 6);
    });
}
