//! What a job that runs can ask of its rank: who it is, broadcast values, whether its map was given up; and what it can tell
//! beside its result: large output piece by piece, or that this rank cannot go on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::cancellation::Cancellation;
use super::executor::{Executor, FromThread, MapFunction, Part};
use crate::engine::wire::{self, OutputStream};

/// The job that the calling thread is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CurrentJob {
    /// Its index in its map, from 0.
    pub job: u64,
    /// The rank that runs it.
    pub rank: u32,
    /// How often it has been started, from 1.
    pub attempt: u32,
    /// The compute thread that runs it, from 0, counted over all ranks of the host: jobs that run on a host at the same time
    /// have different ones.
    pub slot: u32,
}

/// A thread's surroundings while it works on a chunk.
#[derive(Clone)]
struct Surroundings {
    executor: Arc<Executor>,
    map: Arc<MapFunction>,
}

thread_local! {
    static CURRENT: Cell<Option<CurrentJob>> = const { Cell::new(None) };
    /// Whether this is a compute thread of a rank.
    static COMPUTES: Cell<bool> = const { Cell::new(false) };
    /// Jobs of the chunk at hand that their function calls failed.
    static BAD: Cell<u32> = const { Cell::new(0) };
    static SURROUNDINGS: RefCell<Option<Surroundings>> = const { RefCell::new(None) };
    /// Tells when the part that this thread sent last was taken.
    static SENT_PART: RefCell<Option<Receiver<()>>> = const { RefCell::new(None) };
}

/// The job that the calling thread is running; `None` outside of jobs.
pub fn current_job() -> Option<CurrentJob> {
    CURRENT.get()
}

/// Whether the calling thread belongs to a rank's computing side.
pub(crate) fn in_compute_thread() -> bool {
    COMPUTES.get()
}

/// Marks the calling thread as one of a rank's computing side.
pub(super) fn enter_compute_thread() {
    COMPUTES.set(true);
}

/// Runs `work` as the given job.
pub(super) fn as_job<T>(job: CurrentJob, work: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(Some(job));
    let result = work();
    CURRENT.set(outer);
    result
}

/// Runs `work`, on a chunk of `map`, so that it can ask what this module answers.
pub(super) fn surrounded<T>(executor: &Arc<Executor>, map: &Arc<MapFunction>, work: impl FnOnce() -> T) -> T {
    let inner = Surroundings { executor: executor.clone(), map: map.clone() };
    let outer = SURROUNDINGS.replace(Some(inner));
    let result = work();
    SURROUNDINGS.set(outer);
    result
}

fn surroundings() -> Option<Surroundings> {
    SURROUNDINGS.with_borrow(Clone::clone)
}

/// What tells the calling job that its map is given up. `None` outside of jobs, or if the system has no more file descriptors.
pub(crate) fn cancellation() -> Option<Arc<Cancellation>> {
    surroundings()?.map.cancellation()
}

/// The driver does not want the rest of a job's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

/// Sends a piece of a job's output ahead of its result. `job` is the caller's own mark. Returns when the driver
/// has taken the piece before, so that a thread never has more than two on their way.
pub(crate) fn send_part(job: u64, stream: OutputStream, bytes: Vec<u8>) -> Result<(), Unwanted> {
    let Surroundings { executor, map } = surroundings().ok_or(Unwanted)?;
    if let Some(before) = SENT_PART.take() {
        // The other end is dropped when the map is given up, and when the run ends.
        before.recv().map_err(|_| Unwanted)?;
    }
    let (taken, receiver) = bounded(1);
    executor.send(FromThread::Part(Part { map: map.id, job, stream, bytes, taken }));
    executor.doorbell.ring();
    SENT_PART.set(Some(receiver));
    Ok(())
}

/// Ends the run: this rank cannot do what it is for, and would only fail job after job.
pub(crate) fn give_up(message: String) {
    if let Some(Surroundings { executor, .. }) = surroundings() {
        let _ = executor.broken.set(message);
        executor.doorbell.ring();
    }
}

/// The calling job's result says that it failed: it is a result all the same, and tells something about the rank.
pub(crate) fn mark_bad() {
    BAD.set(BAD.get().saturating_add(1));
}

/// How many jobs were marked since this was last asked.
pub(super) fn take_bad() -> u32 {
    BAD.take()
}

/// The broadcast value with this number on the rank that the calling thread computes for, read with `read` the first time.
///
/// # Errors
/// Outside of jobs, and as [`Broadcasts::get`](super::broadcasts::Broadcasts::get).
pub(crate) fn broadcast_value<T: Any + Send + Sync>(
    number: u64,
    read: impl FnOnce(&[u8]) -> Result<T, wire::CodecError>,
) -> Result<Arc<T>, String> {
    let Surroundings { executor, .. } = surroundings().ok_or("a broadcast value can only be read inside a job")?;
    executor.broadcasts.get(number, read)
}
