//! How many requests a worker is given ahead: many short ones, so that a round trip costs no waiting; of long ones only one, so
//! that a slow job does not hold others back that another thread could run.

use std::time::Duration;

/// As much work is ahead as takes this long.
const AHEAD: Duration = Duration::from_millis(5);
const MOST: usize = 64;

#[derive(Debug)]
pub(super) struct Pace {
    window: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { window: 1 }
    }

    /// How many requests may be unanswered.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// So many requests took so long.
    pub(super) fn took(&mut self, requests: usize, time: Duration) {
        let each = time.as_secs_f64() / requests.max(1) as f64;
        let fits = (AHEAD.as_secs_f64() / each.max(1e-9)) as usize;
        self.window = fits.clamp(1, (self.window * 2).min(MOST));
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.window = 1;
    }
}
