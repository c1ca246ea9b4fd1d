//! One process of a worker: its pipes, written and read without ever blocking, and how it is brought to an end.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::process::{Ended, Running};
use crate::process::program::{Launch, Order, SpawnError};

/// How much is read at once: what a pipe holds.
const PIECE: usize = 1 << 16;
/// A buffer that a large answer left behind is given back.
const KEEP: usize = 1 << 20;
/// So much of a line that nobody asked for is told.
const MOST_BEGIN: usize = 200;
/// How long a process that was killed, or that closed its output, may take to be gone.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why listening came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something was read.
    Bytes,
    /// It closed its standard output, or is gone. Everything it wrote was read before.
    Closed,
    /// Nothing came until the deadline.
    Deadline,
    /// The run ends.
    Cancelled,
}

/// How a process that was told to end has ended, and what it said meanwhile.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// Nothing, if somebody had to help who should not have had to.
    pub ended: Option<Ended>,
    /// Lines that were read and that nobody has taken, one without an end among them.
    pub lines: usize,
    /// The beginning of the first of them.
    pub begin: Vec<u8>,
    in_line: bool,
}

impl Farewell {
    fn hears(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.lines += usize::from(!self.in_line);
            self.in_line = byte != b'\n';
            if self.lines == 1 && self.begin.len() < MOST_BEGIN && self.in_line {
                self.begin.push(byte);
            }
        }
    }
}

pub(super) struct Connection {
    process: Running,
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    unsent: Vec<u8>,
    sent: usize,
    heard: Vec<u8>,
    /// What was read before this is understood.
    at: usize,
    /// There is no end of a line between `at` and this.
    searched: usize,
    /// Whole lines that were read and not yet taken.
    lines: usize,
    /// It can answer.
    pub ready: bool,
    /// Records that it was given.
    pub given: u64,
    /// Records that it has answered.
    pub answered: u64,
    /// The number of the last of them, if it said that.
    pub last: Option<u64>,
}

impl Connection {
    /// A new process, and what it is told first; `ready`, if it can answer as soon as it runs.
    pub(super) fn start(launch: &Launch, preamble: &[u8], ready: bool) -> Result<Self, SpawnError> {
        let (process, stdin, stdout) = Running::start(launch)?;
        let mut connection = Connection {
            process,
            stdin: Some(stdin),
            stdout,
            unsent: preamble.to_vec(),
            sent: 0,
            heard: Vec::new(),
            at: 0,
            searched: 0,
            lines: 0,
            ready,
            given: 0,
            answered: 0,
            last: None,
        };
        connection.flush();
        Ok(connection)
    }

    /// Where to add what is sent with the next chance.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.unsent.shrink_to(KEEP);
            self.sent = 0;
        } else if self.sent > PIECE {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.unsent
    }

    /// Bytes that are not yet in the pipe.
    pub(super) fn pending(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Whole lines that wait.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// The next whole line, without its end.
    pub(super) fn line(&mut self) -> Option<Range<usize>> {
        if self.lines == 0 {
            return None;
        }
        let end = self.searched + self.heard[self.searched..].iter().position(|&byte| byte == b'\n')?;
        let line = self.at..end;
        self.at = end + 1;
        self.searched = self.at;
        self.lines -= 1;
        Some(line)
    }

    /// The bytes of a line.
    pub(super) fn text(&self, line: Range<usize>) -> &[u8] {
        &self.heard[line]
    }

    /// How long the line is that is not yet whole.
    pub(super) fn unfinished(&self) -> usize {
        if self.lines == 0 { self.heard.len() - self.at } else { 0 }
    }

    /// Whether this process can be given another record: it lives, and has said nothing unasked.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.at < self.heard.len() {
            return false;
        }
        let Some(end) = self.process.end() else { return false };
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN), PollFd::from_borrowed_fd(end, PollFlags::IN)];
        poll_until(&mut fds, Some(Instant::now())).is_ok_and(|ready| ready == 0)
    }

    /// Whether it says something, until then, that nobody takes.
    pub(super) fn speaks_until(&mut self, deadline: Instant) -> bool {
        loop {
            if self.at < self.heard.len() {
                return true;
            }
            let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
            if !poll_until(&mut fds, Some(deadline)).is_ok_and(|ready| ready > 0) {
                return false;
            }
            match self.read() {
                Ok(None) => {}
                Ok(Some(read)) if read > 0 => {}
                // It is at its end.
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// Writes and waits until there is something to say of it. Whatever the process writes is looked at only after `nap`.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn listen(
        &mut self,
        mut nap: Option<Instant>,
        deadline: Option<Instant>,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> io::Result<Heard> {
        loop {
            self.flush();
            let Some(end) = self.process.end() else { return Ok(Heard::Closed) };
            let writes = self.stdin.as_ref().filter(|_| self.pending() > 0);
            let mut fds = Vec::with_capacity(4);
            let speech = if nap.is_some() { PollFlags::empty() } else { PollFlags::IN };
            fds.push(PollFd::new(&self.stdout, speech));
            fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
            fds.extend(cancelled.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            fds.extend(writes.map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
            let ready = poll_until(&mut fds, nap.or(deadline))?;
            let said = |at: usize| !fds[at].revents().is_empty();
            let (speaks, has_ended) = (said(0), said(1));
            if cancelled.is_some() && said(2) {
                return Ok(Heard::Cancelled);
            }
            if speaks || has_ended {
                // What it wrote before it ended is read before the end is told.
                match self.read()? {
                    Some(0) => return Ok(Heard::Closed),
                    Some(_) => return Ok(Heard::Bytes),
                    None if has_ended => return Ok(Heard::Closed),
                    None => {}
                }
            }
            if ready == 0 && nap.take().is_none() {
                return Ok(Heard::Deadline);
            }
        }
    }

    /// Writes as much as the pipe takes. A process that reads no more is noticed by its end.
    pub(super) fn flush(&mut self) {
        while let Some(stdin) = self.stdin.as_ref().filter(|_| self.sent < self.unsent.len()) {
            match rustix::io::write(stdin, &self.unsent[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.stdin = None,
            }
        }
    }

    /// Reads a piece; nothing, if there is none now.
    fn read(&mut self) -> io::Result<Option<usize>> {
        if self.at == self.heard.len() {
            self.heard.clear();
            self.heard.shrink_to(KEEP);
            (self.at, self.searched) = (0, 0);
        } else if self.at > PIECE {
            self.heard.drain(..self.at);
            self.searched -= self.at;
            self.at = 0;
        }
        let before = self.heard.len();
        self.heard.reserve(PIECE);
        loop {
            match rustix::io::read(&self.stdout, spare_capacity(&mut self.heard)) {
                Ok(read) => {
                    let new = self.heard[before..].iter().filter(|&&byte| byte == b'\n').count();
                    if self.lines == 0 && new == 0 {
                        self.searched = self.heard.len();
                    }
                    self.lines += new;
                    return Ok(Some(read));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends a process that has nothing to do any more: end of input, some patience, TERM, some patience, KILL.
    pub(super) fn dismiss(mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>) -> Farewell {
        self.stdin = None;
        let mut farewell = Farewell::default();
        farewell.ended = self.wait(patience, cancelled, &mut farewell);
        if farewell.ended.is_none() {
            self.end_by_signal(patience, cancelled, &mut farewell);
        }
        farewell
    }

    /// Ends a process that must not go on: TERM, some patience, KILL. Says how it ended, if it has.
    pub(super) fn stop(mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>) -> Farewell {
        let mut farewell = Farewell::default();
        self.end_by_signal(patience, cancelled, &mut farewell);
        farewell
    }

    fn end_by_signal(&mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>, farewell: &mut Farewell) {
        self.process.signal(Order::Term { grace: patience });
        self.stdin = None;
        farewell.ended = self.wait(patience, cancelled, farewell);
        if farewell.ended.is_none() {
            self.process.signal(Order::Kill);
            farewell.ended = self.wait(LAST_WAIT, None, farewell);
        }
    }

    /// Ends a process that has closed its output: mostly it is gone. Says how, if nobody had to help.
    pub(super) fn bury(mut self) -> Option<Ended> {
        self.stdin = None;
        let ended = self.wait(LAST_WAIT, None, &mut Farewell::default());
        if ended.is_none() {
            self.kill();
        }
        ended
    }

    /// Kills the process and its group.
    pub(super) fn kill(mut self) -> Option<Ended> {
        self.process.signal(Order::Kill);
        self.wait(LAST_WAIT, None, &mut Farewell::default())
    }

    /// Waits for the end. What is still said must not keep the process from ending: it is counted, and no more.
    fn wait(
        &mut self,
        patience: Duration,
        cancelled: Option<BorrowedFd<'_>>,
        farewell: &mut Farewell,
    ) -> Option<Ended> {
        let deadline = Instant::now().checked_add(patience);
        farewell.hears(&self.heard[self.at..]);
        self.at = self.heard.len();
        let mut open = true;
        while let Some(end) = self.process.end() {
            let mut fds = Vec::with_capacity(3);
            fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
            fds.extend(cancelled.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            fds.extend(open.then(|| PollFd::new(&self.stdout, PollFlags::IN)));
            let ready = poll_until(&mut fds, deadline);
            let said = |at: usize| !fds[at].revents().is_empty();
            if ready.is_err() || said(0) {
                break;
            }
            // Who never stops talking is not listened to for ever.
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if ready == Ok(0) || is_late || (cancelled.is_some() && said(1)) {
                return None;
            }
            open = self.waste(farewell) != Some(0);
        }
        // What it wrote last is still in the pipe; what its children write for ever is not waited for.
        let until = Instant::now() + LAST_WAIT;
        while open && Instant::now() < until && self.waste(farewell).is_some_and(|read| read > 0) {}
        Some(self.process.ended())
    }

    /// Reads a piece that nobody takes; nothing, if there is none now.
    fn waste(&self, farewell: &mut Farewell) -> Option<usize> {
        let mut waste = [0; 1 << 12];
        match rustix::io::read(self.stdout.as_fd(), &mut waste) {
            Ok(read) => {
                farewell.hears(&waste[..read]);
                Some(read)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => Some(0),
        }
    }
}

/// Whether a file descriptor is readable, or hung up.
pub(super) fn has_something(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll_until(&mut fds, Some(Instant::now())).is_ok_and(|ready| ready > 0)
}

/// Polls, however often a signal interrupts it; 0 when the deadline has passed.
fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<usize, Errno> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A time that the system cannot express is as good as none.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
