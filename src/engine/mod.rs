//! The engine: it decides which rank runs which job next, and carries functions, inputs and results between rank 0 and the ranks.

pub(crate) mod board;
pub(crate) mod catch;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod exchange;
pub(crate) mod func;
#[cfg(feature = "json")]
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod master;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod rank;
pub mod schedule;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod stopwatch;
pub(crate) mod transport;
pub(crate) mod wire;
