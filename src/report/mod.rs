//! What people see of a run on standard error: progress while it goes on, a summary at the end.

mod progress;
mod summary;

pub use progress::Progress;
pub(crate) use progress::Ticker;
pub use summary::Summary;
