//! The end of a run: the driver leaves, and the last messages go out.

use std::time::Instant;

use super::{FAREWELL, Master, MasterError};
use crate::engine::schedule::{Event, MapId, RankId};
use crate::engine::transport::Idle;
use crate::engine::wire::ToRank;

impl Master<'_> {
    /// Nobody wants the rest of a map: what waits is given up, and what runs is told.
    pub(super) fn abandon(&mut self, map: MapId) {
        let ranks = self.maps.get(&map).map(|book| book.known_by());
        for rank in ranks.into_iter().flatten() {
            self.post(rank, ToRank::Cancel { map }, Vec::new());
        }
        self.maps.entry(map).and_modify(|book| book.abandoned = true);
        self.tell(Event::Abandoned { map }, None);
    }

    /// The driver has returned: what was submitted is finished. A map that is still open was left behind with its iterator, by
    /// `mem::forget` or in a thread that nobody waits for, and would keep the run alive forever; it is given up.
    pub(super) fn driver_left(&mut self) {
        if !std::mem::replace(&mut self.driver_gone, true) {
            let open = self.maps.iter().filter(|(_, book)| !book.closed).map(|(map, _)| *map);
            for map in open.collect::<Vec<_>>() {
                self.abandon(map);
            }
            self.tell(Event::DriverLeft, None);
        }
    }

    /// When the driver has left and all that was wanted is settled, what still runs is of maps that were given up. It may take
    /// a while; then the ranks are dismissed all the same, and each says what it leaves behind.
    pub(super) fn leave_behind(&mut self) {
        if !self.driver_gone || self.undismissed == 0 || self.maps.values().any(|book| !book.abandoned) {
            self.lingering = None;
            return;
        }
        if self.lingering.get_or_insert_with(Instant::now).elapsed() > self.grace {
            for number in 0..self.ranks.len() as u32 {
                self.post(RankId(number), ToRank::Dismiss, Vec::new());
            }
            self.undismissed = 0;
        }
    }

    /// Waits until the last messages have left.
    pub(super) fn farewell(&mut self) -> Result<(), MasterError> {
        let deadline = Instant::now() + FAREWELL;
        let mut idle = Idle::new();
        while !self.transport.is_flushed() {
            self.transport.receive()?;
            if Instant::now() > deadline {
                return Err(MasterError::Undelivered(FAREWELL.as_secs()));
            }
            idle.wait(true);
        }
        Ok(())
    }
}
