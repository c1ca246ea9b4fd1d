//! The start and the end of a run: the transport, the threads, the exit code.
//!
//! Every rank of a run executes [`Launch::run`]. On rank 0 it starts the driver's closure on a thread of its own and runs
//! the master's loop; on the others it runs the rank's loop, and the closure is never called.

mod ranks;
mod value;
mod verdict;

use std::error::Error;
use std::num::NonZeroU32;
use std::ops::Range;
use std::process::Termination;
use std::time::Duration;

use crate::console;
use crate::engine::board::Listener;
use crate::engine::environment::{environment, number_from};
#[cfg(doc)]
use crate::engine::error::JobError;
use crate::engine::limits::{LINGER, STOP_GRACE};
use crate::engine::placement::{self, LauncherRank, RankFacts};
use crate::engine::rank::{self, OnThreads};
#[cfg(feature = "mpi")]
use crate::engine::schedule::RankId;
use crate::engine::transport::Doorbell;
use crate::engine::transport::local::star;
use crate::pool::Pool;

use ranks::Rank0;
pub use value::{is_driver, launch_value};

/// How a run ended, as the exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum ExitCode {
    /// Every job succeeded.
    Success = 0,
    /// rankpool itself, or the driver, failed.
    Failure = 1,
    /// The command line or the input is wrong; nothing was run.
    Usage = 2,
    /// Some jobs failed.
    JobsFailed = 3,
    /// The run was stopped early, by a signal or by its time limit.
    Stopped = 75,
}

impl Termination for ExitCode {
    fn report(self) -> std::process::ExitCode {
        std::process::ExitCode::from(self as u8)
    }
}

/// The result of a driver. An error is printed on standard error and sets the exit code.
pub type DriverResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs a program on all its ranks: `driver` is called on rank 0 with the pool, the other ranks compute.
///
/// Call it from `main`, on every rank, before any code that should run only once. The environment variables
/// `RANKPOOL_THREADS` and `RANKPOOL_LOCAL` set the options of [`Launch`].
///
/// Under MPI a program can launch once, since MPI can be started once in a process: another launch, later or at the same time,
/// is refused. Local ranks ([`Launch::local`]) can be launched again, and several times at once.
///
/// The exit code is 0 if the driver returns `Ok`, 3 if it returns the [`JobError`] of a failed job, and 1 for any other error
/// or a panic. An error is printed with all its causes, and a [`JobError`] among them sets the exit code, too.
///
/// ```no_run
/// fn main() -> rankpool::ExitCode {
///     rankpool::launch(|pool| {
///         for y in pool.map(|x: u64| x * x, 0..10) {
///             println!("{}", y?);
///         }
///         Ok(())
///     })
/// }
/// ```
pub fn launch(driver: impl FnOnce(&Pool) -> DriverResult + Send) -> ExitCode {
    match Launch::from_env() {
        Ok(launch) => launch.run(driver),
        Err(message) => refuse(&message),
    }
}

/// The options of [`launch`].
#[derive(Default)]
pub struct Launch<'a> {
    threads: Option<NonZeroU32>,
    local: Option<NonZeroU32>,
    dedicated_master: bool,
    cpus_per_job: Option<NonZeroU32>,
    grace: Option<Duration>,
    stop_grace: Option<Duration>,
    lost_after: Option<Duration>,
    check: Option<Box<dyn FnOnce() -> Result<(), String> + Send + 'a>>,
    on_threads: Option<Box<OnThreads<'a>>>,
    listeners: Vec<Box<dyn Listener + 'a>>,
}

/// Prints why nothing is run, and returns the exit code. Of the processes that a launcher has started together only the first
/// prints and fails, so that the launcher does not end it before it has printed.
pub(crate) fn refuse_as(message: &str, code: ExitCode) -> ExitCode {
    if is_first() {
        console::eprint_error(message);
        code
    } else {
        ExitCode::Success
    }
}

/// Returns whether this is the only process or, by its launcher's variables, rank 0. It is known before MPI is started.
pub(crate) fn is_first() -> bool {
    launcher_rank().is_none_or(|launched| launched.rank == 0)
}

/// Returns whether this is the only process on its host or, by its launcher's variables, the first one.
pub(crate) fn is_first_of_host() -> bool {
    placement::rank_on_host(environment).is_none_or(|rank| rank == 0)
}

/// Prints an error in the way in which the program was started, and returns the exit code.
pub(crate) fn refuse(message: &str) -> ExitCode {
    refuse_as(message, ExitCode::Usage)
}

fn launcher_rank() -> Option<LauncherRank> {
    placement::launcher_rank(environment)
}

/// The shortest time after which a silent rank is lost: loops sleep, and machines are busy.
#[cfg(feature = "mpi")]
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

#[cfg(feature = "mpi")]
fn lost_after_from(environment: impl Fn(&str) -> Option<String>) -> Result<Option<Duration>, String> {
    let seconds = number_from(environment, "RANKPOOL_LOST_AFTER")?;
    Ok(seconds.map(|seconds| Duration::from_secs(u64::from(seconds.get()))))
}

pub(crate) const THREADS_VARIABLE: &str = "RANKPOOL_THREADS";
pub(crate) const LOCAL_VARIABLE: &str = "RANKPOOL_LOCAL";

impl<'a> Launch<'a> {
    /// Returns the defaults: MPI, or one rank if no launcher has started the program; as many threads as the rank's CPUs.
    pub fn new() -> Self {
        Launch::default()
    }

    /// Returns the options that the environment sets: `RANKPOOL_THREADS`, `RANKPOOL_LOCAL`.
    ///
    /// # Errors
    /// A sentence, if one of them is not a number from 1.
    pub fn from_env() -> Result<Self, String> {
        let number = |name| number_from(environment, name);
        Ok(Launch { threads: number(THREADS_VARIABLE)?, local: number(LOCAL_VARIABLE)?, ..Launch::default() })
    }

    /// Sets the number of compute threads of each rank. 0 is the default: the rank's CPUs, divided among the ranks that share them.
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = NonZeroU32::new(threads).or(self.threads);
        self
    }

    /// Runs `ranks` ranks as threads of this process, without MPI. 0 is the default: MPI.
    pub fn local(mut self, ranks: u32) -> Self {
        self.local = NonZeroU32::new(ranks).or(self.local);
        self
    }

    /// Sets whether rank 0 only serves the others and computes nothing (unless it is the only rank).
    pub fn dedicated_master(mut self, dedicated: bool) -> Self {
        self.dedicated_master = dedicated;
        self
    }

    /// Sets the number of CPUs that a job needs: a rank has one thread for each such group. 0 is the default: one.
    pub fn cpus_per_job(mut self, cpus: u32) -> Self {
        self.cpus_per_job = NonZeroU32::new(cpus).or(self.cpus_per_job);
        self
    }

    /// Sets how long jobs of dropped maps may run on when the driver has left and all other jobs are done; the default is 10 s.
    /// Then the run ends without them: it logs them on standard error and has the exit code that the driver chose. The threads of
    /// such jobs live as long as the process.
    pub fn grace(mut self, limit: Duration) -> Self {
        self.grace = Some(limit);
        self
    }

    /// Sets how long running jobs and the driver may go on after a signal has asked for the end of the run; the default is 10 s. No
    /// job is started then. When the time is over, all ranks are ended with the exit code [`Stopped`](ExitCode::Stopped). A batch
    /// ([`CommandBatch::grace`](crate::CommandBatch::grace)) gets as much time as it needs itself.
    pub fn stop_grace(mut self, limit: Duration) -> Self {
        self.stop_grace = Some(limit);
        self
    }

    /// Sets for how long an MPI rank may be silent until it is lost: taken for dead, so that its jobs go to other ranks, and the run
    /// ends without it. The default is 60 s, and less than a second is taken as one. Ranks send a sign of life several times in
    /// this time, however long their jobs take. Only a launcher that lets the others live when a rank dies lets a run go on; see
    /// "When a rank dies" in the README. Without it, the environment variable `RANKPOOL_LOST_AFTER` (in seconds) counts.
    pub fn lost_after(mut self, silence: Duration) -> Self {
        self.lost_after = Some(silence);
        self
    }

    /// Sets a check whether jobs can run on a host. Each process calls it once, when MPI has started; the driver reads
    /// the errors in [`RankFacts::complaint`].
    pub fn check(mut self, check: impl FnOnce() -> Result<(), String> + Send + 'a) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Sets a callback that runs as soon as a rank of this process knows its compute threads. The rank waits until it returns.
    pub(crate) fn on_threads(mut self, callback: impl Fn(u32, Range<u32>) + Send + Sync + 'a) -> Self {
        self.on_threads = Some(Box::new(callback));
        self
    }

    /// Adds a listener, which gets notices of the run's events.
    pub fn listener(mut self, listener: impl Listener + 'a) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// Returns the ranks of this process and the slots of their compute threads, estimated before MPI is started: it assumes that
    /// all ranks of the host are like this one.
    pub(crate) fn expected_slots(&self) -> Vec<(u32, Range<u32>)> {
        let first = launcher_rank().map_or(0, |launched| launched.rank);
        let Ok(facts) = self.facts() else { return vec![(first, 0..1)] };
        let on_host = placement::ranks_on_host(environment).unwrap_or(1);
        let ranks = self.local.map_or(on_host, NonZeroU32::get);
        let threads = placement::threads_per_rank(&vec![facts; ranks as usize], self.dedicated_master);
        let mut begin = 0;
        let slots = threads.into_iter().map(|threads| {
            begin += threads;
            begin - threads..begin
        });
        let mut all: Vec<_> = (0..).zip(slots).collect();
        if self.local.is_none() {
            let own = placement::rank_on_host(environment).and_then(|rank| all.get(rank as usize)).or(all.first());
            all = own.map(|(_, slots)| (first, slots.clone())).into_iter().collect();
        }
        all
    }

    fn facts(&self) -> Result<RankFacts, String> {
        let mut facts = RankFacts::gather(self.threads)?;
        facts.cpus_per_job = self.cpus_per_job.unwrap_or(NonZeroU32::MIN);
        Ok(facts)
    }

    /// Runs a program on all its ranks, see [`launch`].
    pub fn run(self, driver: impl FnOnce(&Pool) -> DriverResult + Send) -> ExitCode {
        self.run_to_code(|pool| match driver(pool) {
            Ok(()) => ExitCode::Success,
            Err(error) => {
                console::eprint_error(verdict::message(&*error));
                verdict::code_of(&*error)
            }
        })
    }

    /// As [`run`](Self::run), with a driver that returns the exit code itself.
    pub fn run_to_code(self, driver: impl FnOnce(&Pool) -> ExitCode + Send) -> ExitCode {
        if rank::in_compute_thread() {
            return refuse("a run was launched inside a job; launch it in `main`, and use its pool in the driver");
        }
        let facts = match self.facts() {
            Ok(facts) => facts,
            Err(message) => return refuse(&message),
        };
        match self.local {
            Some(ranks) => self.run_local(ranks.get(), facts, driver),
            None => self.run_mpi(facts, driver),
        }
    }

    fn rank0(&self, size: u32, doorbell: Doorbell, facts: RankFacts, abort: fn(u8) -> !) -> Rank0 {
        let dedicated_master = self.dedicated_master;
        let (grace, stop_grace) = (self.grace.unwrap_or(LINGER), self.stop_grace.unwrap_or(STOP_GRACE));
        Rank0 { size, dedicated_master, doorbell, grace, stop_grace, facts, abort }
    }

    fn complaint(&mut self) -> Option<String> {
        self.check.take().and_then(|check| check().err())
    }

    fn run_local(
        mut self,
        ranks: u32,
        mut facts: RankFacts,
        driver: impl FnOnce(&Pool) -> ExitCode + Send,
    ) -> ExitCode {
        if let Some(launched) = launcher_rank().filter(|launched| launched.size > 1) {
            return refuse(&format!(
                "local ranks are threads of one process, but {} processes were started: start one, without mpiexec or srun",
                launched.size
            ));
        }
        facts.complaint = self.complaint();
        let doorbell = Doorbell::default();
        let (center, spokes) = star(ranks, &doorbell);
        let abort = |code| std::process::exit(i32::from(code));
        let rank0 = self.rank0(ranks, doorbell, facts, abort);
        let on_threads = self.on_threads.as_deref();
        let ended = rank0.run(center, spokes, on_threads, self.listeners, driver);
        ended.map_or(ExitCode::Failure, |(code, _)| code)
    }

    #[cfg(not(feature = "mpi"))]
    fn run_mpi(self, facts: RankFacts, driver: impl FnOnce(&Pool) -> ExitCode + Send) -> ExitCode {
        match placement::worlds_of_one(launcher_rank(), 1) {
            Some(message) => refuse_as(&message, ExitCode::Failure),
            None => self.run_local(1, facts, driver),
        }
    }

    #[cfg(feature = "mpi")]
    fn run_mpi(mut self, mut facts: RankFacts, driver: impl FnOnce(&Pool) -> ExitCode + Send) -> ExitCode {
        use crate::engine::limits::LOST_AFTER;
        use crate::engine::transport::Joined;
        use crate::engine::transport::mpi::{Mpi, StartError};
        use ranks::RankExit;

        let lost_after = match self.lost_after.map_or_else(|| lost_after_from(environment), |time| Ok(Some(time))) {
            Ok(time) => time.unwrap_or(LOST_AFTER).max(SHORTEST_SILENCE),
            Err(message) => return refuse(&message),
        };
        let mut mpi = match Mpi::start(lost_after) {
            Ok(mpi) => mpi,
            Err(error @ StartError::Again(_)) => return refuse(&error.to_string()),
            Err(error) => return refuse_as(&error.to_string(), ExitCode::Failure),
        };
        if let Some(message) = placement::worlds_of_one(launcher_rank(), mpi.size()) {
            let _ = mpi.finish(ExitCode::Failure as u8);
            return refuse_as(&message, ExitCode::Failure);
        }
        let (rank, size) = (mpi.rank(), mpi.size());
        let _ = value::RANK.set(rank.0);
        facts.complaint = self.complaint();
        let code = if rank == RankId(0) {
            let doorbell = Doorbell::default();
            let (own, spokes) = star(1, &doorbell);
            let joined = Joined { own, others: &mut mpi };
            let rank0 = self.rank0(size, doorbell, facts, Mpi::abort);
            rank0.run(joined, spokes, self.on_threads.as_deref(), self.listeners, driver)
        } else {
            match ranks::run_rank(rank, &mut mpi, facts, self.on_threads.as_deref()) {
                RankExit::Finish => Some((ExitCode::Success, false)),
                RankExit::AfterLoss => mpi.leave(),
                RankExit::Alone => Mpi::end_alone(ExitCode::Failure as u8),
                RankExit::Abort => None,
            }
        };
        let Some((code, after_loss)) = code else { Mpi::abort(ExitCode::Failure as u8) };
        if after_loss {
            mpi.finish_after_loss(code as u8);
            return code;
        }
        match mpi.finish(code as u8) {
            Ok(()) => code,
            Err(error) => refuse_as(&error.to_string(), ExitCode::Failure),
        }
    }
}
