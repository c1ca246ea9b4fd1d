//! Processes that run before anybody needs them: an interpreter takes a while to start, and so does MPI.
//!
//! A spare is started and told what every worker of its launch is told first. When it is known whose worker it becomes, it is
//! greeted, and goes on by itself until it is ready. A worker that needs a process looks here first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::{Connection, Heard};
use super::protocol::{Protocol, Said};
use super::{Ended, MOST_ANSWER, StartFailure, WorkerFailure};
use crate::process::program::{Launch, SpawnError};

/// A first line is not longer.
const MOST_LINE: usize = 1000;

static SPARES: Mutex<Vec<Spare>> = Mutex::new(Vec::new());

struct Spare {
    launch: Launch,
    greeting: Option<Vec<u8>>,
    connection: Connection,
}

fn spares() -> MutexGuard<'static, Vec<Spare>> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts so many processes. Where none can be started, the worker will say why.
pub(crate) fn prepare(launch: &Launch, preamble: &[u8], count: u32) {
    let started = (0..count).map_while(|_| Connection::start(launch, preamble, false).ok());
    let spares_of = |connection| Spare { launch: launch.clone(), greeting: None, connection };
    let mut started: Vec<_> = started.map(spares_of).collect();
    spares().append(&mut started);
}

/// Makes one of the processes that of the worker with this greeting, if there is still one.
pub(crate) fn greet(launch: &Launch, greeting: Vec<u8>) {
    if let Some(mut connection) = take(launch, &greeting) {
        connection.flush();
        spares().push(Spare { launch: launch.clone(), greeting: Some(greeting), connection });
    }
}

/// The process that has this greeting, or else one that has none: it is to be told.
pub(super) fn take(launch: &Launch, greeting: &[u8]) -> Option<Connection> {
    let mut spares = spares();
    let find = |greeting: Option<&[u8]>| {
        spares.iter().position(|spare| spare.launch == *launch && spare.greeting.as_deref() == greeting)
    };
    let at = find(Some(greeting)).or_else(|| find(None))?;
    let Spare { greeting: greeted, mut connection, .. } = spares.remove(at);
    if greeted.is_none() {
        connection.outgoing().extend_from_slice(greeting);
    }
    Some(connection)
}

/// The first line that a spare without a greeting says; nothing, if it ends, is silent until the deadline, or says something else.
pub(crate) fn first_line(launch: &Launch, deadline: Instant) -> Option<String> {
    let mut connection = take(launch, &[])?;
    while connection.lines() == 0 {
        match connection.listen(None, Some(deadline), None) {
            Ok(Heard::Bytes) if connection.unfinished() <= MOST_LINE => {}
            Ok(Heard::Bytes | Heard::Closed | Heard::Deadline | Heard::Cancelled) | Err(_) => return None,
        }
    }
    let line = connection.line()?;
    let line = String::from_utf8_lossy(connection.text(line)).into_owned();
    spares().insert(0, Spare { launch: launch.clone(), greeting: None, connection });
    Some(line)
}

/// Whether the process with this greeting becomes ready: until then, or else it may still do so. One is started, if there is none.
///
/// # Errors
/// Why it does not.
pub(crate) fn try_out(
    launch: &Launch,
    preamble: &[u8],
    greeting: &[u8],
    name: &str,
    deadline: Instant,
) -> Result<(), StartFailure> {
    let mut connection = match take(launch, greeting) {
        Some(connection) => connection,
        None => match Connection::start(launch, preamble, false) {
            Ok(mut connection) => {
                connection.outgoing().extend_from_slice(greeting);
                connection
            }
            // A worker waits for room.
            Err(SpawnError::Scarce(_)) => return Ok(()),
            Err(error) => {
                return Err(StartFailure { message: format!("{name} cannot be started: {error}"), traceback: None });
            }
        },
    };
    while !connection.ready {
        if let Some(line) = connection.line() {
            match (Protocol::Python { batch: 1 }).understand(connection.text(line)) {
                Said::Runs => {}
                Said::Ready => connection.ready = true,
                Said::CannotStart(WorkerFailure { message, traceback, .. }) => {
                    connection.bury();
                    return Err(StartFailure { message, traceback });
                }
                // Who takes it as a worker finds that out, and knows what to say.
                _ => return Ok(()),
            }
            continue;
        }
        match connection.listen(None, Some(deadline), None) {
            Ok(Heard::Bytes) if connection.unfinished() <= MOST_ANSWER => {}
            Ok(Heard::Closed) => {
                let ended = connection.bury();
                if ended.as_ref().is_some_and(Ended::is_from_outside) {
                    // The next process may become ready.
                    return Ok(());
                }
                let how = ended.map_or("closed its standard output".into(), |ended| ended.to_string());
                return Err(StartFailure { message: format!("{name} {how} before it was ready"), traceback: None });
            }
            Ok(Heard::Deadline) => break,
            Ok(Heard::Bytes | Heard::Cancelled) | Err(_) => return Ok(()),
        }
    }
    spares().push(Spare { launch: launch.clone(), greeting: Some(greeting.to_vec()), connection });
    Ok(())
}

/// Kills those that nobody has taken.
pub(crate) fn end() {
    let left = std::mem::take(&mut *spares());
    drop(left);
}
