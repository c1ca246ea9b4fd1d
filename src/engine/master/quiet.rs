//! The pauses of rank 0's loop, and the detection of a quiet run: nothing has happened for a while although threads are idle.

use std::time::{Duration, Instant};

use super::Master;
use crate::engine::schedule::Event;
use crate::engine::transport::{Idle, Need};

/// After this time without messages and commands the scheduler gets [`Event::Quiet`].
const QUIET: Duration = Duration::from_millis(1);

/// The time since which nothing has happened.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// `None` if something has happened in the loop's last turn.
    since: Option<Instant>,
    /// Whether the scheduler has got the event since then.
    told: bool,
}

impl Quiet {
    /// Records that something has happened.
    pub(super) fn end(&mut self) {
        *self = Quiet::default();
    }

    /// Returns the time until the scheduler gets [`Event::Quiet`] if nothing happens; zero if it gets it now, `None` if it has got
    /// it already.
    fn left(&mut self) -> Option<Duration> {
        let since = self.since.get_or_insert_with(Instant::now);
        (!self.told).then(|| QUIET.saturating_sub(since.elapsed()))
    }
}

impl Master<'_> {
    /// Returns how urgent the next message is.
    pub(super) fn need(&self) -> Need {
        if self.schedule.idle_threads() > 0 {
            Need::Now
        } else if self.schedule.has_queued() {
            Need::Later
        } else {
            // The ranks will be out of work, and the driver waits for the last results.
            Need::Soon
        }
    }

    /// Waits when there is nothing to do, or sends the scheduler [`Event::Quiet`].
    pub(super) fn pause(&mut self, idle: &mut Idle, quiet: &mut Quiet) {
        let left = if self.schedule.has_slack() { quiet.left() } else { None };
        match left {
            Some(Duration::ZERO) => {
                quiet.told = true;
                self.handle_event(Event::Quiet, None);
            }
            Some(left) => idle.wait_at_most(left, self.transport.polling()),
            None => idle.wait(self.transport.polling()),
        }
    }
}
