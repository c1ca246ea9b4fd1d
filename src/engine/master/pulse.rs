//! Ranks that die without a word: who has not been heard of for long ends the run.

use std::time::{Duration, Instant};

use super::{Master, MasterError};
use crate::engine::schedule::RankId;
use crate::engine::transport::{Idle, Pulse};
use crate::engine::wire::ToRank;

/// How many turns of a busy loop go by without a look at the clock.
const TURNS: u32 = 64;

/// What the master's loop knows of the ranks' lives.
pub(super) struct Watch {
    pulse: Pulse,
    turns: u32,
}

impl Watch {
    /// Of so many ranks, if they can die without a word. Rank 0 lives and dies with its master.
    pub(super) fn new(ranks: usize, silence: Option<Duration>) -> Option<Self> {
        let mut pulse = Pulse::new(ranks, silence?, Instant::now());
        pulse.ignore(0);
        Some(Watch { pulse, turns: 0 })
    }

    pub(super) fn heard(&mut self, rank: RankId) {
        self.pulse.heard(rank.0 as usize);
    }

    pub(super) fn spoke(&mut self, rank: RankId) {
        self.pulse.spoke(rank.0 as usize);
    }

    /// It is known that this rank is gone.
    pub(super) fn ignore(&mut self, rank: RankId) {
        self.pulse.ignore(rank.0 as usize);
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

    /// Says something to the ranks that have not heard from us for a while. An error if one has been silent for too long.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), MasterError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.turns += 1;
        if active && watch.turns < TURNS {
            return Ok(());
        }
        watch.turns = 0;
        if !watch.pulse.turn(Instant::now()) {
            return Ok(());
        }
        if let Some((rank, silence)) = watch.pulse.silent() {
            let rank = RankId(rank as u32);
            return Err(MasterError::Silent(rank, self.host(rank), silence.as_secs()));
        }
        for rank in watch.pulse.due() {
            self.post(RankId(rank as u32), ToRank::Pulse, Vec::new());
        }
        Ok(())
    }
}
