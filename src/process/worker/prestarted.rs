//! Processes that run before anybody needs them: an interpreter takes a while to start, and so does MPI.
//!
//! A spare is started and told what every worker of its program is told first. When it is known whose worker it becomes, it is
//! greeted, and goes on by itself until it is ready. A worker that needs a process looks here first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::{Connection, Wake};
use super::protocol::{Protocol, Reply};
use super::{MOST_ANSWER, StartFailure, WorkerEnd, WorkerFailure};
use crate::process::program::{Program, SpawnError};

/// A first line is not longer.
const MOST_LINE: usize = 1000;

static PRESTARTED: Mutex<Vec<Prestarted>> = Mutex::new(Vec::new());

struct Prestarted {
    program: Program,
    assignment: Option<Vec<u8>>,
    connection: Connection,
}

fn prestarted() -> MutexGuard<'static, Vec<Prestarted>> {
    PRESTARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts so many processes. Where none can be started, the worker will say why.
pub(crate) fn prepare(program: &Program, preamble: &[u8], count: u32) {
    let started = (0..count).map_while(|_| Connection::start(program, preamble, false).ok());
    let spares_of = |connection| Prestarted { program: program.clone(), assignment: None, connection };
    let mut started: Vec<_> = started.map(spares_of).collect();
    prestarted().append(&mut started);
}

/// Makes one of the processes that of the worker with this assignment, if there is still one.
pub(crate) fn assign(program: &Program, assignment: Vec<u8>) {
    if let Some(mut connection) = take(program, &assignment) {
        connection.flush();
        prestarted().push(Prestarted { program: program.clone(), assignment: Some(assignment), connection });
    }
}

/// The process that has this assignment, or else one that has none: it is to be told.
pub(super) fn take(program: &Program, assignment: &[u8]) -> Option<Connection> {
    let mut prestarted = prestarted();
    let find = |assignment: Option<&[u8]>| {
        prestarted.iter().position(|spare| spare.program == *program && spare.assignment.as_deref() == assignment)
    };
    let at = find(Some(assignment)).or_else(|| find(None))?;
    let Prestarted { assignment: greeted, mut connection, .. } = prestarted.remove(at);
    if greeted.is_none() {
        connection.outgoing().extend_from_slice(assignment);
    }
    Some(connection)
}

/// The first line that a spare without a assignment says; nothing, if it ends, is silent until the deadline, or says something else.
pub(crate) fn first_line(program: &Program, deadline: Instant) -> Option<String> {
    let mut connection = take(program, &[])?;
    while connection.lines() == 0 {
        match connection.listen(None, Some(deadline), None) {
            Ok(Wake::Bytes) if connection.unfinished() <= MOST_LINE => {}
            Ok(Wake::Bytes | Wake::Closed | Wake::Deadline | Wake::Cancelled) | Err(_) => return None,
        }
    }
    let line = connection.line()?;
    let line = String::from_utf8_lossy(connection.text(line)).into_owned();
    prestarted().insert(0, Prestarted { program: program.clone(), assignment: None, connection });
    Some(line)
}

/// Whether the process with this assignment becomes ready: until then, or else it may still do so. One is started, if there is none.
///
/// # Errors
/// Why it does not.
pub(crate) fn try_out(
    program: &Program,
    preamble: &[u8],
    assignment: &[u8],
    name: &str,
    deadline: Instant,
) -> Result<(), StartFailure> {
    let mut connection = match take(program, assignment) {
        Some(connection) => connection,
        None => match Connection::start(program, preamble, false) {
            Ok(mut connection) => {
                connection.outgoing().extend_from_slice(assignment);
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
                Reply::Runs => {}
                Reply::Ready => connection.ready = true,
                Reply::CannotStart(WorkerFailure { message, traceback, .. }) => {
                    connection.reap();
                    return Err(StartFailure { message, traceback });
                }
                // Who takes it as a worker finds that out, and knows what to say.
                _ => return Ok(()),
            }
            continue;
        }
        match connection.listen(None, Some(deadline), None) {
            Ok(Wake::Bytes) if connection.unfinished() <= MOST_ANSWER => {}
            Ok(Wake::Closed) => {
                let ended = connection.reap();
                if ended.as_ref().is_some_and(WorkerEnd::is_from_outside) {
                    // The next process may become ready.
                    return Ok(());
                }
                let how = ended.map_or("closed its standard output".into(), |ended| ended.to_string());
                return Err(StartFailure { message: format!("{name} {how} before it was ready"), traceback: None });
            }
            Ok(Wake::Deadline) => break,
            Ok(Wake::Bytes | Wake::Cancelled) | Err(_) => return Ok(()),
        }
    }
    prestarted().push(Prestarted { program: program.clone(), assignment: Some(assignment.to_vec()), connection });
    Ok(())
}

/// Kills those that nobody has taken.
pub(crate) fn end() {
    let left = std::mem::take(&mut *prestarted());
    drop(left);
}
