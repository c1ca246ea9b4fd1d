//! When nothing happens any more although threads are idle.

use std::time::{Duration, Instant};

use super::Master;
use crate::engine::schedule::Event;
use crate::engine::transport::Idle;

/// After this time without messages and commands the scheduler is told that it is quiet.
const QUIET: Duration = Duration::from_millis(1);

/// Since when nothing has happened.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// `None` if the loop has been at work since.
    since: Option<Instant>,
    told: bool,
}

impl Quiet {
    /// Something has happened.
    pub(super) fn end(&mut self) {
        *self = Quiet::default();
    }

    /// How long until the scheduler gets [`Event::Quiet`], if nothing happens until then; zero: now. `None`: it has had it.
    fn left(&mut self) -> Option<Duration> {
        let since = self.since.get_or_insert_with(Instant::now);
        (!self.told).then(|| QUIET.saturating_sub(since.elapsed()))
    }
}

impl Master<'_> {
    /// Nothing is to be done: waits, or tells the scheduler that it has been so for a while.
    pub(super) fn pause(&mut self, idle: &mut Idle, quiet: &mut Quiet) {
        let left = if self.schedule.has_slack() { quiet.left() } else { None };
        match left {
            Some(Duration::ZERO) => {
                quiet.told = true;
                self.tell(Event::Quiet, None);
            }
            Some(left) => idle.wait_at_most(left, self.transport.must_poll()),
            None => idle.wait(self.transport.must_poll()),
        }
    }
}
