//! Runs commands: one process for each attempt.

use std::borrow::Cow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use signal_hook::consts::SIGKILL;
use signal_hook::low_level::signal_name;

use super::{Runner, check_folder, gate, status_of_process};
use crate::batch::job::{Attempt, AttemptResult, Cause, MEMORY, Run, Usage, has_failed};
use crate::batch::sinks::Lines;
use crate::console::shortened;
use crate::engine::error::{Failure, JobErrorKind};
use crate::engine::exchange::OutputStream;
use crate::engine::rank;
use crate::input::{InputError, Record};
use crate::journal::Status;
use crate::launch::Launch;
use crate::output::Tag;
use crate::pool::{JobStream, Pool};
use crate::process::calls::payload::Payload;
use crate::process::command::{self, CommandEnd, EndReason, TimeLimit};
use crate::process::pipes::is_readable;
use crate::process::program::{Program, resolve};
use crate::template::{Fields, Filled, JobNumbers, Template, Values};

/// The template of the commands and their limits, sent once to each rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Commands {
    pub template: Template,
    /// The number of `--job-cpus`.
    pub job_cpus: Option<u32>,
    /// The number of bytes of `--job-mem`, if it is one.
    pub job_mem: Option<u64>,
    pub timeout: Option<Duration>,
    pub kill_after: Duration,
}

/// The number of bytes of a stream that are sent together, ahead of the result.
const PIECE: usize = 256 << 10;
/// The most bytes of a stream that are sent with the result. It is small, because thousands of results may be in rank 0's memory
/// while the reader of the output pauses.
const INLINE: usize = 16 << 10;

/// The most bytes of the message about a command that cannot be started.
const LONGEST_MESSAGE: usize = 8 << 10;

/// Runs a command for each job.
#[derive(Debug, Clone)]
pub(crate) struct CommandRunner {
    pub commands: Commands,
    /// The folder that the jobs run in, if it is the same for all.
    pub cwd: Option<String>,
    /// Whether the folder depends on the record.
    pub has_own_folders: bool,
}

impl Runner for CommandRunner {
    type Work = Values;
    type Input = Attempt<Values>;
    type Output = AttemptResult;

    fn lines(&self) -> Lines {
        Lines::AsWritten
    }

    fn prepare<'a>(&'a self, launch: Launch<'a>) -> Launch<'a> {
        launch.check(|| self.check())
    }

    fn open(&self, pool: &Pool, chunk: u32, _: bool) -> Result<JobStream<Self::Input, AttemptResult>, Failure> {
        pool.stream_with(&self.commands, run_attempt, chunk)
    }

    fn input(&self, attempt: Attempt<Values>) -> Attempt<Values> {
        attempt
    }

    fn status(&self, kind: JobErrorKind) -> (Status, String) {
        status_of_process(kind)
    }

    /// Returns the command, quoted for a shell.
    fn show(&self, number: u64, values: &Values) -> Vec<u8> {
        let mut line = self.commands.template.fill(values, &JobNumbers { number, slot: 1 }).shown();
        line.push('\n');
        line.into_bytes()
    }
}

impl CommandRunner {
    /// Checks that the folder and the program exist on this host.
    fn check(&self) -> Result<(), String> {
        let folder = self.cwd.as_deref().map(Path::new);
        check_folder(folder)?;
        // A program in a folder that depends on the record is looked up when its job starts.
        let is_below = |program: &&str| program.contains('/') && !program.starts_with('/');
        let program = self.commands.template.program().filter(|program| !(self.has_own_folders && is_below(program)));
        program.map_or(Ok(()), |program| resolve(program, folder).map(drop))
    }
}

/// Returns the values of a record that the command uses.
///
/// # Errors
/// If the record lacks one of them.
pub(crate) fn bind(template: &Template, record: &Record) -> Result<Values, InputError> {
    let refused = |error| InputError::Refused { place: record.place().clone(), message: format!("{error}") };
    template.bind(record).map_err(refused)
}

impl Fields for Record {
    fn text(&self) -> Cow<'_, str> {
        self.text()
    }

    fn named(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|cell| cell.to_text())
    }

    fn at(&self, position: usize) -> Option<Cow<'_, str>> {
        self.position(position).map(|cell| cell.to_text())
    }

    fn names(&self) -> Vec<String> {
        self.names().map(str::to_string).collect()
    }
}

/// Runs one attempt on the calling compute thread.
fn run_attempt(commands: &Commands, attempt: Attempt<Values>) -> AttemptResult {
    let (rank, slot) = rank::current_job().map_or((0, 0), |job| (job.rank, job.slot + 1));
    let (program, filled) = commands.fill(&attempt, rank, slot);
    let cancellation = rank::cancellation();
    let cancelled = cancellation.as_ref().map(|cancellation| cancellation.watched().as_fd());
    let Some(pass) = gate::enter(attempt.room, commands.job_mem, || cancelled.is_some_and(is_readable)) else {
        let cause = Cause::new("cancelled", "cancelled before it ran");
        return AttemptResult::without_output(Status::Cancelled, cause, None);
    };
    let limits = TimeLimit { timeout: commands.timeout, kill_after: commands.kill_after };
    let mut output = Output::new(attempt.place, filled.tag.as_deref());
    let end =
        command::run(&program, filled.stdin.as_deref().map(str::as_bytes), &limits, cancelled, &mut |stream, bytes| {
            output.append(stream, bytes);
        });
    drop(pass);
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            rank::abort_run(error.to_string());
            return AttemptResult::without_output(Status::Spawn, Cause::new("spawn", error.to_string()), None);
        }
    };
    let (status, cause) = status_and_cause(&end, commands.timeout);
    if has_failed(status) {
        rank::mark_failed();
    }
    let output_bytes = output.bytes;
    let (out, err) = output.finish();
    AttemptResult {
        status,
        cause: cause.map(Box::new),
        run: Some(run_of(&end, rank, slot)),
        output_bytes,
        out: Payload::Bytes(out.into()),
        answer: None,
        err: ByteBuf::from(err),
    }
}

/// Returns when and where a command ran, and its resource usage, if it was started.
fn run_of(end: &CommandEnd, rank: u32, slot: u32) -> Run {
    let usage = Usage { user: end.user, system: end.system, max_rss: end.max_rss_kib * 1024 };
    let usage = (!matches!(end.reason, EndReason::NotStarted(_) | EndReason::Lost(_))).then_some(usage);
    let duration = Duration::try_from_secs_f64(end.seconds).unwrap_or_default();
    Run { usage, ..Run::new(rank, slot, end.start, duration) }
}

/// Returns the status of an attempt by how its process ended, and the cause of a failure.
fn status_and_cause(end: &CommandEnd, timeout: Option<Duration>) -> (Status, Option<Cause>) {
    if let Some(message) = end.out_of_memory() {
        let (status, exit, signal) = match end.reason {
            EndReason::Exited(code) => (Status::Failed, Some(code), None),
            _ => (Status::Signal, None, Some(SIGKILL)),
        };
        return (status, Some(Cause { exit, signal, ..Cause::new(MEMORY, message) }));
    }
    match &end.reason {
        EndReason::Exited(0) => (Status::Ok, None),
        EndReason::Exited(code) => {
            let cause = Cause { exit: Some(*code), ..Cause::new("failed", format!("exit code {code}")) };
            (Status::Failed, Some(cause))
        }
        EndReason::Signalled(signal) => {
            let name = signal_name(*signal).map_or_else(|| format!("signal {signal}"), str::to_string);
            let cause = Cause { signal: Some(*signal), ..Cause::new("signal", format!("killed by {name}")) };
            (Status::Signal, Some(cause))
        }
        EndReason::TimedOut => {
            let limit = timeout.unwrap_or_default().as_secs_f64();
            (Status::Timeout, Some(Cause::new("timeout", format!("not done after {limit} s"))))
        }
        EndReason::Cancelled => (Status::Cancelled, Some(Cause::new("cancelled", "cancelled while it ran"))),
        EndReason::Lost(why) => (Status::Lost, Some(Cause::new("lost", why.clone()))),
        // The message repeats the program's name, which may be a long record.
        EndReason::NotStarted(why) => {
            (Status::Spawn, Some(Cause::new("spawn", shortened(why.clone(), LONGEST_MESSAGE))))
        }
    }
}

impl Commands {
    /// Returns the program of an attempt, and the remaining parts of the filled template.
    fn fill(&self, attempt: &Attempt<Values>, rank: u32, slot: u32) -> (Program, Filled) {
        let mut filled = self.template.fill(&attempt.work, &JobNumbers { number: attempt.number, slot: slot.into() });
        let mut words = std::mem::take(&mut filled.command).into_iter();
        let program = words.next().unwrap_or_default();
        let own = [
            ("RANKPOOL_JOB", attempt.number),
            ("RANKPOOL_RANK", rank.into()),
            ("RANKPOOL_SLOT", slot.into()),
            ("RANKPOOL_ATTEMPT", attempt.attempt.into()),
            ("RANKPOOL_SEED", attempt.seed),
        ];
        let mut env: Vec<_> = own.map(|(name, value)| (name.to_string(), value.to_string())).into();
        env.extend(self.job_cpus.and_then(omp_threads));
        env.append(&mut filled.env);
        let cwd = filled.cwd.take().map(PathBuf::from);
        (Program { name: program, args: words.collect(), env, cwd, ..Program::default() }, filled)
    }
}

/// Returns the variable that limits the threads of most programs to `cpus`; `None` if it is set already.
pub(super) fn omp_threads(cpus: u32) -> Option<(String, String)> {
    const NAME: &str = "OMP_NUM_THREADS";
    std::env::var_os(NAME).is_none().then(|| (NAME.into(), cpus.to_string()))
}

/// The output of a command.
struct Output {
    place: u64,
    out: Written,
    err: Written,
    bytes: u64,
    /// Whether the driver does not take any more output.
    unwanted: bool,
}

/// The bytes of one stream that are not sent yet.
struct Written {
    tag: Option<Tag>,
    bytes: Vec<u8>,
}

impl Written {
    fn append(&mut self, bytes: &[u8]) {
        match &mut self.tag {
            Some(tag) => tag.piece(bytes, &mut self.bytes),
            None => self.bytes.extend_from_slice(bytes),
        }
    }

    fn finish(&mut self) {
        if let Some(tag) = &mut self.tag {
            tag.end(&mut self.bytes);
        }
    }
}

impl Output {
    fn new(place: u64, tag: Option<&str>) -> Self {
        let written = || Written { tag: tag.map(Tag::new), bytes: Vec::new() };
        Output { place, out: written(), err: written(), bytes: 0, unwanted: false }
    }

    fn append(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if !self.unwanted {
            let written = if stream == OutputStream::Stdout { &mut self.out } else { &mut self.err };
            written.append(bytes);
            self.send_ahead(stream, PIECE);
        }
    }

    /// Sends the bytes of a stream ahead of the result, if there are at least `least`.
    fn send_ahead(&mut self, stream: OutputStream, least: usize) {
        let written = match stream {
            OutputStream::Stdout => &mut self.out,
            OutputStream::Stderr => &mut self.err,
        };
        if written.bytes.len() >= least && !self.unwanted {
            let piece = std::mem::take(&mut written.bytes);
            self.unwanted = rank::send_part(self.place, stream, piece).is_err();
        }
    }

    /// Returns the bytes of standard output and standard error that are sent with the result.
    fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        self.out.finish();
        self.err.finish();
        self.send_ahead(OutputStream::Stdout, INLINE);
        self.send_ahead(OutputStream::Stderr, INLINE);
        (self.out.bytes, self.err.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::batch::job::{AttemptEnd, Room};
    use crate::template::Words;

    fn ended(reason: EndReason) -> (Status, Option<Cause>) {
        status_and_cause(&end_of(reason), Some(Duration::from_millis(1500)))
    }

    fn end_of(reason: EndReason) -> CommandEnd {
        CommandEnd {
            reason,
            start: SystemTime::now(),
            seconds: 1.0,
            user: 0.0,
            system: 0.0,
            max_rss_kib: 0,
            out_of_memory: false,
        }
    }

    #[test]
    fn each_end_of_a_process_has_a_status_and_a_message() {
        assert_eq!(ended(EndReason::Exited(0)), (Status::Ok, None));
        let cases = [
            (EndReason::Exited(7), Status::Failed, "failed", "exit code 7"),
            (EndReason::Signalled(9), Status::Signal, "signal", "killed by SIGKILL"),
            (EndReason::Signalled(200), Status::Signal, "signal", "killed by signal 200"),
            (EndReason::TimedOut, Status::Timeout, "timeout", "not done after 1.5 s"),
            (EndReason::Cancelled, Status::Cancelled, "cancelled", "cancelled while it ran"),
            (EndReason::Lost("no helper".into()), Status::Lost, "lost", "no helper"),
            (EndReason::NotStarted("no such program".into()), Status::Spawn, "spawn", "no such program"),
        ];
        for (reason, status, kind, message) in cases {
            let (ended, cause) = ended(reason);
            let cause = cause.expect("it failed");
            assert_eq!((ended, cause.kind.as_str(), cause.message.as_str()), (status, kind, message));
        }
        assert_eq!(ended(EndReason::Exited(7)).1.unwrap().exit, Some(7));
        assert_eq!(ended(EndReason::Signalled(9)).1.unwrap().signal, Some(9));
    }

    #[test]
    fn a_command_that_was_killed_for_lack_of_memory_is_told_from_others() {
        for (reason, status, exit, signal) in [
            (EndReason::Signalled(9), Status::Signal, None, Some(9)),
            (EndReason::Exited(137), Status::Failed, Some(137), None),
        ] {
            let end = CommandEnd { max_rss_kib: 70_000, out_of_memory: true, ..end_of(reason.clone()) };
            let (ended_as, cause) = status_and_cause(&end, None);
            let cause = cause.expect("it failed");
            assert_eq!((ended_as, cause.exit, cause.signal), (status, exit, signal));
            assert_eq!(cause.message, "killed for lack of memory (it had 68 MiB)");
            assert!(AttemptResult::without_output(status, cause, None).ran_out_of_memory());
            let (_, other) = ended(reason);
            assert!(!AttemptResult::without_output(status, other.unwrap(), None).ran_out_of_memory());
        }
    }

    #[test]
    fn a_command_knows_its_job_by_its_environment() {
        let command = ["echo".to_string(), "{#}".into()];
        let words = Words { command: &command, shell: false, stdin: None, cwd: None, env: &[], tag: None };
        let template = Template::parse(&words).unwrap();
        let commands = Commands { template, job_cpus: None, job_mem: None, timeout: None, kill_after: Duration::ZERO };
        let work = Values::default();
        let attempt = Attempt { place: 0, number: 12, attempt: 2, seed: 99, work, avoid: None, room: Room::Shared };
        let (program, _) = commands.fill(&attempt, 3, 4);
        assert_eq!((program.name.as_str(), program.args.as_slice()), ("echo", &["12".to_string()][..]));
        let expected = [("JOB", "12"), ("RANK", "3"), ("SLOT", "4"), ("ATTEMPT", "2"), ("SEED", "99")];
        let expected = expected.map(|(name, value)| (format!("RANKPOOL_{name}"), value.to_string()));
        assert_eq!(program.env[..5], expected);
    }
}
