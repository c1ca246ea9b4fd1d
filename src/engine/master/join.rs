//! The start of a run: every rank joins.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Instant;

use super::{Master, MasterError};
use crate::engine::limits;
use crate::engine::placement::{Rank, RankFacts};
use crate::engine::schedule::{Event, RankId};
use crate::engine::stop::Signals;
use crate::engine::transport::{Idle, Incoming, Need, Transport};
use crate::engine::wire::{self, ToMaster, ToRank};

/// Waits for all ranks to join, at most [`JOIN`](limits::JOIN), and returns their facts, rank 0 first.
pub(super) fn gather_facts(
    transport: &mut dyn Transport,
    size: u32,
    signals: &Signals,
) -> Result<Vec<RankFacts>, MasterError> {
    let mut there = BTreeMap::new();
    let deadline = Instant::now() + limits::JOIN;
    let mut idle = Idle::new();
    while there.len() < size as usize {
        match transport.receive()? {
            Some(Incoming::Message(rank, message)) => {
                idle.reset(Need::Now);
                let decode_error = |error| MasterError::Codec(rank, "an unknown host".into(), error);
                for (message, _) in wire::open::<ToMaster>(message.packet).map_err(decode_error)? {
                    match message {
                        ToMaster::Join(facts) => drop(there.insert(rank, *facts)),
                        ToMaster::Failed { message } => return Err(broken(rank, &there, message)),
                        ToMaster::Finished { .. }
                        | ToMaster::Part { .. }
                        | ToMaster::Early { .. }
                        | ToMaster::Delayed { .. }
                        | ToMaster::Returned { .. }
                        | ToMaster::Pulse
                        | ToMaster::Load(_)
                        | ToMaster::Signalled => {}
                    }
                }
            }
            Some(Incoming::Closed(rank)) => return Err(broken(rank, &there, "it left before the run began".into())),
            None if signals.poll() => return Err(MasterError::Interrupted),
            None if Instant::now() > deadline => {
                return Err(MasterError::Missing(size as usize - there.len(), size, limits::JOIN.as_secs()));
            }
            None => idle.wait(transport.polling()),
        }
    }
    Ok(there.into_values().collect())
}

impl Master<'_> {
    /// Sends every rank its number of threads, and the list of ranks to the listeners.
    pub(super) fn send_threads(&mut self) -> Result<(), MasterError> {
        let mut slots = BTreeMap::new();
        let board = self.board();
        for (number, Rank { facts, threads }) in (0..).zip(board.ranks()) {
            let rank = RankId(number);
            if let Some(threads) = NonZeroU32::new(*threads) {
                let slots: &mut u32 = slots.entry(facts.host.clone()).or_default();
                let slots_before = *slots;
                *slots += threads.get();
                self.queue_message(rank, ToRank::Welcome { threads: threads.get(), slots_before }, Vec::new());
                self.undismissed += 1;
                self.handle_event(Event::Joined { rank, threads }, None);
            }
        }
        self.board.started();
        self.send()
    }
}

fn broken(rank: RankId, there: &BTreeMap<RankId, RankFacts>, message: String) -> MasterError {
    let host = there.get(&rank).map_or("an unknown host", |facts| &facts.host);
    MasterError::RankFailed(rank, host.into(), message)
}
