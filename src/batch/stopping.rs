//! When a signal asked for the end of the run.

use std::sync::OnceLock;
use std::time::Instant;

use crate::engine::board::{Listener, Notice};

/// The moment at which a signal asked for the end of the run.
#[derive(Debug, Default)]
pub(crate) struct Stopping(OnceLock<Instant>);

impl Stopping {
    pub(crate) fn since(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

impl Listener for &Stopping {
    fn notice(&mut self, notice: Notice<'_>) {
        if matches!(notice, Notice::Stopping) {
            self.0.get_or_init(Instant::now);
        }
    }
}
