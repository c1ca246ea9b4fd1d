//! Ends the processes that a killed spawn helper has left behind.
//!
//! The helper leads a session, so its commands and their children are found by the session's number, whatever their parents and
//! groups. The number is not used again while one of them lives or the helper is not waited for.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::stat::{Living, processes};

/// Time limit for the end of killed processes. One that hangs in a file system may never end.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// Kills all processes of a session whose leader is gone, and waits for their end.
pub(super) fn end_session(leader: Pid) {
    let deadline = Instant::now() + AFTER_KILL;
    let mut pause = Duration::from_millis(1);
    // A process that was started during one scan is found in the next.
    let mut empty = 0;
    while empty < 2 && Instant::now() < deadline {
        let left = members(leader).filter(|pid| kill(*pid, leader)).count();
        if left == 0 {
            empty += 1;
        } else {
            empty = 0;
            thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(50));
        }
    }
}

/// Returns the running processes of a session without its leader.
fn members(leader: Pid) -> impl Iterator<Item = Pid> {
    processes().filter(move |pid| *pid != leader && is_member(*pid, leader))
}

fn is_member(pid: Pid, leader: Pid) -> bool {
    Living::of(pid).is_some_and(|living| living.session == leader.as_raw_nonzero().get())
}

/// Kills a process of the session; returns whether it has to be waited for.
fn kill(pid: Pid, leader: Pid) -> bool {
    let killed = match pidfd_open(pid, PidfdFlags::empty()) {
        // Another process may have got the number since it was read; the descriptor stays with this one.
        Ok(process) if is_member(pid, leader) => pidfd_send_signal(process, Signal::KILL),
        Ok(_) | Err(Errno::SRCH) => return false,
        // An old kernel, or no descriptor left.
        Err(_) => kill_process(pid, Signal::KILL),
    };
    // A process that now belongs to another user must be ended by that user.
    killed.is_ok()
}
