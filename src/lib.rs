//! A futures-style process pool for clusters, in Rust on MPI.
//!
//! `mpiexec -n N program` starts N *ranks* of one program. Rank 0 is the *master*: it assigns *chunks* of *jobs* to the ranks.
//! Every rank, rank 0 too, computes them on its own rayon threads; results come back in batches. Ranks never send each other
//! messages.
//!
//! ```no_run
//! fn main() -> rankpool::ExitCode {
//!     rankpool::launch(|pool| {
//!         let squares: Vec<u64> = pool.map(|x: u64| x * x, 0..100).collect::<Result<_, _>>()?;
//!         println!("{squares:?}");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Start with [`launch()`] and [`Pool`], and read the [guide].
//!
//! # Cargo features
//!
//! | feature | |
//! |---|---|
//! | `mpi` (default) | ranks as MPI processes; the build needs an MPI. Without it ranks are threads of one process: [`Launch::local`] |
//! | `json` (in `program`) | [`Json`], for types that the binary form cannot carry |
//! | `program` (default) | the program `rankpool`; `kernels`, `Summary`, and progress as a bar instead of lines |
//!
//! `default-features = false` is the pool alone, on threads: enough for a program's tests.
//!
//! # Architecture
//!
//! ```text
//! driver thread on rank 0                   rank 0 main thread                  every rank
//! inputs ─ pool (encode blocks) ─channel─▶ master ─ Event ▶ schedule
//!                                             ◀ Action ─┘
//!                                          master ─ wire ─ transport ─────────▶ rank ─▶ rayon threads
//! outputs ◀ pool (decode, order) ◀─channel─ master ◀────── one message per chunk, or fewer ── rank
//!                                             └─▶ board ─▶ progress, Pool::stats, summary, listeners
//! ```
//!
//! The batch program is a driver. A job that is a process is run by a function that starts it:
//!
//! ```text
//! driver thread on rank 0                                    compute thread of a rank     spawn helper
//! input ─ record ─▶ batch (ledger) ─ attempt ─▶ JobStream ─▶ batch::runners ─▶ process
//! output, job log ◀─ sinks ◀─ drive ◀─ result ◀─────────────────────┘ (long output in pieces)
//! ```
//!
//! A Python script (`rankpool python`) is the client of a batch: what it asks for is the source of jobs, and it takes the results. Its
//! functions and values are pickles, which nothing between script and worker reads:
//!
//! ```text
//! script ─ socket ─▶ batch::client ─▶ the same driver ─▶ batch::runners::call ─▶ process::calls ─ socket ─▶ worker
//!     ▲                                                                                                      │
//!     └── socket ─── batch::client ◀── sinks ◀── drive ◀─────────── result ──────────────────────────────────┘
//! ```
//!
//! | room | decides |
//! |---|---|
//! | `cli` | the command line of the batch program: options, help texts, subcommands |
//! | `internals` | nothing: the benches reach private modules by it |
//! | `batch` | which attempts at jobs are made, and where each result goes |
//! | `bench` | what the pool costs where it runs, and what limits work |
//! | `kernels` | the built-in functions |
//! | `launch` | how a run starts and ends: transport, threads, exit code |
//! | `pool` | the driver's side: maps, handles; encoding, decoding, order |
//! | `report` | progress while a run goes on, the summary at its end, reports |
//! | `chart` | how figures become pictures |
//! | `process` | how processes are started, watched and ended; how Python answers; the package `rankpool` for scripts |
//! | `template` | what a record makes of a command: text only |
//! | `journal` | the job log: how each job ended, and where its output is |
//! | `input` | where records come from, and what is wrong with them |
//! | `output` | in which order, where to and in how much memory output goes |
//! | `engine` | what makes ranks compute |
//! | `console` | what people read: lines on standard error and what they may contain, numbers with their units |
//!
//! | in `engine` | decides |
//! |---|---|
//! | `schedule` | which rank runs which jobs next; pure: no clock, no I/O, no payloads |
//! | `master` | rank 0's loop, the only place that carries out the scheduler's actions |
//! | `rank` | a rank's loop and threads: runs chunks, sends results |
//! | `placement` | the ranks' hosts, CPU masks, threads, launchers |
//! | `limits` | every time limit: how long the parts of a run wait for each other |
//! | `transport` | how bytes get from the master to a rank and back: MPI, or threads of one process |
//! | `wire` | the encoding of messages and values |
//! | `memory` | memory for large values, in large pages |
//! | `func` | how a function crosses ranks; `json`: values that do so as JSON |
//! | `exchange` | what the driver's threads and the master tell each other; `error`: what they say of jobs |
//! | `board` | the counters of a run, written on rank 0 and read by any thread; `stats`: a reading of them |
//! | `stopwatch` | the useful time of a chunk: that in the function of its jobs |
//! | `catch`, `stop` | how other people's code runs without ending ours; whether a signal asked for the end |
//!
//! [`architecture`] has a sentence for every file.
//!
//! Invariants: the main thread of every rank owns MPI and computes nothing. The master's work for a chunk does not depend on
//! the number of jobs in it. Sends never block. Waiting sleeps. Every job settles exactly once.
//!
//! Words: a *job* is one function applied to one input; a *chunk* is a run of consecutive jobs that travels as one
//! message; a *rank* is one MPI process; the *master* is rank 0's loop; the *rank side* is what computes on
//! a rank; the *driver* is the user's closure on rank 0; a *record* is one line or row of input, an *entry* is
//! one line of the job log (`--records`); a *worker process* is a program that stays and answers records; a *slot* is a
//! compute thread, counted over a host; a *handle* is the future of one job; a job is *settled* when its final outcome is
//! known; the *allocation* is the set of nodes that Slurm or PBS granted.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]
// Everything that people see goes through `console` and `output`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(
    not(feature = "program"),
    expect(dead_code, unused_imports, reason = "what the program alone asks of the pool is built without it, too")
)]

#[doc = include_str!("architecture.md")]
pub mod architecture {}
#[cfg(feature = "program")]
mod batch;
#[cfg(feature = "program")]
mod bench;
#[cfg(feature = "program")]
mod chart;
#[cfg(feature = "program")]
#[doc(hidden)]
pub mod cli;
mod console;
#[doc(hidden)]
pub mod engine;
pub mod guide;
#[cfg(feature = "program")]
mod input;
#[cfg(feature = "program")]
#[doc(hidden)]
pub mod internals;
#[cfg(feature = "program")]
mod journal;
#[cfg(feature = "program")]
pub mod kernels;
mod launch;
#[cfg(feature = "program")]
mod output;
mod pool;
#[cfg(feature = "program")]
mod process;
mod report;
#[cfg(feature = "program")]
mod template;

#[cfg(feature = "program")]
pub use batch::{BatchReport, CommandBatch};
pub use engine::board::{Listener, Notice};
pub use engine::error::{JobError, JobErrorKind};
pub use engine::func::{CrossesRanks, StarFunction, Value};
#[cfg(feature = "json")]
pub use engine::json::Json;
pub use engine::placement::{Rank, RankFacts};
pub use engine::rank::{CurrentJob, current_job};
pub use engine::schedule::RankId;
pub use engine::stats::{RankStats, Stats};
pub use engine::transport::TransportInfo;
pub use launch::{DriverResult, ExitCode, Launch, is_driver, launch, launch_value};
pub use pool::{
    AsCompleted, ByRef, ByRefs, Input, JobHandle, Map, Pool, Shared, Waited, as_completed, wait_all, wait_any,
    wait_failed,
};
pub use report::Progress;
#[cfg(feature = "program")]
pub use report::Summary;

/// The README's program is run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
