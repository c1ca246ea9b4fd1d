//! What people see on standard error: progress, the summary at the end, complaints. Results never go there.

mod progress;
mod summary;

use std::fmt::Display;
use std::io::Write;

pub use progress::Progress;
pub(crate) use progress::{Meter, Ticker};
pub use summary::Summary;

/// Says what is wrong, in one line. A closed standard error is no reason to fail.
pub(crate) fn complain(message: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "rankpool: {message}");
}
