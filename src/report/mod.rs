//! Shows a run: progress while it goes on, a summary at its end, and reports of journals and job logs.
//!
//! `facts` reads a file once for all; `html`, `text` and `rows` write down what it has found, and `chart` draws.

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
