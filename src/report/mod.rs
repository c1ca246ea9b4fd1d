//! Shows a run: progress while it goes on, a summary at its end, and reports of journals and job logs.
//!
//! `facts` reads a file once for all; `html`, `text` and `rows` write down what it has found.

#[cfg_attr(not(feature = "program"), path = "no_bar.rs")]
mod bar;
#[cfg(feature = "program")]
pub(crate) mod facts;
#[cfg(feature = "program")]
pub(crate) mod html;
#[cfg(feature = "program")]
mod live;
#[cfg(feature = "program")]
mod memory;
mod pace;
mod progress;
#[cfg(feature = "program")]
pub(crate) mod rows;
#[cfg(feature = "program")]
mod summary;
#[cfg(feature = "program")]
mod terminal;
#[cfg(feature = "program")]
pub(crate) mod text;
#[cfg(feature = "program")]
mod trace;

#[cfg(feature = "program")]
pub(crate) use live::{LOADS, Live, LiveOptions, Names, Observed, Order, Status, Table, short_input};
#[cfg(feature = "program")]
pub(crate) use memory::Needs;
pub use progress::Progress;
pub(crate) use progress::Ticker;
#[cfg(feature = "program")]
pub use summary::Summary;
#[cfg(feature = "program")]
pub(crate) use terminal::{Shown, stdout_is_shown};
#[cfg(feature = "program")]
pub(crate) use trace::{Ended, Trace};

/// Returns a number of bytes in the unit that suits it.
#[cfg(feature = "program")]
fn bytes(count: u64) -> indicatif::BinaryBytes {
    indicatif::BinaryBytes(count)
}
