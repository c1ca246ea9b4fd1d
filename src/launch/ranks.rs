//! What the ranks of a run do, from joining it to its end: rank 0 with the driver, its own workers and the master; the others
//! as workers.

use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, Scope};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};

use super::ExitCode;
use crate::console::complain;
use crate::engine::board::Listener;
use crate::engine::catch::panic_message;
use crate::engine::master::{Ended, Master, MasterError};
use crate::engine::placement::RankFacts;
use crate::engine::rank::{self, OnThreads};
#[cfg(feature = "mpi")]
use crate::engine::schedule::RankId;
use crate::engine::stop::Signals;
use crate::engine::transport::local::Spoke;
use crate::engine::transport::{Doorbell, Transport};
use crate::pool::Pool;

/// How long the driver may take to return after the run has failed, and the last messages to leave.
const GRACE: Duration = Duration::from_secs(10);

/// Rank 0, before its run.
pub(super) struct Rank0 {
    /// How many ranks there are.
    pub size: u32,
    pub dedicated_master: bool,
    /// Wakes the master.
    pub doorbell: Doorbell,
    /// How long jobs of maps that were given up may run on at the end.
    pub grace: Duration,
    /// What is known of this process.
    pub facts: RankFacts,
    /// Ends all ranks at once.
    pub abort: fn(u8) -> !,
}

impl Rank0 {
    /// The driver on a thread of its own, the workers of this process (at the other ends of `spokes`) on theirs, the master on
    /// the calling thread. `None` when the run failed, which was said.
    pub(super) fn run<'a>(
        self,
        transport: impl Transport,
        spokes: Vec<Spoke>,
        on_threads: Option<&OnThreads<'_>>,
        listeners: Vec<Box<dyn Listener + 'a>>,
        driver: impl FnOnce(&Pool) -> ExitCode + Send,
    ) -> Option<ExitCode> {
        let signals = &listen();
        let abort = self.abort;
        let (returned, code) = bounded(1);
        // The closure owns the transport: when it ends, in whatever way, the workers at the other ends are let go, for which
        // the scope waits.
        thread::scope(move |scope| {
            for mut spoke in spokes {
                let facts = self.facts.clone();
                let name = format!("rankpool rank {}", spoke.rank());
                let work = move || {
                    let (rank, doorbell) = (spoke.rank(), spoke.doorbell());
                    // What is wrong reaches the master as a message.
                    let _ = rank::serve(rank, &mut spoke, doorbell, facts, on_threads, signals);
                };
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, work)
                    .map_err(|error| complain(MasterError::Rank(error)))
                    .ok()?;
            }
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                self.preside(scope, transport, listeners, signals, driver, returned)
            }));
            match ended {
                Ok(Ok(Ended::Whole)) => return code.recv().ok(),
                Ok(Ok(Ended::Stopped)) => {
                    complain(
                        "the driver or a job did not end within the time of grace after a signal; ending all ranks",
                    );
                    abort(ExitCode::Stopped as u8);
                }
                Ok(Err(error @ MasterError::Interrupted)) => {
                    complain(&error);
                    abort(ExitCode::Stopped as u8);
                }
                // It was said when the ranks were told.
                Ok(Err(MasterError::Silent(..))) => {}
                Ok(Err(error)) => complain(&error),
                Err(payload) => complain(format_args!("a bug in rankpool: {}", panic_message(&*payload))),
            }
            // The driver, if it was started, learns it from its next call of the pool. One that makes none is not waited for.
            if code.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                abort(ExitCode::Failure as u8);
            }
            None
        })
    }

    fn preside<'scope, 'a>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        mut transport: impl Transport,
        listeners: Vec<Box<dyn Listener + 'a>>,
        signals: &Signals,
        driver: impl FnOnce(&Pool) -> ExitCode + Send + 'scope,
        returned: Sender<ExitCode>,
    ) -> Result<Ended, MasterError> {
        let Rank0 { size, dedicated_master, doorbell, facts, .. } = self;
        let carrier = transport.info();
        let (sender, commands) = unbounded();
        let mut master =
            Master::gather(&mut transport, *size, *dedicated_master, commands, doorbell, signals, listeners)?;
        master.set_grace(self.grace);
        let pool = Pool::new(sender, doorbell.clone(), facts.executable, master.board(), carrier);
        let driver_pool = pool.clone();
        let drive = move || {
            let code = panic::catch_unwind(AssertUnwindSafe(|| driver(&driver_pool)));
            driver_pool.leave();
            let _ = returned.send(code.unwrap_or(ExitCode::Failure));
        };
        thread::Builder::new()
            .name("rankpool driver".into())
            .spawn_scoped(scope, drive)
            .map_err(MasterError::Driver)?;
        let ended = master.run();
        if let Err(error @ MasterError::Silent(..)) = &ended {
            complain(error);
            master.break_off();
        }
        let ended = ended?;
        drop(master);
        if ended == Ended::Whole {
            pool.settle_handles();
        }
        Ok(ended)
    }
}

/// A rank other than 0, until it is dismissed. False when it failed.
#[cfg(feature = "mpi")]
pub(super) fn be_worker(
    rank: RankId,
    mpi: &mut crate::engine::transport::mpi::Mpi,
    facts: RankFacts,
    on_threads: Option<&OnThreads<'_>>,
) -> bool {
    use std::time::Instant;

    use crate::engine::rank::WorkerError;
    use crate::engine::transport::Idle;

    let signals = listen();
    let result = rank::serve(rank, mpi, Doorbell::default(), facts, on_threads, &signals);
    // The last message is on its way: results that were asked for, or what is wrong.
    let deadline = Instant::now() + GRACE;
    let mut idle = Idle::new();
    // The master ends the run when it has it; one that is dead has nothing.
    let alive = !matches!(result, Err(WorkerError::Silent(_) | WorkerError::BrokenOff));
    while alive && (result.is_err() || !mpi.is_flushed()) && Instant::now() < deadline && mpi.receive().is_ok() {
        idle.wait(true);
    }
    match result {
        Ok(()) => true,
        // Rank 0 has said why.
        Err(WorkerError::BrokenOff) => false,
        // The master was told and ends the run; this is for the case that it cannot.
        Err(error) => {
            complain(format_args!("rank {}: {error}", rank.0));
            false
        }
    }
}

/// Listens for signals. Where that is not possible, a signal ends the process as it would without us.
fn listen() -> Signals {
    Signals::listen().unwrap_or_default()
}
