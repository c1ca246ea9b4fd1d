//! Being asked to stop: SIGINT, SIGTERM and SIGUSR2 as a flag that the loops look at.
//!
//! SIGUSR2 is the one that Open MPI's `mpiexec` hands on to its ranks; after SIGTERM it kills them within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    listens: bool,
}

/// How far apart the signals of one wish can be.
const ONE_WISH: Duration = Duration::from_secs(1);

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR2];

/// How many runs listen, and the flag that says that none does.
static LISTENERS: Mutex<(usize, Option<Arc<AtomicBool>>)> = Mutex::new((0, None));

/// Counts one run that listens more, or less. Between runs signals have their usual effect: a handler that was installed once
/// is never taken away, so it must do what happens without one. A program that has handlers of its own keeps them.
fn count(more: bool) -> std::io::Result<()> {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (listening, nobody) = &mut *listeners;
    if nobody.is_none() {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS.into_iter().filter(|&signal| !is_handled(signal)) {
            flag::register_conditional_default(signal, flag.clone())?;
        }
        *nobody = Some(flag);
    }
    *listening = if more { *listening + 1 } else { *listening - 1 };
    if let Some(nobody) = nobody {
        nobody.store(*listening == 0, Ordering::SeqCst);
    }
    Ok(())
}

/// Whether this process has a handler for a signal; no, where the system does not tell.
fn is_handled(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let handled = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    handled.is_some_and(|handled| handled & (1 << (signal - 1)) != 0)
}

impl Signals {
    /// Listens until it is dropped.
    pub(crate) fn listen() -> std::io::Result<Self> {
        count(true)?;
        let mut signals = Signals::default();
        signals.listens = true;
        for signal in SIGNALS {
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
        if self.listens {
            let _ = count(false);
        }
    }
}
