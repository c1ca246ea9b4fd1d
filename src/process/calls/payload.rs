//! The payloads of calls and results on their way through rankpool: bytes that nothing here reads.
//!
//! A large payload comes from a script or a worker in a memfd. On one host the memfd itself goes the whole way, and a message has
//! only what [`passing`](super::passing) needs to find it. Between hosts its bytes are sent.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::memfd::Memfd;
use super::passing::{self, Passing, Place};
use crate::console::reason;
use crate::engine::wire;

/// A payload.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Bytes(Bytes),
    Memfd(Arc<Memfd>),
}

impl Default for Payload {
    fn default() -> Self {
        Payload::Bytes(Bytes::new())
    }
}

impl Payload {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Memfd(memfd) => memfd.length,
        }
    }

    /// Returns the bytes as a vector, without a copy if nothing else holds them.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn into_vec(self) -> io::Result<Vec<u8>> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes.into()),
            Payload::Memfd(memfd) => memfd.read(),
        }
    }

    /// Notes that others than the process that was sent it may get it, too: it is not written again.
    pub(super) fn note_other_receivers(&self) {
        if let Payload::Memfd(memfd) = self {
            memfd.note_delivery();
        }
    }

    /// Lets the message of a call that it was decoded from be decoded again. Between processes, rank 0 keeps the memfd of a call until
    /// the call is settled.
    pub(crate) fn leave_again(self) {
        if let (Payload::Memfd(memfd), Passing::InProcess) = (self, Passing::of_this_run()) {
            passing::leave_again(memfd);
        }
    }

    /// Returns the bytes, which are read from the memfd if they are there.
    ///
    /// # Errors
    /// If the memfd is shorter than its sender has said.
    pub(crate) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Payload::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Payload::Memfd(memfd) => memfd.read().map(Cow::Owned),
        }
    }
}

/// How a payload travels: its bytes; a memfd of this process, or of this host, that is fetched once; or one that is fetched by many.
const AS_BYTES: u8 = 0;
const IN_PROCESS: u8 = 1;
const IN_PROCESS_FOR_MANY: u8 = 2;
const ON_HOST: u8 = 3;
const ON_HOST_FOR_MANY: u8 = 4;

fn serialize<S: Serializer>(payload: &Payload, for_many: bool, serializer: S) -> Result<S::Ok, S::Error> {
    let mut parts = serializer.serialize_tuple(2)?;
    match (payload, Passing::of_this_run()) {
        (Payload::Memfd(memfd), Passing::InProcess) => {
            let (how, ticket) = if for_many {
                (IN_PROCESS_FOR_MANY, passing::show(memfd))
            } else {
                (IN_PROCESS, passing::leave(memfd.clone()))
            };
            parts.serialize_element(&how)?;
            parts.serialize_element(&ticket)?;
        }
        (Payload::Memfd(memfd), Passing::OnHost) => {
            let place = Place::of(memfd).map_err(|error| S::Error::custom(reason(&error)))?;
            if !for_many {
                memfd.note_delivery();
                passing::keep_until_taken(memfd);
            }
            parts.serialize_element(if for_many { &ON_HOST_FOR_MANY } else { &ON_HOST })?;
            parts.serialize_element(&place)?;
        }
        (payload, _) => {
            let bytes = payload.bytes().map_err(|error| S::Error::custom(reason(&error)))?;
            parts.serialize_element(&AS_BYTES)?;
            parts.serialize_element(serde_bytes::Bytes::new(&bytes))?;
            if let Payload::Memfd(memfd) = payload {
                memfd.note_read();
            }
        }
    }
    parts.end()
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self, false, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a payload")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Payload, A::Error> {
                let missing = || A::Error::custom("a payload that is cut off");
                let how = parts.next_element::<u8>()?.ok_or_else(missing)?;
                let memfd = match how {
                    AS_BYTES => {
                        return parts.next_element::<Part>()?.ok_or_else(missing).map(|part| Payload::Bytes(part.0));
                    }
                    IN_PROCESS => passing::fetch(parts.next_element()?.ok_or_else(missing)?),
                    IN_PROCESS_FOR_MANY => passing::find(parts.next_element()?.ok_or_else(missing)?),
                    ON_HOST | ON_HOST_FOR_MANY => {
                        let place: Place = parts.next_element()?.ok_or_else(missing)?;
                        let memfd = place
                            .open()
                            .map_err(|error| A::Error::custom(format_args!("a payload is gone: {}", reason(&error))))?;
                        if how == ON_HOST {
                            memfd.note_taken();
                        }
                        Some(Arc::new(memfd))
                    }
                    other => return Err(A::Error::custom(format_args!("a payload of kind {other}"))),
                };
                memfd.map(Payload::Memfd).ok_or_else(|| A::Error::custom("a payload is gone"))
            }
        }
        deserializer.deserialize_tuple(2, Parts)
    }
}

/// A payload whose encoding is decoded by many, as long as the payload is kept where it was encoded.
#[derive(Debug)]
pub(crate) struct Lasting(pub Payload);

impl Serialize for Lasting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, true, serializer)
    }
}

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Payload::deserialize(deserializer).map(Lasting)
    }
}

/// Bytes that share the memory of the message that they are decoded from, if that is known.
struct Part(Bytes);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMessage;
        impl<'de> Visitor<'de> for OfMessage {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Part, E> {
                Ok(Part(wire::part_of_message(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Part, E> {
                Ok(Part(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(OfMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_arrives_as_its_bytes_and_shares_the_memory_of_its_message() {
        let memfd = Memfd::of(&[b"some ", b"bytes"]).expect("there is memory");
        for payload in [Payload::Bytes(Bytes::from_static(b"some bytes")), Payload::Memfd(Arc::new(memfd))] {
            let message = wire::encode(&payload).expect("it is encoded");
            let decoded: Payload = wire::decode(&message).expect("it is decoded");
            assert_eq!(*decoded.bytes().expect("they are there"), *b"some bytes");
            let shared: Payload = wire::with_message(&message, || wire::decode(&message)).expect("it is decoded");
            let Payload::Bytes(shared) = shared else { panic!("there are other hosts") };
            assert!(message.as_ptr_range().contains(&shared.as_ptr()) && shared == b"some bytes"[..]);
        }
    }
}
