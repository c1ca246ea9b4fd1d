//! Detection of silent ranks: a rank that has sent nothing for too long is taken for dead, and the run ends.

use std::time::{Duration, Instant};

use super::{Master, MasterError};
use crate::engine::limits;
use crate::engine::schedule::RankId;
use crate::engine::transport::{Idle, Pulse};
use crate::engine::wire::ToRank;

/// The times of the last messages from and to each rank.
pub(super) struct RankWatch(Pulse);

impl RankWatch {
    /// Watches `ranks` ranks; `None` if the transport reports dead ranks itself. Rank 0 is in the master's process and is not
    /// watched.
    pub(super) fn new(ranks: usize, silence: Option<Duration>) -> Option<Self> {
        let mut pulse = Pulse::new(ranks, silence?, Instant::now());
        pulse.ignore(0);
        Some(RankWatch(pulse))
    }

    pub(super) fn received(&mut self, rank: RankId) {
        self.0.received(rank.0 as usize);
    }

    pub(super) fn sent(&mut self, rank: RankId) {
        self.0.sent(rank.0 as usize);
    }

    /// Stops watching a rank that is defined to be gone.
    pub(super) fn ignore(&mut self, rank: RankId) {
        self.0.ignore(rank.0 as usize);
    }
}

impl Master<'_> {
    /// Sends the remaining ranks the order to end, since their launcher may not end them. Waits at most
    /// [`ABORT_MESSAGE`](limits::ABORT_MESSAGE) until it is sent completely.
    pub(crate) fn abort_ranks(&mut self) {
        for rank in 0..self.ranks.len() as u32 {
            self.queue_message(RankId(rank), ToRank::Abort, Vec::new());
        }
        let deadline = Instant::now() + limits::ABORT_MESSAGE;
        let mut idle = Idle::new();
        let mut going = self.send().is_ok();
        // A dead rank receives nothing, so that the transport is never flushed.
        while going && !self.transport.is_flushed() && Instant::now() < deadline {
            going = self.transport.receive().is_ok();
            idle.wait(true);
        }
    }

    /// Sends a pulse to each rank to which the master has sent nothing for a while.
    ///
    /// # Errors
    /// A rank has been silent for too long.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), MasterError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if !watch.0.count_turn(active, Instant::now) {
            return Ok(());
        }
        if let Some((rank, silence)) = watch.0.silent_end() {
            let rank = RankId(rank as u32);
            return Err(MasterError::Silent(rank, self.host(rank), silence.as_secs()));
        }
        for rank in watch.0.ends_to_pulse() {
            self.queue_message(RankId(rank as u32), ToRank::Pulse, Vec::new());
        }
        Ok(())
    }
}
