//! The user's script: a Python interpreter beside rank 0, with a socket on which it asks for jobs.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open, set_parent_process_death_signal};

use super::package;
use crate::console::reason;
use crate::process::environment::launcher_variables;
use crate::process::pipes::poll_until;
use crate::process::program::resolve;

/// The first argument that makes the program become the script's interpreter.
const ARGUMENT: &str = "__script";

/// The variable with the number of the script's descriptor of the socket.
const DESCRIPTOR: &str = "RANKPOOL_FD";

/// The variable with the path of this program.
const PROGRAM: &str = "RANKPOOL_EXE";

/// What a shell reports of a program that cannot be started.
pub(crate) const NOT_STARTED: u8 = 127;

/// Becomes the interpreter of a script, if this process was started for it; `None` if it was not. The interpreter is ended when
/// rank 0 is killed.
pub(crate) fn become_script() -> Option<String> {
    let mut words = std::env::args_os().skip(1);
    words.next().filter(|word| word == ARGUMENT)?;
    let (Some(parent), Some(program)) = (words.next(), words.next()) else {
        return Some("the script is started by rankpool itself".into());
    };
    let ended = || "rank 0 has ended before the script began".to_string();
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return Some(format!("cannot start the script: {}", reason(&io::Error::from(error))));
    }
    let is_there = getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_nonzero().to_string()));
    if !is_there {
        return Some(ended());
    }
    let error = Command::new(&program).args(words).exec();
    Some(format!("cannot start {}: {}", program.to_string_lossy(), reason(&error)))
}

/// A script that was started.
#[derive(Debug)]
pub(crate) struct Script {
    child: Child,
    /// Readable when it has ended.
    end: OwnedFd,
}

impl Script {
    /// Starts the interpreter `exe` with these arguments and variables, and our standard streams. Returns our end of its socket, too. Must be called
    /// before `MPI_Init`: a process that runs MPI must not fork.
    ///
    /// # Errors
    /// A sentence, if it cannot be started.
    pub(crate) fn start(exe: &str, args: &[OsString], env: &[(&str, String)]) -> Result<(Script, OwnedFd), String> {
        let file = resolve(exe, None).map_err(|why| format!("{why}; --python-exe sets the Python to use"))?;
        let path = package::python_path()?;
        let refused = |error: io::Error| format!("cannot start the script: {}", reason(&error));
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| refused(error.into()))?;
        fcntl_setfd(&theirs, FdFlags::empty()).map_err(|error| refused(error.into()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("rankpool").arg(ARGUMENT).arg(std::process::id().to_string()).arg(file).args(args);
        command.env("PYTHONPATH", path).env(DESCRIPTOR, theirs.as_raw_fd().to_string());
        // Scripts that it starts find the program, too.
        command.envs(std::env::current_exe().ok().map(|path| (PROGRAM, path)));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        launcher_variables().iter().for_each(|name| {
            command.env_remove(name);
        });
        let child = command.spawn().map_err(refused)?;
        let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| refused(error.into()))?;
        Ok((Script { child, end }, ours))
    }

    /// Returns a descriptor that is readable when the script has ended.
    ///
    /// # Errors
    /// A sentence, if there are no more descriptors.
    pub(crate) fn end(&self) -> Result<OwnedFd, String> {
        self.end.try_clone().map_err(|error| format!("cannot watch the script: {}", reason(&error)))
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let deadline = Instant::now().checked_add(time);
        poll_until(&mut [PollFd::from_borrowed_fd(self.end.as_fd(), PollFlags::IN)], deadline) == Ok(1)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        // If it has ended, there is nothing to do.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Waits for its end and returns its exit code, as a shell reports it.
    pub(crate) fn wait(&mut self) -> u8 {
        self.child.wait().map_or(NOT_STARTED, code_of)
    }
}

/// Returns an exit code, or 128 and the number of the signal that has ended a process.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(NOT_STARTED)
}
