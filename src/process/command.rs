//! One command: writes its input, reads its output, and ends it when its time limit is over.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use super::child::Process;
use super::memory;
use super::pipes::{poll_until, write_available};
use super::program::{ProcessEnd, Program, SpawnError};
use super::room::{self, StartTurn};
use super::spawn::protocol::SignalOrder;
use crate::engine::exchange::OutputStream;

/// The time limit of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeLimit {
    /// The command is sent SIGTERM after this time; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub kill_after: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndReason {
    Exited(i32),
    Signalled(i32),
    /// Its time limit was over.
    TimedOut,
    Cancelled,
    /// It was not started, for this reason.
    NotStarted(String),
    /// It was killed because it could not be watched any more, for this reason.
    Lost(String),
}

/// The end of a command and what it used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommandEnd {
    pub reason: EndReason,
    pub start: SystemTime,
    /// Wall-clock time from its start to its end.
    pub seconds: f64,
    /// CPU time, in seconds, including that of the children that it has waited for.
    pub user: f64,
    pub system: f64,
    /// See [`ProcessEnd::max_rss_kib`].
    pub max_rss_kib: u64,
    /// Whether the kernel has killed it, because memory was exhausted.
    pub out_of_memory: bool,
}

impl CommandEnd {
    /// Returns what is said about it if it was killed for lack of memory.
    pub(crate) fn out_of_memory(&self) -> Option<String> {
        self.out_of_memory.then(|| memory::killed(self.max_rss_kib))
    }
}

/// Whether it was ended by a SIGKILL that this rank has not sent. A shell has this exit code if its command was.
fn is_killed(reason: &EndReason) -> bool {
    match reason {
        EndReason::Signalled(signal) => *signal == Signal::KILL.as_raw(),
        EndReason::Exited(code) => *code == 128 + Signal::KILL.as_raw(),
        _ => false,
    }
}

/// No command can be started on this rank any more; holds the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HelperGone(String);

/// Most bytes of output that are passed on at once.
const PIECE: usize = 256 << 10;

/// Output is not read before this time, so that a short command wakes its rank only once. Until then it stays in the pipe, which
/// holds 64 KiB.
const FIRST_READ: Duration = Duration::from_millis(2);

/// Time limit for the end of a killed command. A process that hangs in a file system may never end.
const AFTER_KILL: Duration = Duration::from_secs(30);

thread_local! {
    /// The buffer for output, kept for the next command.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs a command to its end. Its standard input is `stdin`, or `/dev/null` if there is none; its output is passed to `on_output`.
/// It is ended when its time limit is over and when `cancelled` becomes readable or is hung up.
pub(crate) fn run(
    program: &Program,
    stdin: Option<&[u8]>,
    time_limit: &TimeLimit,
    cancelled: Option<BorrowedFd<'_>>,
    on_output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<CommandEnd, HelperGone> {
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    memory::watch();
    let mut turn = StartTurn::new();
    let (start, since, result) = loop {
        let may_start = turn.wait(cancelled);
        let (start, since) = (SystemTime::now(), Instant::now());
        if !may_start {
            break (start, since, Ok((EndReason::Cancelled, None, None)));
        }
        let result = RunningCommand::start(program, stdin, time_limit, cancelled).and_then(|mut running| {
            turn.started();
            let (reason, ended) = running.wait_until_ended(on_output, &mut buffer)?;
            Ok((reason, ended, running.ended_at))
        });
        match result {
            Err(SpawnError::Unread) => {}
            Err(SpawnError::Scarce(_)) if turn.refused() => {}
            result => break (start, since, result),
        }
    };
    if result.is_ok() {
        turn.succeeded();
    }
    BUFFER.set(buffer);
    let (reason, ended, at) = match result {
        Ok(end) => end,
        Err(error @ SpawnError::HelperGone(_)) => return Err(HelperGone(error.to_string())),
        Err(error) => (EndReason::NotStarted(error.to_string()), None, None),
    };
    let seconds = at.unwrap_or_else(Instant::now).duration_since(since).as_secs_f64();
    let (user, system, max_rss_kib) =
        ended.map_or((0.0, 0.0, 0), |ended| (ended.user.as_secs_f64(), ended.system.as_secs_f64(), ended.max_rss_kib));
    let out_of_memory = is_killed(&reason) && memory::explains_kill();
    Ok(CommandEnd { reason, start, seconds, user, system, max_rss_kib, out_of_memory })
}

/// A pipe for the output of a command. The rank keeps the writing end open, too: otherwise the end of file would wake the rank
/// once more at the end of every command.
struct OutputPipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl OutputPipe {
    fn new() -> Result<Self, SpawnError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| SpawnError::resources(error.into()))?;
        if room::is_last(&write) {
            return Err(SpawnError::resources(Errno::MFILE.into()));
        }
        Ok(OutputPipe { read, write })
    }
}

/// The input that a command has not got yet.
struct InputPipe<'a> {
    pipe: OwnedFd,
    rest: &'a [u8],
}

impl InputPipe<'_> {
    /// Writes as much as fits; returns whether that was all, or nothing reads from the pipe any more.
    fn feed(&mut self) -> bool {
        let Ok(written) = write_available(&self.pipe, self.rest) else { return true };
        self.rest = &self.rest[written..];
        self.rest.is_empty()
    }
}

/// The stages of ending a command.
#[derive(Debug)]
enum Stage {
    Running {
        until: Option<Instant>,
    },
    /// It was sent SIGTERM.
    Ending {
        reason: EndReason,
        until: Option<Instant>,
    },
    /// It was sent SIGKILL.
    Killed {
        reason: EndReason,
        until: Instant,
    },
}

struct RunningCommand<'a> {
    process: Process,
    stdout: OutputPipe,
    stderr: OutputPipe,
    stdin: Option<InputPipe<'a>>,
    cancelled: Option<BorrowedFd<'a>>,
    stage: Stage,
    kill_after: Duration,
    /// When its end was noticed; reading the rest of its output may take longer.
    ended_at: Option<Instant>,
}

/// Which of the awaited events have happened.
#[derive(Debug, Default, Clone, Copy)]
struct Ready {
    ended: bool,
    stdout: bool,
    stderr: bool,
    stdin: bool,
    cancelled: bool,
}

impl<'a> RunningCommand<'a> {
    fn start(
        program: &Program,
        stdin: Option<&'a [u8]>,
        time_limit: &TimeLimit,
        cancelled: Option<BorrowedFd<'a>>,
    ) -> Result<Self, SpawnError> {
        let (stdout, stderr) = (OutputPipe::new()?, OutputPipe::new()?);
        let (stdin, theirs) = match stdin {
            None => (None, None),
            Some(bytes) => {
                let pipe = OutputPipe::new()?;
                fcntl_setfl(&pipe.write, OFlags::NONBLOCK).map_err(|error| SpawnError::resources(error.into()))?;
                let mut input = InputPipe { pipe: pipe.write, rest: bytes };
                // Short input is in the pipe before the command runs.
                let is_all = input.feed();
                ((!is_all).then_some(input), Some(pipe.read))
            }
        };
        let streams = [theirs.as_ref().map(OwnedFd::as_fd), Some(stdout.write.as_fd()), Some(stderr.write.as_fd())];
        let process = Process::start(program, streams)?;
        // A time limit beyond the clock's range is no limit.
        let until = time_limit.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let stage = Stage::Running { until };
        Ok(RunningCommand {
            process,
            stdout,
            stderr,
            stdin,
            cancelled,
            stage,
            kill_after: time_limit.kill_after,
            ended_at: None,
        })
    }

    /// Waits for the end. The `ProcessEnd` is `None` for a killed command that does not end.
    fn wait_until_ended(
        &mut self,
        on_output: &mut dyn FnMut(OutputStream, &[u8]),
        buffer: &mut [u8],
    ) -> Result<(EndReason, Option<ProcessEnd>), SpawnError> {
        let mut first_read = Some(FIRST_READ);
        loop {
            let ready = self.wait(first_read.take())?;
            if ready.ended {
                return self.finish(on_output, buffer);
            }
            if ready.stdin && self.stdin.as_mut().is_some_and(InputPipe::feed) {
                self.stdin = None;
            }
            for (is_there, output, stream) in
                [(ready.stdout, &self.stdout, OutputStream::Stdout), (ready.stderr, &self.stderr, OutputStream::Stderr)]
            {
                if is_there {
                    let length = read_some(&output.read, buffer)?;
                    on_output(stream, &buffer[..length]);
                }
            }
            if ready.cancelled {
                self.cancelled = None;
                self.terminate(EndReason::Cancelled)?;
            }
            if let Some(reason) = self.check_time_limit()? {
                return Ok((reason, None));
            }
        }
    }

    /// Waits for an event. With `first_read`, waits at most that long, and output is not an event.
    fn wait(&self, first_read: Option<Duration>) -> Result<Ready, SpawnError> {
        let Some(end) = self.process.end() else { return Ok(Ready { ended: true, ..Ready::default() }) };
        // `poll` checks the descriptors in order, the end first. So if the end is reported, all output was in the pipes before the
        // pipes were checked.
        let mut waiting = Vec::with_capacity(5);
        let mut add = |descriptor, events| {
            waiting.push(PollFd::from_borrowed_fd(descriptor, events));
            waiting.len() - 1
        };
        let ended = add(end, PollFlags::IN);
        let cancelled = self.cancelled.map(|cancelled| add(cancelled, PollFlags::IN));
        let stdin = self.stdin.as_ref().map(|input| add(input.pipe.as_fd(), PollFlags::OUT));
        let reads = first_read.is_none();
        let stdout = reads.then(|| add(self.stdout.read.as_fd(), PollFlags::IN));
        let stderr = reads.then(|| add(self.stderr.read.as_fd(), PollFlags::IN));
        let until = match &self.stage {
            Stage::Running { until } | Stage::Ending { until, .. } => *until,
            Stage::Killed { until, .. } => Some(*until),
        };
        let first_read = first_read.map(|time| Instant::now() + time);
        poll_until(&mut waiting, [until, first_read].into_iter().flatten().min())
            .map_err(|error| SpawnError::while_it_runs(error.into()))?;
        let has = |place: Option<usize>| place.is_some_and(|place| !waiting[place].revents().is_empty());
        Ok(Ready {
            ended: has(Some(ended)),
            stdout: has(stdout),
            stderr: has(stderr),
            stdin: has(stdin),
            cancelled: has(cancelled),
        })
    }

    /// Sends SIGTERM if the command is running.
    fn terminate(&mut self, reason: EndReason) -> Result<(), SpawnError> {
        if let Stage::Running { .. } = self.stage {
            self.process.signal(SignalOrder::Term { grace: self.kill_after })?;
            self.stage = Stage::Ending { reason, until: Instant::now().checked_add(self.kill_after) };
        }
        Ok(())
    }

    /// Goes on to the next stage if the time of this one is over. Returns the reason if a killed command does not end.
    fn check_time_limit(&mut self) -> Result<Option<EndReason>, SpawnError> {
        let now = Instant::now();
        let is_over = |until: &Option<Instant>| until.is_some_and(|until| until <= now);
        match &self.stage {
            Stage::Running { until } if is_over(until) => self.terminate(EndReason::TimedOut)?,
            Stage::Ending { reason, until } if is_over(until) => {
                let reason = reason.clone();
                self.process.signal(SignalOrder::Kill)?;
                self.stage = Stage::Killed { reason, until: now + AFTER_KILL };
            }
            Stage::Killed { reason, until } if *until <= now => return Ok(Some(reason.clone())),
            _ => {}
        }
        Ok(None)
    }

    /// Reads the rest of the output of a command that has ended, without waiting for others that hold its pipes.
    fn finish(
        &mut self,
        on_output: &mut dyn FnMut(OutputStream, &[u8]),
        buffer: &mut [u8],
    ) -> Result<(EndReason, Option<ProcessEnd>), SpawnError> {
        let ended = match self.process.ended() {
            Ok(ended) => Some(ended),
            Err(SpawnError::HelperKilled) => None,
            Err(error) => return Err(error),
        };
        self.ended_at = Some(Instant::now());
        for (output, stream) in [(&self.stdout, OutputStream::Stdout), (&self.stderr, OutputStream::Stderr)] {
            let left = ioctl_fionread(&output.read).map_err(|error| SpawnError::while_it_runs(error.into()))?;
            let mut left = usize::try_from(left).unwrap_or(usize::MAX);
            while left > 0 {
                let most = left.min(buffer.len());
                let length = read_some(&output.read, &mut buffer[..most])?;
                if length == 0 {
                    break;
                }
                on_output(stream, &buffer[..length]);
                left -= length;
            }
        }
        let reason = match (&self.stage, ended) {
            (Stage::Ending { reason, .. } | Stage::Killed { reason, .. }, _) => reason.clone(),
            (Stage::Running { .. }, None) => EndReason::Lost(SpawnError::HelperKilled.to_string()),
            (Stage::Running { .. }, Some(ProcessEnd { status, .. })) => match (status.code(), status.signal()) {
                (Some(code), _) => EndReason::Exited(code),
                (None, signal) => EndReason::Signalled(signal.unwrap_or_default()),
            },
        };
        Ok((reason, ended))
    }
}

/// Reads from a pipe that has something.
fn read_some(pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize, SpawnError> {
    retry_on_intr(|| read(pipe, &mut *buffer)).map_err(|error| SpawnError::while_it_runs(error.into()))
}
