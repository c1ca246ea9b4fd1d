//! A batch: jobs that are processes, from their records to their output.
//!
//! The driver's half reads records, keeps account of the jobs that are not settled, runs failed ones again, puts output in
//! order and writes the records of what was done. Each attempt at a job is one job of an open map of the pool, so that a slow
//! job holds nothing back. The rank's half runs an attempt with `process` and answers with its outcome.
//!
//! | file | decides |
//! |---|---|
//! | `intake` | where inputs come from, without waiting for them |
//! | `ledger` | which jobs are not settled, and which one is next |
//! | `drive` | what becomes of each outcome; `limits`, `tally`: when it is enough, what is said of it |
//! | `sinks` | what each job leaves, and when it is handed on; `handover`: output first, then the record of it |
//! | `doubts` | which answers of workers turn out to be those of other jobs |
//! | `attempt` | what travels |
//! | `command`, `workers` | the rank's half: a process for each attempt, or processes that stay |

mod job;

mod drive;
mod handover;
mod ledger;
mod policy;
mod report;
pub(crate) mod runners;
mod sinks;
mod source;
mod stopping;
mod trickle;

pub(crate) use drive::{Batch, End};
pub(crate) use handover::Handover;
pub(crate) use job::{Attempt, Outcome};
pub(crate) use ledger::{Ledger, Planned};
pub(crate) use policy::{Limits, MaxFailures};
pub(crate) use report::Tally;
pub(crate) use sinks::{Lines, Sinks};
pub(crate) use source::{Intake, NoThread};
pub(crate) use stopping::Stopping;
pub(crate) use trickle::Trickle;
