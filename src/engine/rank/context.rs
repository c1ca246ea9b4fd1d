//! The interface of a running job to its rank: its number and slot, broadcast values, whether its map was abandoned, output
//! that is sent piece by piece before the result, and the error that ends the run.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::cancellation::Cancellation;
use super::chunk::Chunk;
use super::executor::Executor;
use super::results::{FromThread, Part};
use crate::engine::wire::{self, OutputStream};

/// The job that the calling thread is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CurrentJob {
    /// Its index in its map, from 0.
    pub job: u64,
    /// The rank that runs it.
    pub rank: u32,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The compute thread that runs it, from 0, counted over all ranks of the host: jobs that run on a host at the same time
    /// have different ones.
    pub slot: u32,
}

/// What a job has access to.
struct Surroundings {
    executor: Arc<Executor>,
    chunk: Arc<Chunk>,
}

thread_local! {
    static CURRENT: Cell<Option<CurrentJob>> = const { Cell::new(None) };
    /// If this is a compute thread of a rank: that rank's executor.
    static EXECUTOR: RefCell<Option<Arc<Executor>>> = const { RefCell::new(None) };
    /// The number of jobs of the current chunk that were marked by [`mark_failed`].
    static MARKED: Cell<u32> = const { Cell::new(0) };
    /// The chunk that this thread runs. Its counter of owners, unlike the executor's and the map's, is not written by other threads
    /// all the time.
    static CHUNK: RefCell<Option<Arc<Chunk>>> = const { RefCell::new(None) };
    /// Receives a message when the driver has taken the last part that this thread has sent.
    static SENT_PART: RefCell<Option<Receiver<()>>> = const { RefCell::new(None) };
}

/// Returns the job that the calling thread is running; `None` outside of jobs.
pub fn current_job() -> Option<CurrentJob> {
    CURRENT.get()
}

/// Returns whether the calling thread is a compute thread of a rank.
pub(crate) fn in_compute_thread() -> bool {
    EXECUTOR.with_borrow(Option::is_some)
}

/// Makes the calling thread a compute thread of a rank.
pub(super) fn enter_compute_thread(executor: &Arc<Executor>) {
    EXECUTOR.set(Some(executor.clone()));
}

/// Runs `work` as the given job.
pub(super) fn as_job<T>(job: CurrentJob, work: impl FnOnce() -> T) -> T {
    let outer = CURRENT.replace(Some(job));
    let result = work();
    CURRENT.set(outer);
    result
}

/// Runs `work`, which runs the chunk on a compute thread, so that it can call the functions of this module.
pub(super) fn surrounded<T>(chunk: &Arc<Chunk>, work: impl FnOnce() -> T) -> T {
    let outer = CHUNK.replace(Some(chunk.clone()));
    let result = work();
    CHUNK.set(outer);
    result
}

fn surroundings() -> Option<Surroundings> {
    let chunk = CHUNK.with_borrow(Clone::clone)?;
    let executor = EXECUTOR.with_borrow(Clone::clone)?;
    Some(Surroundings { executor, chunk })
}

/// Returns the object that reports to the calling job that its map was abandoned. `None` outside of jobs, or if the system has no
/// more file descriptors.
pub(crate) fn cancellation() -> Option<Arc<Cancellation>> {
    surroundings()?.chunk.map.cancellation()
}

/// The error of [`send_part`]: the driver has dropped the map, so the rest of the output is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

/// Sends a piece of a job's output before its result. `job` is the caller's own mark. Returns when the driver
/// has taken the previous piece, so that a thread never has more than two pieces on their way.
pub(crate) fn send_part(job: u64, stream: OutputStream, bytes: Vec<u8>) -> Result<(), Unwanted> {
    let Surroundings { executor, chunk } = surroundings().ok_or(Unwanted)?;
    if let Some(before) = SENT_PART.take() {
        // The other end is dropped when the map is abandoned, and when the run ends.
        before.recv().map_err(|_| Unwanted)?;
    }
    let (taken, receiver) = bounded(1);
    executor.send(FromThread::Part(Part { map: chunk.map.id, job, stream, bytes, taken }));
    executor.ring();
    SENT_PART.set(Some(receiver));
    Ok(())
}

/// Ends the run with this message: all jobs would fail on this rank.
pub(crate) fn abort_run(message: String) {
    if let Some(Surroundings { executor, .. }) = surroundings() {
        let _ = executor.abort_message.set(message);
        executor.ring();
    }
}

/// Records that the calling job's result says that it failed. The job has a result all the same; the scheduler counts it as a
/// failure of the rank.
pub(crate) fn mark_failed() {
    MARKED.set(MARKED.get().saturating_add(1));
}

/// Returns the number of jobs that were marked since the last call.
pub(super) fn take_marked() -> u32 {
    MARKED.take()
}

/// Whether this rank was told to forget a broadcast value that the calling job has got. False outside of jobs.
#[cfg(feature = "program")]
pub(crate) fn is_forgotten(number: u64) -> bool {
    surroundings().is_some_and(|Surroundings { executor, .. }| !executor.broadcasts.knows(number))
}

/// Returns the broadcast value with this number, decoded by `read` at the first call on this rank.
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
