//! What makes ranks compute: who runs which job next, and how functions, inputs and results get from rank 0 to the ranks and back.

pub(crate) mod board;
pub(crate) mod catch;
pub(crate) mod error;
pub(crate) mod exchange;
pub(crate) mod func;
#[cfg(feature = "json")]
pub(crate) mod json;
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
