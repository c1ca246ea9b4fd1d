//! Detection of a silent master: a master that has sent nothing for too long is taken for dead, and the rank ends. And the other way
//! round: what a rank does that the master has taken for dead.

use std::time::{Duration, Instant};

use super::{RankEnd, RankError, RankLoop};
use crate::console;
use crate::engine::limits;
use crate::engine::transport::{Idle, Incoming, Pulse, Transport};
use crate::engine::wire::{self, Packet, ToMaster, ToRank};

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
        // Longer than the master waits for this rank: if the connection between them is cut, the master goes on without this rank.
        let silence = transport.silence()? * limits::PATIENCE;
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
    /// Takes no further part in the run: the master has taken this rank for dead, and given its jobs to others. Running jobs are
    /// notified, and nothing is sent but pulses. Waits for the end of the run: this process may not end earlier, since its launcher
    /// might then end all others.
    ///
    /// # Errors
    /// The master has ended the run, is silent or gone.
    pub(super) fn stand_by(&mut self) -> Result<RankEnd, RankError> {
        console::eprint_error(format_args!(
            "rank {} on {} was silent for so long that it was taken for dead, and its jobs were given to others: it takes \
             no further part in the run",
            self.executor.rank, self.host
        ));
        for (_, chunk) in self.chunks.in_order() {
            chunk.cut();
        }
        for map in self.maps.keys().copied().collect::<Vec<_>>() {
            self.cancel(map);
        }
        self.outbox = Packet::default();
        let mut idle = Idle::new();
        loop {
            let mut active = false;
            while let Some(incoming) = self.transport.receive()? {
                active = true;
                let Incoming::Message(_, incoming) = incoming else { return Err(RankError::MasterClosed) };
                for (message, _) in wire::open::<ToRank>(incoming.packet)? {
                    match message {
                        ToRank::Dismiss { .. } => return Ok(RankEnd::AfterLoss),
                        ToRank::Abort => return Err(RankError::Aborted),
                        // Sent before the master gave this rank up, or the master's pulse.
                        _ => {}
                    }
                }
            }
            if active {
                self.watch.iter_mut().for_each(MasterWatch::received);
            }
            self.executor.take(&mut self.finished);
            self.finished.clear();
            self.watch(active)?;
            self.send()?;
            idle.wait(self.transport.polling());
        }
    }

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
