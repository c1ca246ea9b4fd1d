//! External processes: how commands are started, watched and ended on a rank.
//!
//! A process that runs MPI must not fork: on some networks that corrupts data. So every rank starts one small *spawn helper*
//! before MPI, and the helper starts the commands. If the helper is killed, the rank kills the processes that it had started and
//! starts another helper with `posix_spawn`, which copies no memory and so does no harm to the network.
//!
//! ```text
//! rank                                              spawn helper (same executable, session of its own)
//! compute thread ─ request, pipe ends ─▶ channel ─▶ its thread: posix_spawn, waitid, wait4 ─▶ one answer
//!       │ ▲ output                                        │
//!       ▼ │ (pipes that the rank made)                    ▼
//!       command, in a process group of its own  ◀──── main thread: signals for groups; TERM and KILL when the rank is gone
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `spawn` | the protocol between rank and helper, the helper itself, and its replacement when it is killed |
//! | `program` | the description of a program to start, of its end, and of a failed start |
//! | `child` | one process from its start to its end, on the side of the rank |
//! | `command` | one command with its input, output and time limit |
//! | `worker` | a process that stays and answers many records; processes that are started before they are needed |
//! | `forked` | workers that are forked from an interpreter that has imported their modules |
//! | `calls` | workers that answer calls of a Python script: frames, and which call is blamed for the end of a process |
//! | `python`, its `shim.py` and `shim_json.py` | how a worker becomes a Python function; `package`: the module for scripts; `script`: the user's script |
//! | `pipes` | polls and writes that signals do not interrupt |
//! | `memory` | how much memory there is, and whether the kernel has killed a process because it was exhausted |
//! | `room` | the order in which starts wait while file descriptors, processes or memory are exhausted |
//! | `environment` | which of a rank's environment variables a command does not inherit |

pub(crate) mod calls;
pub(crate) mod child;
pub(crate) mod command;
pub(crate) mod environment;
pub(crate) mod forked;
pub(crate) mod memory;
pub(crate) mod pipes;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod room;
pub(crate) mod spawn;
pub(crate) mod worker;

#[cfg(test)]
mod tests;
