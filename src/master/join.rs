//! The start of a run: every rank reports for work.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{JOIN, MasterError};
use crate::launch::RankFacts;
use crate::schedule::RankId;
use crate::transport::{Idle, Incoming, Transport};
use crate::wire::{self, ToMaster};

/// What each of the ranks says of itself, rank 0 first. Waits for all, within bounds.
pub(super) fn gather_facts(transport: &mut dyn Transport, size: u32) -> Result<Vec<RankFacts>, MasterError> {
    let mut there = BTreeMap::new();
    let deadline = Instant::now() + JOIN;
    let mut idle = Idle::new();
    while there.len() < size as usize {
        match transport.receive()? {
            Some(Incoming::Message(rank, packet)) => {
                idle.reset(true);
                let garbled = |error| MasterError::Codec(rank, "an unknown host".into(), error);
                for (message, _) in wire::open::<ToMaster>(packet).map_err(garbled)? {
                    match message {
                        ToMaster::Join(facts) => drop(there.insert(rank, *facts)),
                        ToMaster::Broken { message } => return Err(broken(rank, &there, message)),
                        ToMaster::Finished { .. } | ToMaster::Returned { .. } | ToMaster::Signalled => {}
                    }
                }
            }
            Some(Incoming::Closed(rank)) => return Err(broken(rank, &there, "it left before the run began".into())),
            None if Instant::now() > deadline => {
                return Err(MasterError::Missing(size as usize - there.len(), size, JOIN.as_secs()));
            }
            None => idle.wait(transport.must_poll()),
        }
    }
    Ok(there.into_values().collect())
}

fn broken(rank: RankId, there: &BTreeMap<RankId, RankFacts>, message: String) -> MasterError {
    let host = there.get(&rank).map_or("an unknown host", |facts| &facts.host);
    MasterError::Broken(rank, host.into(), message)
}
