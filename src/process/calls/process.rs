//! One process of a worker: its socket, written and read without blocking, and the ways to end it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::frame::{Body, FrameReader, FrameWriter, Head, Kind, Received};
use super::{Blob, CallRequest};
use crate::process::pipes::poll_until;
use crate::process::program::{Program, SpawnError};
use crate::process::room;
use crate::process::spawn::protocol::SignalOrder;
use crate::process::worker::{Running, WorkerEnd};

/// Time limit for the end of a process that was killed or that closed its socket.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why [`CallProcess::listen`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Something was read.
    Frames,
    /// The process closed its socket, or has ended. Everything that it sent was read before.
    Closed,
    /// Nothing came until the deadline.
    Deadline,
    /// The run ends.
    Cancelled,
}

/// How far the recall of calls is that were sent to a process, see [`recall`](super::recall).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recalling {
    No,
    /// The process was told. At this moment it can be seen which calls it has begun.
    Asked(Instant),
    /// That was seen. The process has not got to the recall in its socket.
    Settled,
}

/// What a process has sent.
pub(super) enum Reply<'a> {
    Ready,
    /// It has got to the recall.
    Recalled,
    Result {
        head: Head,
        payload: Body<'a>,
    },
    /// No whole frame is left.
    Nothing,
    /// The process cannot go on.
    Broken,
}

pub(super) struct CallProcess {
    running: Running,
    /// The modules that it has imported, or has to import first.
    preload: Vec<String>,
    /// `None` when it is closed.
    link: Option<(FrameWriter, FrameReader)>,
    is_ready: bool,
    /// Sessions and functions that it has got, by whether it is a function, and its number. Those that are gone are forgotten.
    known: HashMap<(bool, u64), Weak<Blob>>,
    /// The session that it serves, and whether it serves no other one.
    session: Option<(u64, bool)>,
    /// The file that it shares with this rank: the number of the call that it has begun, and that of a recall, or 0.
    notes: Option<File>,
    recalling: Recalling,
    /// The number of recalls so far.
    recalls: u64,
    /// Why it cannot go on, by its own words or ours.
    complaint: Option<String>,
}

impl CallProcess {
    pub(super) fn start(program: &Program) -> Result<Self, SpawnError> {
        let refused = |error: rustix::io::Errno| SpawnError::resources(error.into());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(refused)?;
        if room::is_last(&theirs) {
            return Err(refused(rustix::io::Errno::MFILE));
        }
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let streams = [Some(theirs.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd())];
        let running = Running::with_streams(program, streams)?;
        let socket = Arc::new(ours);
        let link = (FrameWriter::new(socket.clone()), FrameReader::new(socket.clone()));
        Ok(CallProcess {
            running,
            preload: program.preload.clone(),
            link: Some(link),
            is_ready: false,
            known: HashMap::new(),
            session: None,
            notes: None,
            recalling: Recalling::No,
            recalls: 0,
            complaint: None,
        })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether calls of this session can be sent to the process.
    pub(super) fn serves(&self, session: &Blob) -> bool {
        match self.session {
            Some((number, _)) if number == session.number => true,
            Some((_, is_exclusive)) if is_exclusive || session.is_exclusive() => false,
            Some(_) | None => session.is_served_with(&self.preload),
        }
    }

    /// Whether the process, which has nothing to do, still runs.
    pub(super) fn is_there(&self) -> bool {
        let Some(end) = self.running.end() else { return false };
        let mut fds = [PollFd::from_borrowed_fd(end, PollFlags::IN)];
        self.link.is_some() && poll_until(&mut fds, Some(Instant::now())) == Ok(0)
    }

    /// Adds a call to what is sent, behind what it needs and the process does not have.
    pub(super) fn push(&mut self, request: &CallRequest) {
        let Some((writer, _)) = &mut self.link else { return };
        let CallRequest { number, session, function, uses, flags, count, may_repeat, payload, .. } = request;
        self.session = Some((session.number, session.is_exclusive()));
        for blob in [session, function].into_iter().chain(uses) {
            if !self.known.contains_key(&(blob.is_function, blob.number)) {
                forget_gone(&mut self.known, writer);
                self.known.insert((blob.is_function, blob.number), Arc::downgrade(blob));
                blob.push_to(writer);
            }
        }
        let head = Head::new(Kind::Call, *number);
        let retries = u8::from(*may_repeat);
        let (function, session) = (function.number, session.number);
        let head = Head { flags: *flags, retries, count: *count, function, session, ..head };
        writer.push_payload(&head, payload);
    }

    /// Sends what is pending and waits for a [`Wake`]. Answers do not wake before `poll_delay`.
    pub(super) fn listen(
        &mut self,
        mut poll_delay: Option<Instant>,
        deadline: Option<Instant>,
        cancelled: Option<BorrowedFd<'_>>,
    ) -> Wake {
        loop {
            let Some((writer, reader)) = &mut self.link else { return Wake::Closed };
            // A process that does not read any more is noticed when it ends.
            let is_gone = writer.flush().is_err();
            let Some(end) = self.running.end() else { return Wake::Closed };
            let reads = if poll_delay.is_some() { PollFlags::empty() } else { PollFlags::IN };
            let writes = if writer.is_empty() || is_gone { PollFlags::empty() } else { PollFlags::OUT };
            let socket = reader.socket();
            let mut fds = Vec::with_capacity(3);
            fds.push(PollFd::from_borrowed_fd(socket.as_fd(), reads | writes));
            fds.push(PollFd::from_borrowed_fd(end, PollFlags::IN));
            fds.extend(cancelled.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let Ok(ready) = poll_until(&mut fds, poll_delay.or(deadline)) else { return Wake::Closed };
            let said = |at: usize| !fds[at].revents().is_empty();
            let has_ended = said(1);
            if cancelled.is_some() && said(2) {
                return Wake::Cancelled;
            }
            let speaks = fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
            if speaks || has_ended {
                match reader.receive() {
                    Ok(Received::Some) => return Wake::Frames,
                    Ok(Received::Nothing) if !has_ended => {}
                    Ok(Received::Nothing | Received::End) | Err(_) => return Wake::Closed,
                }
            }
            if ready == 0 && poll_delay.take().is_none() {
                return Wake::Deadline;
            }
        }
    }

    /// Returns the next reply among what was read.
    pub(super) fn reply(&mut self) -> Reply<'_> {
        let Some((_, reader)) = &mut self.link else { return Reply::Broken };
        if !self.is_ready {
            if let Some(notes) = reader.take_memfd(Kind::Ready) {
                (self.notes, self.is_ready) = (Some(notes.into()), true);
                return Reply::Ready;
            }
        }
        let complaint = match reader.next_frame() {
            Ok(None) => return Reply::Nothing,
            Ok(Some(frame)) => match frame.head.kind {
                Kind::Result => return Reply::Result { head: frame.head, payload: frame.body },
                Kind::Ready if !self.is_ready => {
                    self.is_ready = true;
                    return Reply::Ready;
                }
                Kind::Recalled if self.recalling != Recalling::No && frame.head.id == self.recalls => {
                    self.recalling = Recalling::No;
                    // Without a number there the process need not compare it.
                    let _ = self.notes.as_ref().map(|notes| notes.write_all_at(&[0; 8], 8));
                    return Reply::Recalled;
                }
                Kind::Broken => frame
                    .body
                    .bytes()
                    .map_or_else(|error| error.to_string(), |text| String::from_utf8_lossy(&text).into_owned()),
                kind => format!("it sent a frame of kind {kind:?}"),
            },
            Err(error) => error.to_string(),
        };
        self.complaint = Some(complaint);
        Reply::Broken
    }

    /// Notes why the process cannot go on.
    pub(super) fn give_up(&mut self, why: &str) {
        self.complaint = Some(why.into());
    }

    /// Returns the number of the call that the process has begun last.
    pub(super) fn noted_call(&self) -> Option<u64> {
        let mut number = [0; 8];
        self.notes.as_ref()?.read_exact_at(&mut number, 0).ok()?;
        Some(u64::from_le_bytes(number)).filter(|number| *number > 0)
    }

    pub(super) fn recalling(&self) -> Recalling {
        self.recalling
    }

    /// Has the process begin none of the calls that it was sent, except those that it has begun until `settled`. Returns whether
    /// that is possible.
    pub(super) fn recall(&mut self, settled: Instant) -> bool {
        let (Some(notes), Some((writer, _))) = (&self.notes, &mut self.link) else { return false };
        let number = self.recalls + 1;
        // A process that sees a part of it only sees 0, an earlier number, or a later one.
        if notes.write_all_at(&number.to_le_bytes(), 8).is_err() {
            return false;
        }
        writer.push(&Head::new(Kind::Recall, number), &[]);
        (self.recalls, self.recalling) = (number, Recalling::Asked(settled));
        true
    }

    /// Notes that the effect of the recall was seen, or when it can be looked at again.
    pub(super) fn settle(&mut self, again: Option<Instant>) {
        self.recalling = again.map_or(Recalling::Settled, Recalling::Asked);
    }

    /// Closes the socket: the process ends by itself.
    pub(super) fn close(&mut self) {
        self.link = None;
    }

    /// Waits for the end of a process that was closed; TERM after `patience`, then KILL.
    pub(super) fn wait_for_end(mut self, patience: Duration) {
        if self.wait(patience).is_none() {
            self.terminate(patience);
        }
    }

    /// Ends a process that must not go on: TERM, KILL after `patience`.
    pub(super) fn terminate(mut self, patience: Duration) {
        self.running.signal(SignalOrder::Term { grace: patience });
        self.link = None;
        if self.wait(patience).is_none() {
            self.running.signal(SignalOrder::Kill);
            self.wait(LAST_WAIT);
        }
    }

    /// Waits for the end of a process that has closed its socket, and kills it if it goes on. Returns how it ended.
    pub(super) fn bury(mut self) -> WorkerEnd {
        self.link = None;
        let complaint = self.complaint.take();
        // One that is broken may go on for ever.
        let ended = if complaint.is_some() { None } else { self.wait(LAST_WAIT) };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                self.running.signal(SignalOrder::Kill);
                self.wait(LAST_WAIT).unwrap_or_else(|| WorkerEnd::Unknown("it does not end".into()))
            }
        };
        complaint.map_or(ended, WorkerEnd::Unknown)
    }

    fn wait(&mut self, patience: Duration) -> Option<WorkerEnd> {
        let deadline = Instant::now().checked_add(patience);
        if let Some(end) = self.running.end() {
            let mut fds = [PollFd::from_borrowed_fd(end, PollFlags::IN)];
            if poll_until(&mut fds, deadline) == Ok(0) {
                return None;
            }
        }
        Some(self.running.ended())
    }
}

/// Has the process forget what this rank has forgotten.
fn forget_gone(known: &mut HashMap<(bool, u64), Weak<Blob>>, writer: &mut FrameWriter) {
    known.retain(|&(is_function, number), blob| {
        let is_there = blob.strong_count() > 0;
        if !is_there {
            let kind = if is_function { Kind::Forget } else { Kind::EndSession };
            writer.push(&Head::new(kind, number), &[]);
        }
        is_there
    });
}
