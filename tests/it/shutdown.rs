//! The end of a run in any state: the driver returns, submitted jobs are finished, all jobs are settled.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rankpool::{ExitCode, JobError, JobErrorKind, JobHandle, Launch, Pool};

use crate::support::{Gate, code_of, local, until, within};

fn launch() -> Launch<'static> {
    Launch::new().local(2).threads(1)
}

fn double(x: u64) -> u64 {
    2 * x
}

#[test]
fn fifty_queued_jobs_finish_when_the_driver_returns() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let handles: Vec<JobHandle<u32>> = local(2, 1, |pool| {
        let job = |x: u32| {
            thread::sleep(Duration::from_millis(1));
            RAN.fetch_add(1, SeqCst);
            x
        };
        (0..50).map(|x| pool.submit(job, x)).collect()
    });
    assert_eq!(RAN.load(SeqCst), 50);
    for (x, handle) in (0..).zip(handles) {
        assert!(handle.is_done());
        assert_eq!(handle.wait(), Ok(x), "a handle outlives its pool");
    }
}

#[test]
fn a_driver_that_does_nothing_ends_at_once() {
    for ranks in 1..4 {
        assert_eq!(code_of(Launch::new().local(ranks).threads(2), |_| Ok(())), ExitCode::Success);
    }
}

#[test]
fn leaving_with_running_jobs_waits_for_them() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    static ENDED: AtomicU32 = AtomicU32::new(0);
    let handles = local(2, 1, |pool| {
        let job = |x: u32| {
            STARTED.fetch_add(1, SeqCst);
            until("both run", || STARTED.load(SeqCst) == 2);
            thread::sleep(Duration::from_millis(30));
            ENDED.fetch_add(1, SeqCst);
            x
        };
        let handles = [pool.submit(job, 0), pool.submit(job, 1)];
        until("both run", || STARTED.load(SeqCst) == 2);
        handles
    });
    assert_eq!(ENDED.load(SeqCst), 2);
    assert_eq!(handles.map(|handle| handle.wait()), [Ok(0), Ok(1)]);
}

#[test]
fn leaving_with_a_panic_still_finishes_submitted_jobs() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let handles = Arc::new(Mutex::new(Vec::new()));
    let kept = handles.clone();
    let code = code_of(launch(), move |pool| {
        let job = |x: u32| {
            RAN.fetch_add(1, SeqCst);
            x
        };
        *kept.lock().unwrap() = (0..50).map(|x| pool.submit(job, x)).collect();
        std::panic::resume_unwind(Box::new("the driver panics"));
    });
    assert_eq!(code, ExitCode::Failure);
    assert_eq!(RAN.load(SeqCst), 50);
    for (x, handle) in (0..).zip(handles.lock().unwrap().iter()) {
        assert_eq!(handle.wait_timeout(Duration::ZERO), Some(Ok(x)), "no job is half settled");
    }
}

#[test]
fn leaving_a_map_in_the_middle_cancels_its_queued_jobs_and_waits_for_the_running_ones() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    static ENDED: AtomicU32 = AtomicU32::new(0);
    local(2, 1, |pool| {
        let job = |x: u32| {
            STARTED.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(2));
            ENDED.fetch_add(1, SeqCst);
            x
        };
        let mut map = pool.map(job, 0..100_000);
        assert_eq!(map.next(), Some(Ok(0)));
    });
    let (started, ended) = (STARTED.load(SeqCst), ENDED.load(SeqCst));
    assert_eq!(started, ended);
    assert!(ended < 50, "{ended} jobs of a map that was dropped");
}

#[test]
fn a_forgotten_map_does_not_keep_the_run_alive() {
    let code = code_of(launch(), |pool| {
        let mut map = pool.map(double, 0..);
        assert_eq!(map.next(), Some(Ok(0)));
        std::mem::forget(map);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_map_that_goes_on_in_another_thread_gets_an_error_at_the_end() {
    let (sender, receiver) = std::sync::mpsc::channel();
    local(2, 1, move |pool| {
        let pool: &'static Pool = Box::leak(Box::new(pool.clone()));
        let (started, starts) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let end = pool.map(double, 0..).inspect(|_| _ = started.send(())).find_map(Result::err);
            sender.send(end).unwrap();
        });
        starts.recv().unwrap();
    });
    let error =
        receiver.recv_timeout(Duration::from_secs(30)).expect("the map does not hang").expect("an endless map ends");
    assert!(matches!(error.kind, JobErrorKind::Closed | JobErrorKind::Cancelled), "{error}");
}

#[test]
fn using_the_pool_after_the_end_gives_an_error_value() {
    let pool = local(2, 1, Pool::clone);
    within(Duration::from_secs(30), move || {
        let handle = pool.submit(double, 1);
        assert!(handle.is_done() && !handle.is_cancelled() && !handle.cancel());
        assert_eq!(handle.wait().unwrap_err().kind, JobErrorKind::Closed);
        assert_eq!(pool.apply(double, 1).unwrap_err().kind, JobErrorKind::Closed);
        let results: Vec<_> = pool.map(double, 0..5).map(|result| result.unwrap_err().kind).collect();
        assert_eq!(results, [JobErrorKind::Closed]);
        assert_eq!(pool.broadcast(1).unwrap_err().kind, JobErrorKind::Closed);
        assert_eq!(pool.stats(), None);
        assert_eq!(pool.ranks().len(), 2);
    });
}

#[test]
fn submitting_while_the_run_ends_gives_a_result_or_an_error_value() {
    static STOP: AtomicU32 = AtomicU32::new(0);
    let threads = local(2, 1, |pool| {
        let busy = |pool: Pool| {
            move || {
                let mut refused = 0;
                while refused < 10 {
                    match pool.submit(double, 4).wait() {
                        Ok(value) => assert_eq!(value, 8),
                        Err(error) => {
                            assert_eq!(error.kind, JobErrorKind::Closed);
                            refused += 1;
                        }
                    }
                    STOP.fetch_add(1, SeqCst);
                }
            }
        };
        let threads: Vec<_> = (0..3).map(|_| thread::spawn(busy(pool.clone()))).collect();
        until("they are at it", || STOP.load(SeqCst) > 100);
        threads
    });
    within(Duration::from_secs(30), move || threads.into_iter().for_each(|thread| thread.join().unwrap()));
}

#[test]
fn callbacks_have_run_when_the_run_is_over() {
    let ran = Arc::new(AtomicU32::new(0));
    let count = ran.clone();
    local(2, 1, move |pool| {
        for x in 0..50 {
            let count = count.clone();
            pool.submit(double, x).on_done(move |handle| {
                assert!(handle.wait().is_ok());
                thread::sleep(Duration::from_millis(1));
                count.fetch_add(1, SeqCst);
            });
        }
    });
    assert_eq!(ran.load(SeqCst), 50);
}

#[test]
fn a_callback_that_submits_after_the_driver_has_left_gets_an_error_value() {
    static GATE: Gate = Gate::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    local(1, 1, move |pool| {
        let job = |x: u64| {
            // Longer than the driver takes to leave.
            thread::sleep(Duration::from_millis(100));
            x
        };
        let next = pool.clone();
        pool.submit(job, 1).on_done(move |_| sender.send(next.submit(double, 2).wait()).unwrap());
        GATE.open();
    });
    assert_eq!(receiver.try_recv().expect("the callback has run").unwrap_err().kind, JobErrorKind::Closed);
}

#[test]
fn the_exit_code_is_0_when_the_driver_returns_ok() {
    let code = code_of(launch(), |pool| {
        let failed = pool.apply(|_: u8| -> u8 { panic!("handled by the driver") }, 1);
        assert!(failed.is_err());
        Ok(())
    });
    assert_eq!((code, code as u8), (ExitCode::Success, 0));
}

#[test]
fn the_exit_code_is_3_for_the_error_of_a_job() {
    let code = code_of(launch(), |pool| {
        pool.apply(|_: u8| -> u8 { panic!("not handled") }, 1)?;
        Ok(())
    });
    assert_eq!((code, code as u8), (ExitCode::JobsFailed, 3));
    let code = code_of(launch(), |pool| {
        let _: Vec<u64> =
            pool.map(|x: u64| if x == 9 { panic!("nine") } else { x }, 0..10).collect::<Result<_, _>>()?;
        Ok(())
    });
    assert_eq!(code, ExitCode::JobsFailed);
}

#[test]
fn the_exit_code_is_1_for_any_other_error_or_a_panic() {
    let code = code_of(launch(), |_| Err("the disk is full".into()));
    assert_eq!((code, code as u8), (ExitCode::Failure, 1));
    let code = code_of(launch(), |_| std::panic::resume_unwind(Box::new("the driver's own fault")));
    assert_eq!(code, ExitCode::Failure);
}

#[test]
fn the_exit_code_of_a_wrapped_error_is_that_of_the_job_inside() {
    #[derive(Debug, thiserror::Error)]
    enum Wrapped {
        #[error(transparent)]
        Transparent(#[from] JobError),
        #[error("reading the sky")]
        Context(#[source] Box<dyn std::error::Error + Send + Sync>),
    }
    fn read(pool: &Pool) -> Result<u8, Wrapped> {
        Ok(pool.apply(|_: u8| -> u8 { panic!("clouds") }, 1)?)
    }
    let wraps: [fn(Wrapped) -> Wrapped; 2] = [|error| error, |error| Wrapped::Context(error.into())];
    for wrap in wraps {
        let code = code_of(launch(), move |pool| {
            read(pool).map_err(wrap)?;
            Ok(())
        });
        assert_eq!(code, ExitCode::JobsFailed);
    }
    let code = code_of(launch(), |_| Err(Wrapped::Context("the disk is full".into()).into()));
    assert_eq!(code, ExitCode::Failure);
}

#[test]
fn the_driver_may_return_the_exit_code_itself() {
    for wanted in [ExitCode::Success, ExitCode::Usage, ExitCode::JobsFailed, ExitCode::Stopped] {
        let code = within(Duration::from_secs(30), move || launch().run_to_code(move |_| wanted));
        assert_eq!(code, wanted);
    }
}

#[test]
fn every_state_ends_the_same_way_every_time() {
    static COUNTS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    for round in 0..40u32 {
        let handles = Arc::new(Mutex::new(Vec::new()));
        let kept = handles.clone();
        let code = code_of(Launch::new().local(1 + round % 3).threads(1 + round % 2), move |pool| {
            let job = |x: u32| {
                COUNTS[0].fetch_add(1, SeqCst);
                if x % 7 == 3 { panic!("three") } else { x }
            };
            *kept.lock().unwrap() = (0..20).map(|x| pool.submit(job, x)).collect();
            let handles = kept.lock().unwrap().clone();
            match round % 5 {
                0 => {}
                1 => drop(handles[19].wait()),
                2 => drop(pool.map(double, 0..).next()),
                3 => std::panic::resume_unwind(Box::new("a panic")),
                _ => return Err("an error".into()),
            }
            Ok(())
        });
        assert_eq!(code, if round % 5 < 3 { ExitCode::Success } else { ExitCode::Failure });
        assert_eq!(COUNTS[0].swap(0, SeqCst), 20, "every job ran once");
        for (x, handle) in (0..).zip(handles.lock().unwrap().iter()) {
            let end = handle.wait_timeout(Duration::ZERO).expect("settled");
            assert_eq!(end.is_err(), x % 7 == 3, "job {x}: {end:?}");
        }
    }
}

#[test]
fn pools_one_after_another_and_at_once_and_inside_one_another_work() {
    for _ in 0..20 {
        local(2, 1, |pool| assert_eq!(pool.apply(double, 1), Ok(2)));
    }
    thread::scope(|scope| {
        for x in 0..4 {
            scope.spawn(move || local(2, 1, move |pool| assert_eq!(pool.apply(double, x), Ok(2 * x))));
        }
    });
    local(1, 1, |outer| {
        local(1, 1, |inner| assert_eq!(inner.apply(double, 1), Ok(2)));
        assert_eq!(outer.apply(double, 2), Ok(4));
    });
}

#[test]
fn a_pool_used_from_a_thread_that_panics_lives() {
    local(2, 1, |pool| {
        let died = thread::scope(|scope| {
            scope
                .spawn(|| {
                    catch_unwind(AssertUnwindSafe(|| {
                        let _handle = pool.submit(double, 1);
                        let mut map = pool.map(double, 0..);
                        map.next();
                        std::panic::resume_unwind(Box::new("a thread of the driver"));
                    }))
                    .is_err()
                })
                .join()
                .unwrap()
        });
        assert!(died);
        assert_eq!(pool.apply(double, 3), Ok(6));
    });
}
