//! `wait_any`, `wait_all`, `wait_failed` and `as_completed`.

use std::time::{Duration, Instant};

use rankpool::{JobErrorKind, as_completed, wait_all, wait_any, wait_failed};

use crate::support::{Gate, local, until};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn wait_any_ends_with_the_first_job_that_has_ended() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| {
            if x != 1 {
                GATE.pass();
            }
            x
        };
        let handles: Vec<_> = (0..2).map(|x| pool.submit(job, x)).collect();
        let waited = wait_any(&handles, Some(LONG));
        assert_eq!((waited.done, waited.pending), (vec![1], vec![0]));
        GATE.open();
        let waited = wait_all(&handles, None);
        assert_eq!((waited.done, waited.pending), (vec![0, 1], vec![]));
    });
}

#[test]
fn wait_any_counts_a_failed_and_a_cancelled_job() {
    static GATE: Gate = Gate::new();
    local(1, 1, |pool| {
        let job = |_: u32| GATE.pass();
        let handles: Vec<_> = (0..6).map(|x| pool.submit(job, x)).collect();
        assert!(handles[5].cancel());
        assert_eq!(wait_any(&handles, Some(LONG)).done, [5]);
        GATE.open();
        let failed = [pool.submit(|_: u32| -> u32 { panic!() }, 0)];
        assert_eq!(wait_any(&failed, Some(LONG)).done, [0]);
    });
}

#[test]
fn wait_failed_ends_with_the_first_failure() {
    static GATE: Gate = Gate::new();
    local(2, 2, |pool| {
        let job = |x: u32| match x {
            0 | 1 => GATE.pass(),
            2 => panic!("two"),
            _ => (),
        };
        let handles: Vec<_> = [0, 3, 2, 1].into_iter().map(|x| pool.submit(job, x)).collect();
        let waited = wait_failed(&handles, Some(LONG));
        assert!(waited.done.contains(&2) && waited.pending.contains(&0) && waited.pending.contains(&3));
        GATE.open();
        assert_eq!(wait_all(&handles, Some(LONG)).done, [0, 1, 2, 3]);
    });
}

#[test]
fn wait_failed_without_a_failure_waits_for_all() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| {
            if x == 1 {
                GATE.pass()
            }
        };
        let handles: Vec<_> = (0..3).map(|x| pool.submit(job, x)).collect();
        until("the others are done", || wait_all(&handles, Some(SHORT)).done == [0, 2]);
        let waited = wait_failed(&handles, Some(SHORT));
        assert_eq!((waited.done, waited.pending), (vec![0, 2], vec![1]));
        GATE.open();
        assert_eq!(wait_failed(&handles, None).pending, [] as [usize; 0]);
    });
}

#[test]
fn wait_failed_is_over_at_once_if_a_job_has_failed_already() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| if x == 0 { panic!() } else { GATE.pass() };
        let handles: Vec<_> = (0..2).map(|x| pool.submit(job, x)).collect();
        handles[0].wait().unwrap_err();
        let waited = wait_failed(&handles, None);
        assert_eq!((waited.done, waited.pending), (vec![0], vec![1]));
        GATE.open();
    });
}

#[test]
fn jobs_that_are_done_already_are_all_counted() {
    local(2, 2, |pool| {
        let handles: Vec<_> = (0..5u32).map(|x| pool.submit(|x: u32| x, x)).collect();
        handles.iter().for_each(|handle| drop(handle.wait()));
        for waited in [wait_any(&handles, None), wait_failed(&handles, None), wait_all(&handles, Some(Duration::ZERO))]
        {
            assert_eq!((waited.done, waited.pending), (vec![0, 1, 2, 3, 4], vec![]));
        }
    });
}

#[test]
fn a_wait_that_times_out_returns_exactly_the_jobs_that_are_done() {
    static GATE: Gate = Gate::new();
    local(2, 2, |pool| {
        let job = |x: u32| {
            if x % 3 == 1 {
                GATE.pass();
            }
            x
        };
        let handles: Vec<_> = (0..6).map(|x| pool.submit(job, x)).collect();
        [0, 2, 3, 5].into_iter().for_each(|x| drop(handles[x].wait()));
        for limit in [Duration::ZERO, SHORT] {
            let waited = wait_all(&handles, Some(limit));
            assert_eq!((waited.done, waited.pending), (vec![0, 2, 3, 5], vec![1, 4]));
        }
        GATE.open();
        let waited = wait_all(&handles, Some(Duration::MAX));
        assert_eq!((waited.done, waited.pending), ((0..6).collect::<Vec<_>>(), vec![]));
    });
}

#[test]
fn waiting_for_nothing_is_over_at_once() {
    local(1, 1, |_| {
        let none: [rankpool::JobHandle<u32>; 0] = [];
        for waited in [wait_any(&none, None), wait_all(&none, None), wait_failed(&none, None)] {
            assert!(waited.done.is_empty() && waited.pending.is_empty());
        }
        assert_eq!(as_completed(none).count(), 0);
    });
}

#[test]
fn jobs_are_yielded_as_they_end() {
    static GATES: [Gate; 3] = [const { Gate::new() }; 3];
    local(3, 1, |pool| {
        let job = |x: usize| {
            GATES[x].pass();
            x
        };
        let handles: Vec<_> = (0..3).map(|x| pool.submit(job, x)).collect();
        let mut completed = as_completed(handles);
        for x in [2, 0, 1] {
            GATES[x].open();
            assert_eq!(completed.next().unwrap().wait(), Ok(x));
        }
        assert!(completed.next().is_none());
    });
}

#[test]
fn jobs_that_have_ended_already_are_yielded_first() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| {
            if x == 0 {
                GATE.pass();
            }
            x
        };
        let handles: Vec<_> = (0..4).map(|x| pool.submit(job, x)).collect();
        handles[1..].iter().for_each(|handle| drop(handle.wait()));
        let mut completed = as_completed(handles);
        let mut early: Vec<_> = completed.by_ref().take(3).map(|handle| handle.wait().unwrap()).collect();
        early.sort_unstable();
        assert_eq!((early, completed.pending(), completed.size_hint()), (vec![1, 2, 3], 1, (0, Some(1))));
        GATE.open();
        assert_eq!(completed.next().unwrap().wait(), Ok(0));
        assert_eq!(completed.pending(), 0);
    });
}

#[test]
fn failed_and_cancelled_jobs_are_yielded_too() {
    static GATE: Gate = Gate::new();
    local(1, 1, |pool| {
        let job = |x: u32| {
            GATE.pass();
            if x == 0 { panic!("zero") } else { x }
        };
        let handles: Vec<_> = (0..6).map(|x| pool.submit(job, x)).collect();
        assert!(handles[5].cancel());
        let mut completed = as_completed(handles);
        assert_eq!(completed.next().unwrap().wait().unwrap_err().kind, JobErrorKind::Cancelled);
        GATE.open();
        let rest: Vec<_> = completed.map(|handle| handle.wait().map_err(|error| error.kind)).collect();
        assert_eq!(rest.len(), 5);
        assert_eq!(rest.iter().filter(|end| **end == Err(JobErrorKind::Panic)).count(), 1);
    });
}

#[test]
fn with_a_limit_of_zero_only_finished_jobs_are_yielded() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| {
            if x == 1 {
                GATE.pass();
            }
            x
        };
        let handles: Vec<_> = (0..4).map(|x| pool.submit(job, x)).collect();
        [0, 2, 3].into_iter().for_each(|x| drop(handles[x].wait()));
        for limit in [Duration::ZERO, SHORT] {
            let mut completed = as_completed(handles.clone()).timeout(limit);
            let begin = Instant::now();
            let mut done: Vec<_> = completed.by_ref().map(|handle| handle.wait().unwrap()).collect();
            done.sort_unstable();
            assert_eq!((done, completed.pending()), (vec![0, 2, 3], 1));
            assert!(begin.elapsed() >= limit);
        }
        GATE.open();
        assert_eq!(as_completed(handles).timeout(Duration::MAX).count(), 4);
    });
}

#[test]
fn a_handle_given_twice_is_yielded_once() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let job = |x: u32| {
            GATE.pass();
            x
        };
        let (a, b) = (pool.submit(job, 1), pool.submit(job, 2));
        let completed = as_completed([a.clone(), b.clone(), a.clone(), b.clone(), a.clone()]);
        assert_eq!(completed.pending(), 2);
        GATE.open();
        let mut values: Vec<_> = completed.map(|handle| handle.wait().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, [1, 2]);
        // Jobs that have already ended are not yielded twice either; a wait reports every index.
        assert_eq!(as_completed([a.clone(), a.clone()]).count(), 1);
        assert_eq!(wait_all(&[a.clone(), b, a], None).done, [0, 1, 2]);
    });
}

#[test]
fn a_handle_can_be_watched_by_many_at_once_and_a_watch_can_be_given_up() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let handle = pool.submit(
            |x: u32| {
                GATE.pass();
                x
            },
            1,
        );
        let first = as_completed([handle.clone()]);
        let second = as_completed([handle.clone()]);
        drop(as_completed([handle.clone()]));
        for _ in 0..100 {
            assert_eq!(wait_any(std::slice::from_ref(&handle), Some(Duration::ZERO)).pending, [0]);
        }
        GATE.open();
        assert_eq!((first.count(), second.count()), (1, 1));
    });
}
