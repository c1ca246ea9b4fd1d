//! Requests to stop: signals set a flag that the loops look at.
//!
//! What launchers do with a signal that they get themselves (measured with Open MPI 4.1 and MPICH 4.0; the ranks ignored it):
//!
//! | signal | Open MPI | MPICH |
//! |---|---|---|
//! | TERM, INT | after 1 s the ranks get TERM, after 2 s KILL | passed on; the ranks have all the time that they take |
//! | HUP | the same | the launcher ends, and the ranks with it, at once |
//! | USR2, XCPU | passed on; all the time that they take | the launcher ends, and the ranks with it, at once |
//! | USR1 | passed on; all the time that they take | passed on, but MPICH uses it itself |
//! | QUIT | the launcher ends at once, without a word to the ranks | passed on; all the time that they take |

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
use signal_hook::{SigId, flag, low_level};

use crate::engine::limits;

/// A flag that says whether the run was asked to end. The first signal raises it; a later key of a terminal (INT, QUIT) ends the
/// process at once. The other signals come again without a person who is impatient: batch systems send TERM some time after another
/// signal, and XCPU comes each second.
///
/// One request can arrive as several signals: `timeout` signals the process and its group; a terminal signals the launcher and
/// the ranks, and the launcher forwards the signal. Signals within [`ONE_REQUEST`](limits::ONE_REQUEST) count as one.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    raised: Arc<AtomicBool>,
    since: OnceLock<Instant>,
    /// Whether a further INT or QUIT is another request, and ends the process.
    armed: Arc<AtomicBool>,
    registered: Vec<SigId>,
    listens: bool,
}

/// The signals that ask for the end. SIGHUP comes when a terminal is closed, SIGUSR1 and SIGXCPU before the limits of batch systems.
const SIGNALS: [i32; 7] = [SIGINT, SIGTERM, SIGUSR2, SIGHUP, SIGUSR1, SIGQUIT, SIGXCPU];
/// The signals that only a person or a batch system sends. The others are left to a program, or an MPI library, that has
/// a handler of its own.
const ALWAYS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR2];
/// The signals that end the process when they come again.
const IMPATIENT: [i32; 2] = [SIGINT, SIGQUIT];

/// The signal handlers of this process.
struct Setup {
    /// Raised while no run listens: then signals have their default effect.
    unused: Arc<AtomicBool>,
    /// The signals that runs listen to.
    signals: Vec<i32>,
    /// The last of them that came; 0 if none has come.
    last: Arc<AtomicUsize>,
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
    let Some(Setup { unused, signals, last }) = setup else { return Ok(Vec::new()) };
    if more && *listening == 1 {
        last.store(0, Ordering::Relaxed);
    }
    unused.store(*listening == 0, Ordering::SeqCst);
    Ok(signals.clone())
}

impl Setup {
    fn new() -> std::io::Result<Setup> {
        let unused = Arc::new(AtomicBool::new(false));
        let last = Arc::new(AtomicUsize::new(0));
        let mut signals = Vec::new();
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            let is_free = !is_in("SigCgt:", signal);
            if is_free {
                flag::register_conditional_default(signal, unused.clone())?;
            }
            if is_free || ALWAYS.contains(&signal) {
                flag::register_usize(signal, last.clone(), usize::try_from(signal).unwrap_or_default())?;
                signals.push(signal);
            }
        }
        // With a handler, a write beyond the limit of a file's size is an error, and does not end the process.
        if !is_ignored(SIGXFSZ) && !is_in("SigCgt:", SIGXFSZ) {
            flag::register_conditional_default(SIGXFSZ, unused.clone())?;
        }
        Ok(Setup { unused, signals, last })
    }
}

/// Whether this process was started by a launcher that kills its ranks a moment after it has passed a signal on: that of Open MPI.
pub(crate) fn has_deadly_launcher(environment: impl Fn(&str) -> Option<String>) -> bool {
    // `srun` sets none of these variables.
    environment("OMPI_COMM_WORLD_SIZE").is_some()
}

/// Whether such a launcher passes the last signal on and does not kill its ranks.
pub(crate) fn last_was_harmless() -> bool {
    let last = last_signal();
    [SIGUSR1, SIGUSR2, SIGXCPU].iter().any(|signal| usize::try_from(*signal) == Ok(last))
}

/// Whether this process has got a signal that asks for the end, since the first of its runs began that listen now.
pub(crate) fn was_signalled() -> bool {
    last_signal() != 0
}

/// Whether this process has got such a signal or gets one within this time.
pub(crate) fn is_signalled_within(time: Duration) -> bool {
    let deadline = Instant::now() + time;
    while !was_signalled() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn last_signal() -> usize {
    let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.1.as_ref().map_or(0, |setup| setup.last.load(Ordering::Relaxed))
}

/// Whether the last signal that asks for the end of the run was TERM.
#[cfg(feature = "program")]
pub(crate) fn was_terminated() -> bool {
    usize::try_from(SIGTERM) == Ok(last_signal())
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
            if IMPATIENT.contains(&signal) {
                let shutdown = flag::register_conditional_shutdown(signal, 128 + signal, signals.armed.clone());
                signals.registered.push(shutdown?);
            }
            signals.registered.push(flag::register(signal, signals.raised.clone())?);
        }
        Ok(signals)
    }

    /// Returns whether the run was asked to end. When that was longer ago than [`ONE_REQUEST`](limits::ONE_REQUEST), a further INT
    /// or QUIT ends the process: a loop that handles signals must call this again and again.
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
