//! Being asked to stop: SIGINT, SIGTERM and SIGUSR2 as a flag that the loops look at.
//!
//! SIGUSR2 is the one that Open MPI's `mpiexec` hands on to its ranks; after SIGTERM it kills them within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook::{SigId, flag, low_level};

/// Whether the run was asked to end. The first signal raises the flag; another one, later, ends the process at once.
///
/// One wish can arrive as several signals: `timeout` signals the process and its group, a terminal signals the launcher and
/// the ranks, and the launcher passes it on.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
    since: OnceLock<Instant>,
    /// From now on a signal is another wish.
    armed: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

/// How far apart the signals of one wish can be.
const ONE_WISH: Duration = Duration::from_secs(1);

impl Signals {
    /// Listens until it is dropped.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut signals = Signals::default();
        for signal in [SIGINT, SIGTERM, SIGUSR2] {
            let code = 128 + signal;
            signals.registered.push(flag::register_conditional_shutdown(signal, code, signals.armed.clone())?);
            signals.registered.push(flag::register(signal, signals.raised.clone())?);
        }
        Ok(signals)
    }

    pub(crate) fn raised(&self) -> bool {
        let raised = self.raised.load(Ordering::Relaxed);
        if raised && self.since.get_or_init(Instant::now).elapsed() > ONE_WISH {
            self.armed.store(true, Ordering::Relaxed);
        }
        raised
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}
