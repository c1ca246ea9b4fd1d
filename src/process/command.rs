//! One command: fed, read, timed, and ended when its time is over.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, write};
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::Process;
use super::program::{Ended, Program, SpawnError, timespec};
use super::room::{self, Turn};
use super::spawn::protocol::Order;
use crate::engine::exchange::OutputStream;

/// How long a command may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// After this time the command is asked to end, if it is set.
    pub timeout: Option<Duration>,
    /// How long it has to do so before it is killed.
    pub kill_after: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    Exited(i32),
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    Cancelled,
    /// It never ran, and this is why.
    NotStarted(String),
    /// It was killed because it could not be watched any more, and this is why.
    Lost(String),
}

/// What is known of a command that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommandEnd {
    pub how: How,
    pub start: SystemTime,
    /// From its start to its end.
    pub seconds: f64,
    /// CPU time, with that of the children that it has waited for.
    pub user: f64,
    pub system: f64,
    /// See [`Ended::max_rss_kib`].
    pub max_rss_kib: u64,
}

/// No command can be started on this rank any more, and this is why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HelperGone(String);

/// Output is handed on in pieces that are no longer.
const PIECE: usize = 256 << 10;

/// A command that ends within this time wakes its rank once, whatever it has written. A pipe holds 64 KiB until then.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a killed command may take to be gone. A process that hangs in a file system may never be.
const AFTER_KILL: Duration = Duration::from_secs(30);

thread_local! {
    /// Where output is read into, kept for the next command.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs a command to its end. It reads `stdin` (`/dev/null` if there is none), as far as it likes, and what it writes goes to
/// `on_output`. It is ended when its time is over and when `cancelled` becomes readable or is hung up.
pub(crate) fn run(
    program: &Program,
    stdin: Option<&[u8]>,
    limits: &Limits,
    cancelled: Option<BorrowedFd<'_>>,
    on_output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<CommandEnd, HelperGone> {
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    let mut turn = Turn::new();
    let (start, since, result) = loop {
        let may_start = turn.wait(cancelled);
        let (start, since) = (SystemTime::now(), Instant::now());
        if !may_start {
            break (start, since, Ok((How::Cancelled, None, None)));
        }
        let result = Watch::start(program, stdin, limits, cancelled).and_then(|mut watch| {
            turn.asked();
            let (how, ended) = watch.until_ended(on_output, &mut buffer)?;
            Ok((how, ended, watch.ended_at))
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
    let (how, ended, at) = match result {
        Ok(end) => end,
        Err(error @ SpawnError::HelperGone(_)) => return Err(HelperGone(error.to_string())),
        Err(error) => (How::NotStarted(error.to_string()), None, None),
    };
    let seconds = at.unwrap_or_else(Instant::now).duration_since(since).as_secs_f64();
    let (user, system, max_rss_kib) =
        ended.map_or((0.0, 0.0, 0), |ended| (ended.user.as_secs_f64(), ended.system.as_secs_f64(), ended.max_rss_kib));
    Ok(CommandEnd { how, start, seconds, user, system, max_rss_kib })
}

/// A pipe for what a command writes. The rank keeps the writing end, too: a pipe that nobody could write to any more would
/// wake the rank once more at the end of every command.
struct Output {
    read: OwnedFd,
    write: OwnedFd,
}

impl Output {
    fn new() -> Result<Self, SpawnError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| SpawnError::resources(error.into()))?;
        if room::is_last(&write) {
            return Err(SpawnError::resources(Errno::MFILE.into()));
        }
        Ok(Output { read, write })
    }
}

/// What a command is yet to be fed.
struct Input<'a> {
    pipe: OwnedFd,
    rest: &'a [u8],
}

impl Input<'_> {
    /// Writes what fits; whether that was all, or nobody reads any more.
    fn feed(&mut self) -> bool {
        loop {
            if self.rest.is_empty() {
                return true;
            }
            match write(&self.pipe, self.rest) {
                Ok(length) => self.rest = &self.rest[length..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
    }
}

/// How far a command is on its way to its end.
#[derive(Debug)]
enum Stage {
    Running {
        until: Option<Instant>,
    },
    /// It was asked to end.
    Ending {
        how: How,
        until: Option<Instant>,
    },
    /// It was killed.
    Killed {
        how: How,
        until: Instant,
    },
}

struct Watch<'a> {
    process: Process,
    stdout: Output,
    stderr: Output,
    stdin: Option<Input<'a>>,
    cancelled: Option<BorrowedFd<'a>>,
    stage: Stage,
    kill_after: Duration,
    /// When its end was known. What is left of its output may take longer.
    ended_at: Option<Instant>,
}

/// Which of the things that are waited for has happened.
#[derive(Debug, Default, Clone, Copy)]
struct Happened {
    ended: bool,
    stdout: bool,
    stderr: bool,
    stdin: bool,
    cancelled: bool,
}

impl<'a> Watch<'a> {
    fn start(
        program: &Program,
        stdin: Option<&'a [u8]>,
        limits: &Limits,
        cancelled: Option<BorrowedFd<'a>>,
    ) -> Result<Self, SpawnError> {
        let (stdout, stderr) = (Output::new()?, Output::new()?);
        let (stdin, theirs) = match stdin {
            None => (None, None),
            Some(bytes) => {
                let pipe = Output::new()?;
                fcntl_setfl(&pipe.write, OFlags::NONBLOCK).map_err(|error| SpawnError::resources(error.into()))?;
                let mut input = Input { pipe: pipe.write, rest: bytes };
                // Short input is in the pipe before the command runs.
                let is_all = input.feed();
                ((!is_all).then_some(input), Some(pipe.read))
            }
        };
        let streams = [theirs.as_ref().map(OwnedFd::as_fd), Some(stdout.write.as_fd()), Some(stderr.write.as_fd())];
        let process = Process::start(program, streams)?;
        // Timeouts that are longer than clocks go are none.
        let until = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let stage = Stage::Running { until };
        Ok(Watch { process, stdout, stderr, stdin, cancelled, stage, kill_after: limits.kill_after, ended_at: None })
    }

    /// Waits for the end. `None` for what was used: a killed command that does not go away.
    fn until_ended(
        &mut self,
        on_output: &mut dyn FnMut(OutputStream, &[u8]),
        buffer: &mut [u8],
    ) -> Result<(How, Option<Ended>), SpawnError> {
        let mut patience = Some(PATIENCE);
        loop {
            let happened = self.wait(patience.take())?;
            if happened.ended {
                return self.finish(on_output, buffer);
            }
            if happened.stdin && self.stdin.as_mut().is_some_and(Input::feed) {
                self.stdin = None;
            }
            for (is_there, output, stream) in [
                (happened.stdout, &self.stdout, OutputStream::Stdout),
                (happened.stderr, &self.stderr, OutputStream::Stderr),
            ] {
                if is_there {
                    let length = read_some(&output.read, buffer)?;
                    on_output(stream, &buffer[..length]);
                }
            }
            if happened.cancelled {
                self.cancelled = None;
                self.terminate(How::Cancelled)?;
            }
            if let Some(how) = self.act_on_the_clock()? {
                return Ok((how, None));
            }
        }
    }

    /// Waits until something happens. With patience, for that long, output is none of it.
    fn wait(&self, patience: Option<Duration>) -> Result<Happened, SpawnError> {
        let Some(end) = self.process.end() else { return Ok(Happened { ended: true, ..Happened::default() }) };
        // The end comes first: if it has not come, whatever follows was looked at later. So output that is not seen together
        // with the end is not there.
        let mut waiting = Vec::with_capacity(5);
        let mut add = |descriptor, events| {
            waiting.push(PollFd::from_borrowed_fd(descriptor, events));
            waiting.len() - 1
        };
        let ended = add(end, PollFlags::IN);
        let cancelled = self.cancelled.map(|cancelled| add(cancelled, PollFlags::IN));
        let stdin = self.stdin.as_ref().map(|input| add(input.pipe.as_fd(), PollFlags::OUT));
        let reads = patience.is_none();
        let stdout = reads.then(|| add(self.stdout.read.as_fd(), PollFlags::IN));
        let stderr = reads.then(|| add(self.stderr.read.as_fd(), PollFlags::IN));
        let until = match &self.stage {
            Stage::Running { until } | Stage::Ending { until, .. } => *until,
            Stage::Killed { until, .. } => Some(*until),
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = [left, patience].into_iter().flatten().min().map(timespec);
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Happened::default()),
            Err(error) => return Err(SpawnError::while_it_runs(error.into())),
        }
        let has = |place: Option<usize>| place.is_some_and(|place| !waiting[place].revents().is_empty());
        Ok(Happened {
            ended: has(Some(ended)),
            stdout: has(stdout),
            stderr: has(stderr),
            stdin: has(stdin),
            cancelled: has(cancelled),
        })
    }

    /// Asks the command to end.
    fn terminate(&mut self, how: How) -> Result<(), SpawnError> {
        if let Stage::Running { .. } = self.stage {
            self.process.signal(Order::Term { grace: self.kill_after })?;
            self.stage = Stage::Ending { how, until: Instant::now().checked_add(self.kill_after) };
        }
        Ok(())
    }

    /// What the time demands; how it ended, if it must be given up.
    fn act_on_the_clock(&mut self) -> Result<Option<How>, SpawnError> {
        let now = Instant::now();
        let is_over = |until: &Option<Instant>| until.is_some_and(|until| until <= now);
        match &self.stage {
            Stage::Running { until } if is_over(until) => self.terminate(How::TimedOut)?,
            Stage::Ending { how, until } if is_over(until) => {
                let how = how.clone();
                self.process.signal(Order::Kill)?;
                self.stage = Stage::Killed { how, until: now + AFTER_KILL };
            }
            Stage::Killed { how, until } if *until <= now => return Ok(Some(how.clone())),
            _ => {}
        }
        Ok(None)
    }

    /// The command has ended: reads what is left of its output. Who still holds the pipes is not waited for.
    fn finish(
        &mut self,
        on_output: &mut dyn FnMut(OutputStream, &[u8]),
        buffer: &mut [u8],
    ) -> Result<(How, Option<Ended>), SpawnError> {
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
        let how = match (&self.stage, ended) {
            (Stage::Ending { how, .. } | Stage::Killed { how, .. }, _) => how.clone(),
            (Stage::Running { .. }, None) => How::Lost(SpawnError::HelperKilled.to_string()),
            (Stage::Running { .. }, Some(Ended { status, .. })) => match (status.code(), status.signal()) {
                (Some(code), _) => How::Exited(code),
                (None, signal) => How::Signalled(signal.unwrap_or_default()),
            },
        };
        Ok((how, ended))
    }
}

/// Reads what a pipe has, which is something.
fn read_some(pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize, SpawnError> {
    loop {
        match read(pipe, &mut *buffer) {
            Ok(length) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(SpawnError::while_it_runs(io::Error::from(error))),
        }
    }
}
