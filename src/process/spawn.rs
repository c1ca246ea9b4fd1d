//! The spawn helper, seen from the rank: how it is started, the channels through which it is asked, and what is done when somebody
//! kills it.
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
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

pub(crate) use server::serve;

use super::environment::launcher_variables;
use super::program::{SpawnError, timespec};
use crate::engine::wire;
use protocol::{Control, Inbox, SignalOrder};

/// The first argument that makes the program a spawn helper.
pub(crate) const ARGUMENT: &str = "__spawn-helper";

/// From the first sign that the helper dies to the last.
const DYING: Duration = Duration::from_secs(1);

static HELPERS: Mutex<Option<Helpers>> = Mutex::new(None);

/// The helper of this process, and what it takes to start another one.
struct Helpers {
    recipe: Box<dyn Fn() -> Command + Send>,
    /// How many files the commands may open: what was set before the rank raised its own limit.
    files: Rlimit,
    current: Arc<Helper>,
    child: Child,
    /// Channels of the current helper that nobody uses.
    free: Vec<Channel>,
}

/// The connection to a helper.
#[derive(Debug)]
struct Helper {
    /// Keeps messages apart, so that all threads may send. When it closes, the helper ends what runs, and itself.
    control: OwnedFd,
    next: AtomicU32,
}

fn helpers() -> MutexGuard<'static, Option<Helpers>> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the helper, once. This belongs before `MPI_Init`: a process that runs MPI must not fork.
pub(crate) fn start() -> io::Result<()> {
    start_as(|| {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("rankpool").arg(ARGUMENT);
        command
    })
}

/// Starts the helper as this command, and those that take its place.
pub(super) fn start_as(recipe: impl Fn() -> Command + Send + 'static) -> io::Result<()> {
    let mut helpers = helpers();
    if helpers.is_none() {
        let files = getrlimit(Resource::Nofile);
        let (helper, child) = spawn(recipe())?;
        let (recipe, current) = (Box::new(recipe), Arc::new(helper));
        *helpers = Some(Helpers { recipe, files, current, child, free: Vec::new() });
        // A rank holds a few descriptors for each command that runs, and the usual limit, 1024, is too low for hundreds of
        // threads. Where it is refused, the usual limit has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    }
    Ok(())
}

/// A new helper. Nothing here makes the standard library fork instead of using `posix_spawn`, which copies no memory: it does
/// no harm where MPI runs already.
fn spawn(mut command: Command) -> io::Result<(Helper, Child)> {
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    // The helper's own environment is what the commands get: the launcher's variables are removed once.
    for name in launcher_variables() {
        command.env_remove(name);
    }
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok((Helper { control, next: AtomicU32::new(0) }, child))
}

impl Helpers {
    /// Ends what a helper that is gone has left behind, and starts another one in its place.
    fn replace(&mut self) -> Result<(), SpawnError> {
        self.free.clear();
        // Until it is waited for nobody else can have its number, by which its commands are known.
        let helper = Pid::from_child(&self.child);
        orphans::end_session(helper);
        let _ = self.child.wait();
        let (helper, child) =
            spawn((self.recipe)()).map_err(|error| SpawnError::scarce_or(error, SpawnError::HelperGone))?;
        // It was not asked for anything yet. Who has no such limit, or may not set it, has commands with the rank's.
        let _ = prlimit(Some(Pid::from_child(&child)), Resource::Nofile, self.files);
        (self.current, self.child) = (Arc::new(helper), child);
        Ok(())
    }
}

/// A connection to a thread of the helper that has nothing to do.
#[derive(Debug)]
pub(super) struct Channel {
    helper: Arc<Helper>,
    number: u32,
    pub socket: OwnedFd,
    /// How many requests it had.
    pub requests: u64,
    pub inbox: Inbox,
    /// Where requests are written.
    pub outbox: Vec<u8>,
}

/// Why a channel's socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The helper had no thread or file descriptor for one more channel.
    Refused,
    /// The helper was killed. What it had started is ended, and there is a new one.
    Killed,
}

impl Channel {
    /// A channel that nobody uses.
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
        // Where the helper is gone, the socket is closed, as the first request finds out.
        tell(&helper, Control::Channel { channel: number }, &[theirs.as_fd()])?;
        let (inbox, outbox) = (Inbox::default(), Vec::new());
        Ok(Channel { helper, number, socket, requests: 0, inbox, outbox })
    }

    /// The channel is there for others.
    pub(super) fn give_back(self) {
        if let Some(helpers) = helpers().as_mut().filter(|helpers| Arc::ptr_eq(&helpers.current, &self.helper)) {
            helpers.free.push(self);
        }
    }

    /// Ends all channels that nobody uses: their threads are in the way of processes.
    pub(super) fn end_unused() {
        if let Some(helpers) = helpers().as_mut() {
            helpers.free.clear();
        }
    }

    /// Signals the process group of the last request; nothing happens if that has ended, or ends because the helper has.
    pub(super) fn signal(&self, order: SignalOrder) -> Result<(), SpawnError> {
        tell(&self.helper, Control::Signal { channel: self.number, number: self.requests, order }, &[])
    }

    /// Finds out why the channel's socket is closed. When this returns, nothing is left of what a killed helper had started.
    pub(super) fn closed(&self) -> Result<Closed, SpawnError> {
        if !self.helper.is_gone() {
            return Ok(Closed::Refused);
        }
        match helpers().as_mut() {
            Some(helpers) if Arc::ptr_eq(&helpers.current, &self.helper) => helpers.replace()?,
            // Another thread has been faster.
            Some(_) | None => {}
        }
        Ok(Closed::Killed)
    }
}

impl Helper {
    fn is_gone(&self) -> bool {
        let mut control = [PollFd::new(&self.control, PollFlags::empty())];
        // A process that ends closes its sockets in no particular order.
        let waited = retry_on_intr(|| poll(&mut control, Some(&timespec(DYING))));
        waited.is_err() || !control[0].revents().is_empty()
    }
}

/// Tells the helper something, if there is still one to listen.
fn tell(helper: &Helper, message: Control, descriptors: &[BorrowedFd<'_>]) -> Result<(), SpawnError> {
    let bytes = wire::encode(&message).map_err(|error| SpawnError::NotStarted(error.to_string()))?;
    match protocol::send(helper.control.as_fd(), &bytes, descriptors) {
        Ok(()) => Ok(()),
        Err(error) if protocol::is_closed(&error) => Ok(()),
        Err(error) => Err(SpawnError::resources(error)),
    }
}
