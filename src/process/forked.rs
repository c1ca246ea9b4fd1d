//! Workers that are forked from an interpreter that has imported their modules, once for all ranks of a host.
//!
//! The interpreter, `_forkserver.py` of the Python package, is the *fork server*. The first rank of a host that needs one starts it,
//! through its spawn helper: who has bound the name of its socket, which all ranks of the host can compute, is the first. For each
//! worker a rank makes a connection, which carries the request, the worker's standard streams and later orders to signal it, and
//! which becomes readable when the worker has ended. While the server imports, requests wait in its socket, so nothing here waits.
//!
//! Where workers cannot be forked (a module cannot be imported or has started threads, the server was killed), one warning is written
//! and they are started plainly, with the modules in [`MODULES`], which they import themselves.

mod request;
mod server;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::program::{ProcessEnd, Program, SpawnError};
use super::spawn::protocol::{self, SignalOrder, send};
pub(super) use request::remember;
pub(crate) use server::end;
use server::{Report, Server, message};

/// The variable with the modules that a worker imports first, if it was not forked.
const MODULES: &str = "RANKPOOL_PRELOAD";

/// A worker that was asked of a server.
#[derive(Debug)]
pub(super) struct Forked {
    server: Arc<Server>,
    socket: OwnedFd,
    is_over: bool,
}

impl Forked {
    /// Asks for a worker. Returns before it runs; `None` if workers have to be started plainly.
    pub(super) fn start(program: &Program, streams: [Option<BorrowedFd<'_>>; 3]) -> Result<Option<Self>, SpawnError> {
        let [Some(stdin), Some(stdout), Some(stderr)] = streams else { return Ok(None) };
        let Some(server) = Server::of(program)? else { return Ok(None) };
        let Some(request) = request::of_worker(program) else { return Ok(None) };
        let Some(socket) = server.connect()? else { return Ok(None) };
        match send(socket.as_fd(), &request, &[stdin, stdout, stderr]) {
            Ok(()) => Ok(Some(Forked { server, socket, is_over: false })),
            Err(error) if protocol::is_closed(&error) => {
                server.lost();
                Ok(None)
            }
            Err(error) => Err(SpawnError::resources(error)),
        }
    }

    /// Returns a descriptor that is readable when the worker has ended; `None` after [`ended`](Self::ended) has returned.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_over).then(|| self.socket.as_fd())
    }

    /// Waits for the end and returns how the worker ended.
    pub(super) fn ended(&mut self) -> Result<ProcessEnd, SpawnError> {
        self.is_over = true;
        let text = message(&self.socket, None).unwrap_or_default();
        let mut words = text.split(' ');
        let (kind, mut numbers) = (words.next(), words.map(|word| word.parse::<u64>().ok()));
        let mut number = || numbers.next().flatten();
        match (kind, number(), number(), number(), number()) {
            (Some("ended"), Some(status), Some(user), Some(system), Some(max_rss_kib)) => Ok(ProcessEnd {
                status: ExitStatus::from_raw(i32::try_from(status).unwrap_or(-1)),
                user: Duration::from_micros(user),
                system: Duration::from_micros(system),
                max_rss_kib,
            }),
            (Some("scarce"), Some(errno), ..) => {
                let error = io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or_default());
                Err(SpawnError::Scarce(crate::console::reason(&error)))
            }
            (Some("refused"), ..) => {
                self.server.refused();
                Err(SpawnError::Unread)
            }
            _ => {
                self.server.lost();
                Err(SpawnError::ServerKilled)
            }
        }
    }

    /// Signals the worker's group.
    pub(super) fn signal(&self, order: SignalOrder) {
        let mut bytes = Vec::with_capacity(9);
        match order {
            SignalOrder::Kill => bytes.push(b'K'),
            SignalOrder::Term { grace } => {
                bytes.push(b'T');
                bytes.extend_from_slice(&grace.as_secs_f64().to_le_bytes());
            }
        }
        // A worker whose server is gone has ended.
        let _ = send(self.socket.as_fd(), &bytes, &[]);
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal(SignalOrder::Kill);
        }
    }
}

/// Returns the program of a worker that is started plainly: it imports the modules itself.
pub(super) fn plain(program: &Program) -> Program {
    let mut plain = program.clone();
    plain.env.push((MODULES.to_string(), plain.preload.join("\n")));
    plain.preload.clear();
    plain
}

/// Waits until the modules of a program's workers are imported. Returns whether the workers are forked.
///
/// # Errors
/// A sentence and the traceback, if an import fails, on the rank that has started the server.
pub(crate) fn check(program: &Program, deadline: Instant) -> Result<bool, String> {
    let server = match Server::of(program) {
        Ok(Some(server)) => server,
        Ok(None) | Err(_) => return Ok(false),
    };
    match server.report(Some(deadline)) {
        None | Some(Report::Ready) => Ok(true),
        Some(Report::Threads(..)) => {
            server.refused();
            Ok(false)
        }
        Some(Report::Gone) => {
            server.give_up();
            match server.has_ended() {
                Some(Ok(ended)) => {
                    let status = ended.status;
                    Err(format!("a module of --preload has ended Python, which imported it ({status})"))
                }
                // Why Python cannot be started is said of the workers.
                Some(Err(_)) | None => Ok(false),
            }
        }
        Some(Report::Import(module, error, traceback)) => {
            server.give_up();
            let mut message = format!("{module}, a module of --preload, cannot be imported: {error}");
            if traceback.trim_end() != error {
                message += &format!("\n{}", traceback.trim_end());
            }
            if server.is_own() { Err(message) } else { Ok(false) }
        }
    }
}
