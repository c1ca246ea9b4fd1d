//! The messages between master and ranks, to and from bytes.
//!
//! A *packet* is what travels as one transport message: one payload (raw bytes: inputs, results, contexts), heads (small,
//! bincode) and the length of the heads. The heads say how the payload is cut, so payloads are never copied to be read. They
//! stand behind it, so that a large payload need not be copied to be sent, either. Jobs inside a
//! payload are *frames*: a length and the value's own encoding, or a failure in the place of a value.
//!
//! Whatever the bytes are, reading them gives a value or a [`CodecError`]: no panic, and no allocation out of
//! proportion to the bytes that are really there.

mod bulk;

use std::error::Error;
use std::fmt;

use bincode::config;
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::engine::error::Failure;
use crate::engine::memory;
use crate::engine::placement::RankFacts;
use crate::engine::schedule::{ChunkId, MapId};

pub(crate) use bulk::{decode_value, encode_value};

/// Bytes that do not say what they should, or a value that refuses to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodecError(String);

impl Error for CodecError {}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CodecError {
    fn garbled(what: &str) -> Self {
        CodecError(format!("garbled message: {what}"))
    }
}

/// The name of a function that holds on every rank of a run; `func` makes and reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FunctionId {
    /// Where it stands in the executable.
    pub offset: i64,
    /// Proves that it is an id, and of this executable.
    pub seal: u64,
}

/// What the master tells a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToRank {
    /// The rank belongs to the run and computes with this many threads; the ranks before it on the same host have so many.
    Welcome { threads: u32, slots_before: u32 },
    /// What a map's jobs are to call, and how long each may take, in µs (0: as long as it likes). The payload is the map's
    /// context.
    Define { map: MapId, function: FunctionId, limit: u64, bytes: u64 },
    /// A broadcast value to keep until the run ends. The payload is the value.
    Keep { value: u64, bytes: u64 },
    /// Jobs to run. The payload is their inputs, a frame each.
    Chunk { chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32, bytes: u64 },
    /// Give back the jobs of this chunk that have not started.
    Recall { chunk: ChunkId },
    /// The driver has this piece of output.
    Took { part: u64 },
    /// Nobody wants a map's jobs any more, not even those that run.
    Cancel { map: MapId },
    /// The master is there.
    Pulse,
    /// A map is over; forget it.
    Release { map: MapId },
    /// Nothing more will come; leave.
    Dismiss,
    /// The run has failed; end this process.
    BreakOff,
}

/// What a rank tells the master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToMaster {
    /// Who is there.
    Join(Box<RankFacts>),
    /// A chunk is done. The payload is its results, a frame each; `failed` are offsets from its first job;
    /// `bad` is how many more have a result that is a failure for their function. The chunk has taken `wall_ns` on its thread,
    /// `useful_ns` of that in the function of its jobs.
    Finished { chunk: ChunkId, count: u32, wall_ns: u64, useful_ns: u64, failed: Vec<u32>, bad: u32, bytes: u64 },
    /// A piece of a job's output, ahead of its result. The payload is the piece; `part` numbers the pieces of this rank.
    Part { part: u64, map: MapId, job: u64, stream: u8, bytes: u64 },
    /// The answer to a recall: the first `kept` jobs stay.
    Returned { chunk: ChunkId, kept: u32 },
    /// The rank was told by a signal that the run is to end.
    Signalled,
    /// The rank is there.
    Pulse,
    /// rankpool itself failed on this rank.
    Broken { message: String },
}

/// A message's head: it knows how much of the packet's payload is its own.
pub(crate) trait Head: Serialize + DeserializeOwned {
    fn payload(&self) -> u64;
}

impl Head for ToRank {
    fn payload(&self) -> u64 {
        match self {
            ToRank::Define { bytes, .. } | ToRank::Keep { bytes, .. } | ToRank::Chunk { bytes, .. } => *bytes,
            ToRank::Welcome { .. }
            | ToRank::Recall { .. }
            | ToRank::Took { .. }
            | ToRank::Cancel { .. }
            | ToRank::Pulse
            | ToRank::Release { .. }
            | ToRank::Dismiss
            | ToRank::BreakOff => 0,
        }
    }
}

impl Head for ToMaster {
    fn payload(&self) -> u64 {
        match self {
            ToMaster::Finished { bytes, .. } | ToMaster::Part { bytes, .. } => *bytes,
            ToMaster::Join(_)
            | ToMaster::Returned { .. }
            | ToMaster::Signalled
            | ToMaster::Pulse
            | ToMaster::Broken { .. } => 0,
        }
    }
}

/// A payload of this size is not copied if nobody else has it.
const WORTH_KEEPING: usize = 64 << 10;

/// Messages for one receiver, gathered until they are sent as one.
#[derive(Debug)]
pub(crate) struct Packet<H> {
    heads: Vec<H>,
    payload: Vec<Bytes>,
}

impl<H> Default for Packet<H> {
    fn default() -> Self {
        Packet { heads: Vec::new(), payload: Vec::new() }
    }
}

impl<H: Head> Packet<H> {
    /// Adds a message without payload.
    pub(crate) fn push(&mut self, head: H) {
        self.heads.push(head);
    }

    /// Adds a message; `parts` are the pieces of its payload, in order.
    pub(crate) fn push_with(&mut self, head: H, parts: impl IntoIterator<Item = Bytes>) {
        self.heads.push(head);
        self.payload.extend(parts);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The bytes of all messages so far; the packet is empty afterwards.
    pub(crate) fn take(&mut self) -> Result<Bytes, CodecError> {
        // Room for the heads, which are some 20 bytes each.
        let room = self.payload.iter().map(Bytes::len).sum::<usize>() + 32 * self.heads.len() + 8;
        let mut parts = self.payload.drain(..).peekable();
        let mut bytes = match parts.next_if(|part| part.len() >= WORTH_KEEPING && part.is_unique()) {
            Some(part) => Vec::from(part),
            None => Vec::new(),
        };
        let more = room - bytes.len();
        memory::reserve(&mut bytes, more);
        for part in parts {
            bytes.extend_from_slice(&part);
        }
        let payload = bytes.len();
        encode_into(&self.heads, &mut bytes)?;
        let heads =
            u32::try_from(bytes.len() - payload).map_err(|_| CodecError("more than 4 GiB of message heads".into()))?;
        bytes.extend_from_slice(&heads.to_le_bytes());
        self.heads.clear();
        Ok(bytes.into())
    }
}

/// The messages of a packet, each with its own part of the payload.
pub(crate) fn open<H: Head>(mut packet: Bytes) -> Result<Vec<(H, Bytes)>, CodecError> {
    let Some(&length) = packet.last_chunk::<4>() else { return Err(CodecError::garbled("it is too short")) };
    packet.truncate(packet.len() - length.len());
    let Some(payload) = packet.len().checked_sub(u32::from_le_bytes(length) as usize) else {
        return Err(CodecError::garbled("its heads are not whole"));
    };
    let heads: Vec<H> = decode(&packet.split_off(payload))?;
    let mut messages = Vec::with_capacity(heads.len());
    for head in heads {
        let bytes = usize::try_from(head.payload()).unwrap_or(usize::MAX);
        if bytes > packet.len() {
            return Err(CodecError::garbled("it ends inside its payload"));
        }
        messages.push((head, packet.split_to(bytes)));
    }
    if packet.is_empty() { Ok(messages) } else { Err(CodecError::garbled("bytes are left over")) }
}

/// What to do about a type that the binary form is not made for.
const USE_JSON: &str = "wrap the value in `rankpool::Json`";
/// What to do about a value that is longer or shorter than it should be, which every garbled message is, too.
const SKIPS: &str = " (if its type leaves out fields, with `skip_serializing_if`, wrap the value in `rankpool::Json`)";

fn written_badly(error: EncodeError) -> CodecError {
    CodecError(match error {
        EncodeError::OtherString(message) => message,
        EncodeError::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => format!(
            "its type has parts whose number is not known before they are written, as those with `#[serde(flatten)]`: {USE_JSON}"
        ),
        other => other.to_string(),
    })
}

fn read_badly(error: DecodeError) -> CodecError {
    use bincode::serde::DecodeError as Serde;
    CodecError(match error {
        DecodeError::OtherString(message) => message,
        DecodeError::Serde(Serde::AnyNotSupported | Serde::IdentifierNotSupported | Serde::IgnoredAnyNotSupported) => {
            format!(
                "its type must look at a value to know how to read it, as `serde_json::Value` and types with \
                 `#[serde(untagged)]`, `#[serde(tag)]` or `#[serde(flatten)]` do: {USE_JSON}"
            )
        }
        other @ DecodeError::UnexpectedEnd { .. } => format!("{other}{SKIPS}"),
        other => other.to_string(),
    })
}

/// Appends a value's encoding.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            memory::reserve(self.0, bytes.len());
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::serde::encode_into_writer(value, Sink(out), config::standard()).map_err(written_badly)
}

/// A value's encoding.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes.into())
}

/// The value that these bytes, all of them, encode.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    // bincode allocates a string or byte string before it looks whether its bytes are there; its limit, fixed when the
    // program is compiled, is what stops a garbled length. It counts an integer at its full width, up to 16 times what
    // it takes in the encoding.
    fn limited<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
        bincode::serde::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>()).map_err(read_badly)
    }
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    let (value, used) = match bytes.len() {
        length if length <= KIB => limited::<T, { 16 * KIB }>(bytes),
        length if length <= 32 * KIB => limited::<T, { 16 * 32 * KIB }>(bytes),
        length if length <= MIB => limited::<T, { 16 * MIB }>(bytes),
        length if length <= 64 * MIB => limited::<T, { 1024 * MIB }>(bytes),
        _ => limited::<T, { usize::MAX }>(bytes),
    }?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError(format!("garbled message: bytes are left over after a value{SKIPS}")))
    }
}

/// One job's place in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// The encoding of an input or a result.
    Value(&'a [u8]),
    /// The encoding of a [`Failure`] that stands where a value should.
    Failure(&'a [u8]),
}

/// First bytes of a frame: up to `SHORT` the length of a value; else which long frame it is, eight bytes of length follow.
const SHORT: u8 = 253;
const FAILURE: u8 = 254;
const LONG: u8 = 255;

/// Appends a value's frame. On an error nothing is appended.
pub(crate) fn push_value<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    out.push(0);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let length = out.len() - start - 1;
    match u8::try_from(length) {
        Ok(short) if short <= SHORT => out[start] = short,
        _ => {
            out[start] = LONG;
            out.splice(start + 1..start + 1, (length as u64).to_le_bytes());
        }
    }
    Ok(())
}

/// Appends a failure's frame.
pub(crate) fn push_failure(out: &mut Vec<u8>, failure: &Failure) {
    out.push(FAILURE);
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    encode_into(failure, out).expect("strings and an enum always encode");
    let length = (out.len() - start - 8) as u64;
    out[start..start + 8].copy_from_slice(&length.to_le_bytes());
}

/// Reads the frames of a payload one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Frames { rest: payload }
    }

    /// The bytes that have not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next frame; an error when there is none or it is cut short.
    pub(crate) fn next(&mut self) -> Result<Frame<'a>, CodecError> {
        let cut_short = || CodecError::garbled("a job's value is cut short");
        let (&tag, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        let (length, rest) = if tag <= SHORT {
            (u64::from(tag), rest)
        } else {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut_short)?;
            (u64::from_le_bytes(*length), rest)
        };
        let length = usize::try_from(length).map_err(|_| cut_short())?;
        let (value, rest) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(if tag == FAILURE { Frame::Failure(value) } else { Frame::Value(value) })
    }
}

#[cfg(test)]
mod tests;
