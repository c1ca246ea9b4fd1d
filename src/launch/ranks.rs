//! The ranks of a run, from joining it to its end: rank 0 with the driver, the master and its own rank side; the others with their
//! rank side.

use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, Scope};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};

use super::ExitCode;
use crate::console::eprint_error;
use crate::engine::board::Listener;
use crate::engine::catch::panic_message;
use crate::engine::limits;
use crate::engine::master::{Master, MasterError, RunEnd};
use crate::engine::placement::RankFacts;
use crate::engine::rank::{self, OnThreads};
#[cfg(feature = "mpi")]
use crate::engine::schedule::RankId;
use crate::engine::stop::Signals;
use crate::engine::transport::local::Spoke;
use crate::engine::transport::{Doorbell, Transport};
use crate::pool::Pool;

/// The settings of rank 0 of a run.
pub(super) struct Rank0 {
    /// The number of ranks.
    pub size: u32,
    pub dedicated_master: bool,
    /// Wakes the master.
    pub doorbell: Doorbell,
    /// How long jobs of abandoned maps may run on at the end.
    pub grace: Duration,
    /// How long jobs and the driver may go on after a request to stop.
    pub stop_grace: Duration,
    /// The facts of this process.
    pub facts: RankFacts,
    /// Ends all ranks at once.
    pub abort: fn(u8) -> !,
}

impl Rank0 {
    /// Runs the driver on a thread of its own, the ranks of this process (at the other ends of `spokes`) on theirs, and the master on
    /// the calling thread. Returns the exit code, and whether ranks were lost; `None` if the run failed, and the reason is already on
    /// standard error.
    pub(super) fn run<'a>(
        self,
        transport: impl Transport,
        spokes: Vec<Spoke>,
        on_threads: Option<&OnThreads<'_>>,
        listeners: Vec<Box<dyn Listener + 'a>>,
        driver: impl FnOnce(&Pool) -> ExitCode + Send,
    ) -> Option<(ExitCode, bool)> {
        let signals = &listen();
        let abort = self.abort;
        let (returned, code) = bounded(1);
        // The closure owns the transport: when it ends, in whatever way, the ranks at the other ends see it closed and end, and
        // the scope waits for them.
        thread::scope(move |scope| {
            for mut spoke in spokes {
                let facts = self.facts.clone();
                let name = format!("rankpool rank {}", spoke.rank());
                let work = move || {
                    let (rank, doorbell) = (spoke.rank(), spoke.doorbell());
                    // An error reaches the master as a message.
                    let _ = rank::serve(rank, &mut spoke, doorbell, facts, on_threads, signals);
                };
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, work)
                    .map_err(|error| eprint_error(MasterError::Rank(error)))
                    .ok()?;
            }
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                self.run_master(scope, transport, listeners, signals, driver, returned)
            }));
            match ended {
                Ok(Ok(Some(RunEnd::Finished { after_loss }))) => return Some((code.recv().ok()?, after_loss)),
                Ok(Ok(Some(RunEnd::Stopped))) => {
                    eprint_error(
                        "the driver or a job did not end within the grace time after the request to stop; ending all ranks",
                    );
                    abort(ExitCode::Stopped as u8);
                }
                Ok(Err(error @ MasterError::Interrupted)) => {
                    eprint_error(&error);
                    abort(ExitCode::Stopped as u8);
                }
                // The reason was printed before the ranks were ordered to end.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => eprint_error(&error),
                Err(payload) => eprint_error(format_args!("a bug in rankpool: {}", panic_message(&*payload))),
            }
            // The driver, if it was started, gets an error from its next call of the pool. A driver that makes no call is not
            // waited for.
            if code.recv_timeout(limits::DRIVER_RETURN) == Err(RecvTimeoutError::Timeout) {
                abort(ExitCode::Failure as u8);
            }
            None
        })
    }

    /// Returns how the run ended; `None` if it failed, and the reason is already on standard error.
    fn run_master<'scope, 'a>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        mut transport: impl Transport,
        listeners: Vec<Box<dyn Listener + 'a>>,
        signals: &Signals,
        driver: impl FnOnce(&Pool) -> ExitCode + Send + 'scope,
        returned: Sender<ExitCode>,
    ) -> Result<Option<RunEnd>, MasterError> {
        let Rank0 { size, dedicated_master, doorbell, facts, .. } = self;
        let carrier = transport.info();
        let (sender, commands) = unbounded();
        let mut master =
            Master::gather(&mut transport, *size, *dedicated_master, commands, doorbell, signals, listeners)?;
        master.set_grace(self.grace, self.stop_grace);
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
        if let Err(error) = &ended {
            eprint_error(error);
            master.abort_ranks();
        }
        drop(master);
        if let Ok(RunEnd::Finished { .. }) = ended {
            pool.settle_handles();
        }
        Ok(ended.ok())
    }
}

/// What the process of a rank other than 0 does when its part in the run has ended.
#[cfg(feature = "mpi")]
pub(super) enum RankExit {
    /// It ends together with all others.
    Finish,
    /// Ranks were lost: it waits until it is ended.
    AfterLoss,
    /// It cannot reach rank 0, and ends alone: the others may go on.
    Alone,
    /// It ends all ranks.
    Abort,
}

/// Runs a rank other than 0 until it is dismissed or has failed.
#[cfg(feature = "mpi")]
pub(super) fn run_rank(
    rank: RankId,
    mpi: &mut crate::engine::transport::mpi::Mpi,
    facts: RankFacts,
    on_threads: Option<&OnThreads<'_>>,
) -> RankExit {
    use std::time::Instant;

    use crate::engine::rank::{RankEnd, RankError};
    use crate::engine::transport::{Idle, Polling};

    let signals = listen();
    let result = rank::serve(rank, mpi, Doorbell::default(), facts, on_threads, &signals);
    // The last message, with results or an error, is on its way.
    let deadline = Instant::now() + limits::LAST_MESSAGE;
    let mut idle = Idle::new();
    // The master ends the run when it has received an error. A master that is dead receives nothing.
    let alone = matches!(result, Err(RankError::MasterSilent(_) | RankError::MasterClosed));
    let alive = !alone && !matches!(result, Err(RankError::Aborted));
    while alive && (result.is_err() || !mpi.is_flushed()) && Instant::now() < deadline && mpi.receive().is_ok() {
        idle.wait(Polling::Sometimes);
    }
    match result {
        Ok(RankEnd::Dismissed) => RankExit::Finish,
        Ok(RankEnd::AfterLoss) => RankExit::AfterLoss,
        // Rank 0 has printed the reason.
        Err(RankError::Aborted) => RankExit::Abort,
        // The master, if it lives, has the error and ends the run; this is for the case that it cannot.
        Err(error) => {
            eprint_error(format_args!("rank {}: {error}", rank.0));
            if alone { RankExit::Alone } else { RankExit::Abort }
        }
    }
}

/// Listens for signals. If that is not possible, a signal has its default effect.
fn listen() -> Signals {
    Signals::listen().unwrap_or_default()
}
