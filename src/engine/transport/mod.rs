//! How messages get from the master to a rank and back. What they mean is not known here.
//!
//! The contract, for every transport:
//!
//! * messages between two ends arrive whole, once, and in the order in which they were sent;
//! * [`Transport::send`] never blocks and takes the message over; what the other end does not take in is kept here;
//! * [`Transport::receive`] never blocks; it also moves pending sends along, so it must be called again and again;
//! * a loop that finds nothing sleeps in [`Idle::wait`]; whoever has something for the loop through another channel
//!   rings its [`Doorbell`] afterwards.

mod idle;
pub(crate) mod local;
#[cfg(feature = "mpi")]
pub(crate) mod mpi;
mod pulse;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::schedule::RankId;

pub(crate) use idle::{Doorbell, Idle, Need};
pub(crate) use pulse::Pulse;

/// The transport failed; the run cannot go on.
#[derive(Debug)]
pub(crate) struct TransportError(pub String);

impl Error for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What carries the messages of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportInfo {
    /// The ranks are threads of one process.
    Local,
    /// The ranks are MPI processes.
    Mpi {
        /// What the MPI library says of itself, on one line.
        library: String,
        /// The thread level it grants, by its name in the standard.
        thread_level: &'static str,
    },
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message from this rank.
    Message(RankId, Bytes),
    /// This rank's end was closed; nothing more comes from it.
    Closed(RankId),
}

/// One end of the connections between master and ranks. A rank's own end only ever sends to the master, rank 0.
pub(crate) trait Transport {
    /// Takes a message over for delivery.
    fn send(&mut self, to: RankId, message: Bytes) -> Result<(), TransportError>;

    /// The next message, if one is there.
    fn receive(&mut self) -> Result<Option<Incoming>, TransportError>;

    /// Whether a message can arrive without the doorbell being rung, so that the loop has to look.
    fn must_poll(&self) -> bool;

    /// Whether everything that was sent has left.
    fn is_flushed(&self) -> bool;

    /// How long another end may be silent before it is taken for dead. `None` if a dead end is told of by [`receive`](Self::receive).
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// What carries the messages, for people to read.
    fn info(&self) -> TransportInfo {
        TransportInfo::Local
    }
}

/// The master's end when its own rank's worker is a thread beside it and the other ranks are MPI processes.
#[cfg(feature = "mpi")]
pub(crate) struct Joined<'a> {
    pub own: local::Center,
    pub others: &'a mut mpi::Mpi,
}

#[cfg(feature = "mpi")]
impl Transport for Joined<'_> {
    fn send(&mut self, to: RankId, message: Bytes) -> Result<(), TransportError> {
        if to == RankId(0) { self.own.send(to, message) } else { self.others.send(to, message) }
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        match self.own.receive()? {
            Some(incoming) => Ok(Some(incoming)),
            None => self.others.receive(),
        }
    }

    fn must_poll(&self) -> bool {
        self.others.must_poll()
    }

    fn is_flushed(&self) -> bool {
        self.others.is_flushed()
    }

    fn silence(&self) -> Option<Duration> {
        self.others.silence()
    }

    fn info(&self) -> TransportInfo {
        self.others.info()
    }
}
