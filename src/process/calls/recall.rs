//! Calls that wait behind one that takes long are taken back from a worker, so that other threads can run them.
//!
//! A worker is sent calls ahead. When one of them takes long, or never ends, the rank recalls those behind it, while the worker
//! may be in code that it cannot interrupt, and without a lock, which a process that is killed could hold. Both sides write one
//! number each in the memory that they share (see [`CallProcess::noted_call`]): the worker the call that it is about to begin, the
//! rank the number of its recall.
//!
//! * The worker notes each call *before* it looks whether there is a recall that it has not got to in its socket. If there is, it
//!   does not begin the call, nor those behind it, up to the frame of the recall, which it answers.
//! * The rank writes its number, waits for [`SETTLE`], and only then reads which call was noted. So a call that the worker has begun
//!   without having seen the number is that one or an earlier one: stores are visible to other processors long before. The calls
//!   behind it will not be begun, and are given back.
//! * The noted call itself has been begun, or the worker will see the number and skip it. Which of both is known when the recall is
//!   answered: calls before it without an answer were skipped. They are sent again.

use std::time::{Duration, Instant};

use super::process::{CallProcess, Recalling};
use super::{CallFeed, CallWorker, InFlight};

/// Calls behind one that takes longer than this are given back: more than twice the time for which calls are sent ahead.
const LONG: Duration = Duration::from_millis(50);
/// The time from a recall to the look at its effect.
const SETTLE: Duration = Duration::from_millis(5);

impl CallWorker {
    /// When the next step of a recall is due. `None`: no call waits behind another one.
    pub(super) fn recall_due(&self, process: &CallProcess) -> Option<Instant> {
        match process.recalling() {
            Recalling::Asked(at) => Some(at),
            Recalling::Settled => None,
            Recalling::No if self.gave_back || self.sent == 0 || self.in_flight.len() < 2 => None,
            Recalling::No => Some(self.since + LONG),
        }
    }

    /// Takes the next step of a recall, if it is due.
    pub(super) fn recall(&mut self, process: &mut CallProcess, feed: &mut dyn CallFeed) {
        if self.recall_due(process).is_none_or(|due| Instant::now() < due) {
            return;
        }
        let sent = self.in_flight.iter().take(self.sent).filter(|call| call.verdict.is_none()).count();
        if process.recalling() == Recalling::No && sent < 2 {
            // The process does not know of the others.
            self.give_back(1, feed);
        } else if process.recalling() == Recalling::No {
            // The process may release what it skips, and another one gets it.
            self.in_flight.iter().take(self.sent).for_each(|call| call.request.payload.note_other_receivers());
            self.gave_back = !process.recall(Instant::now() + SETTLE);
        } else if let Some(at) = self.noted_place(process) {
            process.settle(None);
            self.give_back(at + 1, feed);
        } else {
            process.settle(Some(Instant::now() + SETTLE));
        }
    }

    /// Returns the place of the call that the process has noted. `None`: it is between two calls.
    fn noted_place(&self, process: &CallProcess) -> Option<usize> {
        // The second look is for a number that was read while it was written.
        let noted = process.noted_call().filter(|noted| process.noted_call() == Some(*noted))?;
        self.in_flight.iter().take(self.sent).position(|call| call.request.number == noted)
    }

    /// Gives back the calls from this place on, behind those that have failed.
    fn give_back(&mut self, from: usize, feed: &mut dyn CallFeed) {
        let stays = |call: &InFlight| call.verdict.is_some();
        let from = from.max(self.in_flight.iter().rposition(stays).map_or(0, |at| at + 1));
        self.gave_back = true;
        if from >= self.in_flight.len() {
            return;
        }
        let calls = self.in_flight.split_off(from);
        let sent = calls.iter().take(self.sent.saturating_sub(from));
        let bytes: usize = sent.map(|call| call.request.payload.len()).sum();
        self.ahead -= bytes.min(self.ahead);
        self.sent = self.sent.min(from);
        feed.give_back(calls.into_iter().map(|call| call.request).collect());
    }

    /// Notes that the process has got to a recall: it has not begun the calls that it was sent before and has not answered.
    pub(super) fn recalled(&mut self) {
        (self.sent, self.ahead) = (0, 0);
    }
}
