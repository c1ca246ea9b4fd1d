//! One channel in the helper: a process and its group, from the request to the reply.
//!
//! Signals are sent to the group only until its leader is reaped: after that another group may get the same number.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wait4::Wait4;

use super::protocol::{self, Inbox, SignalOrder, SpawnReply, SpawnRequest};
use super::stat::{Living, processes};

/// Longest grace time; in effect without end.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// The state of a channel, shared by its thread and the main thread.
pub(super) struct Group {
    state: Mutex<State>,
    /// Set when the rank is gone: nothing more is started.
    closing: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the current or last request.
    number: u64,
    phase: Phase,
    /// An order that arrived before its command ran, with the number of its request.
    early: Option<(u64, SignalOrder)>,
    /// When the grace time of the group ends, after SIGTERM.
    grace: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Starting,
    /// The leader runs or is not reaped yet.
    Running(Pid),
}

impl State {
    fn carry_out(&mut self, group: Pid, order: SignalOrder) {
        let signal = match order {
            SignalOrder::Term { grace } => {
                self.grace = Some(Instant::now() + grace.min(FOR_EVER));
                Signal::TERM
            }
            SignalOrder::Kill => {
                self.grace = None;
                Signal::KILL
            }
        };
        // It fails only for processes that now belong to another user, who must end them.
        let _ = kill_process_group(group, signal);
        if signal == Signal::TERM {
            // A stopped process does not react to SIGTERM.
            let _ = kill_process_group(group, Signal::CONT);
        }
    }
}

impl Group {
    pub(super) fn new(closing: Arc<AtomicBool>) -> Self {
        Group { state: Mutex::default(), closing }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out an order for a request, now or as soon as its command runs.
    pub(super) fn order(&self, number: u64, order: SignalOrder) {
        let mut state = self.state();
        match state.phase {
            Phase::Running(group) if state.number == number => state.carry_out(group, order),
            // Orders and requests travel on different sockets, so an order may arrive first.
            Phase::Starting if state.number == number => state.early = Some((number, order)),
            _ if state.number < number => state.early = Some((number, order)),
            _ => {}
        }
    }

    /// Carries out an order for the current request.
    pub(super) fn order_now(&self, order: SignalOrder) {
        let number = self.state().number;
        self.order(number, order);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state().phase != Phase::Idle
    }

    /// Answers the requests that come on the channel's socket until that closes.
    pub(super) fn serve(&self, socket: &OwnedFd) {
        let mut inbox = Inbox::default();
        let mut outbox = Vec::new();
        // A request that cannot be read does not come from our rank: the channel is closed.
        while let Ok(Some(request)) = inbox.frame(socket) {
            let answer = self.run(&request, &mut inbox.descriptors).unwrap_or_else(|error| SpawnReply::Failed {
                errno: error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()),
            });
            let sent = protocol::write_frame(&answer, &mut outbox)
                .is_some_and(|()| protocol::send(socket.as_fd(), &outbox, &[]).is_ok());
            if !sent {
                return;
            }
        }
    }

    /// Runs a command to its end, and to the end of its group.
    fn run(&self, request: &SpawnRequest<'static>, streams: &mut Vec<OwnedFd>) -> io::Result<SpawnReply> {
        let command = command(request, streams)?;
        {
            let mut state = self.state();
            state.number = request.number;
            state.grace = None;
            if self.closing.load(Ordering::SeqCst) {
                return Err(Errno::CANCELED.into());
            }
            state.phase = Phase::Starting;
        }
        let started = start(command);
        let mut state = self.state();
        let (mut child, group) = match started {
            Ok(started) => started,
            Err(error) => {
                state.phase = Phase::Idle;
                return Err(error);
            }
        };
        state.phase = Phase::Running(group);
        if let Some((_, order)) = state.early.take().filter(|(number, _)| *number == request.number) {
            state.carry_out(group, order);
        }
        drop(state);
        let waited = wait_until_ended(group);
        if waited.is_ok() {
            self.wait_for_the_group(group);
        }
        let mut state = self.state();
        let used = waited.and_then(|()| {
            // What is left of the group is killed with its leader.
            let _ = kill_process_group(group, Signal::KILL);
            child.wait4()
        });
        state.phase = Phase::Idle;
        drop(state);
        let used = used?;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Ok(SpawnReply::Ended {
            status: used.status.into_raw(),
            user: micros(used.rusage.utime),
            system: micros(used.rusage.stime),
            max_rss_kib: used.rusage.maxrss >> 10,
        })
    }

    /// Waits for the rest of the group during its grace time, after its leader has ended: a shell that ends at once on SIGTERM must
    /// not take the time from the program that it started.
    fn wait_for_the_group(&self, group: Pid) {
        let mut pause = Duration::from_millis(2);
        loop {
            let Some(deadline) = self.state().grace else { return };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !has_living(group) {
                return;
            }
            thread::sleep(pause.min(left));
            pause = (2 * pause).min(Duration::from_millis(50));
        }
    }
}

/// Makes the command of a request. Nothing here makes the standard library fork instead of using `posix_spawn`.
fn command(request: &SpawnRequest<'_>, streams: &mut Vec<OwnedFd>) -> io::Result<Command> {
    if streams.len() != request.streams.iter().filter(|is_there| **is_there).count() {
        // The system drops file descriptors beyond the limit of the receiving process.
        return Err(Errno::MFILE.into());
    }
    let mut streams = streams.drain(..);
    let mut next = |is_there: bool| {
        let stream = if is_there { streams.next() } else { None };
        stream.map_or_else(Stdio::null, Stdio::from)
    };
    let mut command = Command::new(&*request.file);
    let [stdin, stdout, stderr] = request.streams;
    command.stdin(next(stdin)).stdout(next(stdout)).stderr(next(stderr)).process_group(0);
    command.arg0(request.program.arg0.as_ref().unwrap_or(&request.program.name)).args(&request.program.args);
    for (name, value) in &request.program.env {
        command.env(name, value);
    }
    if let Some(folder) = &request.program.cwd {
        command.current_dir(folder);
    }
    Ok(command)
}

/// Starts a command and closes its streams here, so that their other ends see when it has closed them.
fn start(mut command: Command) -> io::Result<(Child, Pid)> {
    let child = command.spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok((child, group))
}

/// Waits for a child's end without reaping it.
fn wait_until_ended(child: Pid) -> io::Result<()> {
    loop {
        match waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a group has running processes besides its leader.
fn has_living(group: Pid) -> bool {
    let number = group.as_raw_nonzero().get();
    processes().any(|pid| pid != group && Living::of(pid).is_some_and(|living| living.group == number))
}
