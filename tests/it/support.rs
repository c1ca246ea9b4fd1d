//! Runs that cannot hang, and things to wait for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rankpool::{DriverResult, ExitCode, Launch, Pool};

/// How long a run may take, and how long a test waits for anything.
const RUN_LIMIT: Duration = Duration::from_secs(60);
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Calls `code` on a thread of its own; one that takes too long is a failure and is left behind.
#[track_caller]
pub fn within<T: Send + 'static>(limit: Duration, code: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let name = thread::current().name().unwrap_or("a test").to_string();
    let runner = thread::Builder::new().name(name).spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(code)));
    });
    runner.expect("a thread can be started");
    match receiver.recv_timeout(limit) {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(RecvTimeoutError::Timeout) => panic!("the run hangs: no end after {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => unreachable!("the thread always sends"),
    }
}

/// Runs a driver on local ranks and says how the run ended.
#[track_caller]
pub fn code_of(launch: Launch<'static>, driver: impl FnOnce(&Pool) -> DriverResult + Send + 'static) -> ExitCode {
    within(RUN_LIMIT, move || launch.run(driver))
}

/// Runs a driver on local ranks; what it returns. A panic in it is the test's.
#[track_caller]
pub fn launched<T: Send + 'static>(launch: Launch<'static>, driver: impl FnOnce(&Pool) -> T + Send + 'static) -> T {
    let (code, result) = within(RUN_LIMIT, move || {
        let mut result = None;
        let code = launch.run(|pool| {
            result = Some(catch_unwind(AssertUnwindSafe(|| driver(pool))));
            Ok(())
        });
        (code, result)
    });
    let value = result.expect("the driver is called").unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(code, ExitCode::Success);
    value
}

/// [`launched`] on so many local ranks with so many threads each.
#[track_caller]
pub fn local<T: Send + 'static>(ranks: u32, threads: u32, driver: impl FnOnce(&Pool) -> T + Send + 'static) -> T {
    launched(Launch::new().local(ranks).threads(threads), driver)
}

/// What jobs wait at until the test lets them through.
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub const fn new() -> Self {
        Gate { open: Mutex::new(false), opened: Condvar::new() }
    }

    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Waits until it is open; panics when that never happens.
    pub fn pass(&self) {
        let open = self.open.lock().unwrap();
        let (_open, limit) = self.opened.wait_timeout_while(open, WAIT_LIMIT, |open| !*open).unwrap();
        assert!(!limit.timed_out(), "nobody opened the gate");
    }
}

/// Waits until something is true; panics when it never is.
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_micros(200));
    }
}
