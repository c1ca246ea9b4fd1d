//! The messages between master and ranks, and their encoding.
//!
//! A *packet* is a payload (raw bytes: inputs, results, contexts), heads (small,
//! bincode) and the length of the heads. The heads hold the lengths of the parts of the payload, so payloads are never copied to
//! be read. They follow the payload, so that a large payload need not be copied to be sent, either. The jobs in a
//! payload are *frames*: a length and the value's own encoding, or a failure in place of a value, or the place of a large [`List`],
//! which travels beside the packet. A [`Message`] is a packet with its lists.
//!
//! Whatever the bytes are, reading them gives a value or a [`CodecError`]: no panic, and no allocation that is much larger than
//! the bytes themselves.

mod bulk;
mod frames;
mod list;

use std::cell::RefCell;
use std::error::Error;
use std::fmt;

use bincode::config::{self, Config};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::engine::memory;
use crate::engine::placement::RankFacts;
use crate::engine::schedule::{ChunkId, MapId};

pub(crate) use bulk::{decode_value, encode_value};
pub(crate) use frames::{Frame, Frames, places_of_lists, push_failure, push_list, push_value};
#[cfg(feature = "mpi")]
pub(crate) use list::ListKind;
pub(crate) use list::{List, Lists};

/// The error of bytes that cannot be decoded, or of a value that cannot be encoded.
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

/// The id of a function, valid on every rank of a run; `func` makes and reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FunctionId {
    /// Its position in the executable.
    pub offset: i64,
    /// A hash over the offset and the executable's own hash: proves that this is an id, and of this executable.
    pub seal: u64,
}

/// One of a process's two streams of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutputStream {
    Stdout,
    Stderr,
}

/// What the threads of a rank are doing at a moment. All times are in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The moment, on the rank's own clock, since its start.
    pub at_ns: u64,
    /// The time that its threads have spent on chunks so far, running ones included, summed over threads.
    pub busy_ns: u64,
    /// The number of chunks that run.
    pub running: u32,
    /// The job that has run longest of those that run.
    pub slowest: Option<RunningJob>,
}

/// A job that a rank is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningJob {
    /// Its index in its map.
    pub job: u64,
    pub attempt: u32,
    /// How long it has run, as far as it is known: a job is noticed when a load is reported.
    pub ns: u64,
}

/// A message from the master to a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToRank {
    /// The rank belongs to the run and computes with `threads` threads; earlier ranks on the same host have `slots_before`.
    Welcome { threads: u32, slots_before: u32 },
    /// The definition of a map: its function, and the time limit of a job in µs (0: none). The payload is the map's context.
    Define { map: MapId, function: FunctionId, limit: u64, bytes: u64 },
    /// A broadcast value to keep until it is forgotten or the run ends. The payload is the value.
    Broadcast { value: u64, bytes: u64 },
    /// Forget a broadcast value: no job uses it any more.
    Forget { value: u64 },
    /// Jobs to run. The payload is their inputs, a frame each.
    Chunk { chunk: ChunkId, map: MapId, first: u64, count: u32, attempt: u32, bytes: u64 },
    /// Give back the jobs of this chunk that have not started.
    Recall { chunk: ChunkId },
    /// The driver has taken this piece of output.
    PartTaken { part: u64 },
    /// The driver has dropped a map: notify its running jobs.
    Cancel { map: MapId },
    /// The master is alive.
    Pulse,
    /// All jobs of a map are settled: forget it.
    Release { map: MapId },
    /// The last message of a run: leave it. If ranks were lost, without `MPI_Finalize`, which would wait for them.
    Dismiss { after_loss: bool },
    /// The rank was taken for dead and its jobs were given to others: take no further part in the run.
    GivenUp,
    /// Report from now on, about once in this time, what the threads are doing.
    ReportLoad { every_ms: u32 },
    /// The run has failed: end this process.
    Abort,
}

/// A message from a rank to the master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToMaster {
    /// The rank has started.
    Join(Box<RankFacts>),
    /// A chunk is finished. The payload is its results, a frame each; `failed` holds offsets from its first job;
    /// `failed_results` is the number of further jobs whose result says that they failed; `lists` the number of results that are large lists
    /// beside the packet. The chunk took `wall_ns` on its thread, `useful_ns` of that in the function of its jobs.
    Finished {
        chunk: ChunkId,
        count: u32,
        wall_ns: u64,
        useful_ns: u64,
        failed: Vec<u32>,
        failed_results: u32,
        bytes: u64,
        lists: u32,
    },
    /// A piece of a job's output, sent before its result. The payload is the piece; `part` numbers the pieces of this rank.
    Part { part: u64, map: MapId, job: u64, stream: OutputStream, bytes: u64 },
    /// Results of a chunk that is not finished: those of `count` jobs from its job `first` on. The payload is a frame for each. They
    /// come again when the chunk is finished.
    Early { chunk: ChunkId, first: u32, count: u32, bytes: u64 },
    /// The answer to a recall: the rank keeps the first `kept` jobs.
    Returned { chunk: ChunkId, kept: u32 },
    /// A job of this chunk takes long. Jobs behind it that the rank had taken up can be given back again.
    Delayed { chunk: ChunkId },
    /// The rank has received a signal that asks for the end of the run.
    Signalled,
    /// The rank is alive.
    Pulse,
    /// What the rank's threads are doing.
    Load(Load),
    /// rankpool itself has failed on this rank.
    Failed { message: String },
}

/// The head of a message.
pub(crate) trait Head: Serialize + DeserializeOwned {
    /// Returns the length of the message's part of the packet's payload.
    fn payload(&self) -> u64;
}

impl Head for ToRank {
    fn payload(&self) -> u64 {
        match self {
            ToRank::Define { bytes, .. } | ToRank::Broadcast { bytes, .. } | ToRank::Chunk { bytes, .. } => *bytes,
            ToRank::Welcome { .. }
            | ToRank::Forget { .. }
            | ToRank::Recall { .. }
            | ToRank::PartTaken { .. }
            | ToRank::Cancel { .. }
            | ToRank::Pulse
            | ToRank::Release { .. }
            | ToRank::Dismiss { .. }
            | ToRank::GivenUp
            | ToRank::ReportLoad { .. }
            | ToRank::Abort => 0,
        }
    }
}

impl Head for ToMaster {
    fn payload(&self) -> u64 {
        match self {
            ToMaster::Finished { bytes, .. } | ToMaster::Part { bytes, .. } | ToMaster::Early { bytes, .. } => *bytes,
            ToMaster::Join(_)
            | ToMaster::Returned { .. }
            | ToMaster::Delayed { .. }
            | ToMaster::Signalled
            | ToMaster::Pulse
            | ToMaster::Load(_)
            | ToMaster::Failed { .. } => 0,
        }
    }
}

/// A payload of at least this size is not copied if nothing else shares its memory.
const WORTH_KEEPING: usize = 64 << 10;
/// Smaller parts of a payload are copied at once, so that nothing is kept for each of them.
const SMALL: usize = 1 << 10;
/// The usual heads have at most this many bytes. A large payload would be moved to make room for more.
const HEAD: usize = 72;
/// The most memory that is reserved for the small parts of the next packet.
const RESERVED: usize = 64 << 10;

/// What is sent at once: a packet, and the large lists of its results.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Message {
    pub packet: Bytes,
    pub lists: Vec<List>,
}

impl Message {
    /// Returns the size of the packet and the lists in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.packet.len() + self.lists.iter().map(List::bytes).sum::<usize>()
    }
}

impl From<Bytes> for Message {
    fn from(packet: Bytes) -> Message {
        Message { packet, lists: Vec::new() }
    }
}

/// Messages for one receiver, collected until they are sent as one.
#[derive(Debug)]
pub(crate) struct Packet<H> {
    heads: Vec<H>,
    payload: Vec<Bytes>,
    /// The end of the payload, after all of `payload`.
    small: Vec<u8>,
    lists: Vec<List>,
}

impl<H> Default for Packet<H> {
    fn default() -> Self {
        Packet { heads: Vec::new(), payload: Vec::new(), small: Vec::new(), lists: Vec::new() }
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
        for part in parts {
            if part.len() < SMALL {
                self.small.extend_from_slice(&part);
            } else {
                if !self.small.is_empty() {
                    self.payload.push(std::mem::take(&mut self.small).into());
                }
                self.payload.push(part);
            }
        }
    }

    /// Adds a message with a small payload, which is copied.
    pub(crate) fn push_small(&mut self, head: H, payload: &[u8]) {
        self.heads.push(head);
        self.small.extend_from_slice(payload);
    }

    /// Adds the large lists of the message that was added last.
    pub(crate) fn push_lists(&mut self, lists: impl IntoIterator<Item = List>) {
        self.lists.extend(lists);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Returns all messages so far and empties the packet.
    pub(crate) fn take(&mut self) -> Result<Message, CodecError> {
        // Room for the heads, and for their number and their length.
        let heads = HEAD * self.heads.len() + 16;
        let reserved = Vec::with_capacity(self.small.len().min(RESERVED));
        let small = std::mem::replace(&mut self.small, reserved);
        let mut bytes = if self.payload.is_empty() {
            small
        } else {
            let room = self.payload.iter().map(Bytes::len).sum::<usize>() + small.len() + heads;
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
            bytes.extend_from_slice(&small);
            bytes
        };
        memory::reserve(&mut bytes, heads);
        let payload = bytes.len();
        encode_with(&self.heads, &mut bytes, HEADS)?;
        let heads =
            u32::try_from(bytes.len() - payload).map_err(|_| CodecError("more than 4 GiB of message heads".into()))?;
        bytes.extend_from_slice(&heads.to_le_bytes());
        self.heads.clear();
        Ok(Message { packet: bytes.into(), lists: std::mem::take(&mut self.lists) })
    }
}

/// Decodes a packet and returns its messages, each with its part of the payload.
pub(crate) fn open<H: Head>(mut packet: Bytes) -> Result<Vec<(H, Bytes)>, CodecError> {
    let Some(&length) = packet.last_chunk::<4>() else { return Err(CodecError::garbled("it is too short")) };
    packet.truncate(packet.len() - length.len());
    let Some(payload) = packet.len().checked_sub(u32::from_le_bytes(length) as usize) else {
        return Err(CodecError::garbled("its heads are not whole"));
    };
    let heads: Vec<H> = decode_heads(&packet.split_off(payload))?;
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

/// The advice for a type that the binary encoding does not support.
const USE_JSON: &str = "wrap the value in `rankpool::Json`";
/// The advice for a value that is longer or shorter than expected. A garbled message looks the same.
const SKIPS: &str = " (if its type leaves out fields, with `skip_serializing_if`, wrap the value in `rankpool::Json`)";

fn encode_error(error: EncodeError) -> CodecError {
    CodecError(match error {
        EncodeError::OtherString(message) => message,
        EncodeError::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => format!(
            "its type does not give the number of its elements before they are written, as types with `#[serde(flatten)]`: {USE_JSON}"
        ),
        other => other.to_string(),
    })
}

fn decode_error(error: DecodeError) -> CodecError {
    use bincode::serde::DecodeError as Serde;
    CodecError(match error {
        DecodeError::OtherString(message) => message,
        DecodeError::Serde(Serde::AnyNotSupported | Serde::IdentifierNotSupported | Serde::IgnoredAnyNotSupported) => {
            format!(
                "its type needs a self-describing format, as `serde_json::Value` and types with \
                 `#[serde(untagged)]`, `#[serde(tag)]` or `#[serde(flatten)]` do: {USE_JSON}"
            )
        }
        other @ DecodeError::UnexpectedEnd { .. } => format!("{other}{SKIPS}"),
        other => other.to_string(),
    })
}

/// The encoding of values: short numbers take few bytes.
const VALUES: config::Configuration = config::standard();
/// The encoding of heads: all numbers take their full width, which is several times as fast to write and to read.
const HEADS: config::Configuration<config::LittleEndian, config::Fixint> = VALUES.with_fixed_int_encoding();

/// Appends the encoding of a value.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    encode_with(value, out, VALUES)
}

fn encode_with<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>, config: impl Config) -> Result<(), CodecError> {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Sink<'_> {
        #[inline]
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            memory::reserve(self.0, bytes.len());
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::serde::encode_into_writer(value, Sink(out), config).map_err(encode_error)
}

/// Returns the encoding of a value.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes.into())
}

thread_local! {
    /// The message that this thread decodes values from.
    static MESSAGE: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Calls `decode`, which decodes values from parts of this message: their byte strings can share its memory.
pub(crate) fn with_message<R>(message: &Bytes, decode: impl FnOnce() -> R) -> R {
    MESSAGE.with(|current| current.replace(message.clone()));
    let decoded = decode();
    MESSAGE.with(|current| current.replace(Bytes::new()));
    decoded
}

/// Returns these bytes without a copy, if they are a part of the message that this thread decodes values from.
#[cfg(feature = "program")]
pub(crate) fn part_of_message(bytes: &[u8]) -> Bytes {
    MESSAGE.with_borrow(|message| {
        let (all, part) = (message.as_ptr_range(), bytes.as_ptr_range());
        let is_part = all.start <= part.start && part.end <= all.end;
        // A small part would keep the memory of the whole message.
        let is_worth_it = bytes.len() > message.len() / 2;
        if is_part && is_worth_it { message.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) }
    })
}

/// Defines a function that decodes a value from all of these bytes.
///
/// bincode allocates a string or byte string before it checks that its bytes are there; only its limit, a constant, stops a garbled
/// length. The limit counts an integer at its full width, up to 16 times its size in the encoding.
macro_rules! decoder {
    ($(#[$doc:meta])* $visibility:vis fn $name:ident, $config:ident) => {
        $(#[$doc])*
        #[inline]
        $visibility fn $name<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
            fn limited<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
                bincode::serde::borrow_decode_from_slice(bytes, $config.with_limit::<LIMIT>()).map_err(decode_error)
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
    };
}

decoder! {
    /// Decodes a value from all of these bytes.
    pub(crate) fn decode, VALUES
}
decoder! {
    /// Decodes heads from all of these bytes.
    fn decode_heads, HEADS
}

#[cfg(test)]
mod tests;
