//! The errors that end a run early.

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
    /// A message of this rank, on this host, cannot be decoded.
    Codec(RankId, String, wire::CodecError),
    /// This rank, on this host, has reported an error of rankpool itself.
    RankFailed(RankId, String, String),
    /// Some ranks have not joined: their number, the number of all ranks, the time limit in seconds.
    Missing(usize, u32, u64),
    /// The executable of this rank, on this host, differs from the one of rank 0, on the second host.
    OtherProgram(RankId, String, String),
    /// The thread of a rank's loop could not be started.
    Rank(std::io::Error),
    /// The driver's thread could not be started.
    Driver(std::io::Error),
    /// A signal came before the run began.
    Interrupted,
    /// No rank is left.
    AllLost,
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
            MasterError::RankFailed(rank, host, message) => write!(f, "rank {rank} on {host} failed: {message}"),
            MasterError::Missing(missing, ranks, seconds) => write!(
                f,
                "{missing} of {ranks} ranks have not joined the run within {seconds} s; check that all nodes are up and that \
                 the program starts on each of them"
            ),
            MasterError::OtherProgram(rank, host, ours) => write!(
                f,
                "the program on {host} (rank {rank}) differs from the one on {ours} (rank 0): start the same executable \
                 file everywhere, and rebuild or copy it to all nodes first"
            ),
            MasterError::Rank(error) => {
                write!(f, "cannot start a thread for a rank: {} (see `ulimit -u`)", console::reason(error))
            }
            MasterError::Driver(error) => {
                write!(f, "cannot start the driver's thread: {} (see `ulimit -u`)", console::reason(error))
            }
            MasterError::Interrupted => f.write_str("stopped by a signal before the run began"),
            MasterError::AllLost => f.write_str("the last rank is gone"),
        }
    }
}
