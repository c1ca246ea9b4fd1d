//! The fork server on the side of a rank: its start, connections to it, what it reports, and its end.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recv, socket_with,
};
use rustix::process::{getppid, getuid};
use xxhash_rust::xxh3::xxh3_64;

use super::request::framed;
use crate::console::eprint_error;
use crate::engine::environment::environment;
use crate::engine::placement;
use crate::process::child::Process;
use crate::process::pipes::poll_until;
use crate::process::program::{ProcessEnd, Program, SpawnError};
use crate::process::python::package;
use crate::process::spawn::protocol::{SignalOrder, send};

/// Connections that wait while the server imports. The system may allow fewer.
const BACKLOG: i32 = 4096;
/// Longest message of the server.
const MOST_TEXT: usize = 1 << 18;
/// How long a rank that has bound the name may take to listen.
const BINDING: Duration = Duration::from_secs(1);
/// Time limit for a server to end at the end of the run.
const ENDING: Duration = Duration::from_secs(5);
/// Time limit for a server whose connections are closed to be known to have ended.
const DYING: Duration = Duration::from_secs(1);

static SERVERS: Mutex<Vec<Arc<Server>>> = Mutex::new(Vec::new());

fn servers() -> MutexGuard<'static, Vec<Arc<Server>>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server is for.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    program: Program,
}

/// A fork server as a rank sees it.
#[derive(Debug)]
pub(super) struct Server {
    key: Key,
    address: SocketAddrUnix,
    /// A connection that lasts as long as this rank, on which the server reports its imports. `None`: it could not be reached.
    lead: Mutex<Option<OwnedFd>>,
    /// `None`: another rank of the host has started it.
    process: Mutex<Option<Process>>,
    is_own: bool,
    /// No more workers are forked.
    given_up: AtomicBool,
    /// It has ended with the spawn helper, and another one can be started.
    is_replaced: AtomicBool,
    /// What the server has reported.
    report: OnceLock<Report>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Ready,
    /// The import of this module has started threads, of which some have these names.
    Threads(String, String),
    /// This module cannot be imported; the last line of the traceback, and all of it.
    Import(String, String, String),
    /// The server has ended before it could report.
    Gone,
}

/// Ends the servers of this process, whose workers have ended, and waits for that.
pub(crate) fn end() {
    let servers = std::mem::take(&mut *servers());
    for server in &servers {
        server.given_up.store(true, Ordering::SeqCst);
        server.lead().take();
        if let Some(process) = &*server.process() {
            let _ = process.signal(SignalOrder::Term { grace: ENDING });
        }
    }
    let deadline = Instant::now() + ENDING;
    for server in servers {
        if let Some(end) = server.process().as_ref().and_then(Process::end) {
            let _ = poll_until(&mut [PollFd::from_borrowed_fd(end, PollFlags::IN)], Some(deadline));
        }
    }
}

impl Server {
    fn lead(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the server for a program's workers, which is started if need be; `None` if workers cannot be forked.
    pub(super) fn of(program: &Program) -> Result<Option<Arc<Server>>, SpawnError> {
        let key = Key::of(program);
        let mut servers = servers();
        servers.retain(|server| !server.is_replaced.load(Ordering::SeqCst));
        let server = match servers.iter().find(|server| server.key == key) {
            Some(server) => server.clone(),
            None => {
                let server = Arc::new(Server::start(key, program)?);
                servers.push(server.clone());
                server
            }
        };
        Ok(Some(server).filter(|server| !server.given_up.load(Ordering::SeqCst)))
    }

    /// Starts a server, or finds that of another rank of this host.
    fn start(key: Key, program: &Program) -> Result<Server, SpawnError> {
        let refused = |error: Errno| SpawnError::resources(error.into());
        let address = SocketAddrUnix::new_abstract_name(key.name().as_bytes()).map_err(refused)?;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let listener = listener.map_err(refused)?;
        let is_own = match bind(&listener, &address) {
            Ok(()) => true,
            Err(Errno::ADDRINUSE) => false,
            Err(error) => return Err(refused(error)),
        };
        let mut process = None;
        if is_own {
            listen(&listener, BACKLOG).map_err(refused)?;
            process = start(program, &listener);
        }
        let given_up = AtomicBool::new(is_own && process.is_none());
        let (lead, process) = (Mutex::new(None), Mutex::new(process));
        let server = Server {
            key,
            address,
            lead,
            process,
            is_own,
            given_up,
            is_replaced: false.into(),
            report: OnceLock::new(),
        };
        drop(listener);
        if let Some(lead) = server.connect()? {
            if send(lead.as_fd(), &framed(b"state".to_vec()), &[]).is_ok() {
                *server.lead() = Some(lead);
            }
        }
        Ok(server)
    }

    /// Connects to the server; `None` if that is not possible, now and later.
    pub(super) fn connect(&self) -> Result<Option<OwnedFd>, SpawnError> {
        let refused = |error: Errno| SpawnError::resources(error.into());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let deadline = Instant::now() + BINDING;
        while !self.given_up.load(Ordering::SeqCst) {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(refused)?;
            match connect(&socket, &self.address) {
                Ok(()) => {
                    // Another user may have taken the name.
                    if socket_peercred(&socket).is_ok_and(|peer| peer.uid == getuid()) {
                        ioctl_fionbio(&socket, false).map_err(refused)?;
                        return Ok(Some(socket));
                    }
                    break;
                }
                Err(Errno::AGAIN) => return Err(SpawnError::Scarce("the fork server has too many requests".into())),
                // The rank that has bound the name does not listen yet.
                Err(Errno::CONNREFUSED) if !self.is_own && self.lead().is_none() && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(_) => break,
            }
        }
        self.lost();
        Ok(None)
    }

    /// Returns what the server has reported, at the latest at the deadline; `None` if that is nothing.
    pub(super) fn report(&self, deadline: Option<Instant>) -> Option<Report> {
        if let Some(report) = self.report.get() {
            return Some(report.clone());
        }
        let lead = self.lead();
        let Some(socket) = &*lead else { return Some(Report::Gone) };
        let text = match message(socket, deadline) {
            Some(text) => text,
            None if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return None,
            None => return Some(self.report.get_or_init(|| Report::Gone).clone()),
        };
        let mut parts = text.splitn(4, '\n').map(str::to_string);
        let kind = parts.next().unwrap_or_default();
        let mut part = || parts.next().unwrap_or_default();
        let report = match kind.as_str() {
            "ready" => Report::Ready,
            "threads" => Report::Threads(part(), part()),
            "import" => Report::Import(part(), part(), part()),
            _ => Report::Gone,
        };
        Some(self.report.get_or_init(|| report).clone())
    }

    /// Whether this rank has started it.
    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// Has no more workers forked.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    /// The server forks no workers: says why, once.
    pub(super) fn refused(&self) {
        if self.given_up.swap(true, Ordering::SeqCst) || !self.is_own {
            return;
        }
        let plainly = "workers are started without it, and each imports by itself";
        match self.report(Some(Instant::now() + DYING)) {
            Some(Report::Threads(module, names)) => {
                let names = if names.is_empty() { names } else { format!(" ({names})") };
                eprint_error(format_args!(
                    "the import of {module} starts threads{names}, and a process with threads cannot be forked safely: \
                     {plainly}"
                ));
            }
            Some(Report::Import(module, error, _)) => {
                eprint_error(format_args!("{module}, a module of preload, cannot be imported: {error}; {plainly}"));
            }
            Some(Report::Ready | Report::Gone) | None => self.say_lost(),
        }
    }

    /// The server is gone: says so, once.
    pub(super) fn lost(&self) {
        if !self.given_up.swap(true, Ordering::SeqCst) {
            self.say_lost();
        }
    }

    /// Returns how the server has ended, if this rank has started it.
    pub(super) fn has_ended(&self) -> Option<Result<ProcessEnd, SpawnError>> {
        let mut process = self.process();
        let process = process.as_mut()?;
        let mut end = [PollFd::from_borrowed_fd(process.end()?, PollFlags::IN)];
        let has_ended = poll_until(&mut end, Some(Instant::now() + DYING)) == Ok(1);
        has_ended.then(|| process.ended())
    }

    fn say_lost(&self) {
        let Some(ended) = self.has_ended() else { return };
        match ended {
            // The message of a worker says why Python cannot be started.
            Err(SpawnError::NotStarted(_) | SpawnError::Scarce(_)) => {}
            // A new helper can start another server.
            Err(_) => self.is_replaced.store(true, Ordering::SeqCst),
            Ok(ended) => eprint_error(format_args!(
                "the fork server, which imports the modules of preload for all workers of this host, has ended ({}): \
                 workers are started without it, and each imports by itself",
                ended.status
            )),
        }
    }
}

/// Starts the process of a server.
fn start(program: &Program, listener: &OwnedFd) -> Option<Process> {
    let program = package::fork_server(program).ok()?;
    let (stdout, stderr) = (io::stdout(), io::stderr());
    Process::start(&program, [Some(listener.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd())]).ok()
}

impl Key {
    /// The program without what differs from worker to worker and from rank to rank.
    fn of(program: &Program) -> Key {
        let mut program = program.clone();
        program.args.clear();
        program.env.retain(|(name, _)| !package::SLOT_VARIABLES.contains(&name.as_str()));
        Key { program }
    }

    /// Returns the name of the server's socket, which the other ranks of this host find, too.
    fn name(&self) -> String {
        let Program { name, env, cwd, preload, .. } = &self.program;
        let env = env.iter().filter(|(name, _)| name != package::PYTHONPATH);
        let mut words = format!("{name}\0{cwd:?}\0{preload:?}");
        env.for_each(|(name, value)| {
            let _ = write!(words, "\0{name}={value}");
        });
        let hash = xxh3_64(words.as_bytes());
        let user = getuid().as_raw();
        match placement::ranks_on_host(environment) {
            // All ranks of a host have the same parent, a process of the launcher.
            Some(2..) => {
                let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
                format!("rankpool-fork-{user}-{parent}-{hash:016x}")
            }
            _ => format!("rankpool-fork-{user}-{}-alone-{hash:016x}", std::process::id()),
        }
    }
}

/// Reads a message, which ends with a zero byte; `None` if there is none until the deadline or the other end is closed.
pub(super) fn message(socket: &OwnedFd, deadline: Option<Instant>) -> Option<String> {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&0) && bytes.len() < MOST_TEXT {
        let ready = poll_until(&mut [PollFd::new(socket, PollFlags::IN)], deadline).ok()?;
        let mut piece = [0; 1 << 12];
        match recv(socket, &mut piece, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return None,
            Ok((_, length)) => bytes.extend_from_slice(&piece[..length]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if ready > 0 => {}
            Err(_) => return None,
        }
    }
    bytes.pop();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
