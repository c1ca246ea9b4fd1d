//! The messages between a rank and its spawn helper, and the transfer of bytes and file descriptors.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::engine::wire;
use crate::process::program::Program;

/// A request on a channel: start one program. The message carries the ends of its standard streams that are not `/dev/null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpawnRequest<'a> {
    /// Counts the channel's requests, so that a signal reaches the command for which it was meant.
    pub number: u64,
    /// The program's file.
    pub file: Cow<'a, str>,
    pub program: Cow<'a, Program>,
    /// Which of stdin, stdout and stderr the message carries.
    pub streams: [bool; 3],
}

/// The reply on a channel, one for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SpawnReply {
    /// The channel has no thread and cannot be used.
    NoThread,
    /// The program could not be started.
    Failed { errno: i32 },
    /// The program has ended. Times are microseconds.
    Ended { status: i32, user: u64, system: u64, max_rss_kib: u64 },
}

/// A message to the helper's main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// A new channel; the message carries its socket.
    Channel { channel: u32 },
    /// A signal for the process group of a request.
    Signal { channel: u32, number: u64, order: SignalOrder },
}

/// How a process group is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SignalOrder {
    /// With SIGTERM. If the leader ends, the rest of the group is killed `grace` after the signal.
    Term { grace: Duration },
    /// With SIGKILL.
    Kill,
}

/// Longest message. Linux starts no program with more than 6 MiB of arguments and environment.
pub(crate) const LONGEST: usize = 16 << 20;

/// Most file descriptors in one message.
const DESCRIPTORS: usize = 3;

/// Writes a value as a message: four bytes of length, then its encoding. Returns `None` if it is too long or cannot be encoded.
pub(crate) fn write_frame<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.clear();
    bytes.extend_from_slice(&[0; 4]);
    wire::encode_into(value, bytes).ok()?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= LONGEST)?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Some(())
}

/// Sends all these bytes; the file descriptors travel with the first.
pub(crate) fn send(socket: BorrowedFd<'_>, mut bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    while !bytes.is_empty() {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                ancillary.clear();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the error says that the other end of a socket is closed.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Receives bytes and file descriptors from a socket.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Receives the next message of a stream socket; `None` when the other end is closed.
    ///
    /// # Errors
    /// `ConnectionReset` if it has died with something unread.
    pub(crate) fn frame<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Option<T>> {
        const PIECE: usize = 8 << 10;
        let garbled = || io::Error::from(io::ErrorKind::InvalidData);
        self.descriptors.clear();
        let mut have = 0;
        loop {
            let missing = match self.bytes.get(..4).filter(|_| have >= 4) {
                Some(prefix) => {
                    let length = u32::from_le_bytes(prefix.try_into().map_err(|_| garbled())?) as usize;
                    if length > LONGEST {
                        return Err(garbled());
                    }
                    4 + length - have.min(4 + length)
                }
                None => PIECE,
            };
            if missing == 0 {
                break;
            }
            // Memory grows with the bytes that have arrived, not with the announced length.
            let room = have + missing.min(have.max(PIECE));
            if self.bytes.len() < room {
                self.bytes.resize(room, 0);
            }
            match self.receive(socket.as_fd(), have)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => have += length,
            }
        }
        // There are no bytes of a next message here: the two sides send in turns.
        let value = wire::decode(&self.bytes[4..have]).map_err(|_| garbled())?;
        if self.bytes.len() > 16 * PIECE {
            self.bytes = Vec::new();
        }
        Ok(Some(value))
    }

    /// Receives the next message of a socket for whole messages; `None` when the other end is closed.
    pub(crate) fn packet<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Option<T>> {
        self.descriptors.clear();
        self.bytes.resize(1024, 0);
        let length = match self.receive(socket.as_fd(), 0) {
            Ok(0) => return Ok(None),
            Ok(length) => length,
            Err(error) if is_closed(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        wire::decode(&self.bytes[..length]).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Receives into the buffer from `start` on.
    fn receive(&mut self, socket: BorrowedFd<'_>, start: usize) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        loop {
            let mut slices = [IoSliceMut::new(&mut self.bytes[start..])];
            match recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => {
                    for message in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                            self.descriptors.extend(descriptors);
                        }
                    }
                    return Ok(received.bytes);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// Receives these bytes, after which the sender closes its socket.
    fn read(bytes: &[u8]) -> io::Result<Option<String>> {
        let (to, from) = UnixStream::pair().expect("a pair of sockets");
        thread::scope(|scope| {
            scope.spawn(move || {
                let _ = send(to.as_fd(), bytes, &[]);
            });
            Inbox::default().frame(&from)
        })
    }

    fn framed(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&text, &mut bytes).expect("it is short enough");
        bytes
    }

    #[test]
    fn messages_of_any_length_arrive() {
        for length in [0, 1, 8185, 8186, 70_000, 5_000_000] {
            let text = "x".repeat(length);
            assert_eq!(read(&framed(&text)).expect("it is whole").map(|text| text.len()), Some(length));
        }
        assert!(write_frame(&"x".repeat(LONGEST + 1), &mut Vec::new()).is_none());
    }

    #[test]
    fn whatever_arrives_is_read_or_refused() {
        assert_eq!(read(b"").ok(), Some(None));
        let whole = framed("some text");
        for length in 1..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut after {length} bytes");
        }
        assert!(read(b"\xff\xff\xff\xff and more").is_err(), "longer than any message");
        assert!(read(b"\x00\x00\x00\x01 and more").is_err(), "16 MiB are announced and not there");
        assert!(read(b"\x02\x00\x00\x00\xfb\xff").is_err(), "garbled inside");
        assert!(read(&[whole, b"x".to_vec()].concat()).is_err(), "more than was asked for");
    }

    #[test]
    fn file_descriptors_arrive_once() {
        let (to, from) = UnixStream::pair().expect("a pair of sockets");
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        let mut inbox = Inbox::default();
        send(to.as_fd(), &framed("both"), &[one.as_fd(), other.as_fd()]).expect("it is sent");
        assert_eq!(inbox.frame::<String>(&from).expect("it arrives").as_deref(), Some("both"));
        assert_eq!(inbox.descriptors.len(), 2);
        assert!(inbox.descriptors.iter().all(|there| there.as_raw_fd() > 2));
        send(to.as_fd(), &framed("none"), &[]).expect("it is sent");
        assert_eq!(inbox.frame::<String>(&from).expect("it arrives").as_deref(), Some("none"));
        assert!(inbox.descriptors.is_empty());
    }
}
