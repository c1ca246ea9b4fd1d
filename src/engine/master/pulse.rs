//! Ranks that die without a word: who has not been heard of for long ends the run.

use std::time::{Duration, Instant};

use super::{Master, MasterError};
use crate::engine::schedule::RankId;
use crate::engine::transport::{Idle, Pulse};
use crate::engine::wire::ToRank;

/// Which ranks are still there, as far as the master knows.
pub(super) struct Watch(Pulse);

impl Watch {
    /// For `ranks` ranks; `None` if the transport reports those that die. Rank 0 lives and dies with its master.
    pub(super) fn new(ranks: usize, silence: Option<Duration>) -> Option<Self> {
        let mut pulse = Pulse::new(ranks, silence?, Instant::now());
        pulse.ignore(0);
        Some(Watch(pulse))
    }

    pub(super) fn heard(&mut self, rank: RankId) {
        self.0.heard(rank.0 as usize);
    }

    pub(super) fn spoke(&mut self, rank: RankId) {
        self.0.spoke(rank.0 as usize);
    }

    /// It is known that this rank is gone.
    pub(super) fn ignore(&mut self, rank: RankId) {
        self.0.ignore(rank.0 as usize);
    }
}

/// How long the message that the run has failed may take to leave.
const PARTING: Duration = Duration::from_secs(1);

impl Master<'_> {
    /// Tells the ranks that are left that the run has failed: their launcher may not.
    pub(crate) fn break_off(&mut self) {
        for rank in 0..self.ranks.len() as u32 {
            self.post(RankId(rank), ToRank::BreakOff, Vec::new());
        }
        let deadline = Instant::now() + PARTING;
        let mut idle = Idle::new();
        let mut going = self.send().is_ok();
        // A rank that is dead takes nothing in, so that all is never sent.
        while going && !self.transport.is_flushed() && Instant::now() < deadline {
            going = self.transport.receive().is_ok();
            idle.wait(true);
        }
    }

    /// Sends a pulse to the ranks to which the master has sent nothing for a while.
    ///
    /// # Errors
    /// A rank has been silent for too long.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), MasterError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if !watch.0.has_turned(active, Instant::now) {
            return Ok(());
        }
        if let Some((rank, silence)) = watch.0.silent() {
            let rank = RankId(rank as u32);
            return Err(MasterError::Silent(rank, self.host(rank), silence.as_secs()));
        }
        for rank in watch.0.due() {
            self.post(RankId(rank as u32), ToRank::Pulse, Vec::new());
        }
        Ok(())
    }
}
