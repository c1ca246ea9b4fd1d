//! Lost ranks: a rank that has sent nothing for too long, or whose end is closed, is taken for dead, and the run goes on without it.

use std::time::{Duration, Instant};

use super::{Master, MasterError};
use crate::console;
use crate::engine::limits;
use crate::engine::schedule::{Event, RankId};
use crate::engine::transport::{Idle, Polling, Pulse};
use crate::engine::wire::{Packet, ToRank};

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
    /// Sends all ranks the order to end, since their launcher may not end them. Waits at most
    /// [`ABORT_MESSAGE`](limits::ABORT_MESSAGE) until it is sent completely.
    pub(crate) fn abort_ranks(&mut self) {
        for rank in 0..self.ranks.len() as u32 {
            self.queue_message(RankId(rank), ToRank::Abort, Vec::new());
        }
        let deadline = Instant::now() + limits::ABORT_MESSAGE;
        let mut idle = Idle::new();
        let mut going = self.send().is_ok();
        while going && !self.transport.is_flushed() && Instant::now() < deadline {
            going = self.transport.receive().is_ok();
            idle.wait(Polling::Sometimes);
        }
    }

    /// Gives up ranks that have been silent for too long, and sends a pulse to each rank to which the master has sent nothing for a
    /// while.
    ///
    /// # Errors
    /// No rank is left.
    pub(super) fn watch(&mut self, active: bool) -> Result<(), MasterError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        if !watch.0.count_turn(active, Instant::now) {
            return Ok(());
        }
        for rank in watch.0.ends_to_pulse() {
            self.queue_message(RankId(rank as u32), ToRank::Pulse, Vec::new());
        }
        while let Some((rank, silence)) = self.watch.as_ref().and_then(|watch| watch.0.silent_end()) {
            let rank = RankId(rank as u32);
            let why = format!(
                "has sent no message for {} s: its process has died or is stopped, or its node is lost",
                silence.as_secs()
            );
            self.rank_lost(rank, &why)?;
            // If it comes back, it learns that it is given up. Nothing waits until it has received this.
            self.send_to_lost(rank, ToRank::GivenUp)?;
        }
        Ok(())
    }

    /// Handles the loss of a rank: its jobs are assigned to the remaining ranks, and what it says later is dropped. An error if none
    /// remains.
    pub(super) fn rank_lost(&mut self, rank: RankId, why: &str) -> Result<(), MasterError> {
        let host = self.host(rank);
        let Some(book) = self.ranks.get_mut(rank.0 as usize).filter(|book| !book.lost) else { return Ok(()) };
        book.lost = true;
        book.outbox = Packet::default();
        let worked = book.threads > 0;
        if let Some(watch) = &mut self.watch {
            watch.ignore(rank);
        }
        self.transport.abandon(rank);
        self.board.lost(rank);
        console::eprint_error(format_args!("rank {rank} on {host} {why}; its jobs are given to others"));
        if worked && self.undismissed > 0 {
            self.undismissed -= 1;
            if self.ranks.iter().all(|book| book.lost || book.threads == 0) {
                return Err(MasterError::AllLost);
            }
        }
        self.handle_event(Event::Lost { rank }, None);
        Ok(())
    }

    /// Sends a message to a rank that is lost.
    pub(super) fn send_to_lost(&mut self, rank: RankId, message: ToRank) -> Result<(), MasterError> {
        let mut packet = Packet::default();
        packet.push(message);
        let packet = packet.take().map_err(|error| MasterError::Codec(rank, self.host(rank), error))?;
        Ok(self.transport.send(rank, packet)?)
    }

    /// Returns whether a rank was lost, so that the ranks cannot end together.
    pub(crate) fn has_lost(&self) -> bool {
        self.undelivered || self.ranks.iter().any(|book| book.lost)
    }
}
