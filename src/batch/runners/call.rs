//! Sends calls of a Python script to worker processes: one for each compute thread, which stays and answers one call after the other.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Runner;
use super::status_of_process;
use crate::batch::job::{Attempt, AttemptResult, Cause, Run, has_failed};
use crate::batch::policy::FIRST_WORKER_LIMIT;
use crate::batch::sinks::Lines;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::{ChunkJobs, ChunkServer};
use crate::engine::rank;
use crate::journal::Status;
use crate::launch::Launch;
use crate::pool::{JobStream, Pool, Shared};
use crate::process::calls::passing::{self, Passing};
use crate::process::calls::payload::Payload;
use crate::process::calls::{AnswerEnd, Blob, CallAnswer, CallFailure, CallFeed, CallRequest, CallResult, CallWorker};
use crate::process::forked;
use crate::process::program::Program;
use crate::process::python::package;
use crate::process::worker::WorkerEnd;

/// The statuses of results that no worker has sent. A worker sends 0 for a value, 1 for an exception, 6 for one of the initializer.
pub(crate) const DIED: u8 = 2;
pub(crate) const TIME_LIMIT: u8 = 3;
pub(crate) const LOST: u8 = 4;
pub(crate) const CANCELLED: u8 = 5;
pub(crate) const NOT_STARTED: u8 = 7;

/// The `kind` of the cause of a call that has raised an exception, which is in its output.
pub(crate) const RAISED: &str = "exception";

/// A call: one or more jobs of one function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    pub session: Shared<Blob>,
    pub function: Shared<Blob>,
    /// The shared objects that it uses.
    pub uses: Vec<Shared<Blob>>,
    pub flags: u8,
    /// The number of jobs.
    pub count: u32,
    pub time_limit: Option<Duration>,
    /// Whether it may be run again after a failure.
    pub may_repeat: bool,
    pub payload: Payload,
}

/// Sends each call to a worker.
#[derive(Debug, Clone)]
pub(crate) struct CallRunner {
    pub plan: CallPlan,
}

/// What all workers of a run have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CallPlan {
    /// `--python-exe`.
    pub exe: Option<String>,
    /// The modules that are imported once for all workers of a host, and folders with modules.
    pub preload: Vec<String>,
    /// Whether the run is refused if one cannot be imported.
    pub must_import: bool,
    /// The time between TERM and KILL, and for a worker to end by itself.
    pub kill_after: Duration,
    /// Whether all calls may be run again, after a failure or the loss of a rank.
    pub may_repeat: bool,
    pub passing: Passing,
}

impl Runner for CallRunner {
    type Work = Call;
    type Input = Attempt<Call>;
    type Output = AttemptResult;

    fn lines(&self) -> Lines {
        Lines::OneForEach { echo_errors: false }
    }

    /// Starts the workers while MPI starts.
    fn prepare<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        for (rank, slots) in launch.expected_slots() {
            self.plan.prestart(rank, slots);
        }
        if self.plan.must_import { launch.check(|| self.plan.wait_for_import()) } else { launch }
    }

    fn open(&self, pool: &Pool, chunk: u32, _: bool) -> Result<JobStream<Self::Input, AttemptResult>, Failure> {
        pool.stream_of_chunks::<Workers>(&self.plan, chunk)
    }

    fn input(&self, attempt: Attempt<Call>) -> Attempt<Call> {
        attempt
    }

    fn status(&self, kind: JobErrorKind) -> (Status, String) {
        status_of_process(kind)
    }

    fn show(&self, _: u64, call: &Call) -> Vec<u8> {
        format!("{} job(s) of function {}\n", call.count, call.function.number).into_bytes()
    }

    fn end(&self) {
        // They have run nothing of the user's: they are killed, and not waited for.
        prestarted().clear();
        forked::end();
    }
}

/// Workers that were started before there was a call for them, with their rank and slot.
static PRESTARTED: Mutex<Vec<((u32, u32), CallWorker)>> = Mutex::new(Vec::new());

fn prestarted() -> MutexGuard<'static, Vec<((u32, u32), CallWorker)>> {
    PRESTARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends workers: closes all their sockets, then waits for their ends.
fn end_all<'w>(mut workers: impl Iterator<Item = &'w mut CallWorker>) {
    let mut closing: Vec<_> = workers.by_ref().collect();
    closing.iter_mut().for_each(|worker| worker.close());
    closing.into_iter().for_each(CallWorker::wait_for_end);
}

impl CallPlan {
    /// Starts the workers of these slots, counted from 0.
    fn prestart(&self, rank: u32, slots: Range<u32>) {
        for slot in slots {
            let mut worker = self.worker(rank, slot + 1);
            worker.prestart();
            prestarted().push(((rank, slot + 1), worker));
        }
    }

    /// Waits until the modules of `--preload` are imported. If workers cannot be forked, those that were asked for are started
    /// plainly.
    fn wait_for_import(&self) -> Result<(), String> {
        let program = self.program();
        if forked::check(&program, Instant::now() + FIRST_WORKER_LIMIT)? {
            return Ok(());
        }
        let workers = std::mem::take(&mut *prestarted());
        let slots: Vec<_> = workers.iter().map(|(slot, _)| *slot).collect();
        drop(workers);
        slots.into_iter().for_each(|(rank, slot)| self.prestart(rank, slot - 1..slot));
        Ok(())
    }

    fn program(&self) -> Program {
        Program { preload: self.preload.clone(), ..package::worker(self.exe.as_deref()) }
    }

    fn worker(&self, rank: u32, slot: u32) -> CallWorker {
        let mut program = self.program();
        let own = [("RANKPOOL_RANK", rank), ("RANKPOOL_SLOT", slot)];
        program.env.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
        CallWorker::new(program, self.kill_after)
    }
}

/// The workers of a rank, by their slots.
pub(crate) struct Workers {
    plan: CallPlan,
    idle: Mutex<HashMap<u32, CallWorker>>,
}

impl Workers {
    fn idle(&self) -> MutexGuard<'_, HashMap<u32, CallWorker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the worker of a slot, or makes one.
    fn take(&self, rank: u32, slot: u32) -> CallWorker {
        if let Some(worker) = self.idle().remove(&slot) {
            return worker;
        }
        let mut prestarted = prestarted();
        let found = prestarted.iter().position(|(owner, _)| *owner == (rank, slot));
        let found = found.map(|at| prestarted.swap_remove(at).1);
        drop(prestarted);
        found.unwrap_or_else(|| self.plan.worker(rank, slot))
    }
}

impl ChunkServer for Workers {
    type Context = CallPlan;
    type Input = Attempt<Call>;
    type Output = AttemptResult;

    fn new(plan: CallPlan) -> Self {
        plan.passing.begin();
        Workers { plan, idle: Mutex::default() }
    }

    /// Has the worker of the thread's slot answer the calls of a chunk.
    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, Attempt<Call>, AttemptResult>) {
        let (rank, slot) = rank::current_job().map_or((0, 0), |job| (job.rank, job.slot + 1));
        let cancelled = rank::cancellation().map(|cancellation| cancellation.watched().clone());
        let mut worker = self.take(rank, slot);
        let mut feed = ChunkFeed { jobs, rank, slot, may_repeat: self.plan.may_repeat };
        if worker.answer(&mut feed, cancelled.as_deref()) == AnswerEnd::AllAnswered {
            self.idle().insert(slot, worker);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        end_all(self.idle().values_mut());
        passing::close_awaited();
    }
}

/// The calls of a chunk as a worker sees them.
struct ChunkFeed<'d, 'j, 'c> {
    jobs: &'d mut ChunkJobs<'j, 'c, Attempt<Call>, AttemptResult>,
    rank: u32,
    slot: u32,
    may_repeat: bool,
}

impl CallFeed for ChunkFeed<'_, '_, '_> {
    fn next(&mut self) -> Option<CallRequest> {
        let Attempt { number, work, .. } = self.jobs.pull_sharing()?;
        let Call { session, function, uses, flags, count, time_limit, may_repeat, payload } = work;
        Some(CallRequest {
            number,
            session_value: session.number(),
            session: session.into_value(),
            function: function.into_value(),
            uses: uses.into_iter().map(Shared::into_value).collect(),
            flags,
            count,
            time_limit,
            may_repeat: may_repeat || self.may_repeat,
            payload,
        })
    }

    fn pause(&mut self) {
        self.jobs.send_ahead();
    }

    fn give_back(&mut self, calls: Vec<CallRequest>) {
        let count = calls.len();
        // Whoever runs them reads their messages again.
        calls.into_iter().for_each(|call| call.payload.leave_again());
        self.jobs.give_back(count);
    }

    fn has_ended(&self, session_value: u64) -> bool {
        rank::is_forgotten(session_value)
    }

    fn done(&mut self, answer: CallAnswer<'_>) {
        let run = Some(Run::new(self.rank, self.slot, answer.start, answer.duration));
        let result = match answer.outcome {
            Ok(CallResult { status, flags, payload }) => {
                let output_bytes = payload.len() as u64;
                let (out, answer) = (payload.into_payload(), Some((status, flags)));
                let mut result = AttemptResult { out, answer, output_bytes, ..AttemptResult::ok(Vec::new(), run) };
                if status != 0 {
                    result.status = Status::Failed;
                    result.cause = Some(Box::new(Cause::new(RAISED, "the function raised an exception")));
                }
                result
            }
            Err(failure) => {
                let (status, cause) = status_and_cause(&failure);
                AttemptResult::without_output(status, cause, run)
            }
        };
        if has_failed(result.status) {
            rank::mark_failed();
        }
        self.jobs.answer(&result);
    }
}

/// Returns the status and the cause of a call that its worker has not answered.
fn status_and_cause(failure: &CallFailure) -> (Status, Cause) {
    let ended = match failure {
        CallFailure::TimeLimit(limit) => {
            let message = format!("it took longer than its time limit of {} s", limit.as_secs_f64());
            return (Status::Timeout, Cause::new("timeout", message));
        }
        CallFailure::NotStarted(why) => return (Status::Spawn, Cause::new("spawn", why.clone())),
        CallFailure::Cancelled => return (Status::Cancelled, Cause::new("cancelled", "the run was ended")),
        CallFailure::Died(ended) => ended,
    };
    let (exit, signal) = match ended {
        WorkerEnd::Code(code) => (Some(*code), None),
        WorkerEnd::Signal(signal) => (None, Some(*signal)),
        WorkerEnd::OutOfMemory { exit, .. } => (*exit, None),
        WorkerEnd::WithHelper { .. } | WorkerEnd::WithServer | WorkerEnd::Scarce(_) | WorkerEnd::Unknown(_) => {
            (None, None)
        }
    };
    let status = if signal.is_some() { Status::Signal } else { Status::Failed };
    (status, Cause { kind: "crash".into(), message: format!("its worker {ended}"), traceback: None, exit, signal })
}
