//! Being asked to stop: SIGINT and SIGTERM as a flag that the loops look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

/// Whether the run was asked to end. The first signal raises the flag, the second one ends the process at once.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Listens until it is dropped.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut signals = Signals::default();
        for signal in [SIGINT, SIGTERM] {
            let code = 128 + signal;
            signals.registered.push(flag::register_conditional_shutdown(signal, code, signals.raised.clone())?);
            signals.registered.push(flag::register(signal, signals.raised.clone())?);
        }
        Ok(signals)
    }

    pub(crate) fn raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}
