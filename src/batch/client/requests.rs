//! Reads the requests of a script: what it shares with all ranks, and its calls.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use serde_json::json;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::Client;
use crate::batch::ledger::Planned;
use crate::batch::runners::call::Call;
use crate::batch::source::Keep;
use crate::console;
use crate::input::InputError;
use crate::pool::{Pool, Shared};
use crate::process::calls::Blob;
use crate::process::calls::frame::{self, Frame, FrameReader, Head, Kind, Received};
use crate::process::calls::payload::Payload;
use crate::process::pipes::poll_until;

/// The calls of a script, read as they come. The end of the script is the end of its calls.
pub(super) struct Requests {
    client: Client,
    reader: FrameReader,
    known: Known,
}

/// What a script has sent to all ranks.
struct Known {
    client: Client,
    pool: Pool,
    keep: Keep,
    sessions: HashMap<u64, Shared<Blob>>,
    functions: HashMap<u64, Shared<Blob>>,
}

/// Why there are no more requests.
enum End {
    /// The script has closed its socket, or has ended.
    Closed,
    /// The script has sent what is no request.
    Garbage(String),
}

impl Requests {
    pub(super) fn new(client: Client, pool: Pool, keep: Keep) -> Self {
        let reader = FrameReader::new(client.socket.clone());
        let known = Known { client: client.clone(), pool, keep, sessions: HashMap::new(), functions: HashMap::new() };
        Requests { client, reader, known }
    }

    fn next_call(&mut self) -> Result<Planned<Call>, End> {
        loop {
            match self.reader.next_frame().map_err(|error| End::Garbage(error.to_string()))? {
                Some(frame) => {
                    if let Some(planned) = self.known.take(frame)? {
                        return Ok(planned);
                    }
                }
                None => self.receive()?,
            }
        }
    }

    /// Waits for bytes.
    fn receive(&mut self) -> Result<(), End> {
        loop {
            match self.reader.receive().map_err(|error| End::Garbage(error.to_string()))? {
                Received::Some => return Ok(()),
                Received::End => return Err(End::Closed),
                Received::Nothing => {}
            }
            let socket = self.client.socket.as_fd();
            let mut fds = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
            fds.extend(self.client.end.as_deref().map(|end| PollFd::new(end, PollFlags::IN)));
            if poll_until(&mut fds, None).is_err() {
                return Err(End::Closed);
            }
            let is_quiet = fds[0].revents().is_empty();
            if is_quiet && fds.get(1).is_some_and(|end| !end.revents().is_empty()) {
                return Err(End::Closed);
            }
        }
    }
}

impl Iterator for Requests {
    type Item = Result<Planned<Call>, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_call() {
            Ok(planned) => return Some(Ok(planned)),
            Err(End::Closed) => {}
            Err(End::Garbage(why)) => console::eprint_error(format_args!(
                "the script has sent a request that cannot be read ({why}); its module rankpool may be of another version"
            )),
        }
        self.client.leave();
        None
    }
}

impl Known {
    /// Takes a frame, and returns the call if it is one.
    fn take(&mut self, frame: Frame<'_>) -> Result<Option<Planned<Call>>, End> {
        let Frame { head, body } = frame;
        match head.kind {
            Kind::Session | Kind::Function => {
                // The large body of a function goes on in its memfd, unless something here looks at it.
                let payload = if matches!(head.kind, Kind::Session) || self.keep.content || self.keep.input {
                    let body = body.bytes().map_err(|error| End::Garbage(error.to_string()))?;
                    Payload::Bytes(body.into_owned().into())
                } else {
                    body.into_payload()
                };
                let Some(blob) = Blob::of(&head, payload) else { return Ok(None) };
                let is_function = blob.is_function;
                let shared = self.pool.broadcast(blob).map_err(|_| End::Closed)?;
                let known = if is_function { &mut self.functions } else { &mut self.sessions };
                known.insert(head.id, shared);
            }
            Kind::Forget => self.forget(head.id, true),
            Kind::EndSession => self.forget(head.id, false),
            Kind::Call => {
                let payload = body.into_payload();
                self.client.keep(head.id, &payload);
                return self.call(&head, payload).map(Some);
            }
            kind => return Err(End::Garbage(format!("a frame of kind {kind:?}"))),
        }
        Ok(None)
    }

    /// Forgets what no later call uses. Unanswered calls of a session that is forgotten are ended.
    fn forget(&mut self, number: u64, is_function: bool) {
        let known = if is_function { &mut self.functions } else { &mut self.sessions };
        if let Some(shared) = known.remove(&number) {
            self.pool.forget(&shared);
        }
    }

    fn call(&self, head: &Head, payload: Payload) -> Result<Planned<Call>, End> {
        let unknown = |what: &str, number| End::Garbage(format!("there is no {what} {number}"));
        let function = |number| self.functions.get(&number).cloned().ok_or_else(|| unknown("function", number));
        let session = self.sessions.get(&head.session).cloned().ok_or_else(|| unknown("session", head.session))?;
        let has_uses = head.flags & frame::USES != 0;
        // What is large is read only if it has to be.
        let looks = has_uses || self.keep.content;
        let body =
            if looks { payload.bytes().map_err(|error| End::Garbage(error.to_string()))? } else { Cow::default() };
        let numbers = if has_uses { used(&body)? } else { Vec::new() };
        let uses = numbers.into_iter().map(function).collect::<Result<_, _>>()?;
        let function = function(head.function)?;
        let content = if self.keep.content { content(&function, &body) } else { 0 };
        let time_limit = Duration::try_from_secs_f64(head.seconds).ok().filter(|limit| !limit.is_zero());
        let flags = head.flags & !frame::IN_MEMFD;
        drop(body);
        let input = if self.keep.input { Some(described(&function, head.count)?) } else { None };
        let (count, may_repeat) = (head.count.max(1), head.retries > 0);
        let work = Call { session, function, uses, flags, count, time_limit, may_repeat, payload };
        let planned = Planned::new(head.id, work, input, content).read_at(self.keep.now_us());
        Ok(Planned { retries: head.retries.into(), ..planned })
    }
}

/// Reads the numbers of shared objects with which a body begins.
fn used(body: &[u8]) -> Result<Vec<u64>, End> {
    let short = || End::Garbage("a call whose list of shared objects is cut off".into());
    let number = |at: usize| {
        let bytes = body.get(at..).and_then(<[u8]>::first_chunk::<8>);
        bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(short)
    };
    let count = usize::try_from(number(0)?).map_err(|_| short())?;
    if count > body.len() / 8 {
        return Err(short());
    }
    (1..=count).map(|at| number(at * 8)).collect()
}

/// Describes a call for the job log.
fn described(function: &Blob, jobs: u32) -> Result<Box<RawValue>, End> {
    let name = function.bytes().get(..function.count as usize).unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    let call = json!({ "function": name.trim_end_matches('\0'), "jobs": jobs });
    RawValue::from_string(call.to_string()).map_err(|error| End::Garbage(error.to_string()))
}

/// Returns the hash of a call: of its function, with what it captures, and of its arguments.
fn content(function: &Blob, body: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(function.bytes().len() as u64).to_le_bytes());
    hash.update(function.bytes());
    hash.update(body);
    hash.digest128()
}
