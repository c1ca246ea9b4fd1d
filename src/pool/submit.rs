//! Submitted jobs: all jobs of one function are one map that stays open, so that tiny ones can share chunks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::handle::{JobHandle, Shared, settle_here};
use super::{DEFAULT_POLICY, Pool, closed};
use crate::console::reason;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{BlockBuilder, Client, Command, Delivery};
use crate::engine::func::{Builder, Value};
use crate::engine::schedule::MapId;
use crate::engine::wire::Frames;

type Registry = Mutex<HashMap<(MapId, u64), Arc<Shared>>>;

/// The submitted jobs of a pool.
#[derive(Default)]
pub(super) struct Submits {
    state: Mutex<State>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// The open map of each function and time limit, and how many jobs it has.
    maps: BTreeMap<(usize, Option<Duration>), (MapId, u64)>,
    settler: Option<Settler>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Where the master sends what happens to submitted jobs.
type Settler = Sender<(MapId, Vec<Delivery>)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Submits {
    /// No job is accepted any more; the maps that were open.
    pub(super) fn close(&self) -> Vec<MapId> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.settler = None;
        std::mem::take(&mut state.maps).into_values().map(|(map, _)| map).collect()
    }

    /// Waits until all handles are settled and their callbacks have run. The master has ended.
    pub(super) fn join(&self) {
        let thread = lock(&self.state).thread.take();
        if let Some(thread) = thread.filter(|settler| settler.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Pool {
    pub(super) fn submit_encoded<O: Value>(
        &self,
        builder: Builder,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
    ) -> JobHandle<O> {
        let mut block = BlockBuilder::default();
        block.push(write);
        let shared = Shared::new();
        match self.submit_block(builder, block, &shared) {
            Ok((map, job)) => JobHandle::new(self.clone(), map, job, shared),
            Err(failure) => {
                shared.settle(Err(JobError::of(0, failure)));
                JobHandle::new(self.clone(), MapId(u64::MAX), 0, shared)
            }
        }
    }

    fn submit_block(
        &self,
        builder: Builder,
        mut block: BlockBuilder,
        shared: &Arc<Shared>,
    ) -> Result<(MapId, u64), Failure> {
        self.check_use()?;
        let submits = &self.core.submits;
        // Held until the job is on its way: the master counts a map's jobs in the order in which they come.
        let mut state = lock(&submits.state);
        if state.closed {
            return Err(closed());
        }
        let key = (builder as usize, self.job_timeout);
        let map = match state.maps.get(&key) {
            Some(&(map, _)) => map,
            None => {
                let map = self.open_submits(builder, &mut state)?;
                state.maps.insert(key, (map, 0));
                map
            }
        };
        let (_, jobs) = state.maps.entry(key).or_insert((map, 0));
        let job = *jobs;
        lock(&submits.registry).insert((map, job), shared.clone());
        if let Err(failure) = self.command(Command::Submit { map, block: block.take() }) {
            lock(&submits.registry).remove(&(map, job));
            return Err(failure);
        }
        *jobs += 1;
        Ok((map, job))
    }

    fn open_submits(&self, builder: Builder, state: &mut State) -> Result<MapId, Failure> {
        let settler = match &state.settler {
            Some(settler) => settler.clone(),
            None => {
                let (sender, deliveries) = unbounded();
                let registry = self.core.submits.registry.clone();
                let thread = thread::Builder::new()
                    .name("rankpool handles".into())
                    .spawn(move || settle_all(&deliveries, &registry))
                    .map_err(|error| {
                        Failure::new(
                            JobErrorKind::Refused,
                            format!("cannot start a thread for results: {}", reason(&error)),
                        )
                    })?;
                state.thread = Some(thread);
                state.settler.insert(sender).clone()
            }
        };
        let client = Client { deliveries: settler, starts: true, advice: Arc::default(), meter: None };
        self.open_for(builder, Bytes::new(), DEFAULT_POLICY, self.job_timeout, client)
    }
}

/// Settles handles as their jobs end, until the master has gone; then those that are left.
fn settle_all(deliveries: &Receiver<(MapId, Vec<Delivery>)>, registry: &Registry) {
    settle_here();
    for (map, deliveries) in deliveries {
        for delivery in deliveries {
            settle_delivery(map, delivery, registry);
        }
    }
    let left = std::mem::take(&mut *lock(registry));
    for ((_, job), shared) in left {
        shared.settle(Err(JobError::of(job, closed())));
    }
}

fn settle_delivery(map: MapId, delivery: Delivery, registry: &Registry) {
    let take = |job| lock(registry).remove(&(map, job));
    match delivery {
        Delivery::Part(_) => {}
        Delivery::Started { first, count } => {
            for job in first..first + u64::from(count) {
                let shared = lock(registry).get(&(map, job)).cloned();
                if let Some(shared) = shared {
                    shared.set_running();
                }
            }
        }
        Delivery::Done { first, count, frames } => {
            let mut rest = Frames::new(&frames);
            for job in first..first + count {
                let start = frames.len() - rest.rest().len();
                let read = rest.next();
                let end = frames.len() - rest.rest().len();
                if let Some(shared) = take(job) {
                    // Copied, so that a handle that is kept does not keep its neighbours' results.
                    let frame = Bytes::copy_from_slice(&frames[start..end]);
                    let garbled = |error: crate::engine::wire::CodecError| {
                        JobError::new(job, JobErrorKind::Decode, error.to_string())
                    };
                    shared.settle(read.map(|_| frame).map_err(garbled));
                }
            }
        }
        Delivery::Failed(error) => {
            if let Some(shared) = take(error.job) {
                shared.settle(Err(*error));
            }
        }
        Delivery::Unrun { first, count, attempt, failure } => {
            for job in first..first + count {
                if let Some(shared) = take(job) {
                    shared.settle(Err(JobError { attempt, ..JobError::of(job, failure.clone()) }));
                }
            }
        }
    }
}

impl Drop for Submits {
    fn drop(&mut self) {
        self.close();
    }
}
