//! Sends jobs to worker processes: one for each compute thread, which stays and answers one job after the other.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use signal_hook::consts::SIGKILL;

use super::command::omp_threads;
use super::doubtful::{self, RankWorkers, Token};
use super::stretch::Stretches;
use super::{Runner, check_folder, gate, status_of_process};
use crate::batch::job::{Attempt, AttemptResult, Cause, MEMORY, Room, Run, has_failed};
use crate::batch::policy::{FIRST_WORKER_LIMIT, OUTSIDE_LIMIT};
use crate::batch::sinks::Lines;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::func::{ChunkJobs, ChunkServer};
use crate::engine::rank;
use crate::engine::stop;
use crate::journal::Status;
use crate::launch::{self, Launch};
use crate::pool::{JobStream, Pool};
use crate::process::forked;
use crate::process::pipes::is_readable;
use crate::process::program::{Program, resolve};
use crate::process::python::PythonCall;
use crate::process::room;
use crate::process::worker::{
    Answer, AnswerEnd, JobHead, Options, Protocol, StartFailure, Worker, WorkerEnd, WorkerFailure, WorkerFeed,
    prestarted,
};

/// Sends each job to a worker process.
#[derive(Debug, Clone)]
pub(crate) struct WorkerRunner {
    pub plan: WorkerPlan,
    /// The number of records in one call of the function.
    pub records_per_call: Option<NonZeroU32>,
}

impl Runner for WorkerRunner {
    type Work = Json;
    type Input = Attempt<Json>;
    type Output = AttemptResult;

    fn lines(&self) -> Lines {
        Lines::OneForEach { echo_errors: true }
    }

    /// Starts the workers' interpreters before MPI, and the import of the user's file as soon as a rank knows its slots.
    fn prepare<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        let checked = self.check();
        let expected = launch.expected_slots();
        if checked.is_ok() {
            let workers: u32 = expected.iter().map(|(_, slots)| slots.end - slots.start).sum();
            self.plan.prepare(workers);
        }
        let launch = launch.check(|| {
            checked?;
            self.try_out(expected)
        });
        launch.on_threads(|rank, slots| self.plan.assign(rank, slots))
    }

    /// The records of a call come from one chunk.
    fn chunk(&self, chunk: u32) -> u32 {
        if chunk == 0 { self.records_per_call.map_or(0, NonZeroU32::get) } else { chunk }
    }

    fn open(&self, pool: &Pool, chunk: u32, _: bool) -> Result<JobStream<Self::Input, AttemptResult>, Failure> {
        pool.stream_of_chunks::<Workers>(&self.plan, self.chunk(chunk))
    }

    fn input(&self, attempt: Attempt<Json>) -> Attempt<Json> {
        attempt
    }

    fn status(&self, kind: JobErrorKind) -> (Status, String) {
        status_of_process(kind)
    }

    fn token(&self) -> Option<Token> {
        self.plan.token
    }

    /// Returns the JSON value that the worker would get.
    fn show(&self, _: u64, json: &Json) -> Vec<u8> {
        let mut line = json.to_vec();
        line.push(b'\n');
        line
    }

    fn end(&self) {
        prestarted::kill_all();
        forked::end();
        doubtful::report_uncollected();
    }
}

impl WorkerRunner {
    /// Checks what can be checked before MPI is started.
    fn check(&self) -> Result<(), String> {
        check_folder(self.plan.cwd.as_deref().map(Path::new))?;
        self.plan.check()
    }

    /// Begins the import in all workers. The first rank of each host waits for one worker, to find out before the first job whether
    /// workers can be started.
    fn try_out(&self, expected: Vec<(u32, Range<u32>)>) -> Result<(), String> {
        let deadline = Instant::now() + FIRST_WORKER_LIMIT;
        let is_first = launch::is_first_of_host();
        if is_first {
            self.plan.try_interpreter()?;
        }
        self.plan.wait_for_import(&expected, deadline)?;
        let (rank, slot) =
            expected.iter().find(|(_, slots)| !slots.is_empty()).map_or((0, 0), |(rank, slots)| (*rank, slots.start));
        for (rank, slots) in expected {
            self.plan.assign(rank, slots);
        }
        if is_first { self.plan.wait_for_worker(rank, slot, deadline) } else { Ok(()) }
    }
}

/// The workers' program and its limits, sent once to each rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerPlan {
    pub program: WorkerProgram,
    pub cwd: Option<String>,
    pub env: Vec<(String, String)>,
    /// The number of `--job-cpus`.
    pub job_cpus: Option<NonZeroU32>,
    /// The number of bytes of `--job-mem`, if it is one.
    pub job_mem: Option<u64>,
    pub timeout: Option<Duration>,
    pub kill_after: Duration,
    pub max_jobs: Option<NonZeroU64>,
    /// Whether requests and answers contain the number of the record.
    pub ids: bool,
    /// The token with which the driver checks the answers at the end.
    pub token: Option<Token>,
}

/// The program of the workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WorkerProgram {
    /// A program and its arguments.
    Command(Vec<String>),
    Python(PythonCall),
}

impl WorkerPlan {
    /// Starts `workers` interpreters early, before it is known which slots they are for.
    pub(crate) fn prepare(&self, workers: u32) {
        if let WorkerProgram::Python(call) = &self.program {
            prestarted::start(&self.program(), &call.preamble(), workers);
        }
    }

    /// Waits until the modules of `--preload` are imported. If workers cannot be forked, those that were asked for start plainly.
    fn wait_for_import(&self, expected: &[(u32, Range<u32>)], deadline: Instant) -> Result<(), String> {
        let program = self.program();
        if !program.preload.is_empty() && !forked::check(&program, deadline)? {
            prestarted::kill_all();
            self.prepare(expected.iter().map(|(_, slots)| slots.end - slots.start).sum());
        }
        Ok(())
    }

    /// Makes the interpreters that were started early the workers of these slots.
    pub(crate) fn assign(&self, rank: u32, slots: Range<u32>) {
        if let WorkerProgram::Python(call) = &self.program {
            let program = self.program();
            slots.for_each(|slot| prestarted::assign(&program, call.assignment(rank, slot + 1)));
        }
    }

    /// Checks that the program or the Python file exists on this host.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub(crate) fn check(&self) -> Result<(), String> {
        let cwd = self.cwd.as_deref().map(Path::new);
        match &self.program {
            WorkerProgram::Python(call) => call.check(cwd),
            WorkerProgram::Command(words) => resolve(words.first().map_or("", String::as_str), cwd).map(drop),
        }
    }

    /// Runs the Python interpreter to check that it works.
    ///
    /// # Errors
    /// A sentence that says why it does not.
    pub(crate) fn try_interpreter(&self) -> Result<(), String> {
        match &self.program {
            WorkerProgram::Python(call) => call.check_interpreter(&self.program()).map(drop),
            WorkerProgram::Command(_) => Ok(()),
        }
    }

    /// Waits until the worker of this slot is ready, at most until `deadline`.
    ///
    /// # Errors
    /// The message and traceback of the import or the setup, if one of them fails.
    pub(crate) fn wait_for_worker(&self, rank: u32, slot: u32, deadline: Instant) -> Result<(), String> {
        let WorkerProgram::Python(call) = &self.program else { return Ok(()) };
        let assignment = call.assignment(rank, slot + 1);
        prestarted::wait_until_ready(&self.program(), &call.preamble(), &assignment, &call.target, deadline)
            .map_err(with_traceback)
    }

    /// Returns the program of a worker, without the variables of its slot.
    fn program(&self) -> Program {
        let mut program = match &self.program {
            WorkerProgram::Python(call) => call.program(),
            WorkerProgram::Command(words) => {
                let (program, args) = words
                    .split_first()
                    .map_or((String::new(), Vec::new()), |(program, args)| (program.clone(), args.to_vec()));
                Program { name: program, args, ..Program::default() }
            }
        };
        program.cwd = self.cwd.as_ref().map(PathBuf::from);
        program.env.extend(self.job_cpus.and_then(|cpus| omp_threads(cpus.get())));
        program.env.extend(self.env.iter().cloned());
        program
    }
}

/// The workers of a rank. A thread that serves a chunk takes the worker of its slot or starts one, so `RANKPOOL_SLOT` stays correct
/// in each worker and is unique among those that run.
pub(crate) struct Workers {
    plan: WorkerPlan,
    workers: Arc<RankWorkers>,
}

/// The workers of all ranks of this process.
static ALL_WORKERS: Mutex<Vec<Weak<RankWorkers>>> = Mutex::new(Vec::new());

/// Closes an idle worker, if there is one, so that another process can be started.
fn close_idle_worker() {
    close_one();
}

/// Closes an idle worker. Returns false if there is none.
fn close_one() -> bool {
    let all: Vec<_> =
        ALL_WORKERS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    let unused = all.iter().find_map(|workers| workers.take_idle());
    unused.map(|mut unused| unused.close()).is_some()
}

/// The JSON text of a record.
pub(crate) type Json = ByteBuf;

impl ChunkServer for Workers {
    type Context = WorkerPlan;
    type Input = Attempt<Json>;
    type Output = AttemptResult;

    fn new(plan: WorkerPlan) -> Self {
        let workers = doubtful::register(plan.token);
        let mut all = ALL_WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|workers| workers.strong_count() > 0);
        all.push(Arc::downgrade(&workers));
        Workers { plan, workers }
    }

    /// Has the worker of the thread's slot answer the jobs of a chunk.
    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, Attempt<Json>, AttemptResult>) {
        let (rank, slot) = rank::current_job().map_or((0, 0), |job| (job.rank, job.slot + 1));
        let checked = Some(&*self.workers).filter(|_| self.plan.token.is_some());
        let stretches = Stretches::new();
        let mut feed = ChunkFeed { jobs, taken: Vec::new(), answered: 0, rank, slot, checked, stretches };
        while let Some(room) = feed.stretches.begin(|| feed.jobs.pull()) {
            if !self.serve_stretch(room, &mut feed) {
                break;
            }
        }
        feed.cancel_ahead();
    }
}

impl Workers {
    /// Has the worker answer jobs until one comes that needs another room. Returns false if the jobs cannot go on.
    fn serve_stretch(&self, room: Room, feed: &mut ChunkFeed<'_, '_, '_>) -> bool {
        let ChunkFeed { rank, slot, .. } = *feed;
        let cancellation = rank::cancellation();
        let is_cancelled = || cancellation.as_ref().is_some_and(|it| is_readable(it.watched().as_fd()));
        let Some(_pass) = gate::enter(room, self.plan.job_mem, is_cancelled) else { return false };
        // Idle workers hold memory. Those of other threads wait behind the gate, too.
        while room != Room::Shared && close_one() {}
        let mut worker = self.workers.take_worker(slot).unwrap_or_else(|| self.start(rank, slot));
        match worker.answer(feed) {
            // Another process waits for the resources of this one.
            Ok(_) if room::is_wanted() => {
                worker.close();
                self.workers.put_back(slot, None);
                true
            }
            Ok(end) => {
                self.workers.put_back(slot, Some(worker));
                end == AnswerEnd::AllAnswered
            }
            // The worker still holds records of this chunk, so it must not see another one.
            Err(failure) => {
                let message = with_traceback(failure);
                // Whoever stops the run may have ended a worker before it was ready. The driver leaves lost jobs to the next run.
                let stopped = stop::is_signalled_within(OUTSIDE_LIMIT);
                feed.fail_the_rest(if stopped { Status::Lost } else { Status::Spawn }, &message);
                self.workers.put_back(slot, None);
                if !stopped {
                    rank::abort_run(message);
                }
                false
            }
        }
    }

    /// Makes the worker of a slot; its process starts with the first job.
    fn start(&self, rank: u32, slot: u32) -> Worker {
        let plan = &self.plan;
        let mut program = plan.program();
        let mut options = match &plan.program {
            WorkerProgram::Python(call) => Options {
                preamble: call.preamble(),
                assignment: call.assignment(rank, slot),
                ..Options::new(&call.target, call.protocol())
            },
            WorkerProgram::Command(_) => {
                let own = [("RANKPOOL_RANK", rank), ("RANKPOOL_SLOT", slot)];
                program.env.splice(0..0, own.map(|(name, value)| (name.to_string(), value.to_string())));
                let protocol = if plan.ids { Protocol::Numbered } else { Protocol::Lines };
                Options::new(&program.name, protocol)
            }
        };
        let workers = self.workers.clone();
        options.on_check = Arc::new(move |verdict| workers.check_answers(rank, slot, verdict));
        (options.timeout, options.kill_after, options.max_jobs) = (plan.timeout, plan.kill_after, plan.max_jobs);
        options.make_room = close_idle_worker;
        let cancelled = rank::cancellation().map(|cancellation| cancellation.watched().clone());
        Worker::new(program, options, cancelled)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.workers.close();
    }
}

/// The jobs of a chunk as a worker sees them.
struct ChunkFeed<'d, 'j, 'c> {
    jobs: &'d mut ChunkJobs<'j, 'c, Attempt<Json>, AttemptResult>,
    /// The numbers of the jobs that were taken, in order.
    taken: Vec<u64>,
    answered: usize,
    rank: u32,
    slot: u32,
    /// Where answers are noted, if they are checked at the end.
    checked: Option<&'d RankWorkers>,
    stretches: Stretches<Json>,
}

impl WorkerFeed for ChunkFeed<'_, '_, '_> {
    fn next(&mut self, json: &mut Vec<u8>) -> Option<JobHead> {
        let Attempt { number, attempt, seed, work, .. } = self.stretches.next(|| self.jobs.pull())?;
        self.taken.push(number);
        *json = work.into_vec();
        Some(JobHead { number, attempt, seed })
    }

    fn done(&mut self, answer: Answer<'_>) {
        let Answer { start, duration, result, .. } = answer;
        let run = Some(Run::new(self.rank, self.slot, start, duration));
        self.answer(match result {
            Ok(json) => {
                let mut line = Vec::with_capacity(json.len() + 1);
                line.extend_from_slice(json.as_bytes());
                line.push(b'\n');
                AttemptResult::ok(line, run)
            }
            Err(failure) => {
                let (status, cause) = status_and_cause(failure);
                AttemptResult::without_output(status, cause, run)
            }
        });
    }
}

impl ChunkFeed<'_, '_, '_> {
    /// Answers the job that waits for another room, because the run ends.
    fn cancel_ahead(&mut self) {
        if let Some(ahead) = self.stretches.take() {
            self.taken.push(ahead.number);
            let cause = Cause::new("cancelled", "the run was ended before it was answered");
            self.answer(AttemptResult::without_output(Status::Cancelled, cause, None));
        }
    }

    fn answer(&mut self, result: AttemptResult) {
        let number = self.taken[self.answered];
        self.answered += 1;
        if let Some(workers) = self.checked.filter(|_| result.status == Status::Ok) {
            workers.note_answer(self.slot, number);
        }
        if has_failed(result.status) {
            rank::mark_failed();
        }
        self.jobs.answer(&result);
    }

    /// Fails all jobs of the chunk that have no answer, because no worker can be started.
    fn fail_the_rest(&mut self, status: Status, message: &str) {
        loop {
            if self.answered == self.taken.len() {
                let Some(left) = self.stretches.take().or_else(|| self.jobs.pull()) else { return };
                self.taken.push(left.number);
            }
            self.answer(AttemptResult::without_output(status, Cause::new("spawn", message), None));
        }
    }
}

/// Returns why a worker could not be started, with its traceback, if that has more than the message.
fn with_traceback(failure: StartFailure) -> String {
    let StartFailure { message, traceback } = failure;
    match traceback.as_deref().map(str::trim_end) {
        Some(traceback) if traceback != message => format!("{message}\n{traceback}"),
        _ => message,
    }
}

/// Returns the status and the cause of a job that its worker has not answered with a result.
fn status_and_cause(failure: WorkerFailure) -> (Status, Cause) {
    let WorkerFailure { kind, message, traceback, ended } = failure;
    let (exit, signal) = match &ended {
        Some(WorkerEnd::Code(code)) => (Some(*code), None),
        Some(WorkerEnd::Signal(signal)) => (None, Some(*signal)),
        Some(WorkerEnd::OutOfMemory { exit, .. }) => (*exit, exit.is_none().then_some(SIGKILL)),
        Some(WorkerEnd::Unknown(_) | WorkerEnd::Scarce(_) | WorkerEnd::WithHelper { .. } | WorkerEnd::WithServer)
        | None => (None, None),
    };
    let is_memory = kind == "crash" && matches!(ended, Some(WorkerEnd::OutOfMemory { .. }));
    let kind = if is_memory { MEMORY.to_string() } else { kind.into_owned() };
    let status = match &*kind {
        _ if matches!(ended, Some(WorkerEnd::WithHelper { .. } | WorkerEnd::WithServer)) && kind == "lost" => {
            Status::Lost
        }
        "timeout" => Status::Timeout,
        "cancelled" => Status::Cancelled,
        "crash" | MEMORY if signal.is_some() => Status::Signal,
        _ => Status::Failed,
    };
    (status, Cause { kind, message, traceback, exit, signal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: &'static str, ended: Option<WorkerEnd>) -> (Status, Cause) {
        status_and_cause(WorkerFailure { kind: kind.into(), message: "why".into(), traceback: None, ended })
    }

    #[test]
    fn each_failure_of_a_worker_has_a_status() {
        assert_eq!(failure("ValueError", None).0, Status::Failed);
        assert_eq!(failure("timeout", Some(WorkerEnd::Signal(9))).0, Status::Timeout);
        assert_eq!(failure("cancelled", None).0, Status::Cancelled);
        let (status, cause) = failure("crash", Some(WorkerEnd::Signal(11)));
        assert_eq!((status, cause.signal, cause.exit), (Status::Signal, Some(11), None));
        let (status, cause) = failure("crash", Some(WorkerEnd::Code(3)));
        assert_eq!((status, cause.signal, cause.exit), (Status::Failed, None, Some(3)));
        assert_eq!((cause.kind.as_str(), cause.message.as_str()), ("crash", "why"));
        for (exit, expected) in
            [(None, (Status::Signal, Some(9), None)), (Some(137), (Status::Failed, None, Some(137)))]
        {
            let (status, cause) = failure("crash", Some(WorkerEnd::OutOfMemory { exit, max_rss_kib: 1 }));
            assert_eq!((status, cause.signal, cause.exit), expected);
            assert_eq!(cause.kind, MEMORY);
        }
    }

    #[test]
    fn the_traceback_of_a_failed_start_is_shown_unless_it_is_the_message() {
        let start = |traceback: Option<&str>| {
            with_traceback(StartFailure { message: "no module".into(), traceback: traceback.map(str::to_string) })
        };
        assert_eq!(start(None), "no module");
        assert_eq!(start(Some("no module\n")), "no module");
        assert_eq!(start(Some("line 1\nline 2\n")), "no module\nline 1\nline 2");
    }
}
