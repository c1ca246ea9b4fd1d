//! Shows a run on standard error: progress while it runs, a summary at the end.

#[cfg_attr(not(feature = "program"), path = "no_bar.rs")]
mod bar;
#[cfg(feature = "program")]
pub(crate) mod chart;
#[cfg(feature = "program")]
pub(crate) mod facts;
#[cfg(feature = "program")]
pub(crate) mod html;
#[cfg(feature = "program")]
mod memory;
mod progress;
#[cfg(feature = "program")]
pub(crate) mod rows;
#[cfg(feature = "program")]
mod summary;
#[cfg(feature = "program")]
pub(crate) mod text;
#[cfg(feature = "program")]
pub(crate) mod words;

#[cfg(feature = "program")]
pub(crate) use memory::Needs;
pub use progress::Progress;
pub(crate) use progress::Ticker;
#[cfg(feature = "program")]
pub use summary::Summary;

/// Returns a number of bytes in the unit that suits it.
#[cfg(feature = "program")]
fn bytes(count: u64) -> indicatif::BinaryBytes {
    indicatif::BinaryBytes(count)
}
