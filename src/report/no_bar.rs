//! Replaces `bar` without the feature `program`: there is no bar, and progress is shown as lines.

use std::time::Duration;

use super::progress::View;

/// A bar that cannot be made.
#[derive(Clone)]
pub(super) enum Bar {}

impl Bar {
    pub(super) fn on_terminal(_name: &str, _total: Option<u64>) -> Option<Bar> {
        None
    }

    pub(super) fn anywhere(_name: &str, _total: Option<u64>) -> Option<Bar> {
        None
    }

    pub(super) fn period(&self) -> Duration {
        match *self {}
    }

    pub(super) fn show(&self, _view: &View) {
        match *self {}
    }

    pub(super) fn finish(&self, _view: &View) {
        match *self {}
    }
}

/// There are no bars, and so no neighbours that have one.
pub(super) struct Neighbours;

impl Neighbours {
    pub(super) fn on_terminal() -> Neighbours {
        Neighbours
    }

    pub(super) fn clear_bar(&self) {}
}
