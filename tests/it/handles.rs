//! The future of one job.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rankpool::{JobErrorKind, JobHandle, Pool, current_job};

use crate::support::{Gate, local, until};

/// Much longer than any of these jobs takes.
const LONG: Duration = Duration::from_secs(30);

fn double(x: u64) -> u64 {
    2 * x
}

#[test]
fn a_job_is_pending_then_running_then_finished() {
    static GATE: Gate = Gate::new();
    static STARTED: AtomicU32 = AtomicU32::new(0);
    local(1, 1, |pool| {
        let job = |x: u32| {
            STARTED.fetch_add(1, SeqCst);
            GATE.pass();
            x
        };
        let handles: Vec<_> = (0..8).map(|x| pool.submit(job, x)).collect();
        until("the first job runs", || STARTED.load(SeqCst) == 1 && handles[0].is_running());
        assert!(!handles[0].is_done() && !handles[0].is_cancelled());
        assert_eq!(format!("{:?}", handles[0]), "JobHandle(0, running)");
        let last = &handles[7];
        assert!(!last.is_running() && !last.is_done(), "one thread cannot have eight jobs");
        assert_eq!(format!("{last:?}"), "JobHandle(7, pending)");
        GATE.open();
        for (x, handle) in (0..).zip(&handles) {
            assert_eq!(handle.wait(), Ok(x));
            assert!(handle.is_done() && !handle.is_running() && !handle.is_cancelled());
            assert_eq!(format!("{handle:?}"), format!("JobHandle({x}, done)"));
        }
    });
}

#[test]
fn a_pending_job_can_be_cancelled_and_never_runs() {
    static GATE: Gate = Gate::new();
    static RAN: AtomicU32 = AtomicU32::new(0);
    local(1, 1, |pool| {
        let job = |x: u32| {
            RAN.fetch_or(1 << x, SeqCst);
            GATE.pass();
            x
        };
        let handles: Vec<_> = (0..8).map(|x| pool.submit(job, x)).collect();
        until("the first job runs", || RAN.load(SeqCst) != 0);
        let last = &handles[7];
        assert!(last.cancel(), "it is pending");
        assert!(last.is_cancelled() && last.is_done() && !last.is_running());
        assert!(last.cancel(), "it is cancelled already");
        assert!(last.clone().cancel(), "clones stand for the same job");
        let error = last.wait().unwrap_err();
        assert_eq!((error.kind, error.job, error.attempt), (JobErrorKind::Cancelled, 7, 0));
        assert!(handles[4].cancel(), "one from the middle");
        GATE.open();
        for x in [0, 1, 2, 3, 5, 6] {
            assert_eq!(handles[x].wait(), Ok(x as u32), "its neighbours are left alone");
        }
        assert_eq!(RAN.load(SeqCst), 0b0110_1111);
    });
}

#[test]
fn a_running_or_finished_job_cannot_be_cancelled() {
    static GATE: Gate = Gate::new();
    static STARTED: Gate = Gate::new();
    local(2, 1, |pool| {
        let running = pool.submit(
            |x: u32| {
                STARTED.open();
                GATE.pass();
                x
            },
            1,
        );
        STARTED.pass();
        assert!(!running.cancel());
        assert!(!running.is_cancelled());
        GATE.open();
        assert_eq!(running.wait(), Ok(1));
        assert!(!running.cancel());
        let failed = pool.submit(|x: u32| if x == 2 { panic!("two") } else { x }, 2);
        assert_eq!(failed.wait().unwrap_err().kind, JobErrorKind::Panic);
        assert!(!failed.cancel() && !failed.is_cancelled());
        assert_eq!(format!("{failed:?}"), "JobHandle(0, failed)");
    });
}

#[test]
fn callbacks_run_in_the_order_in_which_they_were_added() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let handle = pool.submit(
            |x: u32| {
                GATE.pass();
                x
            },
            3,
        );
        let order = Arc::new(Mutex::new(Vec::new()));
        for number in 0..20 {
            let order = order.clone();
            handle.on_done(move |handle| order.lock().unwrap().push((number, handle.wait().unwrap())));
        }
        assert!(order.lock().unwrap().is_empty());
        GATE.open();
        until("all callbacks have run", || order.lock().unwrap().len() == 20);
        assert_eq!(*order.lock().unwrap(), (0..20).map(|number| (number, 3)).collect::<Vec<_>>());
    });
}

#[test]
fn a_callback_for_a_job_that_is_done_runs_at_once() {
    local(1, 1, |pool| {
        let handle = pool.submit(double, 4);
        handle.wait().unwrap();
        let here = thread::current().id();
        let seen = Arc::new(Mutex::new(None));
        let sight = seen.clone();
        handle.on_done(move |handle| *sight.lock().unwrap() = Some((thread::current().id(), handle.wait())));
        assert_eq!(seen.lock().unwrap().take(), Some((here, Ok(8))));
        // A panic in such a callback does not reach the caller.
        handle.on_done(|_| panic!("at once"));
        assert_eq!(handle.wait(), Ok(8));
    });
}

#[test]
fn callbacks_run_for_failed_and_cancelled_jobs_too() {
    static GATE: Gate = Gate::new();
    local(1, 1, |pool| {
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let note = |handle: &JobHandle<u32>| {
            let kinds = kinds.clone();
            handle.on_done(move |handle| kinds.lock().unwrap().push(handle.wait().map_err(|error| error.kind)));
        };
        let job = |x: u32| {
            GATE.pass();
            if x == 0 { panic!("zero") } else { x }
        };
        let handles: Vec<_> = (0..8).map(|x| pool.submit(job, x)).collect();
        note(&handles[7]);
        assert!(handles[7].cancel());
        // It runs here or on the thread that settles handles, whichever comes first.
        until("the cancelled job's callback has run", || kinds.lock().unwrap().len() == 1);
        assert_eq!(*kinds.lock().unwrap(), [Err(JobErrorKind::Cancelled)]);
        note(&handles[0]);
        GATE.open();
        until("the failed job's callback has run", || kinds.lock().unwrap().len() == 2);
        assert_eq!(kinds.lock().unwrap()[1], Err(JobErrorKind::Panic));
    });
}

#[test]
fn a_callback_that_panics_stops_no_other() {
    static GATE: Gate = Gate::new();
    let ran = Arc::new(AtomicU32::new(0));
    let count = ran.clone();
    local(2, 1, move |pool| {
        let job = |x: u32| {
            GATE.pass();
            x
        };
        let handles: Vec<_> = (0..2).map(|x| pool.submit(job, x)).collect();
        for handle in &handles {
            for number in 0..4 {
                let count = count.clone();
                handle.on_done(move |_| {
                    count.fetch_add(1, SeqCst);
                    assert!(number % 2 == 0, "an odd callback");
                });
            }
        }
        GATE.open();
        for (x, handle) in (0..).zip(&handles) {
            assert_eq!(handle.wait(), Ok(x), "not of the other job either");
        }
        assert_eq!(pool.submit(double, 5).wait(), Ok(10), "the pool lives");
    });
    assert_eq!(ran.load(SeqCst), 8, "callbacks have run when the run is over");
}

#[test]
fn a_callback_may_submit() {
    local(2, 1, |pool| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let callback_pool = pool.clone();
        pool.submit(double, 1).on_done(move |handle| {
            let next = callback_pool.submit(double, handle.wait().unwrap());
            // The same function, and another one.
            let other = callback_pool.submit(|x: i8| -x, 3);
            sender.send((next, other)).unwrap();
        });
        let (next, other) = receiver.recv_timeout(LONG).expect("the callback does not hang");
        assert_eq!((next.wait(), other.wait()), (Ok(4), Ok(-3)));
    });
}

#[test]
fn a_chain_of_callbacks_that_submit_ends() {
    fn step(pool: &Pool, left: u64, done: std::sync::mpsc::Sender<u64>) {
        let next_pool = pool.clone();
        pool.submit(double, left).on_done(move |handle| {
            let doubled = handle.wait().unwrap();
            if left == 0 { done.send(doubled).unwrap() } else { step(&next_pool, left - 1, done) }
        });
    }
    local(2, 1, |pool| {
        let (sender, receiver) = std::sync::mpsc::channel();
        step(pool, 30, sender);
        assert_eq!(receiver.recv_timeout(LONG), Ok(0));
    });
}

#[test]
fn a_callback_that_would_wait_for_itself_is_refused() {
    local(2, 1, |pool| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let callback_pool = pool.clone();
        let gate: &'static Gate = &GATE;
        pool.submit(
            |x: u64| {
                GATE.pass();
                x
            },
            1,
        )
        .on_done(move |_| {
            // Only this thread could settle them.
            sender.send(callback_pool.submit(double, 2).wait()).unwrap();
            let _ = rankpool::wait_all(&[callback_pool.submit(double, 3)], None);
            sender.send(Ok(0)).unwrap();
        });
        gate.open();
        let error = receiver.recv_timeout(LONG).expect("it does not hang").unwrap_err();
        assert_eq!(error.kind, JobErrorKind::Refused);
        assert!(error.message.contains("callback"), "{error}");
        assert!(receiver.recv_timeout(LONG).is_err(), "the callback has panicked, which is reported");
        assert_eq!(pool.apply(double, 4), Ok(8));
    });
    static GATE: Gate = Gate::new();
}

#[test]
fn a_wait_that_times_out_leaves_the_job_alone() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let handle = pool.submit(
            |x: u32| {
                GATE.pass();
                x
            },
            6,
        );
        assert_eq!(handle.wait_timeout(Duration::ZERO), None);
        assert_eq!(handle.wait_timeout(Duration::from_millis(20)), None);
        assert!(!handle.is_done() && !handle.is_cancelled());
        GATE.open();
        assert_eq!(handle.wait_timeout(LONG), Some(Ok(6)));
        assert_eq!(handle.wait_timeout(Duration::ZERO), Some(Ok(6)), "what is done needs no time");
        assert_eq!(handle.wait_timeout(Duration::MAX), Some(Ok(6)));
    });
}

#[test]
fn the_longest_time_out_is_as_good_as_none() {
    local(1, 1, |pool| assert_eq!(pool.submit(double, 2).wait_timeout(Duration::MAX), Some(Ok(4))));
}

#[test]
fn dropping_a_handle_does_not_cancel_its_job() {
    static GATE: Gate = Gate::new();
    static RAN: AtomicU32 = AtomicU32::new(0);
    local(1, 1, |pool| {
        for x in 0..10 {
            drop(pool.submit(
                |x: u32| {
                    GATE.pass();
                    RAN.fetch_add(x, SeqCst);
                },
                x,
            ));
        }
        GATE.open();
        until("all of them have run", || RAN.load(SeqCst) == 45);
    });
}

#[test]
fn a_result_can_be_read_many_times_from_many_threads() {
    local(2, 1, |pool| {
        let handle = pool.submit(|n: usize| vec![7u8; n], 1000);
        thread::scope(|scope| {
            for _ in 0..8 {
                let handle = handle.clone();
                scope.spawn(move || assert_eq!(handle.wait().unwrap().len(), 1000));
            }
        });
        assert_eq!(handle.wait().unwrap(), handle.wait().unwrap());
    });
}

#[test]
fn apply_waits_for_the_one_result() {
    local(2, 1, |pool| {
        assert_eq!(pool.apply(double, 21), Ok(42));
        assert_eq!(pool.apply(|_: u8| -> u8 { panic!("no") }, 1).unwrap_err().message, "no");
    });
}

#[test]
fn a_job_knows_its_number_rank_and_attempt() {
    local(3, 1, |pool| {
        assert_eq!(current_job(), None, "the driver is no job");
        let where_am_i = |_: u32| current_job().map(|job| (job.job, job.rank, job.attempt));
        for number in 0..10 {
            let handle = pool.submit(where_am_i, 0);
            assert_eq!(handle.job(), number);
            let (job, rank, attempt) = handle.wait().unwrap().expect("inside a job");
            assert!(rank < 3);
            assert_eq!((job, attempt), (number, 1));
        }
    });
}

/// A waker that counts, and wakes a thread.
struct Counter {
    wakes: AtomicU32,
    thread: Thread,
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

fn counter() -> Arc<Counter> {
    Arc::new(Counter { wakes: AtomicU32::new(0), thread: thread::current() })
}

/// The simplest executor: polls, and sleeps until it is woken.
fn block_on<F: Future>(future: F, counter: &Arc<Counter>) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(counter.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let wakes = counter.wakes.load(SeqCst);
        thread::park_timeout(LONG);
        assert!(counter.wakes.load(SeqCst) > 0 || wakes > 0, "the task was never woken");
    }
}

#[test]
fn a_future_wakes_its_task_once_however_often_it_was_polled() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let mut handle = pool.submit(
            |x: u32| {
                GATE.pass();
                x
            },
            9,
        );
        let counter = counter();
        let waker = Waker::from(counter.clone());
        for _ in 0..100 {
            assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(counter.wakes.load(SeqCst), 0);
        GATE.open();
        assert_eq!(handle.wait(), Ok(9));
        until("the task is woken", || counter.wakes.load(SeqCst) > 0);
        for _ in 0..3 {
            assert_eq!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(9)));
        }
        assert_eq!(block_on(handle, &counter), Ok(9));
        assert_eq!(counter.wakes.load(SeqCst), 1);
    });
}

#[test]
fn futures_can_be_awaited_in_a_plain_block_on() {
    local(2, 2, |pool| {
        let sum = async {
            let mut sum = 0;
            let handles: Vec<_> = (0..50).map(|x| pool.submit(double, x)).collect();
            for handle in handles {
                sum += handle.await?;
            }
            let failed = pool.submit(|x: u64| -> u64 { panic!("input {x}") }, 1).await.unwrap_err();
            assert_eq!((failed.kind, failed.message.as_str()), (JobErrorKind::Panic, "input 1"));
            Ok::<_, rankpool::JobError>(sum)
        };
        assert_eq!(block_on(sum, &counter()), Ok(2450));
    });
}

#[test]
fn a_future_wakes_the_task_that_polled_it_last() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let mut handle = pool.submit(
            |x: u32| {
                GATE.pass();
                x
            },
            9,
        );
        let (first, second) = (counter(), counter());
        for counter in [&first, &second] {
            let waker = Waker::from(counter.clone());
            assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        GATE.open();
        until("the task that it moved to is woken", || second.wakes.load(SeqCst) == 1);
    });
}
