//! Helpers: runs with a time limit, and conditions to wait for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rankpool::{DriverResult, ExitCode, Launch, Pool};

/// The time limit of a run, and of every wait in a test.
const RUN_LIMIT: Duration = Duration::from_secs(60);
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Calls `code` on a thread of its own. If it takes too long, the test fails and the thread is left behind.
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

/// Runs a driver on local ranks and returns the exit code.
#[track_caller]
pub fn code_of(launch: Launch<'static>, driver: impl FnOnce(&Pool) -> DriverResult + Send + 'static) -> ExitCode {
    within(RUN_LIMIT, move || launch.run(driver))
}

/// Runs a driver on local ranks and returns its value. A panic in it fails the test.
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

/// As [`launched`], on `ranks` local ranks with `threads` threads each.
#[track_caller]
pub fn local<T: Send + 'static>(ranks: u32, threads: u32, driver: impl FnOnce(&Pool) -> T + Send + 'static) -> T {
    launched(Launch::new().local(ranks).threads(threads), driver)
}

/// A gate at which jobs wait until the test opens it.
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

    /// Waits until it is open; panics if that takes too long.
    pub fn pass(&self) {
        let open = self.open.lock().unwrap();
        let (_open, limit) = self.opened.wait_timeout_while(open, WAIT_LIMIT, |open| !*open).unwrap();
        assert!(!limit.timed_out(), "the gate was not opened in time");
    }
}

/// Waits until a condition holds; panics if that takes too long.
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_micros(200));
    }
}
