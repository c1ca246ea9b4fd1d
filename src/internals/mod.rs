//! The interface of the Criterion benches (`benches/parts`) to private modules; not part of the crate's API.
//!
//! The scheduler and its simulator are reached directly: `engine::schedule` is public and hidden, as this module is.

pub mod journal;
pub mod ledger;
pub mod order;
pub mod wire;
