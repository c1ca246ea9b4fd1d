//! Transports: they carry messages between the master and the ranks, and do not look into them.
//!
//! The contract of every transport:
//!
//! * messages between two ends arrive whole, once, and in the order in which they were sent;
//! * [`Transport::send`] never blocks and takes ownership of the message; it is kept here until the other end receives it;
//! * [`Transport::receive`] never blocks; it also advances pending sends, so it must be called again and again;
//! * a loop that has nothing to do sleeps in [`Idle::wait`]; a thread that sends the loop something through another channel
//!   rings the loop's [`Doorbell`] afterwards.

mod idle;
pub(crate) mod local;
#[cfg(feature = "mpi")]
pub(crate) mod mpi;
mod pulse;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::engine::schedule::RankId;
use crate::engine::wire::Message;

pub(crate) use idle::{Doorbell, Idle, Need, Polling};
pub(crate) use pulse::Pulse;

/// The error of a transport. It ends the run.
#[derive(Debug)]
pub(crate) struct TransportError(pub String);

impl Error for TransportError {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of transport of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportInfo {
    /// The ranks are threads of one process.
    Local,
    /// The ranks are MPI processes.
    Mpi {
        /// The name and version of the MPI library, on one line.
        library: String,
        /// The granted thread level, by its name in the standard.
        thread_level: &'static str,
    },
}

/// An event of the transport.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message from this rank.
    Message(RankId, Message),
    /// This rank's end was closed, or MPI reports that it is gone; no more messages come from it.
    Closed(RankId),
}

/// One end of the connections between master and ranks. A rank's own end only ever sends to the master, rank 0.
pub(crate) trait Transport {
    /// Sends a message to a rank.
    fn send(&mut self, to: RankId, message: Message) -> Result<(), TransportError>;

    /// Returns the next message, if one has arrived.
    fn receive(&mut self) -> Result<Option<Incoming>, TransportError>;

    /// Returns how the loop has to look for messages.
    fn polling(&self) -> Polling;

    /// Returns whether all sent messages have been handed over, so that their buffers are free. Those to abandoned ranks do not
    /// count.
    fn is_flushed(&self) -> bool;

    /// No longer waits for messages to this rank to be received: it may be dead. If it lives, messages still cross.
    fn abandon(&mut self, _rank: RankId) {}

    /// Returns the time after which a silent end is taken for dead. `None` if [`receive`](Self::receive) reports dead ends.
    fn silence(&self) -> Option<Duration> {
        None
    }

    /// Returns a description of the transport.
    fn info(&self) -> TransportInfo {
        TransportInfo::Local
    }
}

/// The master's end when rank 0 is a thread of the master's process and the other ranks are MPI processes.
#[cfg(feature = "mpi")]
pub(crate) struct Joined<'a> {
    pub own: local::Center,
    pub others: &'a mut mpi::Mpi,
}

#[cfg(feature = "mpi")]
impl Transport for Joined<'_> {
    fn send(&mut self, to: RankId, message: Message) -> Result<(), TransportError> {
        if to == RankId(0) { self.own.send(to, message) } else { self.others.send(to, message) }
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        match self.own.receive()? {
            Some(incoming) => Ok(Some(incoming)),
            None => self.others.receive(),
        }
    }

    fn polling(&self) -> Polling {
        self.others.polling()
    }

    fn is_flushed(&self) -> bool {
        self.others.is_flushed()
    }

    fn abandon(&mut self, rank: RankId) {
        self.others.abandon(rank);
    }

    fn silence(&self) -> Option<Duration> {
        self.others.silence()
    }

    fn info(&self) -> TransportInfo {
        self.others.info()
    }
}
