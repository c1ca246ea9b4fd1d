//! Workers that answer calls of Python functions: a process that stays, for one compute thread of a rank.
//!
//! A script's function and arguments are pickles, which nothing here reads: they go from the script to a worker as they are, in the
//! frames that [`frame`] describes, their bytes as [`payload`] says. This module decides how many calls are in flight, which call is
//! blamed for the end of a process, and when a process is replaced; [`process`] starts and ends one, and [`request`] has the types.
//!
//! A worker answers in order, and may collect answers to short calls. Before each call it notes the number of the call in a file
//! in memory that the rank reads when the process has ended. So the call that ended it is known: that one has failed, and those
//! without an answer are sent to the next process. Calls that wait behind one that takes long are given back, see [`recall`].

pub(crate) mod frame;
pub(crate) mod memfd;
pub(crate) mod passing;
pub(crate) mod payload;
mod process;
mod recall;
mod request;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::pipes::is_readable;
use super::program::{Program, SpawnError};
use super::room::StartTurn;
use super::worker::RequestPace;
use process::{CallProcess, Recalling, Reply, Wake};
pub(crate) use request::{Blob, CallAnswer, CallFailure, CallRequest, CallResult};

/// After this time without another answer, the answers so far are sent ahead.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of unanswered calls beyond which no more are sent.
const MOST_AHEAD: usize = 1 << 20;
/// After this many processes in a row that ended before they were ready, a call fails with each further one.
const MOST_USELESS: u32 = 3;

/// How often it is looked whether the session of the call that runs has ended.
const LOOK_FOR_ENDED_SESSION: Duration = Duration::from_millis(100);

/// Gives calls to a worker and takes its answers.
pub(crate) trait CallFeed {
    /// Returns the next call; `None` if there is none now. It is called while other calls run, so it must not wait.
    fn next(&mut self) -> Option<CallRequest>;
    /// Takes back the last calls that it has given, which were not begun: [`next`](Self::next) returns them again, unless they go
    /// elsewhere.
    fn give_back(&mut self, calls: Vec<CallRequest>);
    /// Takes an answer. Answers come in the order of the calls.
    fn done(&mut self, answer: CallAnswer<'_>);
    /// Notes that no answer has come for a moment: those so far should not wait for the next one.
    fn pause(&mut self);
    /// Whether the script has ended the session while calls of it run: nothing takes their results.
    fn has_ended(&self, session_value: u64) -> bool;
}

/// Why [`CallWorker::answer`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEnd {
    AllAnswered,
    /// The run ends: the calls without an answer have failed as cancelled.
    Cancelled,
}

/// A call that was taken from the feed and is not answered.
struct InFlight {
    request: CallRequest,
    /// Why it has failed; it is reported when the calls before it are answered.
    verdict: Option<CallFailure>,
}

/// The worker of one compute thread.
pub(crate) struct CallWorker {
    program: Program,
    kill_after: Duration,
    process: Option<CallProcess>,
    /// The first `sent` of these were sent to the process, or have a verdict.
    in_flight: VecDeque<InFlight>,
    sent: usize,
    /// Bytes of the calls that were sent.
    ahead: usize,
    pace: RequestPace,
    /// When the process could begin with the first of the calls.
    since: Instant,
    /// Whether there were answers since the last pause.
    has_answered: bool,
    /// Whether calls were given back since the last answer.
    gave_back: bool,
    /// Processes in a row that ended before they were ready.
    useless: u32,
    turn: StartTurn,
}

impl CallWorker {
    pub(crate) fn new(program: Program, kill_after: Duration) -> Self {
        CallWorker {
            program,
            kill_after,
            process: None,
            in_flight: VecDeque::new(),
            sent: 0,
            ahead: 0,
            pace: RequestPace::new(),
            since: Instant::now(),
            has_answered: false,
            gave_back: false,
            useless: 0,
            turn: StartTurn::new(),
        }
    }

    /// Starts the process, before there is a call for it. An error is found again with the first call.
    pub(crate) fn prestart(&mut self) {
        self.process = CallProcess::start(&self.program).ok();
    }

    /// Sends the worker all calls of the feed and passes on its answers.
    /// `cancelled` becomes readable, or is hung up, when the run ends.
    pub(crate) fn answer(&mut self, feed: &mut dyn CallFeed, cancelled: Option<&OwnedFd>) -> AnswerEnd {
        if self.process.is_some() {
            self.turn.started();
        }
        let end = self.answer_all(feed, cancelled.map(AsFd::as_fd));
        self.turn.release();
        end
    }

    fn answer_all(&mut self, feed: &mut dyn CallFeed, cancelled: Option<BorrowedFd<'_>>) -> AnswerEnd {
        loop {
            self.report_verdicts(feed);
            if self.in_flight.is_empty() && !self.take(feed) {
                self.has_answered = false;
                return AnswerEnd::AllAnswered;
            }
            let mut process = match self.connect(cancelled) {
                Ok(process) => process,
                Err(NoProcess::Refused(why)) => {
                    self.fail(0, CallFailure::NotStarted(why));
                    continue;
                }
                Err(NoProcess::Cancelled) => {
                    self.cancel(feed);
                    return AnswerEnd::Cancelled;
                }
            };
            self.fill(&mut process, feed);
            self.recall(&mut process, feed);
            let limit = self.deadline(&process);
            let pause =
                self.has_answered.then(|| self.since + PAUSE).filter(|pause| limit.is_none_or(|at| *pause < at));
            let deadline = pause.or(limit);
            let poll_delay = self.pace.poll_delay(self.sent).map(|delay| self.since + delay);
            let look = Instant::now() + LOOK_FOR_ENDED_SESSION;
            let until = deadline.into_iter().chain(self.recall_due(&process)).fold(look, Instant::min);
            match process.listen(poll_delay, Some(until), cancelled) {
                Wake::Frames => self.read(process, feed, poll_delay.is_some()),
                Wake::Closed => self.bury(process),
                Wake::Deadline if pause.is_some() => {
                    self.has_answered = false;
                    feed.pause();
                    self.process = Some(process);
                }
                Wake::Deadline if limit.is_none_or(|limit| Instant::now() < limit) => {
                    if self.fail_ended(feed) {
                        process.terminate(self.kill_after);
                        self.lose_process();
                    } else {
                        self.process = Some(process);
                    }
                }
                Wake::Deadline => {
                    let limit = self.in_flight.front().and_then(|call| call.request.time_limit).unwrap_or_default();
                    process.terminate(self.kill_after);
                    self.lose_process();
                    self.fail(0, CallFailure::TimeLimit(limit));
                }
                Wake::Cancelled => {
                    process.terminate(self.kill_after);
                    self.cancel(feed);
                    return AnswerEnd::Cancelled;
                }
            }
        }
    }

    /// Closes the socket of the process, so that it ends. [`wait_for_end`](Self::wait_for_end) waits for that.
    pub(crate) fn close(&mut self) {
        if let Some(process) = &mut self.process {
            process.close();
        }
    }

    /// Waits for the end of a process that was closed, and ends it by signals if it takes longer than `kill_after`.
    pub(crate) fn wait_for_end(&mut self) {
        if let Some(process) = self.process.take() {
            process.wait_for_end(self.kill_after);
        }
    }

    fn take(&mut self, feed: &mut dyn CallFeed) -> bool {
        let Some(request) = feed.next() else { return false };
        self.in_flight.push_back(InFlight { request, verdict: None });
        true
    }

    /// Returns the process if it can go on, or else a new one.
    fn connect(&mut self, cancelled: Option<BorrowedFd<'_>>) -> Result<CallProcess, NoProcess> {
        if self.sent == 0 {
            let preload = &mut self.program.preload;
            let session = self.in_flight.front().map(|call| &call.request.session);
            if let Some(session) = session.filter(|session| !session.is_served_with(preload)) {
                add_missing(preload, session.preload());
            }
        }
        if let Some(mut process) = self.process.take() {
            if self.sent > 0 {
                return Ok(process);
            }
            // It may have ended, or serve another session, before it gets the next call.
            let serves = self.in_flight.front().is_none_or(|call| process.serves(&call.request.session));
            if serves && process.is_there() {
                return Ok(process);
            }
            process.close();
            process.wait_for_end(self.kill_after);
        }
        if cancelled.is_some_and(is_readable) {
            return Err(NoProcess::Cancelled);
        }
        loop {
            if !self.turn.wait(cancelled) {
                return Err(NoProcess::Cancelled);
            }
            self.pace.reset();
            match CallProcess::start(&self.program) {
                Ok(process) => {
                    self.turn.started();
                    return Ok(process);
                }
                Err(SpawnError::Scarce(why)) if !self.turn.refused() => return Err(NoProcess::Refused(why)),
                Err(SpawnError::Scarce(_)) => {}
                Err(error) => return Err(NoProcess::Refused(error.to_string())),
            }
        }
    }

    /// Sends calls until the window is full.
    fn fill(&mut self, process: &mut CallProcess, feed: &mut dyn CallFeed) {
        // What was recalled is not sent again before the process knows of it.
        if process.recalling() != Recalling::No || (self.gave_back && self.sent > 0) {
            return;
        }
        let window = self.pace.window();
        // Sending many calls at once costs less than one at a time.
        if self.sent > window / 2 {
            return;
        }
        while self.sent < window && (self.sent == 0 || self.ahead < MOST_AHEAD) {
            if self.sent == self.in_flight.len() && !self.take(feed) {
                break;
            }
            let InFlight { request, verdict } = &self.in_flight[self.sent];
            if verdict.is_some() {
                self.sent += 1;
                continue;
            }
            // A call with a time limit is alone, so that it is known when it began.
            let is_timed = |call: &InFlight| call.request.time_limit.is_some();
            let waits =
                request.time_limit.is_some() || is_timed(&self.in_flight[0]) || !process.serves(&request.session);
            if self.sent > 0 && waits {
                break;
            }
            if self.sent == 0 {
                self.since = Instant::now();
            }
            process.push(request);
            self.ahead += request.payload.len();
            self.sent += 1;
        }
    }

    /// Returns the moment at which the call that runs has exceeded its time limit.
    fn deadline(&self, process: &CallProcess) -> Option<Instant> {
        let limit = self.in_flight.front()?.request.time_limit.filter(|_| process.is_ready() && self.sent > 0)?;
        self.since.checked_add(limit)
    }

    /// Handles what the process has sent. `delayed`: the rank looked for it only after a delay.
    fn read(&mut self, mut process: CallProcess, feed: &mut dyn CallFeed, delayed: bool) {
        let elapsed = self.since.elapsed();
        let (mut calls, mut bytes) = (0, 0);
        let now = SystemTime::now();
        loop {
            match process.reply() {
                Reply::Ready => {
                    self.since = Instant::now();
                    self.useless = 0;
                    self.turn.succeeded();
                }
                Reply::Recalled => self.recalled(),
                Reply::Result { head, payload } => {
                    let is_next = self.in_flight.front().is_some_and(|call| call.request.number == head.id);
                    if !is_next || self.sent == 0 {
                        process.give_up(&format!("it answered call {}, which it was not asked", head.id));
                        return self.bury(process);
                    }
                    let duration = Duration::try_from_secs_f64(head.seconds).unwrap_or_default();
                    let start = now.checked_sub(duration).unwrap_or(now);
                    (calls, bytes) = (calls + 1, bytes + payload.len());
                    let flags = head.flags & !frame::IN_MEMFD;
                    let result = CallResult { status: head.status, flags, payload };
                    feed.done(CallAnswer { start, duration, outcome: Ok(result) });
                    self.pop();
                    self.report_verdicts(feed);
                }
                Reply::Nothing => break,
                Reply::Broken => return self.bury(process),
            }
        }
        if calls > 0 {
            self.has_answered = true;
            self.gave_back = false;
            self.pace.record(calls, elapsed, bytes, delayed && self.sent == 0);
            self.since = Instant::now();
        }
        self.process = Some(process);
    }

    /// Removes the first call.
    fn pop(&mut self) -> Option<InFlight> {
        let call = self.in_flight.pop_front()?;
        if self.sent > 0 {
            self.sent -= 1;
            if call.verdict.is_none() {
                self.ahead -= call.request.payload.len().min(self.ahead);
            }
        }
        Some(call)
    }

    /// Hands over failures whose turn it is.
    fn report_verdicts(&mut self, feed: &mut dyn CallFeed) {
        while self.in_flight.front().is_some_and(|call| call.verdict.is_some()) {
            let Some(failure) = self.pop().and_then(|call| call.verdict) else { return };
            feed.done(CallAnswer { start: SystemTime::now(), duration: Duration::ZERO, outcome: Err(failure) });
        }
    }

    /// Blames a call for the end of a process, and sends the others again.
    fn bury(&mut self, process: CallProcess) {
        let (was_ready, noted) = (process.is_ready(), process.noted_call());
        let ended = process.bury();
        let sent = self.sent;
        self.lose_process();
        if was_ready && !ended.is_from_outside() {
            let is_noted = |call: &InFlight| Some(call.request.number) == noted && call.verdict.is_none();
            let victim = self.in_flight.iter().take(sent).position(is_noted);
            if let Some(victim) = victim.or((sent > 0).then_some(0)) {
                self.fail(victim, CallFailure::Died(ended));
            }
        } else if !was_ready {
            self.useless += 1;
            if self.useless >= MOST_USELESS {
                self.fail(0, CallFailure::NotStarted(format!("the worker {ended} before it was ready")));
            }
        }
    }

    /// Notes that the process is gone: what was sent to it has to be sent again.
    fn lose_process(&mut self) {
        (self.sent, self.ahead) = (0, 0);
        self.gave_back = false;
        self.since = Instant::now();
    }

    fn fail(&mut self, at: usize, failure: CallFailure) {
        if let Some(call) = self.in_flight.get_mut(at) {
            call.verdict.get_or_insert(failure);
        }
    }

    /// Fails the calls whose session has ended; whether the call that runs is one of them.
    fn fail_ended(&mut self, feed: &dyn CallFeed) -> bool {
        let has_ended = |call: &InFlight| call.verdict.is_none() && feed.has_ended(call.request.session_value);
        if !self.in_flight.front().is_some_and(has_ended) {
            return false;
        }
        for call in &mut self.in_flight {
            if has_ended(call) {
                call.verdict = Some(CallFailure::Cancelled);
            }
        }
        true
    }

    fn cancel(&mut self, feed: &mut dyn CallFeed) {
        self.in_flight.iter_mut().for_each(|call| {
            call.verdict.get_or_insert(CallFailure::Cancelled);
        });
        self.report_verdicts(feed);
        (self.sent, self.ahead) = (0, 0);
    }
}

/// Adds modules that are not there. A process with them serves the earlier sessions, too, in whatever order these came.
fn add_missing<'a>(preload: &mut Vec<String>, wanted: impl Iterator<Item = &'a str>) {
    let had_some = !preload.is_empty();
    for module in wanted {
        if !preload.iter().any(|has| has == module) {
            preload.push(module.to_string());
        }
    }
    if had_some {
        preload.sort();
    }
}

/// Why a worker has no process.
enum NoProcess {
    Refused(String),
    Cancelled,
}
