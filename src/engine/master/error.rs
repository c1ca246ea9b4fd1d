//! What ends a run before its time.

use std::error::Error;
use std::fmt;

use crate::console;
use crate::engine::schedule::RankId;
use crate::engine::transport::TransportError;
use crate::engine::wire;

/// Why the run cannot go on.
#[derive(Debug)]
pub(crate) enum MasterError {
    Transport(TransportError),
    /// A message from this rank cannot be read.
    Codec(RankId, String, wire::CodecError),
    Broken(RankId, String, String),
    /// How many ranks of how many have not joined in how many seconds.
    Missing(usize, u32, u64),
    OtherProgram(RankId, String, String),
    Silent(RankId, String, u64),
    Rank(std::io::Error),
    Driver(std::io::Error),
    Interrupted,
    Alone,
    Undelivered(u64),
}

impl Error for MasterError {}

impl From<TransportError> for MasterError {
    fn from(error: TransportError) -> Self {
        MasterError::Transport(error)
    }
}

impl fmt::Display for MasterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MasterError::Transport(error) => error.fmt(f),
            MasterError::Codec(rank, host, error) => write!(f, "rank {rank} on {host}: {error}"),
            MasterError::Broken(rank, host, message) => write!(f, "rank {rank} on {host} failed: {message}"),
            MasterError::Missing(missing, ranks, seconds) => write!(
                f,
                "{missing} of {ranks} ranks have not reported for work within {seconds} s; are all nodes well?"
            ),
            MasterError::OtherProgram(rank, host, ours) => write!(
                f,
                "the program on {host} (rank {rank}) differs from the one on {ours} (rank 0): start the same executable \
                 file everywhere, and rebuild or copy it to all nodes first"
            ),
            MasterError::Silent(rank, host, seconds) => write!(
                f,
                "rank {rank} on {host} has not been heard of for {seconds} s: its process has died or is stopped, or its \
                 node is lost; ending all ranks"
            ),
            MasterError::Rank(error) => {
                write!(f, "cannot start a thread for a rank: {} (see `ulimit -u`)", console::reason(error))
            }
            MasterError::Driver(error) => {
                write!(f, "cannot start the driver's thread: {} (see `ulimit -u`)", console::reason(error))
            }
            MasterError::Interrupted => f.write_str("stopped by a signal before the run began"),
            MasterError::Alone => f.write_str("the last rank has gone"),
            MasterError::Undelivered(seconds) => {
                write!(f, "messages to the ranks could not be delivered within {seconds} s")
            }
        }
    }
}
