//! The driver's side: the types that the user's closure on rank 0 holds and calls.
//!
//! All work on rank 0 that takes time for each job happens here, on the driver's own threads: pulling and encoding inputs,
//! decoding and ordering results. The master only sees blocks of bytes.

mod future;
mod handle;
mod map;
mod pacer;
mod shared;
mod stream;
mod submit;
mod variants;
mod wait;

use std::any::type_name;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Sender, unbounded};

use crate::engine::board::{Board, Settled};
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::exchange::{Client, Command};
use crate::engine::func::{self, Builder, ChunkServer, CrossesRanks, StarFunction, Value};
use crate::engine::placement::Rank;
use crate::engine::rank;
use crate::engine::schedule::{ChunkSize, MapId, Policy};
use crate::engine::stats::Stats;
use crate::engine::transport::{Doorbell, TransportInfo};
use crate::engine::wire::{self, FunctionId};

pub use handle::JobHandle;
pub use map::Map;
#[cfg(feature = "program")]
pub(crate) use map::order::Order;
pub(crate) use pacer::{HandedOn, Next, Pacer};
pub use shared::Shared;
pub(crate) use stream::{Event, JobStream, Results};
pub use variants::{ByRef, ByRefs};
pub use wait::{AsCompleted, Waited, as_completed, wait_all, wait_any, wait_failed};

use stream::Link;
use submit::Submits;

/// The ranks of a run, on which the driver runs functions.
///
/// A pool can be used from several threads at once (`&Pool` is enough, and it can be cloned), for any number of maps
/// and submitted jobs; they share the ranks fairly. It cannot be used inside a job.
#[derive(Clone)]
pub struct Pool {
    core: Arc<Core>,
    /// The time limit of a job.
    job_timeout: Option<Duration>,
}

struct Core {
    link: Link,
    executable: u64,
    board: Arc<Board>,
    transport: TransportInfo,
    next_map: AtomicU64,
    next_value: AtomicU64,
    /// Whether the driver has returned.
    left: AtomicBool,
    submits: Submits,
}

/// The master's reports about a stream beside the results of its jobs.
#[derive(Default)]
struct Reports {
    /// Whether it reports that jobs were sent to a rank.
    starts: bool,
    /// Counts jobs for a progress display.
    settled: Option<Arc<Settled>>,
}

fn closed() -> Failure {
    Failure::new(JobErrorKind::Closed, "the pool has ended")
}

impl Pool {
    pub(crate) fn new(
        commands: Sender<Command>,
        master: Doorbell,
        executable: u64,
        board: Arc<Board>,
        transport: TransportInfo,
    ) -> Self {
        let core = Core {
            link: Link { commands, master },
            executable,
            board,
            transport,
            next_map: AtomicU64::new(0),
            next_value: AtomicU64::new(0),
            left: AtomicBool::new(false),
            submits: Submits::default(),
        };
        Pool { core: Arc::new(core), job_timeout: None }
    }

    /// Returns the same pool with a time limit for each of its jobs, submitted or in a map: see [`Map::job_timeout`].
    ///
    /// ```
    /// # rankpool::Launch::new().local(1).threads(1).run(|pool| {
    /// let careful = pool.with_job_timeout(std::time::Duration::from_secs(60));
    /// assert_eq!(careful.submit(|x: u32| x * x, 7).wait()?, 49);
    /// # Ok(()) });
    /// ```
    #[must_use = "the pool itself is not changed"]
    pub fn with_job_timeout(&self, limit: Duration) -> Pool {
        Pool { core: self.core.clone(), job_timeout: Some(limit).filter(|limit| !limit.is_zero()) }
    }

    /// Applies a function to every input; the results come in the order of the inputs.
    ///
    /// The map is lazy: it starts with the first [`next`](Iterator::next), pulls inputs as fast as the ranks need them and no
    /// further ahead than its [window](Map::window), so an endless iterator is fine. `function` may be a plain function or a closure
    /// that captures nothing; [`map_with`](Self::map_with) and [`map_init`](Self::map_init) pass it a context or a state. A job that
    /// fails is one `Err`; the others go on.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let squares: Vec<u64> = pool.map(|x: u64| x * x, 0..5).collect::<Result<_, _>>()?;
    /// assert_eq!(squares, [0, 1, 4, 9, 16]);
    /// # Ok(()) });
    /// ```
    pub fn map<F, X, O>(&self, function: F, inputs: X) -> Map<'_, X::IntoIter, O>
    where
        X: IntoIterator,
        X::Item: Value + 'static,
        F: Fn(X::Item) -> O + CrossesRanks,
        O: Value + 'static,
    {
        Map::new(self, func::plain(function), Ok(Bytes::new()), inputs.into_iter(), type_name::<F>())
    }

    /// As [`map`](Self::map), for a function of several arguments and inputs that are tuples of them.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// fn power(base: u64, exponent: u32) -> u64 { base.pow(exponent) }
    /// let powers: Vec<u64> = pool.starmap(power, [(2, 10), (3, 2)]).collect::<Result<_, _>>()?;
    /// assert_eq!(powers, [1024, 9]);
    /// # Ok(()) });
    /// ```
    pub fn starmap<F, X, O>(&self, function: F, inputs: X) -> Map<'_, X::IntoIter, O>
    where
        X: IntoIterator,
        X::Item: Value + 'static,
        F: StarFunction<X::Item, Output = O> + CrossesRanks,
        O: Value + 'static,
    {
        Map::new(self, func::star(function), Ok(Bytes::new()), inputs.into_iter(), type_name::<F>())
    }

    /// Applies a function to a context and every input. The context replaces captured variables; it is
    /// serialised once, sent to each rank once, and kept there until the map ends.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let exponent = 3.0;
    /// let ys: Vec<f64> = pool.map_with(exponent, [1.0, 2.0], |y, x: f64| x.powf(*y)).collect::<Result<_, _>>()?;
    /// assert_eq!(ys, [1.0, 8.0]);
    /// # Ok(()) });
    /// ```
    pub fn map_with<C, X, F, O>(&self, context: C, inputs: X, function: F) -> Map<'_, X::IntoIter, O>
    where
        C: Value + Send + Sync + 'static,
        X: IntoIterator,
        X::Item: Value + 'static,
        F: Fn(&C, X::Item) -> O + CrossesRanks,
        O: Value + 'static,
    {
        Map::new(self, func::with_context(function), encode_context(&context), inputs.into_iter(), type_name::<F>())
    }

    /// Applies a function to a state and every input. The state is made by `init` on the rank that uses it, lazily,
    /// at most once for each compute thread, and never travels. If `init` panics, the jobs of this map on that rank fail with its
    /// message.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let load_model = || vec![1.0, 2.0, 4.0];
    /// let ys: Vec<f64> = pool.map_init(load_model, 0..3, |model, i: usize| model[i]).collect::<Result<_, _>>()?;
    /// assert_eq!(ys, [1.0, 2.0, 4.0]);
    /// # Ok(()) });
    /// ```
    pub fn map_init<S, N, X, F, O>(&self, init: N, inputs: X, function: F) -> Map<'_, X::IntoIter, O>
    where
        S: Send + 'static,
        N: Fn() -> S + CrossesRanks,
        X: IntoIterator,
        X::Item: Value + 'static,
        F: Fn(&mut S, X::Item) -> O + CrossesRanks,
        O: Value + 'static,
    {
        Map::new(self, func::with_init(init, function), Ok(Bytes::new()), inputs.into_iter(), type_name::<F>())
    }

    /// Opens a map of a function of a context and an input. `chunk` is the number of jobs in a chunk; 0 follows their duration.
    ///
    /// # Errors
    /// The context cannot be encoded, or the pool refuses the map.
    pub(crate) fn stream_with<C, I, O, F>(
        &self,
        context: &C,
        function: F,
        chunk: u32,
    ) -> Result<JobStream<I, O>, Failure>
    where
        C: Value + Send + Sync + 'static,
        I: Value + 'static,
        O: Value + 'static,
        F: Fn(&C, I) -> O + Copy + Send + Sync + 'static,
    {
        self.stream_of(func::with_context(function), context, chunk, self.job_timeout)
    }

    /// Opens a map of the function of `builder` and its context. `chunk` is the number of jobs in a chunk; 0 follows their duration.
    ///
    /// # Errors
    /// The context cannot be encoded, or the pool refuses the map.
    pub(crate) fn stream_of<C: Value, I, O>(
        &self,
        builder: Builder,
        context: &C,
        chunk: u32,
        job_timeout: Option<Duration>,
    ) -> Result<JobStream<I, O>, Failure> {
        let chunk = NonZeroU32::new(chunk).map_or(ChunkSize::Auto, ChunkSize::Fixed);
        let policy = Policy { chunk, ..DEFAULT_POLICY };
        self.open(builder, encode_context(context)?, policy, job_timeout, Reports::default())
    }

    /// Opens a map whose chunks are served as a whole. `chunk` is the number of jobs in a chunk; 0 follows their duration, with
    /// larger chunks than in other maps.
    ///
    /// # Errors
    /// The context cannot be encoded, or the pool refuses the map.
    pub(crate) fn stream_of_chunks<S: ChunkServer>(
        &self,
        context: &S::Context,
        chunk: u32,
    ) -> Result<JobStream<S::Input, S::Output>, Failure> {
        let chunk = NonZeroU32::new(chunk).map_or(ChunkSize::Coarse, ChunkSize::Fixed);
        let policy = Policy { chunk, ..DEFAULT_POLICY };
        self.open(func::of_chunks::<S>(), encode_context(context)?, policy, self.job_timeout, Reports::default())
    }

    /// Submits one job and returns its future at once.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let handle = pool.submit(|x: u32| x * x, 7);
    /// assert_eq!(handle.wait()?, 49);
    /// # Ok(()) });
    /// ```
    pub fn submit<F, I, O>(&self, function: F, input: I) -> JobHandle<O>
    where
        F: Fn(I) -> O + CrossesRanks,
        I: Value + 'static,
        O: Value + 'static,
    {
        self.submit_encoded(func::plain(function), |out| encode_input(&input, out))
    }

    /// Runs one job on any rank and waits for its result: [`submit`](Self::submit) and [`wait`](JobHandle::wait).
    ///
    /// # Errors
    /// The job's failure.
    pub fn apply<F, I, O>(&self, function: F, input: I) -> Result<O, JobError>
    where
        F: Fn(I) -> O + CrossesRanks,
        I: Value + 'static,
        O: Value + 'static,
    {
        self.submit(function, input).into_result()
    }

    /// Sends a value to every rank once, for use in many jobs: put the returned [`Shared`] into contexts or inputs, where it travels
    /// as a number, and read it through `Deref`. The ranks keep the value until the run ends.
    ///
    /// ```
    /// # rankpool::Launch::new().local(2).threads(1).run(|pool| {
    /// let table = pool.broadcast(vec![10, 20, 30])?;
    /// let ys: Vec<i32> = pool.map_with(table.clone(), 0..3, |table, i: usize| table[i]).collect::<Result<_, _>>()?;
    /// assert_eq!(ys, [10, 20, 30]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// If the value cannot be serialised, the pool has ended, or this is inside a job.
    pub fn broadcast<T: Value + Send + Sync + 'static>(&self, value: T) -> Result<Shared<T>, JobError> {
        let error = |failure| JobError::of(0, failure);
        self.check_use().map_err(error)?;
        let mut bytes = Vec::new();
        wire::encode_value(&value, &mut bytes).map_err(|e| {
            error(Failure::new(JobErrorKind::Encode, format!("the value to broadcast cannot be serialised: {e}")))
        })?;
        let number = self.core.next_value.fetch_add(1, Ordering::Relaxed);
        self.command(Command::Broadcast { value: number, bytes: bytes.into() }).map_err(error)?;
        Ok(Shared::new(number, value))
    }

    /// Has all ranks forget a broadcast value. Unsettled jobs that use it fail on ranks that have not begun with them.
    #[cfg(feature = "program")]
    pub(crate) fn forget<T>(&self, shared: &Shared<T>) {
        // A pool that has ended keeps nothing.
        let _ = self.command(Command::Forget { value: shared.number() });
    }

    /// Returns the ranks of the run, rank 0 first.
    pub fn ranks(&self) -> &[Rank] {
        self.core.board.ranks()
    }

    /// Returns the kind of transport between the ranks.
    pub fn transport(&self) -> &TransportInfo {
        &self.core.transport
    }

    /// Returns the number of all compute threads of the run.
    pub fn threads(&self) -> u32 {
        self.ranks().iter().map(|rank| rank.threads).sum()
    }

    /// Returns the statistics of the run so far, without asking the master; `None` when the run has ended.
    pub fn stats(&self) -> Option<Stats> {
        self.core.board.stats()
    }

    /// The moment at which a signal, or [`stop`](Self::stop), asked for the end of the run.
    pub(crate) fn stop_requested(&self) -> Option<Instant> {
        self.core.board.stop_requested()
    }

    /// Asks for the end of the run, as a signal does.
    pub(crate) fn stop(&self) {
        // If the pool has ended, there is nothing to stop.
        let _ = self.command(Command::Stop);
    }

    /// Asks all ranks to report what their threads are doing, about once in this time.
    #[cfg(feature = "program")]
    pub(crate) fn report_loads(&self, every: Duration) {
        // If the pool has ended, there is nothing to report.
        let _ = self.command(Command::ReportLoads { every });
    }

    /// Returns the board of the run.
    #[cfg(feature = "program")]
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.core.board
    }

    /// Lets jobs and the driver go on for at least this time after a request to stop.
    pub(crate) fn grant_after_stop(&self, least: Duration) {
        let _ = self.command(Command::StopGrace { least });
    }

    /// Closes the pool after the driver has returned: submitted jobs are finished, new ones are refused.
    pub(crate) fn leave(&self) {
        self.core.left.store(true, Ordering::SeqCst);
        self.core.submits.close();
        let _ = self.command(Command::DriverLeft);
    }

    /// Waits, after the master has ended, until the callbacks of all handles have run.
    pub(crate) fn settle_handles(&self) {
        self.core.submits.join();
    }

    fn cancel(&self, map: MapId, job: u64) -> bool {
        self.core.link.cancel(map, job)
    }

    fn command(&self, command: Command) -> Result<(), Failure> {
        self.core.link.send(command)
    }

    fn check_use(&self) -> Result<(), Failure> {
        if rank::in_compute_thread() {
            return Err(Failure::new(
                JobErrorKind::Refused,
                "the pool was used inside a job, where it could wait for itself; let the job return the next inputs to the driver",
            ));
        }
        if self.core.left.load(Ordering::SeqCst) { Err(closed()) } else { Ok(()) }
    }

    /// Opens a map and returns its stream of jobs.
    fn open<I, O>(
        &self,
        builder: Builder,
        context: Bytes,
        policy: Policy,
        job_timeout: Option<Duration>,
        reports: Reports,
    ) -> Result<JobStream<I, O>, Failure> {
        let (sender, deliveries) = unbounded();
        let Reports { starts, settled } = reports;
        let client = Client { deliveries: sender, starts, queue_target: Arc::default(), settled };
        let queue_target = client.queue_target.clone();
        let map = self.open_for(builder, context, policy, job_timeout, client)?;
        Ok(JobStream::new(self.core.link.clone(), map, deliveries, queue_target))
    }

    fn open_for(
        &self,
        builder: Builder,
        context: Bytes,
        mut policy: Policy,
        job_timeout: Option<Duration>,
        client: Client,
    ) -> Result<MapId, Failure> {
        self.check_use()?;
        if job_timeout.is_some() {
            // One job per chunk, so that a thread that is written off holds no results of other jobs.
            policy.chunk = ChunkSize::Fixed(NonZeroU32::MIN);
        }
        let function = FunctionId::of(builder, self.core.executable)?;
        let map = MapId(self.core.next_map.fetch_add(1, Ordering::Relaxed));
        self.command(Command::Open { map, function, context, policy, job_timeout, client })?;
        Ok(map)
    }
}

fn encode_context<C: Value>(context: &C) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    wire::encode_value(context, &mut bytes).map_err(|error| {
        Failure::new(JobErrorKind::Encode, format!("the context of the map cannot be serialised: {error}"))
    })?;
    Ok(bytes.into())
}

/// An input of a map: a [`Value`], or a reference to one in [`Pool::map_ref`].
pub trait Input {
    /// Appends the input's encoding, or returns the reason why it cannot.
    #[doc(hidden)]
    fn write(&self, out: &mut Vec<u8>) -> Result<(), String>;
}

impl<I: Value> Input for I {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        wire::encode_value(self, out).map_err(|error| format!("the input cannot be serialised: {error}"))
    }
}

/// Appends the encoding of a job's input.
pub(crate) fn encode_input<I: Input>(input: &I, out: &mut Vec<u8>) -> Result<(), Failure> {
    input.write(out).map_err(|message| Failure::new(JobErrorKind::Encode, message))
}

/// The options of a map without any set by the user.
const DEFAULT_POLICY: Policy = Policy { chunk: ChunkSize::Auto, retries: 0 };
