//! A batch: jobs from their records to their output, with retries, a job log, and a report at the end.
//!
//! ```text
//! source ─▶ ledger ─ attempt ─▶ JobStream ═▶ ranks ─▶ runner
//!             ▲ │                                        │
//!       event │ └ order ─▶ sinks: output → job log       │
//!             └─────────── drive ◀═══════════════════════┘ result, pieces of output
//! ```
//!
//! Built-in functions, commands and workers differ in their runner only. Nothing here knows a command line: a program that uses
//! the library runs batches of commands with [`CommandBatch`].
//!
//! | file | decides |
//! |---|---|
//! | `source` | what the jobs are, read without waiting for them |
//! | `ledger` | which attempt is next, and what happens to each job; pure, with simulated worlds in `sim` |
//! | `deadline` | when a run that has a time limit stops |
//! | `policy` | when jobs are run again, when a batch is stopped; all time limits |
//! | `drive` | the loop that carries out the ledger's orders |
//! | `sinks` | when a job's output and its log entry are handed on; `handover` writes them: output first, then the entry |
//! | `written` | that no two outputs are one file |
//! | `recorder` | which jobs the journal has, and what is written to it |
//! | `earlier` | which files of an earlier run this run continues |
//! | `job` | the messages between driver and ranks: attempts and their results |
//! | `client` | what a script asks for, and how it gets the results |
//! | `about` | what the journal has of the run itself, for reports |
//! | `runners` | the ranks' half |
//! | `report` | the exit code and the messages at the end; `ending`: which end of a batch gives which |
//! | `commands` | the batch of commands for programs that use the library |

mod about;
mod client;
mod commands;
mod deadline;
mod drive;
mod earlier;
mod ending;
mod handover;
mod job;
pub(crate) mod ledger;
mod policy;
mod recorder;
mod report;
pub(crate) mod runners;
#[cfg(test)]
mod sim;
mod sinks;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod written;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::console;
use crate::engine::board::Settled;
use crate::engine::environment::environment;
use crate::engine::stop;
use crate::journal::{Journal, JournalError, JournalOptions, Lookup, Spec, Status};
use crate::output::{JsonLines, Target, Writer, real_path};
use crate::pool::{Pacer, Pool};
use crate::report::{LOADS, Live, LiveOptions, Names, Observed, Progress, Trace};

pub(crate) use client::Client;
pub use commands::{BatchReport, CommandBatch};
pub(crate) use deadline::Ends;
pub(crate) use job::{Attempt, AttemptResult, Cause, Run};
pub(crate) use policy::{LEFT_BEHIND, MaxFailures, RetryPolicy, StopPolicy, TIME_LIMIT_QUESTION};
pub(crate) use report::Report;
pub(crate) use source::{Jobs, NoThread};

use deadline::Deadline;
use drive::{Driver, Parts, PoolRun, TimeLimit};
use earlier::Earlier;
use ledger::Ledger;
use recorder::Recorder;
use runners::Runner;
use sinks::{Lines, Sinks};
use source::{Keep, Source};

/// Jobs that are settled behind the first unsettled one take up to 16 bytes each in the ledger and 40 in the sinks.
const MOST_BEHIND: u64 = 1 << 22;

/// The options of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// The name of the batch in messages and in the summary.
    pub name: String,
    pub retry: RetryPolicy,
    pub stop: StopPolicy,
    /// Whether a job that was killed for lack of memory is run again with fewer others beside it, besides its retries.
    pub gives_room: bool,
    /// The time that running jobs have after a request to stop.
    pub grace: Duration,
    /// The time that processes have to end after TERM, before KILL.
    pub kill_after: Duration,
    pub output: Target,
    /// The target of the jobs' standard error.
    pub stderr: Target,
    pub job_log: Option<PathBuf>,
    /// The job log of an earlier run, whose successful jobs are not run again.
    pub only_failed: Option<PathBuf>,
    /// The journal, in which each job is settled durably, and by which a run is continued.
    pub journal: Option<JournalOptions>,
    /// What all jobs have in common, as the user has given it. A journal of other jobs is refused.
    pub spec: Spec,
    /// Whether the result of a job may depend on its number.
    pub is_numbered: bool,
    pub summary: Option<Target>,
    /// Whether output is written as jobs end, and not in the order of their records.
    pub unordered: bool,
    /// Jobs in a chunk; 0 for automatic.
    pub chunk: u32,
    /// The number of jobs under way; 0 for automatic.
    pub window: usize,
    pub seed: u64,
    pub progress: Progress,
    /// What the journal has of this run, for reports: the command line, and when it began.
    pub about: Spec,
    pub live: LiveOptions,
    /// The file for the trace.
    pub trace: Option<Target>,
}

impl Options {
    /// Returns the defaults of `rankpool run` for a batch of this name, without a display of progress.
    pub(crate) fn new(name: &str) -> Self {
        Options {
            name: name.into(),
            retry: RetryPolicy {
                retries: 0,
                on: vec![Status::Failed, Status::Timeout, Status::Signal, Status::Lost],
                pause: Duration::from_secs(1),
            },
            stop: StopPolicy::default(),
            gives_room: true,
            grace: policy::GRACE,
            kill_after: Duration::from_secs(5),
            output: Target::Stdout,
            stderr: Target::Stderr,
            job_log: None,
            only_failed: None,
            journal: None,
            spec: Spec::new(),
            is_numbered: false,
            summary: None,
            unordered: false,
            chunk: 0,
            window: 0,
            seed: 0,
            progress: Progress::Off,
            about: Spec::new(),
            live: LiveOptions::default(),
            trace: None,
        }
    }
}

/// Jobs, their runner, and the options.
pub(crate) struct Batch<R: Runner> {
    pub options: Options,
    pub jobs: Jobs<R::Work>,
    pub runner: R,
    /// The script that asks for the jobs, if one does, and takes their results.
    pub client: Option<Client>,
}

impl<R: Runner> Batch<R> {
    /// Runs the batch to its end.
    ///
    /// # Errors
    /// If a file is bad and so no job was started; [`NoThread`].
    pub(crate) fn run(&self, pool: &Pool) -> Result<Report, Box<dyn Error>> {
        self.run_until(pool, None)
    }

    /// Runs the batch to its end, or stops it in time before its limit.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub(crate) fn run_until(&self, pool: &Pool, ends: Option<Ends>) -> Result<Report, Box<dyn Error>> {
        let Options { retry, stop, grace, kill_after, job_log, unordered, .. } = &self.options;
        let has_stderr = self.runner.lines() != Lines::OneForEach { echo_errors: false };
        written::refuse_shared(&written::written_files(&self.options, has_stderr))?;
        let earlier = Earlier::read(&self.options)?;
        let total = self.jobs.count(earlier.done.as_ref())?;
        let settled = Arc::new(Settled::default());
        let names = Arc::new(Names::default());
        let live = self.live_view(pool, total, &settled, &names)?;
        let trace = self.options.trace.as_ref().map(Writer::open).transpose()?;
        let summary = self.options.summary.as_ref().map(JsonLines::open).transpose()?;
        let token = self.runner.token();
        let hosts: Vec<_> = pool.ranks().iter().map(|rank| rank.facts.host.clone()).collect();
        let mut journal = self.open_journal().map_err(|error| error.with_options())?;
        journal.as_mut().map_or(Ok(()), |journal| journal.add_ranks(&about::ranks(&self.options.about, pool)))?;
        let (handover, done) = earlier.open_outputs(&self.options, journal.as_ref(), token.is_some())?;
        let keep = self.keep();
        let is_resumable = journal.is_some();
        let recorder = journal.map(Recorder::new);
        let traced = trace.is_some().then(|| Trace::new(&self.options.name, hosts.clone()));
        let mut sinks = Sinks::new(self.runner.lines(), *unordered, recorder, handover, hosts);
        let (planned, bad) = self.jobs.open(done, keep);
        let source = if self.jobs.is_stream() { Source::piped(planned)? } else { Source::ready(planned) };
        if let Some(client) = &self.client {
            sinks.set_client(client.sink(pool, is_resumable));
        }
        let (name, board) = (&self.options.name, pool.board().clone());
        sinks.set_progress(self.options.progress.start(name, total, settled.clone(), board));
        let run = PoolRun { pool, kill_after: *kill_after };
        run.grant(*grace);
        let stop_requested = || pool.stop_requested();
        let ledger = Ledger::new(retry.clone(), *stop, self.options.seed, total).giving_room(self.options.gives_room);
        let time_limit = ends.map(|ends| TimeLimit {
            deadline: Deadline::new(ends.at.saturating_duration_since(Instant::now()), *grace, *kill_after),
            source: ends.source,
            grace: *grace,
            of: &run,
        });
        let driver = Driver::new(Parts {
            runner: &self.runner,
            source,
            ledger: if is_resumable { ledger.resumable() } else { ledger },
            sinks: &mut sinks,
            stop_requested: &stop_requested,
            settled: &settled,
            grace: *grace,
            names: live.as_ref().map(|_| (pool.board().as_ref(), names.as_ref())),
            traced,
            deadly_launcher: stop::has_deadly_launcher(environment),
            time_limit,
            most_behind: MOST_BEHIND,
        });
        let chunk = self.options.chunk;
        let pacer = Pacer::new(self.options.window as u64, pool.threads()).whole_chunks(self.runner.chunk(chunk));
        let mut driven = driver.run(self.runner.open(pool, chunk, job_log.is_some() || trace.is_some()), pacer);
        let traced = trace.zip(driven.traced.take());
        let mut report = ending::end(driven, sinks, pool, token, *stop);
        if !report.is_silent() {
            if bad.count() > 0 {
                report.add(&bad);
            }
            report.add_outcome(&self.options, pool.stats(), summary);
        }
        if let Some((file, trace)) = traced {
            report.add_trace(file, &trace);
        }
        if let Some(live) = live {
            live.end(Some(report.code() as u8));
        }
        Ok(report)
    }

    /// Returns what is kept of the records.
    fn keep(&self) -> Keep {
        let Options { job_log, journal, trace, live, is_numbered, .. } = &self.options;
        let wants_input = journal.is_some() || live.is_wanted();
        Keep {
            input: job_log.is_some() || trace.is_some() || wants_input && !self.runner.has_plain_results(),
            content: journal.is_some(),
            numbered: *is_numbered,
        }
    }

    /// Starts the live view, if it is wanted.
    ///
    /// # Errors
    /// A sentence, if its file cannot be written.
    fn live_view(
        &self,
        pool: &Pool,
        total: Option<u64>,
        settled: &Arc<Settled>,
        names: &Arc<Names>,
    ) -> Result<Option<Live>, String> {
        let options = &self.options.live;
        if !options.is_wanted() {
            return Ok(None);
        }
        let (settled, board, names) = (settled.clone(), pool.board().clone(), names.clone());
        let live = Live::start(options, Observed { name: self.options.name.clone(), total, settled, board, names })?;
        pool.report_loads(LOADS);
        Ok(Some(live))
    }

    /// Returns what all jobs have in common.
    fn spec(&self) -> Spec {
        let mut spec = vec![("batch".to_string(), self.options.name.clone())];
        spec.extend(self.options.spec.iter().cloned());
        spec.extend(self.runner.parameters().map(|parameters| ("parameters".to_string(), parameters)));
        spec.push(("seed".into(), self.options.seed.to_string()));
        spec
    }

    /// Opens the journal, and shows what was found in it.
    fn open_journal(&self) -> Result<Option<Journal>, JournalError> {
        let Some(options) = &self.options.journal else { return Ok(None) };
        let spec = self.spec();
        let output = match &self.options.output {
            Target::File(path) => Some(real_path(path)),
            Target::Stdout | Target::Stderr => None,
        };
        let journal = Journal::open(options, &spec, output.as_deref())?;
        journal.messages().iter().for_each(console::eprint_error);
        Ok(Some(journal))
    }

    /// Calls `line` with [`Runner::show`] of each job until it returns false, and starts nothing. Returns a message about bad
    /// records that were skipped.
    ///
    /// # Errors
    /// If a record or a file is bad.
    pub(crate) fn show(&self, mut line: impl FnMut(&[u8]) -> bool) -> Result<Option<String>, Box<dyn Error>> {
        let (done, _) = earlier::read_log(&self.options)?;
        let journal = self.options.journal.as_ref().map(|options| Lookup::preview(options, &self.spec())).transpose();
        let mut journal = journal.map_err(|error| error.with_options())?.flatten();
        let keep = Keep { input: false, content: journal.is_some(), numbered: self.options.is_numbered };
        let (planned, bad) = self.jobs.open(done, keep);
        for planned in planned {
            let planned = planned?;
            if let Some(journal) = &mut journal {
                if journal.is_settled(planned.content, planned.number)? {
                    continue;
                }
            }
            if !line(&self.runner.show(planned.number, &planned.work)) {
                return Ok(None);
            }
        }
        Ok((bad.count() > 0).then(|| bad.to_string()))
    }
}
