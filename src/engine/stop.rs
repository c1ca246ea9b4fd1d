//! Requests to stop: signals set a flag that the loops look at.
//!
//! Open MPI's `mpiexec` forwards SIGUSR2 to its ranks; after SIGINT or SIGTERM it kills them within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
use signal_hook::{SigId, flag, low_level};

use crate::engine::limits;

/// A flag that says whether the run was asked to end. The first signal raises it; a later one ends the process at once.
///
/// One request can arrive as several signals: `timeout` signals the process and its group; a terminal signals the launcher and
/// the ranks, and the launcher forwards the signal. Signals within [`ONE_REQUEST`](limits::ONE_REQUEST) count as one.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
    since: OnceLock<Instant>,
    /// Whether a further signal is another request, and ends the process.
    armed: Arc<AtomicBool>,
    registered: Vec<SigId>,
    listens: bool,
}

/// The signals that ask for the end. SIGHUP comes when a terminal is closed, SIGUSR1 and SIGXCPU before the limits of batch systems.
const SIGNALS: [i32; 7] = [SIGINT, SIGTERM, SIGUSR2, SIGHUP, SIGUSR1, SIGQUIT, SIGXCPU];
/// The signals that only a person or a batch system sends. The others are left to a program, or an MPI library, that has
/// a handler of its own.
const ALWAYS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR2];

/// The signal handlers of this process.
struct Setup {
    /// Raised while no run listens: then signals have their default effect.
    unused: Arc<AtomicBool>,
    /// The signals that runs listen to.
    signals: Vec<i32>,
}

/// The number of runs that listen, and the handlers once the first has installed them.
static LISTENERS: Mutex<(usize, Option<Setup>)> = Mutex::new((0, None));

/// Counts one listening run more, or one less, and returns the signals to listen to. Between runs signals have their default
/// effect: a handler is never removed once it is installed, so it must do what happens without one. A program that has handlers of
/// its own keeps them, and signals that were ignored when the program started (`nohup`, `trap '' INT`) stay ignored.
fn count_listener(more: bool) -> std::io::Result<Vec<i32>> {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (listening, setup) = &mut *listeners;
    if setup.is_none() {
        *setup = Some(Setup::new()?);
    }
    *listening = if more { *listening + 1 } else { *listening - 1 };
    let Some(Setup { unused, signals }) = setup else { return Ok(Vec::new()) };
    unused.store(*listening == 0, Ordering::SeqCst);
    Ok(signals.clone())
}

impl Setup {
    fn new() -> std::io::Result<Setup> {
        let unused = Arc::new(AtomicBool::new(false));
        let mut signals = Vec::new();
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            let is_free = !is_in("SigCgt:", signal);
            if is_free {
                flag::register_conditional_default(signal, unused.clone())?;
            }
            signals.extend((is_free || ALWAYS.contains(&signal)).then_some(signal));
        }
        // With a handler, a write beyond the limit of a file's size is an error, and does not end the process.
        if !is_ignored(SIGXFSZ) && !is_in("SigCgt:", SIGXFSZ) {
            flag::register_conditional_default(SIGXFSZ, unused.clone())?;
        }
        Ok(Setup { unused, signals })
    }
}

/// Returns whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    is_in("SigIgn:", signal)
}

/// Returns whether a signal is in one of the sets in `/proc/self/status`; false on systems without that file.
fn is_in(set: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(set)?.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << (signal - 1)) != 0)
}

impl Signals {
    /// Listens to signals until the returned value is dropped.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let to = count_listener(true)?;
        let mut signals = Signals::default();
        signals.listens = true;
        for signal in to {
            let code = 128 + signal;
            signals.registered.push(flag::register_conditional_shutdown(signal, code, signals.armed.clone())?);
            signals.registered.push(flag::register(signal, signals.raised.clone())?);
        }
        Ok(signals)
    }

    /// Returns whether the run was asked to end. When that was longer ago than [`ONE_REQUEST`](limits::ONE_REQUEST), a further
    /// signal ends the process: a loop that handles signals must call this again and again.
    pub(crate) fn poll(&self) -> bool {
        let raised = self.raised.load(Ordering::Relaxed);
        if raised && self.since.get_or_init(Instant::now).elapsed() > limits::ONE_REQUEST {
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
            let _ = count_listener(false);
        }
    }
}
