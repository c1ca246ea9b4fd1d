//! The spawn helper, seen from the rank: how it is started, and the slots through which it is asked.
//!
//! A *slot* is a connection to one thread of the helper, which starts and watches one process at a time. Slots are made when
//! they are needed and used again.

mod group;
pub(crate) mod protocol;
mod server;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

pub(crate) use server::serve;

use super::environment::launcher_variables;
use super::process::{SpawnError, timespec};
use crate::wire;
use protocol::{Control, Inbox, Order};

/// The first argument that makes the program a spawn helper.
pub(crate) const ARGUMENT: &str = "__spawn-helper";

/// From the first sign that the helper dies to the last.
const DYING: Duration = Duration::from_secs(1);

static HELPER: OnceLock<Helper> = OnceLock::new();

/// The connection to the helper.
struct Helper {
    /// Keeps messages apart, so that all threads may send. When it closes, the helper ends what runs, and itself.
    control: OwnedFd,
    next: AtomicU32,
    free: Mutex<Vec<Slot>>,
    /// It is not waited for: it outlives this process by a moment.
    _child: Child,
}

/// Starts the helper, once. This belongs before `MPI_Init`: a process that runs MPI must not fork.
pub(crate) fn start() -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("rankpool").arg(ARGUMENT);
    start_as(command)
}

/// Starts the helper as this command.
pub(super) fn start_as(mut command: Command) -> io::Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if HELPER.get().is_some() {
        return Ok(());
    }
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    // The helper's own environment is what the commands get: the launcher's variables are removed once.
    for name in launcher_variables() {
        command.env_remove(name);
    }
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let helper = Helper { control, next: AtomicU32::new(0), free: Mutex::default(), _child: child };
    if HELPER.set(helper).is_err() {
        unreachable!("one thread at a time starts it");
    }
    Ok(())
}

/// A connection to a thread of the helper that has nothing to do.
#[derive(Debug)]
pub(super) struct Slot {
    number: u32,
    pub socket: OwnedFd,
    /// How many requests it had.
    pub requests: u64,
    pub inbox: Inbox,
    /// Where requests are written.
    pub outbox: Vec<u8>,
}

impl Slot {
    /// A slot that nobody uses.
    pub(super) fn take() -> Result<Self, SpawnError> {
        let helper = HELPER.get().ok_or(SpawnError::HelperGone)?;
        let free = helper.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match free {
            Some(slot) => Ok(slot),
            None => Slot::new(helper),
        }
    }

    fn new(helper: &Helper) -> Result<Self, SpawnError> {
        let number = helper.next.fetch_add(1, Ordering::Relaxed);
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| SpawnError::resources(error.into()))?;
        tell(helper, Control::Slot { slot: number }, &[theirs.as_fd()])?;
        Ok(Slot { number, socket, requests: 0, inbox: Inbox::default(), outbox: Vec::new() })
    }

    /// The slot is there for others.
    pub(super) fn give_back(self) {
        if let Some(helper) = HELPER.get() {
            helper.free.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
    }

    /// Signals the process group of the last request; nothing happens if that has ended.
    pub(super) fn signal(&self, order: Order) -> Result<(), SpawnError> {
        let helper = HELPER.get().ok_or(SpawnError::HelperGone)?;
        tell(helper, Control::Signal { slot: self.number, number: self.requests, order }, &[])
    }

    /// Why the slot's socket is closed: the helper is gone, or it could not serve one more slot.
    pub(super) fn why_closed() -> SpawnError {
        let alive = HELPER.get().is_some_and(|helper| {
            let mut control = [PollFd::new(&helper.control, PollFlags::empty())];
            // A process that ends closes its sockets in no particular order.
            let waited = retry_on_intr(|| poll(&mut control, Some(&timespec(DYING))));
            waited.is_ok() && control[0].revents().is_empty()
        });
        if alive {
            SpawnError::NotStarted(
                "the spawn helper has no thread or file descriptor for one more process (raise `ulimit -u` or `ulimit -n`)"
                    .into(),
            )
        } else {
            SpawnError::HelperGone
        }
    }
}

fn tell(helper: &Helper, message: Control, descriptors: &[BorrowedFd<'_>]) -> Result<(), SpawnError> {
    let bytes = wire::encode(&message).map_err(|error| SpawnError::NotStarted(error.to_string()))?;
    protocol::send(helper.control.as_fd(), &bytes, descriptors).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SpawnError::HelperGone,
        _ => SpawnError::resources(error),
    })
}
