//! The spawn helper on the side of the rank: its start and end, the channels for requests to it, and its replacement when it is killed.
//!
//! A *channel* is a connection to one thread of the helper, which starts and watches one process at a time. Channels are made when
//! they are needed and used again.

mod group;
mod orphans;
pub(crate) mod protocol;
mod server;
mod stat;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, prlimit, setrlimit};

#[cfg(test)]
pub(crate) use server::serve;

use super::environment::launcher_variables;
use super::forked;
use super::pipes::{is_ready_within, poll_until};
use super::program::SpawnError;
use crate::console::reason;
use crate::engine::wire;
use protocol::{Control, Inbox, SignalOrder};

/// The first argument that makes the program a spawn helper.
const ARGUMENT: &str = "__spawn-helper";

/// Time for a helper that ends, and for all its sockets to close.
const DYING: Duration = Duration::from_secs(1);

static HELPERS: Mutex<Option<Helpers>> = Mutex::new(None);

/// The helper of this process, and what is needed to start another one.
struct Helpers {
    command: Box<dyn Fn() -> Command + Send>,
    /// The limit of open files for commands: that of the rank before it raised its own.
    files: Rlimit,
    current: Arc<Helper>,
    child: Child,
    /// Unused channels of the current helper.
    free: Vec<Channel>,
}

/// The connection to a helper.
#[derive(Debug)]
struct Helper {
    /// A socket for whole messages, so that all threads may send. When it closes, the helper ends its processes and itself.
    control: OwnedFd,
    next: AtomicU32,
}

fn helpers() -> MutexGuard<'static, Option<Helpers>> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves as the spawn helper, if this process was started as one; `None` if it was not. The helper uses neither MPI nor options.
pub(crate) fn serve_if_helper() -> Option<Result<(), String>> {
    let is_helper = std::env::args_os().nth(1).is_some_and(|first| first == ARGUMENT);
    let served = is_helper.then(server::serve)?;
    Some(served.map_err(|error| format!("the spawn helper is started by rankpool itself: {}", reason(&error))))
}

/// Starts the helper, once. Must be called before `MPI_Init`: a process that runs MPI must not fork.
pub(crate) fn start() -> Result<(), String> {
    forked::remember();
    start_as(|| {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("rankpool").arg(ARGUMENT);
        command
    })
    .map_err(|error| format!("cannot start the spawn helper, the process that starts commands: {}", reason(&error)))
}

/// Starts the helper with this command, which also starts its replacements.
pub(super) fn start_as(command: impl Fn() -> Command + Send + 'static) -> io::Result<()> {
    let mut helpers = helpers();
    if helpers.is_none() {
        let files = getrlimit(Resource::Nofile);
        let (helper, child) = spawn(command())?;
        let (command, current) = (Box::new(command), Arc::new(helper));
        *helpers = Some(Helpers { command, files, current, child, free: Vec::new() });
        // A rank holds a few descriptors for each command that runs, and the usual limit, 1024, is too low for hundreds of
        // threads. If a higher one is refused, the usual limit stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    }
    Ok(())
}

/// Ends the helper and waits until it has ended, at most for [`DYING`]: before that, the CPU time of commands is not part of this
/// process's. Nothing can be started afterwards.
pub(crate) fn end() {
    let Some(Helpers { current, mut child, .. }) = helpers().take() else { return };
    let _ = shutdown(&current.control, Shutdown::Both);
    let Ok(process) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) else { return };
    if is_ready_within(DYING, &mut [PollFd::new(&process, PollFlags::IN)]) {
        let _ = child.wait();
    }
}

/// Starts a helper. Nothing here makes the standard library fork instead of using `posix_spawn`, which copies no memory and so does
/// no harm when MPI already runs.
fn spawn(mut command: Command) -> io::Result<(Helper, Child)> {
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    // Commands inherit the helper's environment: so the launcher's variables are removed here, once.
    for name in launcher_variables() {
        command.env_remove(name);
    }
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok((Helper { control, next: AtomicU32::new(0) }, child))
}

impl Helpers {
    /// Ends the processes that a killed helper has left behind, and starts another helper.
    fn replace(&mut self) -> Result<(), SpawnError> {
        self.free.clear();
        // Until it is waited for, no other process can get its number, by which its commands are found.
        let helper = Pid::from_child(&self.child);
        orphans::end_session(helper);
        let _ = self.child.wait();
        let (helper, child) =
            spawn((self.command)()).map_err(|error| SpawnError::scarce_or(error, SpawnError::HelperGone))?;
        // Before the first request. If this fails, commands have the rank's own limit.
        let _ = prlimit(Some(Pid::from_child(&child)), Resource::Nofile, self.files);
        (self.current, self.child) = (Arc::new(helper), child);
        Ok(())
    }
}

/// A connection to a thread of the helper.
#[derive(Debug)]
pub(super) struct Channel {
    helper: Arc<Helper>,
    number: u32,
    pub socket: OwnedFd,
    /// Number of requests so far.
    pub requests: u64,
    pub inbox: Inbox,
    /// The buffer for requests.
    pub outbox: Vec<u8>,
}

/// Why a channel's socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The helper had no thread or file descriptor for one more channel.
    Refused,
    /// The helper was killed. Its processes are ended, and there is a new helper.
    Killed,
}

impl Channel {
    /// Takes an unused channel, or makes one.
    pub(super) fn take() -> Result<Self, SpawnError> {
        let helper = {
            let mut helpers = helpers();
            let helpers = helpers.as_mut().ok_or_else(|| SpawnError::HelperGone("it was never started".into()))?;
            if let Some(channel) = helpers.free.pop() {
                return Ok(channel);
            }
            helpers.current.clone()
        };
        let number = helper.next.fetch_add(1, Ordering::Relaxed);
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| SpawnError::resources(error.into()))?;
        // If the helper is gone, the socket is closed, which the first request will report.
        send_control(&helper, Control::Channel { channel: number }, &[theirs.as_fd()])?;
        let (inbox, outbox) = (Inbox::default(), Vec::new());
        Ok(Channel { helper, number, socket, requests: 0, inbox, outbox })
    }

    /// Makes the channel available to other threads.
    pub(super) fn give_back(self) {
        if let Some(helpers) = helpers().as_mut().filter(|helpers| Arc::ptr_eq(&helpers.current, &self.helper)) {
            helpers.free.push(self);
        }
    }

    /// Closes all unused channels: their threads count against the limit of processes.
    pub(super) fn end_unused() {
        if let Some(helpers) = helpers().as_mut() {
            helpers.free.clear();
        }
    }

    /// Signals the process group of the last request. Does nothing if the group or the helper has ended.
    pub(super) fn signal(&self, order: SignalOrder) -> Result<(), SpawnError> {
        send_control(&self.helper, Control::Signal { channel: self.number, number: self.requests, order }, &[])
    }

    /// Finds out why the channel's socket is closed. If the helper was killed, all processes that it had started are ended when this
    /// returns.
    pub(super) fn closed(&self) -> Result<Closed, SpawnError> {
        if !self.helper.is_gone() {
            return Ok(Closed::Refused);
        }
        match helpers().as_mut() {
            Some(helpers) if Arc::ptr_eq(&helpers.current, &self.helper) => helpers.replace()?,
            // Another thread has replaced it already.
            Some(_) | None => {}
        }
        Ok(Closed::Killed)
    }
}

impl Helper {
    fn is_gone(&self) -> bool {
        let mut control = [PollFd::new(&self.control, PollFlags::empty())];
        // A process that ends may close its sockets in any order.
        let waited = poll_until(&mut control, Some(Instant::now() + DYING));
        waited.is_err() || !control[0].revents().is_empty()
    }
}

/// Sends the helper a message; does nothing if the helper is gone.
fn send_control(helper: &Helper, message: Control, descriptors: &[BorrowedFd<'_>]) -> Result<(), SpawnError> {
    let bytes = wire::encode(&message).map_err(|error| SpawnError::NotStarted(error.to_string()))?;
    match protocol::send(helper.control.as_fd(), &bytes, descriptors) {
        Ok(()) => Ok(()),
        Err(error) if protocol::is_closed(&error) => Ok(()),
        Err(error) => Err(SpawnError::resources(error)),
    }
}
