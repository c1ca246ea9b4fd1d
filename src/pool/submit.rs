//! Submitted jobs: all jobs of one function are pushed into one open map, so that short jobs can share chunks. The deliveries of all
//! these maps are received by one thread, which settles the handles.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::future::{JobState, settle_here};
use super::handle::JobHandle;
use super::stream::{Event, JobSender};
use super::{DEFAULT_POLICY, Pool, closed};
use crate::console::reason;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{Client, Delivery};
use crate::engine::func::{Builder, Value};
use crate::engine::schedule::MapId;

type Registry = Mutex<HashMap<(MapId, u64), Arc<JobState>>>;

/// The submitted jobs of a pool.
#[derive(Default)]
pub(super) struct Submits {
    state: Mutex<State>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// The open map of each function and time limit.
    maps: BTreeMap<(usize, Option<Duration>), JobSender>,
    settler: Option<Settler>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The channel to which the master sends the deliveries of submitted jobs.
type Settler = Sender<(MapId, Vec<Delivery>)>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Submits {
    /// Refuses new jobs from now on.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.settler = None;
        for mut map in std::mem::take(&mut state.maps).into_values() {
            // If the pool has ended, there is nothing to close.
            let _ = map.close();
        }
    }

    /// Waits, after the master has ended, until all handles are settled and their callbacks have run.
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
        let shared = JobState::new();
        match self.push(builder, write, &shared) {
            Ok((map, job)) => JobHandle::new(self.clone(), map, job, shared),
            Err(failure) => {
                shared.settle(Err(JobError::of(0, failure)));
                JobHandle::new(self.clone(), MapId(u64::MAX), 0, shared)
            }
        }
    }

    fn push(
        &self,
        builder: Builder,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
        shared: &Arc<JobState>,
    ) -> Result<(MapId, u64), Failure> {
        self.check_use()?;
        let submits = &self.core.submits;
        // Held until the job is sent: the master numbers a map's jobs in the order in which they arrive.
        let mut state = lock(&submits.state);
        if state.closed {
            return Err(closed());
        }
        let key = (builder as usize, self.job_timeout);
        if !state.maps.contains_key(&key) {
            let map = self.open_submits(builder, &mut state)?;
            state.maps.insert(key, map);
        }
        let Some(sender) = state.maps.get_mut(&key) else { return Err(closed()) };
        let (map, job) = (sender.map(), sender.pushed());
        lock(&submits.registry).insert((map, job), shared.clone());
        sender.push(write, None);
        if let Err(failure) = sender.flush() {
            lock(&submits.registry).remove(&(map, job));
            return Err(failure);
        }
        Ok((map, job))
    }

    fn open_submits(&self, builder: Builder, state: &mut State) -> Result<JobSender, Failure> {
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
        let client = Client { deliveries: settler, starts: true, queue_target: Arc::default(), settled: None };
        let map = self.open_for(builder, Bytes::new(), DEFAULT_POLICY, self.job_timeout, client)?;
        Ok(JobSender::new(self.core.link.clone(), map))
    }
}

/// Settles handles as their jobs end, until the master has ended; then settles the rest with an error.
fn settle_all(deliveries: &Receiver<(MapId, Vec<Delivery>)>, registry: &Registry) {
    settle_here();
    for (map, deliveries) in deliveries {
        for delivery in deliveries {
            settle(map, delivery.into(), registry);
        }
    }
    let left = std::mem::take(&mut *lock(registry));
    for ((_, job), shared) in left {
        shared.settle(Err(JobError::of(job, closed())));
    }
}

/// Settles the handles of an event's jobs. Results stay encoded until a handle reads them.
fn settle(map: MapId, event: Event<()>, registry: &Registry) {
    let settle_job = |job, result| {
        let shared = lock(registry).remove(&(map, job));
        if let Some(shared) = shared {
            shared.settle(result);
        }
    };
    match event {
        Event::Started { first, count } => {
            for job in first..first + count {
                let shared = lock(registry).get(&(map, job)).cloned();
                if let Some(shared) = shared {
                    shared.set_running();
                }
            }
        }
        Event::Done(mut results) => {
            while let Some((job, frame)) = results.next_encoded() {
                settle_job(job, frame);
            }
        }
        Event::Failed(error) => settle_job(error.job, Err(*error)),
        Event::Unrun(errors) => errors.for_each(|error| settle_job(error.job, Err(error))),
        Event::Early(_) | Event::Part(_) | Event::Idle | Event::Wake | Event::Ended => {}
    }
}

impl Drop for Submits {
    fn drop(&mut self) {
        self.close();
    }
}
