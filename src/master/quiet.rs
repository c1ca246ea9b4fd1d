//! When nothing happens any more although threads are idle.

use std::thread;
use std::time::{Duration, Instant};

use super::Master;
use crate::schedule::Event;
use crate::transport::Idle;

/// After this time without messages and commands the scheduler is told that it is quiet.
const QUIET: Duration = Duration::from_millis(1);

/// Since when nothing has happened.
#[derive(Debug)]
pub(super) struct Quiet {
    since: Instant,
    told: bool,
}

impl Quiet {
    pub(super) fn new() -> Self {
        Quiet { since: Instant::now(), told: false }
    }

    /// Something has happened.
    pub(super) fn end(&mut self) {
        *self = Quiet::new();
    }

    /// How long until the scheduler is to be told, if nothing happens: it is told once. Zero: now.
    fn left(&self) -> Option<Duration> {
        (!self.told).then(|| QUIET.saturating_sub(self.since.elapsed()))
    }
}

impl Master<'_> {
    /// Nothing is to be done: waits, or tells the scheduler that it has been so for a while.
    pub(super) fn pause(&mut self, idle: &mut Idle, quiet: &mut Quiet) {
        match quiet.left().filter(|_| self.schedule.has_slack()) {
            Some(Duration::ZERO) => {
                quiet.told = true;
                self.tell(Event::Quiet, None);
            }
            Some(left) if !self.transport.must_poll() => thread::park_timeout(left),
            _ => idle.wait(self.transport.must_poll()),
        }
    }
}
