//! Processes that are started before they are needed: interpreters start while MPI starts, which both take a while.
//!
//! A prestarted process is sent the preamble, which is the same for every worker of its program. When its worker is known, it is
//! sent the assignment, and goes on by itself until it is ready. A worker that needs a process looks here first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::{Connection, Wake};
use super::protocol::{Protocol, Reply};
use super::{MOST_ANSWER, StartFailure, WorkerEnd, WorkerFailure};
use crate::process::program::{Program, SpawnError};

/// Most bytes of a first line.
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

/// Starts `count` processes. Errors are ignored: the worker that needs a process will report them.
pub(crate) fn start(program: &Program, preamble: &[u8], count: u32) {
    let started = (0..count).map_while(|_| Connection::start(program, preamble, false).ok());
    let unassigned = |connection| Prestarted { program: program.clone(), assignment: None, connection };
    let mut started: Vec<_> = started.map(unassigned).collect();
    prestarted().append(&mut started);
}

/// Sends an assignment to one of the processes, if there is one.
pub(crate) fn assign(program: &Program, assignment: Vec<u8>) {
    if let Some(mut connection) = take(program, &assignment) {
        connection.flush();
        prestarted().push(Prestarted { program: program.clone(), assignment: Some(assignment), connection });
    }
}

/// Takes the process with this assignment, or else one without an assignment, to which it is sent.
pub(super) fn take(program: &Program, assignment: &[u8]) -> Option<Connection> {
    let mut prestarted = prestarted();
    let find = |assignment: Option<&[u8]>| {
        prestarted.iter().position(|one| one.program == *program && one.assignment.as_deref() == assignment)
    };
    let at = find(Some(assignment)).or_else(|| find(None))?;
    let Prestarted { assignment: assigned, mut connection, .. } = prestarted.remove(at);
    if assigned.is_none() {
        connection.outgoing().extend_from_slice(assignment);
    }
    Some(connection)
}

/// Returns the first line that a process without an assignment writes; `None` if it ends or writes none until the deadline.
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

/// Waits until the process with this assignment is ready, or until the deadline. Starts a process if there is none.
///
/// # Errors
/// The process cannot be started or will never be ready.
pub(crate) fn wait_until_ready(
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
            // The worker will wait until the resource is available.
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
                // The worker that takes the process will report the error.
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

/// Kills the processes that were not taken.
pub(crate) fn kill_all() {
    let left = std::mem::take(&mut *prestarted());
    drop(left);
}
