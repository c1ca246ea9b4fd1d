//! What people see on standard error: progress, the summary at the end, complaints. Results never go there.

mod progress;
mod summary;
mod text;

use std::fmt::Display;
use std::io::Write;

pub use progress::Progress;
pub(crate) use progress::{Meter, Ticker};
pub use summary::Summary;
pub(crate) use text::{escaped, in_one_line, shortened, without_number};

/// Says what is wrong. A closed standard error is no reason to fail.
pub(crate) fn complain(message: impl Display) {
    say(&format!("rankpool: {message}\n"));
}

/// Writes to standard error. Whatever is in the text, it has no power over the terminal; everything that rankpool itself says
/// goes through here.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(escaped(text).as_bytes());
}
