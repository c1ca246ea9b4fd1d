//! The state that the handles of one job share, and the ends of jobs as threads wait for them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use super::stream::Encoded;
use crate::console;
use crate::engine::catch::catch;
use crate::engine::error::JobError;
use crate::engine::rank;

pub(super) type Callback = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Whether this thread settles handles: it would wait forever if it waited for one.
    static SETTLES: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as the one that settles handles and runs their callbacks.
pub(super) fn settle_here() {
    SETTLES.set(true);
}

/// Returns an error if the calling thread cannot wait for a job without waiting for itself.
pub(super) fn check_wait() -> Result<(), &'static str> {
    if rank::in_compute_thread() {
        Err("a handle was waited for inside a job, where it could wait for itself")
    } else if SETTLES.get() {
        Err("a handle was waited for in a callback, on the thread that would settle it")
    } else {
        Ok(())
    }
}

/// The state of a job.
pub(super) enum Status {
    /// Not known to have ended; `running` if a rank has it.
    Open { running: bool, callbacks: Vec<Callback>, wakers: Vec<Waker>, watchers: Vec<(Weak<Completions>, usize)> },
    /// It has ended: with the frame of its result, or an error.
    Done(Result<Encoded, JobError>),
}

/// The part of a handle that its clones and the pool share.
pub(crate) struct JobState {
    status: Mutex<Status>,
    pub(super) changed: Condvar,
}

impl JobState {
    pub(super) fn new() -> Arc<Self> {
        let status = Status::Open { running: false, callbacks: Vec::new(), wakers: Vec::new(), watchers: Vec::new() };
        Arc::new(JobState { status: Mutex::new(status), changed: Condvar::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_running(&self) {
        if let Status::Open { running, .. } = &mut *self.lock() {
            *running = true;
        }
    }

    /// Records the end of the job; only the first call has an effect. Wakes all waiting threads and tasks, then runs the callbacks on
    /// this thread.
    pub(super) fn settle(&self, result: Result<Encoded, JobError>) {
        let failed = result.is_err();
        let mut status = self.lock();
        if matches!(*status, Status::Done(_)) {
            return;
        }
        let before = std::mem::replace(&mut *status, Status::Done(result));
        drop(status);
        self.changed.notify_all();
        let Status::Open { callbacks, wakers, watchers, .. } = before else { return };
        for (completions, index) in watchers {
            if let Some(completions) = completions.upgrade() {
                completions.report(index, failed);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        callbacks.into_iter().for_each(run_callback);
    }

    /// Reports this job's end to `completions`, under this index: at once if it has ended.
    pub(super) fn report_to(&self, completions: &Arc<Completions>, index: usize) {
        let failed = match &mut *self.lock() {
            Status::Open { watchers, .. } => {
                watchers.retain(|(completions, _)| completions.strong_count() > 0);
                watchers.push((Arc::downgrade(completions), index));
                return;
            }
            Status::Done(result) => result.is_err(),
        };
        completions.report(index, failed);
    }
}

pub(super) fn run_callback(callback: Callback) {
    if let Err(panic) = catch(callback) {
        let at = panic.location.map(|location| format!(", at {location}")).unwrap_or_default();
        console::eprint_error(format_args!("a callback of a job panicked: {}{at}", panic.message));
    }
}

/// Receives the ends of jobs, for a thread that waits for them.
#[derive(Default)]
pub(super) struct Completions {
    ended: Mutex<VecDeque<(usize, bool)>>,
    changed: Condvar,
}

impl Completions {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<(usize, bool)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the end of the job with this index.
    pub(super) fn report(&self, index: usize, failed: bool) {
        self.lock().push_back((index, failed));
        self.changed.notify_all();
    }

    /// Waits for the next job that has ended and returns whether it failed; `None` when the deadline passes first.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Option<(usize, bool)> {
        let mut ended = self.lock();
        loop {
            if let Some(next) = ended.pop_front() {
                return Some(next);
            }
            if deadline.is_none() {
                check_wait().unwrap_or_else(|message| panic!("{message}"));
            }
            ended = match deadline {
                None => self.changed.wait(ended).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
