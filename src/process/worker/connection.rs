//! One process of a worker: its pipes, written and read without blocking, and the ways to end it.
//!
//! Ordered by force: [`reap`](Connection::reap) waits for a process that is going, [`close`](Connection::close) ends its input
//! first, [`terminate`](Connection::terminate) begins with SIGTERM, [`kill`](Connection::kill) with SIGKILL.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};

use super::process::{Running, WorkerEnd};
use crate::process::pipes::{poll_until, write_available};
use crate::process::program::{Program, SpawnError};
use crate::process::spawn::protocol::SignalOrder;

/// Bytes read at once: the capacity of a pipe.
const PIECE: usize = 1 << 16;
/// Capacity that an emptied buffer keeps.
const KEEP: usize = 1 << 20;
/// Bytes that are kept of an unasked line, for a message.
const MOST_BEGIN: usize = 200;
/// Time limit for the end of a process that was killed or that closed its output.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why [`Connection::listen`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Something was read.
    Bytes,
    /// The process closed its standard output, or has ended. Everything that it wrote was read before.
    Closed,
    /// Nothing came until the deadline.
    Deadline,
    /// The run ends.
    Cancelled,
}

/// How a process was ended, and what it wrote until then.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    /// `None` if it is not known to have ended.
    pub ended: Option<WorkerEnd>,
    /// Lines that were not handed over, an unfinished one included.
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
    /// Bytes before this position were handed over.
    at: usize,
    /// There is no end of a line between `at` and this.
    searched: usize,
    /// Whole lines that were read and not handed over.
    lines: usize,
    /// The process can answer.
    pub ready: bool,
    /// Records that were sent to it.
    pub given: u64,
    /// Records that it has answered.
    pub answered: u64,
    /// The number of the last of them, if its answer has one.
    pub last: Option<u64>,
}

impl Connection {
    /// Starts a process and sends it `preamble`. `ready`: it can answer as soon as it runs.
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

    /// Returns the buffer to which outgoing bytes are added.
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

    /// Returns the number of bytes that are not yet in the pipe.
    pub(super) fn pending(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Returns the number of whole lines that were read and not handed over.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Hands over the next whole line, without its end.
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

    /// Returns the bytes of a line.
    pub(super) fn text(&self, line: Range<usize>) -> &[u8] {
        &self.received[line]
    }

    /// Returns the length of the unfinished line; 0 while there are whole ones.
    pub(super) fn unfinished(&self) -> usize {
        if self.lines == 0 { self.received.len() - self.at } else { 0 }
    }

    /// Whether this process can be sent another record: it runs, and has written nothing unasked.
    pub(super) fn is_quiet(&self) -> bool {
        if self.at < self.received.len() {
            return false;
        }
        let Some(end) = self.process.end() else { return false };
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN), PollFd::from_borrowed_fd(end, PollFlags::IN)];
        poll_until(&mut fds, Some(Instant::now())) == Ok(0)
    }

    /// Waits until the deadline whether the process writes anything unasked.
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
                // The end of its output.
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }

    /// Writes what is pending and waits for a [`Wake`]. Output of the process does not wake before `poll_delay`.
    ///
    /// # Errors
    /// The system refuses to poll or to read.
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
                // What it wrote before its end is read before the end is reported.
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

    /// Writes as much as the pipe takes. An error is ignored: a process that does not read any more is noticed when it ends.
    pub(super) fn flush(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match write_available(stdin, &self.unsent[self.sent..]) {
            Ok(written) => self.sent += written,
            Err(_) => self.stdin = None,
        }
    }

    /// Reads a piece; `None` if there is none now, 0 at the end of the output.
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
        let read = match retry_on_intr(|| rustix::io::read(&self.stdout, spare_capacity(&mut self.received))) {
            Ok(read) => read,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let new = self.received[before..].iter().filter(|&&byte| byte == b'\n').count();
        if self.lines == 0 && new == 0 {
            self.searched = self.received.len();
        }
        self.lines += new;
        Ok(Some(read))
    }

    /// Ends an idle process: closes its standard input, waits for `patience`, then goes on as [`terminate`](Self::terminate).
    pub(super) fn close(mut self, patience: Duration, cancelled: Option<BorrowedFd<'_>>) -> Shutdown {
        self.stdin = None;
        let mut shutdown = Shutdown::default();
        shutdown.ended = self.wait(patience, cancelled, &mut shutdown);
        if shutdown.ended.is_none() {
            self.end_by_signal(patience, cancelled, &mut shutdown);
        }
        shutdown
    }

    /// Ends a process that must not go on: SIGTERM, SIGKILL after `patience`.
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

    /// Waits for the end of a process that has closed its output, and kills it if it goes on. Returns how it ended by itself.
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

    /// Waits for the end. Output is read on, so that the process can end, but only its lines are counted.
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
            // A process may write for ever.
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if ready == Ok(0) || is_late || (cancelled.is_some() && said(1)) {
                return None;
            }
            open = self.discard(shutdown) != Some(0);
        }
        // The pipe still holds what it wrote last. Its children may write for ever.
        let until = Instant::now() + LAST_WAIT;
        while open && Instant::now() < until && self.discard(shutdown).is_some_and(|read| read > 0) {}
        Some(self.process.ended())
    }

    /// Reads a piece and counts its lines; `None` if there is none now, 0 at the end of the output.
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
