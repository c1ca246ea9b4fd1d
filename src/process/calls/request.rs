//! Calls, what they have in common, and their answers, as a worker and its rank see them.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::frame::{self, Body, FrameWriter, Head, Kind};
use super::memfd::Memfd;
use super::payload::{Lasting, Payload};
use crate::process::worker::WorkerEnd;

/// What many calls have in common and what is sent to each process once: a session, a function, a shared object.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub is_function: bool,
    /// The script's number for it.
    pub number: u64,
    pub flags: u8,
    /// Not 0: a process that has got this session serves no other one.
    pub status: u8,
    pub count: u32,
    payload: Lasting,
    /// The payload again, if it is bytes, in a memfd that all processes of this rank share.
    #[serde(skip)]
    memfd: OnceLock<Option<Memfd>>,
}

impl Blob {
    /// Returns the blob of a frame, if it is one.
    pub(crate) fn of(head: &Head, payload: Payload) -> Option<Blob> {
        let is_function = match head.kind {
            Kind::Function => true,
            Kind::Session => false,
            _ => return None,
        };
        let Head { id: number, flags, status, count, .. } = *head;
        let flags = flags & !frame::IN_MEMFD;
        let payload = Lasting(payload);
        Some(Blob { is_function, number, flags, status, count, payload, memfd: OnceLock::new() })
    }

    /// Adds it to what is sent. If it is large, all processes of this rank map the same memory.
    pub(super) fn push_to(&self, writer: &mut FrameWriter) {
        let bytes = match &self.payload.0 {
            Payload::Bytes(bytes) => bytes,
            memfd @ Payload::Memfd(_) => return writer.push_payload(&self.head(), memfd),
        };
        let is_large = bytes.len() >= frame::LARGE;
        let make = || Memfd::of(&[bytes]).ok();
        match is_large.then(|| self.memfd.get_or_init(make).as_ref()).flatten() {
            Some(memfd) => writer.push_memfd(&self.head(), memfd),
            None => writer.push(&self.head(), &[bytes]),
        }
    }

    /// Returns the bytes, which are empty if they are in a memfd.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.payload.0 {
            Payload::Bytes(bytes) => bytes,
            Payload::Memfd(_) => &[],
        }
    }

    pub(super) fn head(&self) -> Head {
        let kind = if self.is_function { Kind::Function } else { Kind::Session };
        Head { flags: self.flags, status: self.status, count: self.count, ..Head::new(kind, self.number) }
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.status != 0
    }

    /// Returns the modules that a process has to have imported before it serves this session, and folders with modules.
    pub(super) fn preload(&self) -> impl Iterator<Item = &str> {
        let length = if self.is_function { 0 } else { self.count as usize };
        let names = self.bytes().get(..length).and_then(|names| std::str::from_utf8(names).ok()).unwrap_or_default();
        names.trim_end_matches('\0').split('\n').filter(|name| !name.is_empty())
    }

    /// Whether a process with these modules has all that this session needs.
    pub(super) fn is_served_with(&self, preload: &[String]) -> bool {
        self.preload().all(|module| module.contains('/') || preload.iter().any(|has| has == module))
    }
}

/// A call: one or more jobs of one function.
#[derive(Debug, Clone)]
pub(crate) struct CallRequest {
    /// The script's number for it.
    pub number: u64,
    pub session: Arc<Blob>,
    /// The number under which the feed knows the session.
    pub session_value: u64,
    pub function: Arc<Blob>,
    /// The shared objects that it uses.
    pub uses: Vec<Arc<Blob>>,
    pub flags: u8,
    /// The number of jobs.
    pub count: u32,
    pub time_limit: Option<Duration>,
    /// Whether it may be run again: its arguments must stay as they are.
    pub may_repeat: bool,
    pub payload: Payload,
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct CallAnswer<'a> {
    pub start: SystemTime,
    /// The time in the function.
    pub duration: Duration,
    pub outcome: Result<CallResult<'a>, CallFailure>,
}

/// What a worker has answered: a value or an exception.
#[derive(Debug)]
pub(crate) struct CallResult<'a> {
    pub status: u8,
    pub flags: u8,
    pub payload: Body<'a>,
}

/// Why a worker has not answered a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CallFailure {
    /// Its process ended.
    Died(WorkerEnd),
    /// It took longer than its time limit.
    TimeLimit(Duration),
    /// No process could be started.
    NotStarted(String),
    /// The run ends.
    Cancelled,
}
