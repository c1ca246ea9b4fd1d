//! The end of a run: maps are abandoned, the driver leaves, the last messages are sent.

use std::time::Instant;

use super::{Master, MasterError};
use crate::console;
use crate::engine::limits;
use crate::engine::schedule::{Event, MapId, RankId};
use crate::engine::transport::{Idle, Polling};
use crate::engine::wire::ToRank;

impl Master<'_> {
    /// Abandons a map: its queued jobs are cancelled, and its running jobs are notified.
    pub(super) fn abandon(&mut self, map: MapId) {
        let ranks = self.maps.get(&map).map(|book| book.defined_on());
        for rank in ranks.into_iter().flatten() {
            self.queue_message(rank, ToRank::Cancel { map }, Vec::new());
        }
        self.maps.entry(map).and_modify(|book| book.abandoned = true);
        self.handle_event(Event::Abandoned { map }, None);
    }

    /// Handles the return of the driver: submitted jobs are finished. A map that is still open would keep the run alive forever
    /// (its iterator was leaked by `mem::forget` or by a thread that was never joined); it is abandoned.
    pub(super) fn driver_left(&mut self) {
        if !std::mem::replace(&mut self.driver_gone, true) {
            let open = self.maps.iter().filter(|(_, book)| !book.closed).map(|(map, _)| *map);
            for map in open.collect::<Vec<_>>() {
                self.abandon(map);
            }
            self.handle_event(Event::DriverLeft, None);
        }
    }

    /// When the driver has left and only jobs of abandoned maps still run, waits for them at most `grace`; then dismisses the
    /// ranks all the same. Each rank logs the jobs that it leaves behind.
    pub(super) fn end_lingering(&mut self) {
        if !self.driver_gone || self.undismissed == 0 || self.maps.values().any(|book| !book.abandoned) {
            self.lingering = None;
            return;
        }
        if self.lingering.get_or_insert_with(Instant::now).elapsed() > self.grace {
            for number in 0..self.ranks.len() as u32 {
                self.queue_message(RankId(number), ToRank::Dismiss { after_loss: self.has_lost() }, Vec::new());
            }
            self.undismissed = 0;
        }
    }

    /// Waits until the last messages are sent completely, except those to lost ranks.
    pub(super) fn flush(&mut self) -> Result<(), MasterError> {
        for rank in (0..self.ranks.len() as u32).filter(|rank| self.ranks[*rank as usize].lost).collect::<Vec<_>>() {
            self.send_to_lost(RankId(rank), ToRank::Dismiss { after_loss: true })?;
        }
        // After a loss rank 0 ends the others by MPI_Abort, whether they have their last message or not.
        let limit = if self.has_lost() { limits::FLUSH / 4 } else { limits::FLUSH };
        let deadline = Instant::now() + limit;
        let mut idle = Idle::new();
        while !self.transport.is_flushed() {
            self.transport.receive()?;
            if Instant::now() > deadline {
                // All jobs are settled, so that nothing is missing.
                console::eprint_error(format_args!(
                    "a rank has not received its last message within {} s; not waiting for it",
                    limit.as_secs()
                ));
                self.undelivered = true;
                return Ok(());
            }
            idle.wait(Polling::Sometimes);
        }
        Ok(())
    }
}
