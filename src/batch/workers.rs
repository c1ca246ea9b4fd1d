//! `rankpool map` on a rank: processes that stay, one for each compute thread.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::attempt::{Attempt, Outcome, Run, Trouble, has_failed};
use super::command::omp_threads;
use super::doubts::{self, Room, Token};
use crate::engine::func::{ChunkJobs, ChunkServer};
use crate::engine::rank;
use crate::journal::Status;
use crate::process::program::{Program, resolve};
use crate::process::python::PythonCall;
use crate::process::room;
use crate::process::worker::{
    Answer, Ended, JobHead, Jobs, Options, Protocol, StartFailure, Worker, WorkerFailure, spares,
};

/// What all workers of a `rankpool map` have in common. It travels once to each rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerPlan {
    pub program: WorkerProgram,
    pub cwd: Option<String>,
    pub env: Vec<(String, String)>,
    /// CPUs for each job, if they were asked for.
    pub job_cpus: Option<NonZeroU32>,
    pub timeout: Option<Duration>,
    pub kill_after: Duration,
    pub max_jobs: Option<NonZeroU64>,
    /// Each answer says which record it is for.
    pub ids: bool,
    /// Under which the driver asks, at the end, how the workers have ended.
    pub token: Option<Token>,
}

/// What the workers are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WorkerProgram {
    /// A program and its arguments.
    Command(Vec<String>),
    Python(PythonCall),
}

impl WorkerPlan {
    /// Starts so many interpreters that will be needed later, before it is known whose they are.
    pub(crate) fn prepare(&self, workers: u32) {
        if let WorkerProgram::Python(call) = &self.program {
            spares::prepare(&self.launch(), &call.preamble(), workers);
        }
    }

    /// Lets those interpreters become the workers of these slots, which are known now.
    pub(crate) fn assign(&self, rank: u32, slots: Range<u32>) {
        if let WorkerProgram::Python(call) = &self.program {
            let launch = self.launch();
            slots.for_each(|slot| spares::greet(&launch, call.greeting(rank, slot + 1)));
        }
    }

    /// Whether there is what the workers are made of, on this host.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        let cwd = self.cwd.as_deref().map(Path::new);
        match &self.program {
            WorkerProgram::Python(call) => call.check(cwd),
            WorkerProgram::Command(words) => resolve(words.first().map_or("", String::as_str), cwd).map(drop),
        }
    }

    /// Whether the program works; it is run for that.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn try_out(&self) -> Result<(), String> {
        match &self.program {
            WorkerProgram::Python(call) => call.check_interpreter(&self.launch()).map(drop),
            WorkerProgram::Command(_) => Ok(()),
        }
    }

    /// Whether a worker of this slot can be had: one is made ready, as far as it does not take too long.
    ///
    /// # Errors
    /// Why not, in words: the import, or the setup.
    pub(crate) fn start_up(&self, rank: u32, slot: u32, deadline: Instant) -> Result<(), String> {
        let WorkerProgram::Python(call) = &self.program else { return Ok(()) };
        let greeting = call.greeting(rank, slot + 1);
        spares::try_out(&self.launch(), &call.preamble(), &greeting, &call.target, deadline).map_err(in_full)
    }

    /// What is started.
    fn launch(&self) -> Program {
        let mut launch = match &self.program {
            WorkerProgram::Python(call) => call.program(),
            WorkerProgram::Command(words) => {
                let (program, args) = words
                    .split_first()
                    .map_or((String::new(), Vec::new()), |(program, args)| (program.clone(), args.to_vec()));
                Program { name: program, args, ..Program::default() }
            }
        };
        launch.cwd = self.cwd.as_ref().map(PathBuf::from);
        launch.env.extend(self.job_cpus.and_then(|cpus| omp_threads(cpus.get())));
        launch.env.extend(self.env.iter().cloned());
        launch
    }
}

/// The workers of a rank. A thread that has a chunk takes that of its slot, or starts one: what a worker was told of its slot stays
/// true, and no two that run at the same time were told the same.
pub(crate) struct Workers {
    plan: WorkerPlan,
    room: Arc<Room>,
}

/// Where the workers of all ranks of this process are.
static ROOMS: Mutex<Vec<Weak<Room>>> = Mutex::new(Vec::new());

/// Ends a worker that has nothing to do, if there is one.
fn make_room() {
    let all: Vec<_> = ROOMS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    if let Some(mut unused) = all.iter().find_map(|room| room.take_idle()) {
        unused.close();
    }
}

/// What travels for a record: its JSON text.
pub(crate) type Json = ByteBuf;

impl ChunkServer for Workers {
    type Context = WorkerPlan;
    type Input = Attempt<Json>;
    type Output = Outcome;

    fn new(plan: WorkerPlan) -> Self {
        let room = doubts::open(plan.token);
        let mut all = ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|room| room.strong_count() > 0);
        all.push(Arc::downgrade(&room));
        Workers { plan, room }
    }

    /// Has the jobs of a chunk answered.
    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, Attempt<Json>, Outcome>) {
        let (rank, slot) = rank::current_job().map_or((0, 0), |job| (job.rank, job.slot + 1));
        let mut worker = self.room.enter(slot).unwrap_or_else(|| self.start(rank, slot));
        let room = Some(&*self.room).filter(|_| self.plan.token.is_some());
        let mut desk = Desk { jobs, taken: Vec::new(), answered: 0, rank, slot, room };
        match worker.answer(&mut desk) {
            // What it takes is wanted by another.
            Ok(_) if room::is_wanted() => {
                worker.close();
                self.room.leave(slot, None);
            }
            Ok(_) => self.room.leave(slot, Some(worker)),
            // The worker still holds records of this chunk, so it must not see another one.
            Err(failure) => {
                let message = in_full(failure);
                desk.fail_the_rest(&message);
                self.room.leave(slot, None);
                rank::abort_run(message);
            }
        }
    }
}

impl Workers {
    fn start(&self, rank: u32, slot: u32) -> Worker {
        let plan = &self.plan;
        let mut launch = plan.launch();
        let mut options = match &plan.program {
            WorkerProgram::Python(call) => Options {
                preamble: call.preamble(),
                greeting: call.greeting(rank, slot),
                ..Options::new(&call.target, call.protocol())
            },
            WorkerProgram::Command(_) => {
                let own = [("RANKPOOL_RANK", rank), ("RANKPOOL_SLOT", slot)];
                launch.env.splice(0..0, own.map(|(name, value)| (name.to_string(), value.to_string())));
                let protocol = if plan.ids { Protocol::Numbered } else { Protocol::Lines };
                Options::new(&launch.name, protocol)
            }
        };
        let room = self.room.clone();
        options.verdict = Arc::new(move |verdict| room.judge(rank, slot, verdict));
        (options.timeout, options.kill_after, options.max_jobs) = (plan.timeout, plan.kill_after, plan.max_jobs);
        options.make_room = make_room;
        let cancelled = rank::cancellation().map(|cancellation| cancellation.watched().clone());
        Worker::new(launch, options, cancelled)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// The jobs of a chunk as a worker sees them.
struct Desk<'d, 'j, 'c> {
    jobs: &'d mut ChunkJobs<'j, 'c, Attempt<Json>, Outcome>,
    /// The attempts that were taken, in order.
    taken: Vec<Taken>,
    answered: usize,
    rank: u32,
    slot: u32,
    /// Where answers are noted whose end is asked for.
    room: Option<&'d Room>,
}

/// What is kept of an attempt.
#[derive(Clone, Copy)]
struct Taken {
    index: u64,
    number: u64,
}

impl Jobs for Desk<'_, '_, '_> {
    fn next(&mut self, json: &mut Vec<u8>) -> Option<JobHead> {
        let Attempt { index, number, attempt, seed, work, .. } = self.jobs.pull()?;
        self.taken.push(Taken { index, number });
        *json = work.into_vec();
        Some(JobHead { number, attempt, seed })
    }

    fn done(&mut self, answer: Answer<'_>) {
        let Answer { start, duration, result, .. } = answer;
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = Run {
            rank: self.rank,
            slot: self.slot,
            start: u64::try_from(start.as_micros()).unwrap_or(u64::MAX),
            seconds: duration.as_secs_f64(),
            usage: None,
        };
        let (status, out, trouble) = match result {
            Ok(json) => {
                let mut line = Vec::with_capacity(json.len() + 1);
                line.extend_from_slice(json.as_bytes());
                line.push(b'\n');
                (Status::Ok, line, None)
            }
            Err(failure) => {
                let (status, trouble) = judge(failure);
                (status, Vec::new(), Some(Box::new(trouble)))
            }
        };
        self.answer(status, out, trouble, Some(run));
    }
}

impl Desk<'_, '_, '_> {
    fn answer(&mut self, status: Status, out: Vec<u8>, trouble: Option<Box<Trouble>>, run: Option<Run>) {
        let Taken { index, number } = self.taken[self.answered];
        self.answered += 1;
        if let Some(room) = self.room.filter(|_| status == Status::Ok) {
            room.note(self.slot, number);
        }
        let output_bytes = out.len() as u64;
        let (out, err) = (ByteBuf::from(out), ByteBuf::new());
        if has_failed(status) {
            rank::mark_bad();
        }
        self.jobs.answer(&Outcome { index, status, trouble, run, out, err, output_bytes });
    }

    /// Nobody will answer: the run ends, too.
    fn fail_the_rest(&mut self, message: &str) {
        while self.answered < self.taken.len() || self.next(&mut Vec::new()).is_some() {
            let trouble = Trouble { kind: "spawn".into(), message: message.into(), ..Trouble::default() };
            self.answer(Status::Spawn, Vec::new(), Some(Box::new(trouble)), None);
        }
    }
}

/// Why there is no worker, with its traceback, unless that says nothing more.
fn in_full(failure: StartFailure) -> String {
    let StartFailure { message, traceback } = failure;
    match traceback.as_deref().map(str::trim_end) {
        Some(traceback) if traceback != message => format!("{message}\n{traceback}"),
        _ => message,
    }
}

/// What a worker's failure means for the job.
fn judge(failure: WorkerFailure) -> (Status, Trouble) {
    let WorkerFailure { kind, message, traceback, ended } = failure;
    let (exit, signal) = match &ended {
        Some(Ended::Code(code)) => (Some(*code), None),
        Some(Ended::Signal(signal)) => (None, Some(*signal)),
        Some(Ended::Unknown(_) | Ended::Scarce(_) | Ended::WithHelper { .. }) | None => (None, None),
    };
    let status = match &*kind {
        _ if matches!(ended, Some(Ended::WithHelper { .. })) && kind == "lost" => Status::Lost,
        "timeout" => Status::Timeout,
        "cancelled" => Status::Cancelled,
        "crash" if signal.is_some() => Status::Signal,
        _ => Status::Failed,
    };
    (status, Trouble { kind: kind.into_owned(), message, traceback, exit, signal })
}
