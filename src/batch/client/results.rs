//! Sends a script the results of its calls, and how many calls it may send ahead.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags};
use serde_json::json;

use super::Client;
use crate::batch::job::AttemptResult;
use crate::batch::ledger::Job;
use crate::batch::runners::call::{CANCELLED, DIED, LOST, NOT_STARTED, TIME_LIMIT};
use crate::journal::Status;
use crate::pool::Pool;
use crate::process::calls::frame::{FrameWriter, Head, Kind};
use crate::process::calls::payload::Payload;
use crate::process::pipes::poll_until;

/// The number of calls that may wait for each compute thread before the duration of calls is known.
const FIRST_AHEAD: u64 = 1;
/// Most calls that may be sent and not answered.
const MOST_AHEAD: u64 = 4096;

/// Sends results to a script.
pub(crate) struct ClientSink {
    client: Client,
    outgoing: Arc<Outgoing>,
    slots: u64,
    /// The number of calls that may be sent and not answered, as the script knows it.
    window: u64,
    /// Results that were not handed to the writer: they are sent when journal and job log have them.
    settled: Vec<(Head, Payload)>,
    has_ended: bool,
}

/// Frames on their way to the script. What the socket does not take at once is sent by a thread.
struct Outgoing {
    writer: Mutex<State>,
    changed: Condvar,
}

struct State {
    writer: FrameWriter,
    /// Whether the thread has to send the rest.
    is_blocked: bool,
    is_closed: bool,
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the socket did not take at once, as long as the sink lives and the script reads.
    fn send_rest(&self, client: &Client) {
        let mut state = self.lock();
        loop {
            while !state.is_blocked && !state.is_closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !state.is_blocked || client.is_gone() {
                return;
            }
            drop(state);
            let mut fds = [PollFd::new(&*client.socket, PollFlags::OUT)];
            let is_open = poll_until(&mut fds, None).is_ok();
            state = self.lock();
            if !is_open || state.writer.flush().is_err() {
                client.leave();
                return;
            }
            state.is_blocked = !state.writer.is_empty();
        }
    }
}

impl ClientSink {
    pub(super) fn new(client: Client, pool: &Pool, has_journal: bool) -> Self {
        let writer = FrameWriter::new(client.socket.clone());
        let state = State { writer, is_blocked: false, is_closed: false };
        let outgoing = Arc::new(Outgoing { writer: Mutex::new(state), changed: Condvar::new() });
        let slots = u64::from(pool.threads());
        let hosts: Vec<_> = pool.ranks().iter().map(|rank| rank.facts.host.as_str()).collect();
        let welcome = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ranks": hosts.len(),
            "slots": slots,
            "hosts": hosts,
            "journal": has_journal,
        });
        let head = Head { count: u32::try_from(slots).unwrap_or(u32::MAX), ..Head::new(Kind::Welcome, 0) };
        outgoing.lock().writer.push(&head, &[welcome.to_string().as_bytes()]);
        let (sender, sending) = (client.clone(), outgoing.clone());
        // Without a thread, the rest is sent with the next results.
        let _ = thread::Builder::new().name("rankpool client".into()).spawn(move || sending.send_rest(&sender));
        let mut sink = ClientSink { client, outgoing, slots, window: 0, settled: Vec::new(), has_ended: false };
        sink.set_window(slots * FIRST_AHEAD);
        sink.flush();
        sink
    }

    /// Whether the script has ended, or has closed its socket.
    pub(crate) fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    /// Whether there are results that were not sent.
    pub(crate) fn has_results(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Adds the final result of a call. [`send`](Self::send) sends it.
    pub(crate) fn settle(&mut self, job: &Job, result: &AttemptResult) {
        self.client.settled(job.number);
        let head = Head::new(Kind::Result, job.number);
        let run = result.run;
        let mut head = Head {
            retries: u8::try_from(job.attempt - 1).unwrap_or(u8::MAX),
            function: run.map_or(u64::from(u32::MAX), |run| run.rank.into()),
            session: run.map_or(0, |run| run.slot.into()),
            seconds: run.map_or(0.0, |run| run.seconds),
            ..head
        };
        let cause = result.cause.as_deref();
        let payload = match result.answer {
            Some((status, flags)) => {
                (head.status, head.flags) = (status, flags);
                result.out.clone()
            }
            None => {
                head.status = status_code(result.status);
                let message = cause.map_or(String::new(), |cause| cause.message.clone());
                Payload::Bytes(message.into_bytes().into())
            }
        };
        self.settled.push((head, payload));
    }

    /// Adds the result of a call that an earlier run has settled, with its [`kept`] output.
    pub(crate) fn restore(&mut self, job: &Job, status: Status, kept: &[u8]) {
        let mut result = AttemptResult { status, ..AttemptResult::ok(Vec::new(), None) };
        if let [out @ .., status, flags] = kept {
            (result.out, result.answer) = (Payload::Bytes(out.to_vec().into()), Some((*status, *flags)));
        }
        self.settle(job, &result);
    }

    /// Tells the script why the run ends, once.
    pub(crate) fn end(&mut self, why: &str) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.outgoing.lock().writer.push(&Head::new(Kind::Ending, 0), &[why.as_bytes()]);
            self.flush();
        }
    }

    /// Sends what was added. `target` is the number of queued calls that keeps the ranks busy.
    pub(crate) fn send(&mut self, target: u64) {
        if self.has_results() {
            let mut state = self.outgoing.lock();
            self.settled.drain(..).for_each(|(head, payload)| state.writer.push_payload(&head, &payload));
        }
        self.set_window((self.slots * FIRST_AHEAD).max(2 * target).min(MOST_AHEAD));
        self.flush();
    }

    fn set_window(&mut self, ahead: u64) {
        let window = self.slots + ahead;
        // Small changes are not worth a message.
        if window > self.window + self.window / 4 || window < self.window / 2 {
            self.window = window;
            let head = Head { count: u32::try_from(window).unwrap_or(u32::MAX), ..Head::new(Kind::Window, 0) };
            self.outgoing.lock().writer.push(&head, &[]);
        }
    }

    fn flush(&mut self) {
        let mut state = self.outgoing.lock();
        if state.is_blocked || state.writer.is_empty() {
            return;
        }
        if state.writer.flush().is_err() {
            self.client.leave();
        } else if !state.writer.is_empty() {
            state.is_blocked = true;
            self.outgoing.changed.notify_all();
        }
    }
}

impl Drop for ClientSink {
    fn drop(&mut self) {
        let mut state = self.outgoing.lock();
        state.is_closed = true;
        self.outgoing.changed.notify_all();
    }
}

/// Takes the output of a job as a journal keeps it; of a call with the status and the flags of its answer.
///
/// # Errors
/// If a payload is shorter than its sender has said.
pub(crate) fn kept(result: &mut AttemptResult) -> io::Result<Vec<u8>> {
    let mut out = std::mem::take(&mut result.out).into_vec()?;
    out.extend(result.answer.map(|(status, flags)| [status, flags]).into_iter().flatten());
    Ok(out)
}

/// Returns the status in a frame of a call that no worker has answered.
fn status_code(status: Status) -> u8 {
    match status {
        Status::Timeout => TIME_LIMIT,
        Status::Lost => LOST,
        Status::Cancelled => CANCELLED,
        Status::Spawn => NOT_STARTED,
        Status::Ok | Status::Failed | Status::Signal => DIED,
    }
}
