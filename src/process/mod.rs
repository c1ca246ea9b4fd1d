//! External processes: how commands are started, watched and ended on a rank.
//!
//! A process that runs MPI must not fork: on some networks that corrupts data. So every rank starts one small *spawn helper*
//! before MPI, and the helper starts the commands. When somebody kills the helper, the rank kills what it had started and starts
//! another one, with `posix_spawn`: that copies no memory, which is what networks cannot bear.
//!
//! ```text
//! rank                                              spawn helper (same executable, session of its own)
//! compute thread ─ request, pipe ends ─▶ slot ────▶ slot thread: posix_spawn, waitid, wait4 ─▶ one answer
//!       │ ▲ output                                        │
//!       ▼ │ (pipes that the rank made)                    ▼
//!       command, in a process group of its own  ◀──── main thread: signals for groups; TERM and KILL when the rank is gone
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `spawn` | how rank and helper talk, what the helper does, and what is done when it is killed |
//! | `program` | what is to be started, and one process from its start to its end |
//! | `command` | one command with its input, output and time limit |
//! | `worker` | a process that stays and is given many records; those that are started before anybody needs them |
//! | `python`, its `shim.py` and `shim_json.py` | how a worker becomes a Python function |
//! | `room` | who waits when there is no file descriptor, process or memory for one more process |
//! | `environment` | which variables of a rank are none of a command's business |

pub(crate) mod command;
pub(crate) mod environment;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod room;
pub(crate) mod spawn;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
