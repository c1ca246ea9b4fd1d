//! Being asked to stop: signals as a flag that the loops look at.
//!
//! SIGUSR2 is one that Open MPI's `mpiexec` hands on to its ranks; after SIGINT or SIGTERM it kills them within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
use signal_hook::{SigId, flag, low_level};

use crate::engine::limits;

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

/// What asks for the end. SIGHUP comes with a closed terminal, SIGUSR1 and SIGXCPU before the limits of batch systems.
const SIGNALS: [i32; 7] = [SIGINT, SIGTERM, SIGUSR2, SIGHUP, SIGUSR1, SIGQUIT, SIGXCPU];
/// Those of them that nobody but a person or a batch system sends. The others are left to a program, or an MPI library, that has
/// a handler of its own.
const ALWAYS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR2];

/// What is known of the signals of this process.
struct Setup {
    /// Raised while no run listens.
    nobody: Arc<AtomicBool>,
    /// What the runs listen to.
    heard: Vec<i32>,
}

/// How many runs listen, and how.
static LISTENERS: Mutex<(usize, Option<Setup>)> = Mutex::new((0, None));

/// Counts one run that listens more, or less, and gives what it listens to. Between runs signals have their usual effect: a
/// handler that was installed once is never taken away, so it must do what happens without one. A program that has handlers of
/// its own keeps them, and what was ignored when the program started (`nohup`, `trap '' INT`) stays ignored.
fn count(more: bool) -> std::io::Result<Vec<i32>> {
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (listening, setup) = &mut *listeners;
    if setup.is_none() {
        *setup = Some(Setup::new()?);
    }
    *listening = if more { *listening + 1 } else { *listening - 1 };
    let Some(Setup { nobody, heard }) = setup else { return Ok(Vec::new()) };
    nobody.store(*listening == 0, Ordering::SeqCst);
    Ok(heard.clone())
}

impl Setup {
    fn new() -> std::io::Result<Setup> {
        let nobody = Arc::new(AtomicBool::new(false));
        let mut heard = Vec::new();
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            let is_free = !is_in("SigCgt:", signal);
            if is_free {
                flag::register_conditional_default(signal, nobody.clone())?;
            }
            heard.extend((is_free || ALWAYS.contains(&signal)).then_some(signal));
        }
        // A file that becomes larger than it may be is an error of the write then, and not the end of the process.
        if !is_ignored(SIGXFSZ) && !is_in("SigCgt:", SIGXFSZ) {
            flag::register_conditional_default(SIGXFSZ, nobody.clone())?;
        }
        Ok(Setup { nobody, heard })
    }
}

/// Whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    is_in("SigIgn:", signal)
}

/// Whether a signal is in one of the sets that the system tells of this process; no, where it does not tell.
fn is_in(set: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(set)?.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << (signal - 1)) != 0)
}

impl Signals {
    /// Listens until it is dropped.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let heard = count(true)?;
        let mut signals = Signals::default();
        signals.listens = true;
        for signal in heard {
            let code = 128 + signal;
            signals.registered.push(flag::register_conditional_shutdown(signal, code, signals.armed.clone())?);
            signals.registered.push(flag::register(signal, signals.raised.clone())?);
        }
        Ok(signals)
    }

    pub(crate) fn raised(&self) -> bool {
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
            let _ = count(false);
        }
    }
}
