//! One process of a worker: its pipes, written and read without ever blocking, and how it is brought to an end.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::process::{Running, WorkerEnd};
use crate::process::program::{Program, SpawnError};
use crate::process::spawn::protocol::SignalOrder;

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
pub(super) enum Wake {
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
pub(super) struct Shutdown {
    /// Nothing, if somebody had to help who should not have had to.
    pub ended: Option<WorkerEnd>,
    /// Lines that were read and that nobody has taken, one without an end among them.
    pub lines: usize,
    /// The beginning of the first of them.
    pub begin: Vec<u8>,
    in_line: bool,
}

impl Shutdown {
    fn count_lines(&mut self, bytes: &[u8]) {
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
    received: Vec<u8>,
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
    pub(super) fn start(program: &Program, preamble: &[u8], ready: bool) -> Result<Self, SpawnError> {
        let (process, stdin, stdout) = Running::start(program)?;
        let mut connection = Connection {
            process,
            stdin: Some(stdin),
            stdout,
            unsent: preamble.to_vec(),
            sent: 0,
            received: Vec::new(),
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
        let end = self.searched + self.received[self.searched..].iter().position(|&byte| byte == b'\n')?;
        let line = self.at..end;
        self.at = end + 1;
        self.searched = self.at;
        self.lines -= 1;
        Some(line)
    }

    /// The bytes of a line.
    pub(super) fn text(&self, line: Range<usize>) -> &[u8] {
        &self.received[line]
    }

    /// How long the line is that is not yet whole.
    pub(super) fn unfinished(&self) -> usize {
        if self.lines == 0 { self.received.len() - self.at } else { 0 }
    }

    /// Whether this process can be given another record: it lives, and has said nothing unasked.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.at < self.received.len() {
            return false;
        }
        let Some(end) = self.process.end() else { return false };
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN), PollFd::from_borrowed_fd(end, PollFlags::IN)];
        poll_until(&mut fds, Some(Instant::now())).is_ok_and(|ready| ready == 0)
    }

    /// Whether it says something, until then, that nobody takes.
    pub(super) fn writes_until(&mut self, deadline: Instant) -> bool {
        loop {
            if self.at < self.received.len() {
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
        mut poll_delay: Option<Instant>,
        deadline: Option<Instant>,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> io::Result<Wake> {
        loop {
            self.flush();
            let Some(end) = self.process.end() else { return Ok(Wake::Closed) };
            let writes = self.stdin.as_ref().filter(|_| self.pending() > 0);
            let mut fds = Vec::with_capacity(4);
            let speech = if poll_delay.is_some() { PollFlags::empty() } else { PollFlags::IN };
            fds.push(PollFd::new(&self.stdout, speech));
            fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
            fds.extend(cancelled.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            fds.extend(writes.map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
            let ready = poll_until(&mut fds, poll_delay.or(deadline))?;
            let said = |at: usize| !fds[at].revents().is_empty();
            let (speaks, has_ended) = (said(0), said(1));
            if cancelled.is_some() && said(2) {
                return Ok(Wake::Cancelled);
            }
            if speaks || has_ended {
                // What it wrote before it ended is read before the end is told.
                match self.read()? {
                    Some(0) => return Ok(Wake::Closed),
                    Some(_) => return Ok(Wake::Bytes),
                    None if has_ended => return Ok(Wake::Closed),
                    None => {}
                }
            }
            if ready == 0 && poll_delay.take().is_none() {
                return Ok(Wake::Deadline);
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
        if self.at == self.received.len() {
            self.received.clear();
            self.received.shrink_to(KEEP);
            (self.at, self.searched) = (0, 0);
        } else if self.at > PIECE {
            self.received.drain(..self.at);
            self.searched -= self.at;
            self.at = 0;
        }
        let before = self.received.len();
        self.received.reserve(PIECE);
        loop {
            match rustix::io::read(&self.stdout, spare_capacity(&mut self.received)) {
                Ok(read) => {
                    let new = self.received[before..].iter().filter(|&&byte| byte == b'\n').count();
                    if self.lines == 0 && new == 0 {
                        self.searched = self.received.len();
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
    pub(super) fn close(mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>) -> Shutdown {
        self.stdin = None;
        let mut shutdown = Shutdown::default();
        shutdown.ended = self.wait(patience, cancelled, &mut shutdown);
        if shutdown.ended.is_none() {
            self.end_by_signal(patience, cancelled, &mut shutdown);
        }
        shutdown
    }

    /// Ends a process that must not go on: TERM, some patience, KILL. Says how it ended, if it has.
    pub(super) fn terminate(mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>) -> Shutdown {
        let mut shutdown = Shutdown::default();
        self.end_by_signal(patience, cancelled, &mut shutdown);
        shutdown
    }

    fn end_by_signal(&mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>, shutdown: &mut Shutdown) {
        self.process.signal(SignalOrder::Term { grace: patience });
        self.stdin = None;
        shutdown.ended = self.wait(patience, cancelled, shutdown);
        if shutdown.ended.is_none() {
            self.process.signal(SignalOrder::Kill);
            shutdown.ended = self.wait(LAST_WAIT, None, shutdown);
        }
    }

    /// Ends a process that has closed its output: mostly it is gone. Says how, if nobody had to help.
    pub(super) fn reap(mut self) -> Option<WorkerEnd> {
        self.stdin = None;
        let ended = self.wait(LAST_WAIT, None, &mut Shutdown::default());
        if ended.is_none() {
            self.kill();
        }
        ended
    }

    /// Kills the process and its group.
    pub(super) fn kill(mut self) -> Option<WorkerEnd> {
        self.process.signal(SignalOrder::Kill);
        self.wait(LAST_WAIT, None, &mut Shutdown::default())
    }

    /// Waits for the end. What is still said must not keep the process from ending: it is counted, and no more.
    fn wait(
        &mut self,
        patience: Duration,
        cancelled: Option<BorrowedFd<'_>>,
        shutdown: &mut Shutdown,
    ) -> Option<WorkerEnd> {
        let deadline = Instant::now().checked_add(patience);
        shutdown.count_lines(&self.received[self.at..]);
        self.at = self.received.len();
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
            open = self.discard(shutdown) != Some(0);
        }
        // What it wrote last is still in the pipe; what its children write for ever is not waited for.
        let until = Instant::now() + LAST_WAIT;
        while open && Instant::now() < until && self.discard(shutdown).is_some_and(|read| read > 0) {}
        Some(self.process.ended())
    }

    /// Reads a piece that nobody takes; nothing, if there is none now.
    fn discard(&self, shutdown: &mut Shutdown) -> Option<usize> {
        let mut discard = [0; 1 << 12];
        match rustix::io::read(self.stdout.as_fd(), &mut discard) {
            Ok(read) => {
                shutdown.count_lines(&discard[..read]);
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
