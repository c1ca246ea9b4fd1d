//! The rank's half of a batch: how an attempt at a job is run.
//!
//! | file | runs |
//! |---|---|
//! | `command` | a process for each attempt |
//! | `worker` | requests to processes that stay; `doubts`: which of their answers turn out to be those of other jobs |

pub(crate) mod command;
pub(crate) mod doubts;
pub(crate) mod worker;
