//! What a killed spawn helper has left behind.
//!
//! The helper leads a session, and so its commands and theirs are known by its number, whatever their parents and groups. It
//! stays theirs while one of them lives, or the helper was not waited for.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::stat::{Living, processes};

/// How long killed processes may take to be gone. One that hangs in a file system may never be.
const AFTER_KILL: Duration = Duration::from_secs(30);

/// Kills all processes of a session whose leader is gone, and waits until they are.
pub(super) fn end_session(leader: Pid) {
    let deadline = Instant::now() + AFTER_KILL;
    let mut pause = Duration::from_millis(1);
    // A process that was started during one look is seen in the next.
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

/// The living processes of a session, its leader aside.
fn members(leader: Pid) -> impl Iterator<Item = Pid> {
    processes().filter(move |pid| *pid != leader && is_member(*pid, leader))
}

fn is_member(pid: Pid, leader: Pid) -> bool {
    Living::of(pid).is_some_and(|living| living.session == leader.as_raw_nonzero().get())
}

/// Kills a process of the session; whether it has to be waited for.
fn kill(pid: Pid, leader: Pid) -> bool {
    let killed = match pidfd_open(pid, PidfdFlags::empty()) {
        // The number may have become another's since it was read; this is it, and stays it.
        Ok(process) if is_member(pid, leader) => pidfd_send_signal(process, Signal::KILL),
        Ok(_) | Err(Errno::SRCH) => return false,
        // An old system, or no descriptor left.
        Err(_) => kill_process(pid, Signal::KILL),
    };
    // One that has become another user's must be ended by that one.
    killed.is_ok()
}
