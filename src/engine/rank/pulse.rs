//! A master that dies without a word: the rank ends by itself.

use std::time::{Duration, Instant};

use super::{Worker, WorkerError};
use crate::engine::master::JOIN;
use crate::engine::transport::{Pulse, Transport};
use crate::engine::wire::ToMaster;

/// How many turns of a busy loop go by without a look at the clock.
const TURNS: u32 = 64;
const MASTER: usize = 0;

/// What a rank's loop knows of its master's life.
pub(super) struct Watch {
    pulse: Pulse,
    silence: Duration,
    /// The master says nothing before all ranks are there.
    joined: bool,
    turns: u32,
}

impl Watch {
    /// Of a master that can die without a word.
    pub(super) fn new(transport: &dyn Transport) -> Option<Self> {
        let silence = transport.silence()?;
        Some(Watch { pulse: Pulse::new(1, JOIN + silence, Instant::now()), silence, joined: false, turns: 0 })
    }

    pub(super) fn heard(&mut self) {
        if !self.joined {
            self.joined = true;
            self.pulse = Pulse::new(1, self.silence, Instant::now());
        }
        self.pulse.heard(MASTER);
    }

    pub(super) fn spoke(&mut self) {
        self.pulse.spoke(MASTER);
    }
}

impl Worker<'_> {
    /// Says something to the master if it has not heard from us for a while. An error if it has been silent for too long.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), WorkerError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.turns += 1;
        if active && watch.turns < TURNS {
            return Ok(());
        }
        watch.turns = 0;
        if !watch.pulse.turn(Instant::now()) {
            return Ok(());
        }
        if let Some((_, silence)) = watch.pulse.silent() {
            return Err(WorkerError::Silent(silence.as_secs()));
        }
        if !watch.pulse.due().is_empty() {
            self.outbox.push(ToMaster::Pulse);
        }
        Ok(())
    }
}
