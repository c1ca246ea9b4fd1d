//! Jobs that never end: with a time limit they fail, and a run does not wait for jobs of dropped maps.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rankpool::{ExitCode, JobErrorKind, Launch, current_job};

use crate::support::{code_of, local, until};

const LIMIT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(600);

/// A job that does not end while the test runs.
fn never_ends(end: &AtomicBool) {
    while !end.load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_job_over_its_time_limit_is_an_error_and_the_others_go_on() {
    static END: AtomicBool = AtomicBool::new(false);
    for (ranks, threads, chunk) in [(1, 1, 0), (1, 2, 1), (2, 1, 64)] {
        END.store(false, SeqCst);
        local(ranks, threads, move |pool| {
            let job = |x: u64| {
                if x % 10 == 3 {
                    never_ends(&END);
                }
                (x, current_job().unwrap().slot)
            };
            let results: Vec<_> = pool.map(job, 0..40).chunk_size(chunk).job_timeout(LIMIT).collect();
            assert_eq!(results.len(), 40);
            for (x, result) in (0..).zip(results) {
                match result {
                    Ok((value, slot)) => assert!(value == x && x % 10 != 3 && slot < ranks * threads),
                    Err(error) => {
                        assert!(x % 10 == 3 && error.kind == JobErrorKind::TimedOut, "{error}");
                        assert_eq!(error.job, x);
                        assert!(error.rank.is_some_and(|rank| rank < ranks) && error.host.is_some(), "{error}");
                        assert!(error.message.contains("time limit of 0.5 s"), "{error}");
                    }
                }
            }
            // The rank has as many threads as before, for maps without a limit, too.
            assert_eq!(pool.map(|x: u64| x, 0..100).filter(Result::is_ok).count(), 100);
        });
        END.store(true, SeqCst);
    }
}

#[test]
fn a_submitted_job_has_a_time_limit_if_its_pool_has_one() {
    static END: AtomicBool = AtomicBool::new(false);
    local(1, 1, |pool| {
        let job = |forever: bool| {
            if forever {
                never_ends(&END);
            }
            7
        };
        let careful = pool.with_job_timeout(LIMIT);
        let handles = [true, false, true].map(|forever| careful.submit(job, forever));
        let kinds = handles.map(|handle| handle.wait().map_err(|error| error.kind));
        assert_eq!(kinds, [Err(JobErrorKind::TimedOut), Ok(7), Err(JobErrorKind::TimedOut)]);
        assert_eq!(pool.apply(job, false), Ok(7), "the same function without a limit");
        assert_eq!(
            careful.map(job, [true]).job_timeout(LONG / 1000).next().unwrap().unwrap_err().kind,
            JobErrorKind::TimedOut
        );
        let _never_waited_for = careful.submit(job, true);
    });
    END.store(true, SeqCst);
}

#[test]
fn a_job_within_its_time_limit_is_none_the_worse() {
    local(2, 2, |pool| {
        let results = pool.map(|x: u64| x, 0..2000).job_timeout(LONG);
        assert_eq!(results.map(Result::unwrap).sum::<u64>(), 1999 * 1000);
        let none = pool.map(|x: u64| x, 0..2000).job_timeout(Duration::ZERO);
        assert_eq!(none.filter(Result::is_ok).count(), 2000);
        let failed = pool.map(|x: u64| if x == 1 { panic!("one") } else { x }, 0..3).job_timeout(LONG);
        assert_eq!(failed.filter_map(Result::err).map(|error| error.kind).collect::<Vec<_>>(), [JobErrorKind::Panic]);
    });
}

#[test]
fn a_job_that_exceeded_its_limit_may_be_run_again_and_its_late_result_is_dropped() {
    static SLOW: AtomicBool = AtomicBool::new(true);
    static LATE: AtomicU32 = AtomicU32::new(0);
    local(1, 2, |pool| {
        let job = |x: u32| {
            let attempt = current_job().unwrap().attempt;
            if x == 2 && attempt == 1 {
                until("the second attempt was made", || !SLOW.load(SeqCst));
                LATE.fetch_add(1, SeqCst);
            } else if x == 2 {
                SLOW.store(false, SeqCst);
            }
            (x, attempt)
        };
        let results: Vec<_> = pool.map(job, 0..6).retries(1).job_timeout(LIMIT).map(Result::unwrap).collect();
        assert_eq!(results, [(0, 1), (1, 1), (2, 2), (3, 1), (4, 1), (5, 1)]);
        until("the first attempt has ended", || LATE.load(SeqCst) == 1);
        assert_eq!(pool.map(job, [4, 5]).filter(Result::is_ok).count(), 2);
    });
}

#[test]
fn a_state_that_is_never_made_is_an_error_of_its_job() {
    static END: AtomicBool = AtomicBool::new(false);
    static TRIES: AtomicU32 = AtomicU32::new(0);
    local(1, 1, |pool| {
        let init = || {
            if TRIES.fetch_add(1, SeqCst) == 0 {
                never_ends(&END);
            }
        };
        let kinds = pool.map_init(init, 0..3, |(), x: u32| x).job_timeout(LIMIT);
        let kinds: Vec<_> = kinds.map(|result| result.map_err(|error| error.kind)).collect();
        assert_eq!(kinds, [Err(JobErrorKind::TimedOut), Ok(1), Ok(2)]);
    });
    END.store(true, SeqCst);
}

#[test]
fn jobs_of_a_dropped_map_that_never_end_do_not_keep_the_run_from_ending() {
    static END: AtomicBool = AtomicBool::new(false);
    static STARTED: AtomicU32 = AtomicU32::new(0);
    for ok in [true, false] {
        for (ranks, threads) in [(1, 1), (2, 1), (1, 3)] {
            STARTED.store(0, SeqCst);
            let launch = Launch::new().local(ranks).threads(threads).grace(Duration::from_millis(100));
            let code = code_of(launch, move |pool| {
                let job = |x: u32| {
                    STARTED.fetch_add(1, SeqCst);
                    if x > 0 {
                        never_ends(&END);
                    }
                };
                let mut map = pool.map(job, 0..1000).chunk_size(7);
                assert_eq!(map.next(), Some(Ok(())));
                until("a job runs that never ends", || STARTED.load(SeqCst) > 1);
                drop(map);
                if ok { Ok(()) } else { Err("the driver has seen enough".into()) }
            });
            assert_eq!(code, if ok { ExitCode::Success } else { ExitCode::Failure });
        }
    }
    END.store(true, SeqCst);
}

#[test]
fn submitted_jobs_are_waited_for_beyond_the_grace_time() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    let launch = Launch::new().local(2).threads(1).grace(Duration::ZERO);
    let code = code_of(launch, |pool| {
        let job = |_: u32| {
            thread::sleep(Duration::from_millis(300));
            ENDED.fetch_add(1, SeqCst);
        };
        for x in 0..4 {
            let _handle = pool.submit(job, x);
        }
        Ok(())
    });
    assert_eq!((code, ENDED.load(SeqCst)), (ExitCode::Success, 4));
}
