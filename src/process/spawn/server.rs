//! The spawn helper's process: serves channels, passes on signals, and ends all its processes when its rank is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};

use super::group::Group;
use super::protocol::{self, Control, Inbox, SignalOrder, SpawnReply};
use crate::engine::stop::is_ignored;

/// Time between SIGTERM and SIGKILL for commands whose rank is gone.
const GRACE: Duration = Duration::from_secs(5);

/// Time limit for the end of killed commands.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// Serves the rank at the other end of standard input until that closes.
pub(crate) fn serve() -> io::Result<()> {
    // In a session of its own neither a key nor a launcher's signal to the rank's group ends the helper or the commands, and a
    // command that asks the terminal for a password fails instead of being stopped. The call fails for the leader of a group,
    // which is already protected from most of this.
    let _ = rustix::process::setsid();
    // The kernel calls it "exe", after the file in /proc.
    let _ = nix::sys::prctl::set_name(c"rankpool-spawn");
    close_inherited();
    // A handler that does nothing instead of "ignore", which commands would inherit. A signal that is ignored already (`nohup`) stays
    // ignored for commands, too.
    let signals = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU];
    for signal in signals.into_iter().filter(|signal| !is_ignored(*signal)) {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    // If a parent has ignored this signal, the ends of children would not be reported. Otherwise there is no handler, because it
    // would be called for every command.
    if is_ignored(SIGCHLD) {
        signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
    }
    let control = io::stdin();
    let closing = Arc::new(AtomicBool::new(false));
    let mut groups: BTreeMap<u32, Arc<Group>> = BTreeMap::new();
    let mut inbox = Inbox::default();
    let result = loop {
        match inbox.packet(control.as_fd()) {
            Ok(Some(Control::Channel { channel })) => {
                groups.retain(|_, group| Arc::strong_count(group) > 1);
                // Without a socket or a thread the channel is closed, which the rank notices.
                if let Some(socket) = inbox.descriptors.pop() {
                    if let Some(group) = start_channel(socket, &closing) {
                        groups.insert(channel, group);
                    }
                }
            }
            Ok(Some(Control::Signal { channel, number, order })) => {
                if let Some(group) = groups.get(&channel) {
                    group.order(number, order);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    closing.store(true, Ordering::SeqCst);
    end_all(&groups);
    result
}

/// Starts a thread that serves a channel. If that fails, the channel gets the reply `NoThread`.
fn start_channel(socket: OwnedFd, closing: &Arc<AtomicBool>) -> Option<Arc<Group>> {
    let group = Arc::new(Group::new(closing.clone()));
    let socket = Arc::new(socket);
    let (served, its_socket) = (group.clone(), socket.clone());
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(move || served.serve(&its_socket));
    if thread.is_err() {
        let mut answer = Vec::new();
        let _ = protocol::write_frame(&SpawnReply::NoThread, &mut answer);
        let _ = protocol::send(socket.as_fd(), &answer, &[]);
        return None;
    }
    Some(group)
}

/// Ends all groups: SIGTERM, then SIGKILL.
fn end_all(groups: &BTreeMap<u32, Arc<Group>>) {
    for (order, time) in [(SignalOrder::Term { grace: GRACE }, GRACE), (SignalOrder::Kill, AFTER_KILL)] {
        groups.values().for_each(|group| group.order_now(order));
        let deadline = Instant::now() + time;
        while groups.values().any(|group| group.is_busy()) {
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Closes all inherited descriptors but the standard streams: a launcher's sockets, a rank's files.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}
