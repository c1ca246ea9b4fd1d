//! The payloads of calls and results on their way through rankpool: bytes that nothing here reads.
//!
//! A large payload comes from a script or a worker in a memfd. Where all ranks are threads of this process, the memfd itself goes
//! the whole way, and a message has its ticket only. Between processes its bytes are sent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::console::reason;
use crate::engine::{memory, wire};

/// A payload.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Bytes(Bytes),
    Memfd(Arc<Memfd>),
}

/// A file in memory with a payload. Nothing writes to it any more.
#[derive(Debug)]
pub(crate) struct Memfd {
    pub descriptor: Arc<OwnedFd>,
    pub length: usize,
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

    /// Lets the message that it was decoded from be decoded again.
    pub(crate) fn leave_again(self) {
        if let Payload::Memfd(memfd) = self {
            leave_again(memfd);
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

impl Memfd {
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = File::from(self.descriptor.try_clone()?);
        if file.metadata()?.len() < self.length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a payload is shorter than its head says"));
        }
        // Its sender has written it, and has moved its position.
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = memory::vec_with_capacity(self.length);
        file.take(self.length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Whether all ranks are threads of this process.
static ONE_PROCESS: AtomicBool = AtomicBool::new(false);

/// Memfds on their way to a thread of this process, by their tickets.
struct OnTheirWay {
    last_ticket: u64,
    memfds: BTreeMap<u64, Arc<Memfd>>,
    /// Those that were fetched, while they are in use.
    fetched: BTreeMap<u64, Weak<Memfd>>,
    /// Those that many fetch. Their sender keeps them as long as they may be fetched.
    lasting: BTreeMap<u64, Weak<Memfd>>,
}

static ON_THEIR_WAY: Mutex<OnTheirWay> = Mutex::new(OnTheirWay {
    last_ticket: 0,
    memfds: BTreeMap::new(),
    fetched: BTreeMap::new(),
    lasting: BTreeMap::new(),
});

/// Lets memfds go from thread to thread: all ranks are threads of this process.
pub(crate) fn keep_in_process() {
    ONE_PROCESS.store(true, Ordering::Relaxed);
}

fn on_their_way() -> MutexGuard<'static, OnTheirWay> {
    ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a memfd until it is fetched, and returns its ticket.
fn leave(memfd: Arc<Memfd>) -> u64 {
    let mut on_their_way = on_their_way();
    on_their_way.last_ticket += 1;
    let ticket = on_their_way.last_ticket;
    on_their_way.memfds.insert(ticket, memfd);
    ticket
}

fn fetch(ticket: u64) -> Option<Arc<Memfd>> {
    let mut on_their_way = on_their_way();
    on_their_way.fetched.retain(|_, memfd| memfd.strong_count() > 0);
    let memfd = on_their_way.memfds.remove(&ticket)?;
    on_their_way.fetched.insert(ticket, Arc::downgrade(&memfd));
    Some(memfd)
}

/// Keeps a memfd that was fetched until it is fetched again, with its ticket.
fn leave_again(memfd: Arc<Memfd>) {
    let mut on_their_way = on_their_way();
    let is_it = |fetched: &Weak<Memfd>| fetched.as_ptr() == Arc::as_ptr(&memfd);
    let ticket = on_their_way.fetched.iter().find(|(_, fetched)| is_it(fetched)).map(|(ticket, _)| *ticket);
    if let Some(ticket) = ticket {
        on_their_way.fetched.remove(&ticket);
        on_their_way.memfds.insert(ticket, memfd);
    }
}

/// Lets many fetch a memfd as long as it is kept, and returns its ticket.
fn show(memfd: &Arc<Memfd>) -> u64 {
    let mut on_their_way = on_their_way();
    on_their_way.lasting.retain(|_, memfd| memfd.strong_count() > 0);
    on_their_way.last_ticket += 1;
    let ticket = on_their_way.last_ticket;
    on_their_way.lasting.insert(ticket, Arc::downgrade(memfd));
    ticket
}

fn find(ticket: u64) -> Option<Arc<Memfd>> {
    on_their_way().lasting.get(&ticket).and_then(Weak::upgrade)
}

/// How a payload travels: its bytes, a ticket that is fetched once, or one that is fetched by many.
const AS_BYTES: u8 = 0;
const AS_TICKET: u8 = 1;
const AS_LASTING_TICKET: u8 = 2;

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_tuple(2)?;
        match self {
            Payload::Memfd(memfd) if ONE_PROCESS.load(Ordering::Relaxed) => {
                parts.serialize_element(&AS_TICKET)?;
                parts.serialize_element(&leave(memfd.clone()))?;
            }
            payload => {
                let bytes = payload.bytes().map_err(|error| S::Error::custom(reason(&error)))?;
                parts.serialize_element(&AS_BYTES)?;
                parts.serialize_element(serde_bytes::Bytes::new(&bytes))?;
            }
        }
        parts.end()
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
                match parts.next_element::<u8>()?.ok_or_else(missing)? {
                    AS_BYTES => parts.next_element::<Part>()?.ok_or_else(missing).map(|part| Payload::Bytes(part.0)),
                    AS_TICKET => {
                        let ticket = parts.next_element::<u64>()?.ok_or_else(missing)?;
                        fetch(ticket).map(Payload::Memfd).ok_or_else(|| A::Error::custom("a ticket without a payload"))
                    }
                    AS_LASTING_TICKET => {
                        let ticket = parts.next_element::<u64>()?.ok_or_else(missing)?;
                        find(ticket).map(Payload::Memfd).ok_or_else(|| A::Error::custom("a payload that is gone"))
                    }
                    other => Err(A::Error::custom(format_args!("a payload of kind {other}"))),
                }
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
        match &self.0 {
            Payload::Memfd(memfd) if ONE_PROCESS.load(Ordering::Relaxed) => {
                (AS_LASTING_TICKET, show(memfd)).serialize(serializer)
            }
            payload => payload.serialize(serializer),
        }
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
    use crate::process::calls::frame::memfd_of;

    fn memfd(bytes: &[u8]) -> Payload {
        let descriptor = Arc::new(memfd_of(&[bytes]).expect("there is memory"));
        Payload::Memfd(Arc::new(Memfd { descriptor, length: bytes.len() }))
    }

    #[test]
    fn a_payload_arrives_as_its_bytes_and_shares_the_memory_of_its_message() {
        for payload in [Payload::Bytes(Bytes::from_static(b"some bytes")), memfd(b"some bytes")] {
            let message = wire::encode(&payload).expect("it is encoded");
            let decoded: Payload = wire::decode(&message).expect("it is decoded");
            assert_eq!(*decoded.bytes().expect("they are there"), *b"some bytes");
            let shared: Payload = wire::with_message(&message, || wire::decode(&message)).expect("it is decoded");
            let Payload::Bytes(shared) = shared else { panic!("there are other processes") };
            assert!(message.as_ptr_range().contains(&shared.as_ptr()) && shared == b"some bytes"[..]);
        }
    }

    #[test]
    fn a_ticket_is_used_once() {
        let Payload::Memfd(memfd) = memfd(b"x") else { panic!("it is one") };
        let ticket = leave(memfd);
        assert_eq!(fetch(ticket).map(|memfd| memfd.length), Some(1));
        assert!(fetch(ticket).is_none());
    }

    #[test]
    fn what_was_fetched_and_left_again_has_the_same_ticket() {
        let Payload::Memfd(memfd) = memfd(b"x") else { panic!("it is one") };
        let ticket = leave(memfd);
        for _ in 0..2 {
            Payload::Memfd(fetch(ticket).expect("it is there")).leave_again();
        }
        assert!(fetch(ticket).is_some() && fetch(ticket).is_none());
    }

    #[test]
    fn a_lasting_ticket_is_fetched_by_many_while_its_memfd_is_kept() {
        let Payload::Memfd(memfd) = memfd(b"x") else { panic!("it is one") };
        let ticket = show(&memfd);
        assert_eq!(find(ticket).map(|memfd| memfd.length), Some(1));
        assert!(find(ticket).is_some());
        drop(memfd);
        assert!(find(ticket).is_none());
    }

    #[test]
    fn a_memfd_that_is_too_short_is_an_error() {
        let Payload::Memfd(memfd) = memfd(b"x") else { panic!("it is one") };
        let longer = Memfd { descriptor: memfd.descriptor.clone(), length: 2 };
        assert!(Payload::Memfd(Arc::new(longer)).bytes().is_err());
    }
}
