//! What ends a run before its time.

use crate::console;
use crate::engine::schedule::RankId;
use crate::engine::transport::TransportError;
use crate::engine::wire;

/// Why the run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasterError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("rank {0} on {1}: {2}")]
    Codec(RankId, String, wire::CodecError),
    #[error("rank {0} on {1} failed: {2}")]
    Broken(RankId, String, String),
    #[error("{0} of {1} ranks have not reported for work within {2} s; are all nodes well?")]
    Missing(usize, u32, u64),
    #[error(
        "the program on {1} (rank {0}) differs from the one on {2} (rank 0): start the same executable file everywhere, \
         and rebuild or copy it to all nodes first"
    )]
    OtherProgram(RankId, String, String),
    #[error(
        "rank {0} on {1} has not been heard of for {2} s: its process has died or is stopped, or its node is lost; ending all \
         ranks"
    )]
    Silent(RankId, String, u64),
    #[error("cannot start a thread for a rank: {} (see `ulimit -u`)", console::reason(.0))]
    Rank(std::io::Error),
    #[error("cannot start the driver's thread: {} (see `ulimit -u`)", console::reason(.0))]
    Driver(std::io::Error),
    #[error("stopped by a signal before the run began")]
    Interrupted,
    #[error("the last rank has gone")]
    Alone,
    #[error("messages to the ranks could not be delivered within {0} s")]
    Undelivered(u64),
}
