//! The frames between a script and rank 0, and between a rank and its Python workers: a head of 48 bytes, then a body.
//!
//! The same layout stands in `python/rankpool/_frames.py`. All numbers are little-endian.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0 | `kind` | what the frame is |
//! | 1 | `flags` | [`IN_MEMFD`] (2), [`USES`] (8); 1 and 4 are those of script and worker |
//! | 2 | `status` | of a result |
//! | 3 | `retries` | how often a failed call is run again; to a worker, not 0 if it may be |
//! | 4 | `count` | u32: jobs in the call, or another number |
//! | 8 | `id` | u64: of the call, the function or the session |
//! | 16 | `function` | u64: the function of a call; the rank of a result |
//! | 24 | `session` | u64: the session of a call; the slot of a result |
//! | 32 | `seconds` | f64: the time limit of a call; the time that a result took |
//! | 40 | `length` | u64: bytes of the body |
//!
//! A large body does not go through the socket: it is in a memfd, whose descriptor travels with the first byte of the head. Nothing
//! here looks into a body.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::memfd::Memfd;
use super::payload::Payload;

/// Bytes of a head.
pub(crate) const HEAD: usize = 48;

/// Flag: the body is in a memfd.
pub(crate) const IN_MEMFD: u8 = 2;
/// Flag: the body begins with the numbers of the shared objects that its payload refers to.
pub(crate) const USES: u8 = 8;

/// Bodies of at least this size are sent in a memfd.
pub(crate) const LARGE: usize = 1 << 20;
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;
/// Capacity that an emptied buffer keeps.
const KEEP: usize = 1 << 20;
/// Most descriptors that come with one read.
const DESCRIPTORS: usize = 16;
/// Most bytes of a body: more is taken for garbage.
const MOST_BODY: u64 = 1 << 40;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// What all calls of an executor have in common.
    Session = 1,
    /// A function with what it captures, or a shared object.
    Function = 2,
    /// One or more jobs of one function.
    Call = 3,
    /// No later call uses this function.
    Forget = 4,
    /// No later call is of this session. Those of it that run are ended.
    EndSession = 5,
    /// To a worker, behind calls of which it is not to begin any more: see [`recall`](super::recall).
    Recall = 6,
    /// The first frame to a script: the ranks.
    Welcome = 16,
    /// The result of a call.
    Result = 17,
    /// How many calls may be sent and not answered.
    Window = 18,
    /// The run ends: no more calls are taken.
    Ending = 19,
    /// The first frame of a worker. Its body is a memfd in which the worker notes the call that it runs.
    Ready = 32,
    /// A worker that can never answer.
    Broken = 33,
    /// A worker has got to a recall: calls before it that have no answer were not begun.
    Recalled = 34,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Session, Function, Call, Forget, EndSession, Recall, Welcome, Result, Window, Ending, Ready, Broken, Recalled]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The head of a frame, without the length of its body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Head {
    pub kind: Kind,
    pub flags: u8,
    pub status: u8,
    pub retries: u8,
    pub count: u32,
    pub id: u64,
    pub function: u64,
    pub session: u64,
    pub seconds: f64,
}

impl Head {
    /// Returns a head with only these fields.
    pub(crate) fn new(kind: Kind, id: u64) -> Head {
        Head { kind, flags: 0, status: 0, retries: 0, count: 0, id, function: 0, session: 0, seconds: 0.0 }
    }

    fn write(&self, flags: u8, length: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind as u8, flags, self.status, self.retries]);
        out.extend_from_slice(&self.count.to_le_bytes());
        for number in [self.id, self.function, self.session, self.seconds.to_bits(), length as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads a head, and the length of its body.
    fn read(bytes: &[u8; HEAD]) -> Option<(Head, u64)> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let [kind, flags, status, retries, count @ ..] = bytes.first_chunk::<8>()?;
        let head = Head {
            kind: Kind::of(*kind)?,
            flags: *flags,
            status: *status,
            retries: *retries,
            count: u32::from_le_bytes(*count),
            id: number(8),
            function: number(16),
            session: number(24),
            seconds: f64::from_bits(number(32)),
        };
        Some((head, number(40))).filter(|(_, length)| *length <= MOST_BODY)
    }
}

/// A frame that was received.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub head: Head,
    pub body: Body<'a>,
}

/// The body of a frame that was received.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Bytes(&'a [u8]),
    Memfd(Memfd),
}

impl<'a> Body<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Bytes(bytes) => bytes.len(),
            Body::Memfd(memfd) => memfd.length,
        }
    }

    /// Returns the bytes.
    ///
    /// # Errors
    /// If a memfd is shorter than the head says.
    pub(crate) fn bytes(self) -> io::Result<Cow<'a, [u8]>> {
        match self {
            Body::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Body::Memfd(memfd) => memfd.read().map(Cow::Owned),
        }
    }

    /// Returns it as a payload that can be kept.
    pub(crate) fn into_payload(self) -> Payload {
        match self {
            Body::Bytes(bytes) => Payload::Bytes(Bytes::copy_from_slice(bytes)),
            Body::Memfd(memfd) => Payload::Memfd(Arc::new(memfd)),
        }
    }
}

/// A part of what is to be sent.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// A head whose body is in this memfd.
    WithMemfd(Vec<u8>, Arc<OwnedFd>),
}

/// Sends frames through a socket: as much as it takes, the rest later.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    socket: Arc<OwnedFd>,
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    sent: usize,
}

impl FrameWriter {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        FrameWriter { socket, pieces: VecDeque::new(), sent: 0 }
    }

    /// Adds a frame whose body is these parts, one behind the other. [`flush`](Self::flush) sends it.
    pub(crate) fn push(&mut self, head: &Head, body: &[&[u8]]) {
        let length = body.iter().map(|part| part.len()).sum();
        if length >= LARGE {
            // Without memory for it, it goes through the socket.
            if let Ok(memfd) = Memfd::of(body) {
                return self.push_memfd(head, &memfd);
            }
        }
        if !matches!(self.pieces.back(), Some(Piece::Bytes(_))) {
            self.pieces.push_back(Piece::Bytes(Vec::new()));
        }
        if let Some(Piece::Bytes(bytes)) = self.pieces.back_mut() {
            head.write(head.flags & !IN_MEMFD, length, bytes);
            body.iter().for_each(|part| bytes.extend_from_slice(part));
        }
    }

    /// Adds a frame with this payload.
    pub(crate) fn push_payload(&mut self, head: &Head, payload: &Payload) {
        match payload {
            Payload::Bytes(bytes) => self.push(head, &[bytes]),
            Payload::Memfd(memfd) => self.push_memfd(head, memfd),
        }
    }

    /// Adds a frame whose body is in a memfd.
    pub(super) fn push_memfd(&mut self, head: &Head, memfd: &Memfd) {
        memfd.note_delivery();
        let mut bytes = Vec::with_capacity(HEAD);
        head.write(head.flags | IN_MEMFD, memfd.length, &mut bytes);
        self.pieces.push_back(Piece::WithMemfd(bytes, memfd.descriptor.clone()));
    }

    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Sends as much as the socket takes without waiting.
    ///
    /// # Errors
    /// If the other end is closed.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(piece) = self.pieces.front() {
            let (bytes, memfd) = match piece {
                Piece::Bytes(bytes) => (bytes, None),
                Piece::WithMemfd(bytes, memfd) => (bytes, Some(memfd).filter(|_| self.sent == 0)),
            };
            match send(self.socket.as_fd(), &bytes[self.sent..], memfd.map(AsFd::as_fd)) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if self.sent == bytes.len() {
                self.sent = 0;
                self.pieces.pop_front();
            }
        }
        Ok(())
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], memfd: Option<BorrowedFd<'_>>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = memfd.into_iter().collect();
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// What [`FrameReader::receive`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Some,
    /// Nothing is there now.
    Nothing,
    /// The other end is closed.
    End,
}

/// Reads frames from a socket.
#[derive(Debug)]
pub(crate) struct FrameReader {
    socket: Arc<OwnedFd>,
    bytes: Vec<u8>,
    /// Bytes before this position were handed over.
    at: usize,
    memfds: VecDeque<OwnedFd>,
}

impl FrameReader {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        FrameReader { socket, bytes: Vec::new(), at: 0, memfds: VecDeque::new() }
    }

    /// Returns the socket, for polling.
    pub(crate) fn socket(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// If the system refuses to read.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.at = 0;
        } else if self.at > PIECE {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        // Memory grows with the bytes that have arrived, not with the announced length.
        let have = self.bytes.len();
        self.bytes.resize(have + PIECE.max((have - self.at) / 2), 0);
        let received = loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut self.bytes[have..])];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(self.socket.as_fd(), &mut into, &mut ancillary, flags) {
                Err(Errno::INTR) => continue,
                Err(error) => break Err(error),
                Ok(received) => {
                    for message in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                            self.memfds.extend(descriptors);
                        }
                    }
                    break Ok(received.bytes);
                }
            }
        };
        self.bytes.truncate(have + received.unwrap_or(0));
        match received {
            Ok(0) | Err(Errno::CONNRESET) => Ok(Received::End),
            Ok(_) => Ok(Received::Some),
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the next frame, if all of it was read.
    ///
    /// # Errors
    /// `InvalidData` if the bytes are no frame.
    pub(crate) fn next_frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "these bytes are no frame");
        let Some(bytes) = self.bytes[self.at..].first_chunk::<HEAD>() else { return Ok(None) };
        let (head, length) = Head::read(bytes).ok_or_else(garbled)?;
        let length = usize::try_from(length).map_err(|_| garbled())?;
        let begin = self.at + HEAD;
        if head.flags & IN_MEMFD != 0 {
            let descriptor = Arc::new(self.memfds.pop_front().ok_or_else(garbled)?);
            self.at = begin;
            return Ok(Some(Frame { head, body: Body::Memfd(Memfd::new(descriptor, length)) }));
        }
        if self.bytes.len() - begin < length {
            return Ok(None);
        }
        self.at = begin + length;
        Ok(Some(Frame { head, body: Body::Bytes(&self.bytes[begin..self.at]) }))
    }

    /// Takes the memfd of the frame that comes next, if that was read, which then has no body.
    pub(crate) fn take_memfd(&mut self, kind: Kind) -> Option<OwnedFd> {
        let (head, _) = Head::read(self.bytes[self.at..].first_chunk::<HEAD>()?)?;
        if head.kind != kind || head.flags & IN_MEMFD == 0 {
            return None;
        }
        let memfd = self.memfds.pop_front()?;
        self.at += HEAD;
        Some(memfd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (FrameWriter, FrameReader) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket pair");
        (FrameWriter::new(Arc::new(ours)), FrameReader::new(Arc::new(theirs)))
    }

    fn head() -> Head {
        let head = Head::new(Kind::Call, 7);
        Head { flags: 4, status: 3, retries: 4, count: 5, function: 8, session: 9, seconds: 1.5, ..head }
    }

    #[test]
    fn frames_of_every_size_arrive_as_they_were_sent() {
        let (mut writer, mut reader) = pair();
        let bodies: Vec<Vec<u8>> = [0, 1, 47, 48, 100_000, LARGE - 1, LARGE, 3 * LARGE, 2]
            .into_iter()
            .map(|length| (0..length).map(|at| (at * 7 % 251) as u8).collect())
            .collect();
        for body in &bodies {
            let (first, second) = body.split_at(body.len() / 3);
            writer.push(&head(), &[first, second]);
        }
        let mut arrived = 0;
        while arrived < bodies.len() {
            writer.flush().expect("the reader is there");
            assert_ne!(reader.receive().expect("it reads"), Received::End);
            while let Some(frame) = reader.next_frame().expect("these are frames") {
                let in_memfd = if bodies[arrived].len() >= LARGE { IN_MEMFD } else { 0 };
                assert_eq!(frame.head, Head { flags: 4 | in_memfd, ..head() });
                assert_eq!(frame.body.bytes().expect("it is whole"), bodies[arrived], "body {arrived}");
                arrived += 1;
            }
        }
        assert!(writer.is_empty());
        drop(writer);
        assert_eq!(reader.receive().expect("it reads"), Received::End);
    }

    #[test]
    fn bytes_that_are_no_frame_are_an_error_and_take_no_memory() {
        for bytes in [vec![0xff; 48], [vec![3; 40], vec![0xff; 8]].concat(), [vec![3, IN_MEMFD], vec![0; 46]].concat()]
        {
            let (writer, mut reader) = pair();
            assert_eq!(send(writer.socket.as_fd(), &bytes, None), Ok(48));
            assert_eq!(reader.receive().expect("it reads"), Received::Some);
            assert!(reader.next_frame().is_err());
        }
    }

    #[test]
    fn a_body_that_never_arrives_is_waited_for_without_memory() {
        let (writer, mut reader) = pair();
        let mut bytes = Vec::new();
        head().write(0, 1 << 39, &mut bytes);
        assert_eq!(send(writer.socket.as_fd(), &bytes, None), Ok(48));
        assert_eq!(reader.receive().expect("it reads"), Received::Some);
        assert!(reader.next_frame().expect("a head").is_none());
        assert!(reader.bytes.capacity() < 1 << 20);
    }
}
