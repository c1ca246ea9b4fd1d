//! The messages of the MPI transport: which requests are tested, which messages are received, and which ranks are gone.
//!
//! Most MPI libraries never report that another process has died; then the transport's owner decides by its silence and
//! [abandons](Transport::abandon) it. Some do (MPICH when a connection breaks, Open MPI 5 with ULFM): a call that fails for one
//! process reports the end of that process, and since a probe for messages from any process then fails, too, each process
//! is probed by itself from then on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Content, Incoming, Mpi, Polling, Receiving, Sending, Sent, Transport, TransportError, TransportInfo, test_request,
};
use crate::engine::schedule::RankId;
use crate::engine::wire::{List, Message};

/// The number of the oldest sends that are tested for completion in a turn.
const SENDS_PER_TURN: usize = 8;
/// The number of messages that are received at the same time: enough to keep a connection busy.
const RECEIVES: usize = 2;
/// After this many turns in which no message was complete, one more is received: the others may come from a rank that has died.
const STALLED: u32 = 64;

impl Mpi {
    /// Records that MPI cannot reach a rank any more.
    fn peer_failed(&mut self, peer: RankId, error: &TransportError) {
        if self.gone.insert(peer) {
            crate::console::eprint_error(format_args!("rank {peer} cannot be reached: {error}"));
            self.unreported.push_back(peer);
            self.abandon(peer);
        }
    }

    /// Frees the buffers of completed sends, among the oldest ones.
    fn clear_sent(&mut self) {
        for _ in 0..SENDS_PER_TURN.min(self.sending.len()) {
            // A rank that has failed takes all of its messages out of the queue.
            let Some(mut sending) = self.sending.pop_front() else { break };
            match test_request(&mut sending.request) {
                Ok(true) => {}
                Ok(false) => self.sending.push_back(sending),
                Err(error) => {
                    let to = sending.to;
                    // MPI may still read the bytes.
                    std::mem::forget(sending);
                    self.peer_failed(to, &error);
                }
            }
        }
        for _ in 0..SENDS_PER_TURN.min(self.sending_in_vain.len()) {
            let Some(mut sending) = self.sending_in_vain.pop_front() else { break };
            match test_request(&mut sending.request) {
                Ok(true) => {}
                Ok(false) => self.sending_in_vain.push_back(sending),
                Err(_) => std::mem::forget(sending),
            }
        }
    }

    /// Starts to receive a message that has arrived.
    fn begin_receive(&mut self) {
        let Some(next) = self.probed else {
            if self.begin_receive_from(None).is_err() {
                // It fails if any process is dead.
                self.probed = Some(0);
                self.begin_receive();
            }
            return;
        };
        // Only rank 0 gets messages from more than one rank.
        let senders = if self.rank == RankId(0) { self.size } else { 1 };
        for from in (next..senders).chain(0..next).map(RankId) {
            if from == self.rank || self.gone.contains(&from) {
                continue;
            }
            match self.begin_receive_from(Some(from)) {
                Ok(false) => {}
                Ok(true) => {
                    self.probed = Some((from.0 + 1) % senders);
                    return;
                }
                Err(error) => self.peer_failed(from, &error),
            }
        }
    }

    /// Returns the oldest message that is complete. Messages of one rank stay in order.
    fn end_receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        let mut incomplete = BTreeSet::new();
        let mut at = 0;
        while let Some(receiving) = self.receiving.get_mut(at) {
            let from = receiving.from;
            if incomplete.contains(&from) {
                at += 1;
                continue;
            }
            match test_request(&mut receiving.request) {
                Ok(true) => {}
                Ok(false) => {
                    incomplete.insert(from);
                    at += 1;
                    continue;
                }
                Err(error) => {
                    // MPI may still write to the buffer.
                    std::mem::forget(self.receiving.remove(at));
                    self.peer_failed(from, &error);
                    (incomplete, at) = (BTreeSet::new(), 0);
                    continue;
                }
            }
            let Some(Receiving { content, memory, .. }) = self.receiving.remove(at) else { break };
            self.stalled = 0;
            if let Some(message) = self.put_together(from, content, memory)? {
                return Ok(Some(Incoming::Message(from, message)));
            }
        }
        self.stalled = if self.receiving.is_empty() { 0 } else { self.stalled.saturating_add(1) };
        Ok(None)
    }

    /// Adds what has come from a rank to its message, and returns the message if it is complete.
    fn put_together(&mut self, from: RankId, content: Content, part: List) -> Result<Option<Message>, TransportError> {
        if !self.incomplete.contains_key(&from) && content.is_last && content.list.is_none() {
            return packet_of(part).map(|packet| Some(packet.into()));
        }
        let incomplete = self.incomplete.entry(from).or_default();
        let whole = match incomplete.parts.take() {
            None => part,
            Some(mut parts) => {
                if !parts.append(&part) {
                    return Err(TransportError("parts of different lists follow each other".into()));
                }
                parts
            }
        };
        match content {
            Content { is_last: false, .. } => incomplete.parts = Some(whole),
            Content { list: Some(_), .. } => incomplete.lists.push(whole),
            Content { list: None, .. } => {
                let lists = std::mem::take(&mut incomplete.lists);
                self.incomplete.remove(&from);
                return packet_of(whole).map(|packet| Some(Message { packet, lists }));
            }
        }
        Ok(None)
    }

    /// Starts to send a packet or a list, in parts if it is long.
    fn send_whole(&mut self, to: RankId, memory: &Sent) {
        let (length, list) = match memory {
            Sent::Packet(bytes) => (bytes.len(), None),
            Sent::List(list) => (list.bytes(), Some(list.kind())),
        };
        // No part ends inside a number.
        let size = list.map_or(1, |kind| kind.size());
        let longest = (self.longest_part / size).max(1) * size;
        let mut start = 0;
        while !self.gone.contains(&to) {
            let end = length.min(start + longest);
            let is_last = end == length;
            if let Err(error) = self.send_part(to, Content { list, is_last }, memory.clone(), start..end) {
                self.peer_failed(to, &error);
            }
            if is_last {
                break;
            }
            start = end;
        }
    }
}

/// Returns the bytes of a packet.
fn packet_of(bytes: List) -> Result<Bytes, TransportError> {
    match bytes {
        List::U8(bytes) => Ok(bytes.into()),
        _ => Err(TransportError("a list came in place of a packet".into())),
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // MPI may still access the buffers of open requests, which exist only if the run has failed or has lost ranks: they are
        // leaked.
        let sending = (std::mem::take(&mut self.sending), std::mem::take(&mut self.sending_in_vain));
        std::mem::forget((sending, std::mem::take(&mut self.receiving)));
    }
}

impl Transport for Mpi {
    fn send(&mut self, to: RankId, message: Message) -> Result<(), TransportError> {
        for list in message.lists {
            self.send_whole(to, &Sent::List(Arc::new(list)));
        }
        self.send_whole(to, &Sent::Packet(message.packet));
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        self.clear_sent();
        if let Some(rank) = self.unreported.pop_front() {
            return Ok(Some(Incoming::Closed(rank)));
        }
        if self.receiving.len() < RECEIVES + (self.stalled / STALLED) as usize {
            self.begin_receive();
        }
        self.end_receive()
    }

    fn polling(&self) -> Polling {
        let is_moving = |until: Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        let moves = self.sending.iter().any(|sending| is_moving(sending.moves_until))
            || self.receiving.iter().any(|receiving| is_moving(receiving.moves_until));
        match self.size {
            1 => Polling::Never,
            _ if moves => Polling::Always,
            _ => Polling::Sometimes,
        }
    }

    fn is_flushed(&self) -> bool {
        self.sending.is_empty()
    }

    fn abandon(&mut self, rank: RankId) {
        self.abandoned.insert(rank);
        let of_rank = |sending: &Sending| sending.to == rank;
        let (mut in_vain, others): (VecDeque<_>, _) = std::mem::take(&mut self.sending).into_iter().partition(of_rank);
        self.sending = others;
        self.sending_in_vain.append(&mut in_vain);
        // MPI may still write to the buffers of messages that may never be complete.
        let of_rank = |receiving: &Receiving| receiving.from == rank;
        let (late, others): (VecDeque<_>, _) = std::mem::take(&mut self.receiving).into_iter().partition(of_rank);
        self.receiving = others;
        std::mem::forget(late);
        self.incomplete.remove(&rank);
    }

    fn silence(&self) -> Option<Duration> {
        (self.size > 1).then_some(self.silence)
    }

    fn info(&self) -> TransportInfo {
        TransportInfo::Mpi { library: Mpi::library(), thread_level: self.threading() }
    }
}
