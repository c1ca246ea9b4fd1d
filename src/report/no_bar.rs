//! Replaces `bar` without the feature `program`: there is no bar, and progress is shown as lines.

use std::time::Duration;

/// A bar that cannot be made.
#[derive(Clone)]
pub(super) enum Bar {}

impl Bar {
    pub(super) fn new(_name: &str, _total: Option<u64>) -> Option<Bar> {
        None
    }

    pub(super) fn show(&self, _jobs: u64, _failed: u64) {
        match *self {}
    }

    pub(super) fn finish(&self) {
        match *self {}
    }

    pub(super) fn aside<T>(&self, _work: impl FnOnce() -> T) -> T {
        match *self {}
    }
}

/// Returns a rounded time: `5 seconds`.
pub(super) fn in_words(time: Duration) -> String {
    format!("{} seconds", time.as_secs_f64().round())
}
