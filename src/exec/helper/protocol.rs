//! What a rank and its spawn helper tell each other, and how bytes and file descriptors get across.

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

use crate::exec::process::Launch;
use crate::wire;

/// What a slot is asked: to start one program. The ends of its standard streams that are not `/dev/null` come along.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request<'a> {
    /// Counts the slot's requests, so that a signal meets the command it was meant for.
    pub number: u64,
    /// The program's file.
    pub file: Cow<'a, str>,
    pub launch: Cow<'a, Launch>,
    /// Which of stdin, stdout and stderr come along.
    pub streams: [bool; 3],
}

/// What a slot answers, once for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The program could not be started.
    Failed { errno: i32 },
    /// The program has ended. Times are microseconds.
    Ended { status: i32, user: u64, system: u64, max_rss_kib: u64 },
}

/// What the helper itself is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// A new slot; its socket comes along.
    Slot { slot: u32 },
    /// A signal for the process group of a request.
    Signal { slot: u32, number: u64, order: Order },
}

/// How a process group is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// With SIGTERM. If the leader ends, the others have this time, from the signal on, to follow before they are killed.
    Term { grace: Duration },
    /// With SIGKILL.
    Kill,
}

/// No message is longer. Linux starts no program with more than 6 MiB of arguments and environment.
pub(crate) const LONGEST: usize = 16 << 20;

/// How many file descriptors come along with one message at most.
const DESCRIPTORS: usize = 3;

/// A value as a message: its length, four bytes, then its encoding. `None` when it is too long or cannot be written.
pub(crate) fn write_frame<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.clear();
    bytes.extend_from_slice(&[0; 4]);
    wire::encode_into(value, bytes).ok()?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= LONGEST)?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Some(())
}

/// Sends these bytes, all of them; the file descriptors come along with the first.
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

/// What arrives on a socket: bytes, and file descriptors that came along.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// The next message of a stream socket; `None` when the other side is gone.
    pub(crate) fn frame<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Option<T>> {
        const PIECE: usize = 64 << 10;
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
            // Memory grows with what has arrived, not with what is announced.
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
        let value = wire::decode(&self.bytes[4..have]).map_err(|_| garbled())?;
        if self.bytes.len() > 4 * PIECE {
            self.bytes = Vec::new();
        }
        Ok(Some(value))
    }

    /// The next message of a socket that keeps messages apart; `None` when the other side is gone.
    pub(crate) fn packet<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<Option<T>> {
        self.descriptors.clear();
        self.bytes.resize(1024, 0);
        let length = self.receive(socket.as_fd(), 0)?;
        if length == 0 {
            return Ok(None);
        }
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
                // The other side has died with something unread.
                Err(Errno::CONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
