//! Detection of a silent master: a master that has sent nothing for too long is taken for dead, and the rank ends.

use std::time::{Duration, Instant};

use super::{RankError, RankLoop};
use crate::engine::limits;
use crate::engine::transport::{Pulse, Transport};
use crate::engine::wire::ToMaster;

const MASTER: usize = 0;

/// The times of the last messages from and to the master.
pub(super) struct MasterWatch {
    pulse: Pulse,
    silence: Duration,
    /// Whether a message of the master has come: it sends none before all ranks have joined.
    joined: bool,
}

impl MasterWatch {
    /// Watches the master; `None` if the transport reports a dead master itself.
    pub(super) fn new(transport: &dyn Transport) -> Option<Self> {
        let silence = transport.silence()?;
        Some(MasterWatch { pulse: Pulse::new(1, limits::JOIN + silence, Instant::now()), silence, joined: false })
    }

    pub(super) fn received(&mut self) {
        if !self.joined {
            self.joined = true;
            self.pulse = Pulse::new(1, self.silence, Instant::now());
        }
        self.pulse.received(MASTER);
    }

    pub(super) fn sent(&mut self) {
        self.pulse.sent(MASTER);
    }
}

impl RankLoop<'_> {
    /// Sends the master a pulse if this rank has sent it nothing for a while.
    ///
    /// # Errors
    /// The master has been silent for too long.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), RankError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if !watch.pulse.count_turn(active, Instant::now) {
            return Ok(());
        }
        if let Some((_, silence)) = watch.pulse.silent_end() {
            return Err(RankError::MasterSilent(silence.as_secs()));
        }
        if !watch.pulse.ends_to_pulse().is_empty() {
            self.outbox.push(ToMaster::Pulse);
        }
        Ok(())
    }
}
