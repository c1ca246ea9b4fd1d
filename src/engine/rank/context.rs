//! What a job that runs can ask of its rank: who it is, broadcast values, whether its map was given up; and what it can tell
//! beside its result: large output piece by piece, or that this rank cannot go on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};

use super::bench::{Bench, MapFunction, Part, Upward};
use crate::engine::wire;

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
    bench: Arc<Bench>,
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
pub(super) fn surrounded<T>(bench: &Arc<Bench>, map: &Arc<MapFunction>, work: impl FnOnce() -> T) -> T {
    let inner = Surroundings { bench: bench.clone(), map: map.clone() };
    let outer = SURROUNDINGS.replace(Some(inner));
    let result = work();
    SURROUNDINGS.set(outer);
    result
}

fn surroundings() -> Option<Surroundings> {
    SURROUNDINGS.with_borrow(Clone::clone)
}

/// Whether a map was given up: nobody wants the jobs that run, either. It can be waited for like a file.
pub(crate) struct Cancellation {
    watched: Arc<OwnedFd>,
    /// Dropped to cancel.
    held: Mutex<Option<UnixStream>>,
}

impl Cancellation {
    pub(super) fn new() -> std::io::Result<Self> {
        let (watched, held) = UnixStream::pair()?;
        Ok(Cancellation { watched: Arc::new(watched.into()), held: Mutex::new(Some(held)) })
    }

    /// Becomes readable, with nothing to read, when the map is given up.
    pub(crate) fn watched(&self) -> &Arc<OwnedFd> {
        &self.watched
    }

    pub(super) fn cancel(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What tells the calling job that its map is given up. `None` outside of jobs, or if the system has no more file descriptors.
pub(crate) fn cancellation() -> Option<Arc<Cancellation>> {
    surroundings()?.map.cancellation()
}

/// The driver does not want the rest of a job's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

/// Sends a piece of a job's output ahead of its result. `job` and `stream` are the caller's own marks. Returns when the driver
/// has taken the piece before, so that a thread never has more than two on their way.
pub(crate) fn send_part(job: u64, stream: u8, bytes: Vec<u8>) -> Result<(), Unwanted> {
    let Surroundings { bench, map } = surroundings().ok_or(Unwanted)?;
    if let Some(before) = SENT_PART.take() {
        // The other end is dropped when the map is given up, and when the run ends.
        before.recv().map_err(|_| Unwanted)?;
    }
    let (taken, receiver) = bounded(1);
    bench.send(Upward::Part(Part { map: map.id, job, stream, bytes, taken }));
    bench.doorbell.ring();
    SENT_PART.set(Some(receiver));
    Ok(())
}

/// Ends the run: this rank cannot do what it is for, and would only fail job after job.
pub(crate) fn give_up(message: String) {
    if let Some(Surroundings { bench, .. }) = surroundings() {
        let _ = bench.broken.set(message);
        bench.doorbell.ring();
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

/// A broadcast value as a rank got it, and as it was first read.
#[derive(Default)]
struct KeptValue {
    bytes: Bytes,
    value: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// The broadcast values of a rank.
#[derive(Default)]
pub(super) struct Kept(Mutex<HashMap<u64, Arc<KeptValue>>>);

impl Kept {
    pub(super) fn insert(&self, number: u64, bytes: Bytes) {
        let value = Arc::new(KeptValue { bytes, value: OnceLock::new() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, value);
    }
}

/// The broadcast value with this number on the rank that the calling thread computes for, read with `read` the first time.
pub(crate) fn kept_value<T: Any + Send + Sync>(
    number: u64,
    read: impl FnOnce(&[u8]) -> Result<T, wire::CodecError>,
) -> Result<Arc<T>, String> {
    let Surroundings { bench, .. } = surroundings().ok_or("a broadcast value can only be read inside a job")?;
    let kept = bench.kept.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
    let kept = kept.ok_or_else(|| format!("there is no broadcast value {number} on this rank"))?;
    if kept.value.get().is_none() {
        // Two threads may both read it the first time; one of the results is kept.
        let value: Arc<dyn Any + Send + Sync> = Arc::new(read(&kept.bytes).map_err(|error| error.to_string())?);
        let _ = kept.value.set(value);
    }
    let value = kept.value.get().cloned().ok_or("a broadcast value was not kept")?;
    value.downcast::<T>().map_err(|_| format!("broadcast value {number} is of another type"))
}
