//! The transport between threads of one process: a star of channels with the master in the centre.

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::{Doorbell, Incoming, Polling, Transport, TransportError};
use crate::engine::schedule::RankId;
use crate::engine::wire::Message;

/// The master's end.
pub(crate) struct Center {
    from_ranks: Receiver<Incoming>,
    to_ranks: Vec<(Sender<Message>, Doorbell)>,
}

/// A rank's end. When it is dropped, the master's end reports that it is closed.
pub(crate) struct Spoke {
    rank: RankId,
    from_master: Receiver<Message>,
    to_master: Sender<Incoming>,
    master: Doorbell,
    own: Doorbell,
}

/// Returns the master's end, and the ends of the ranks from 0. `master` wakes the master's loop.
pub(crate) fn star(ranks: u32, master: &Doorbell) -> (Center, Vec<Spoke>) {
    let (to_master, from_ranks) = unbounded();
    let (to_ranks, spokes) = (0..ranks)
        .map(|rank| {
            let (sender, from_master) = unbounded();
            let own = Doorbell::default();
            let spoke = Spoke {
                rank: RankId(rank),
                from_master,
                to_master: to_master.clone(),
                master: master.clone(),
                own: own.clone(),
            };
            ((sender, own), spoke)
        })
        .unzip();
    (Center { from_ranks, to_ranks }, spokes)
}

impl Transport for Center {
    fn send(&mut self, to: RankId, message: Message) -> Result<(), TransportError> {
        let (sender, doorbell) =
            self.to_ranks.get(to.0 as usize).ok_or_else(|| TransportError(format!("there is no rank {}", to.0)))?;
        // `receive` reports a closed end.
        let _ = sender.send(message);
        doorbell.ring();
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        Ok(self.from_ranks.try_recv().ok())
    }

    fn polling(&self) -> Polling {
        Polling::Never
    }

    fn is_flushed(&self) -> bool {
        true
    }
}

impl Drop for Center {
    fn drop(&mut self) {
        for (sender, doorbell) in self.to_ranks.drain(..) {
            drop(sender);
            doorbell.ring();
        }
    }
}

impl Spoke {
    /// Returns the doorbell that wakes this rank's loop.
    pub(crate) fn doorbell(&self) -> Doorbell {
        self.own.clone()
    }

    pub(crate) fn rank(&self) -> RankId {
        self.rank
    }
}

impl Transport for Spoke {
    fn send(&mut self, _to: RankId, message: Message) -> Result<(), TransportError> {
        // `receive` reports a closed end.
        let _ = self.to_master.send(Incoming::Message(self.rank, message));
        self.master.ring();
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Incoming>, TransportError> {
        match self.from_master.try_recv() {
            Ok(message) => Ok(Some(Incoming::Message(RankId(0), message))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Ok(Some(Incoming::Closed(RankId(0)))),
        }
    }

    fn polling(&self) -> Polling {
        Polling::Never
    }

    fn is_flushed(&self) -> bool {
        true
    }
}

impl Drop for Spoke {
    fn drop(&mut self) {
        let _ = self.to_master.send(Incoming::Closed(self.rank));
        self.master.ring();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn messages_arrive_in_order_and_a_dropped_end_is_reported() {
        let (mut center, mut spokes) = star(2, &Doorbell::default());
        center.send(RankId(1), Bytes::from_static(b"a").into()).unwrap();
        center.send(RankId(1), Bytes::from_static(b"b").into()).unwrap();
        let mut spoke = spokes.pop().unwrap();
        for expected in [b"a", b"b"] {
            let Some(Incoming::Message(_, message)) = spoke.receive().unwrap() else { panic!("no message") };
            assert_eq!(&message.packet[..], expected);
        }
        assert!(spoke.receive().unwrap().is_none());
        spoke.send(RankId(0), Bytes::from_static(b"c").into()).unwrap();
        drop(spoke);
        assert!(matches!(center.receive().unwrap(), Some(Incoming::Message(RankId(1), _))));
        assert!(matches!(center.receive().unwrap(), Some(Incoming::Closed(RankId(1)))));
        drop(center);
        assert!(matches!(spokes[0].receive().unwrap(), Some(Incoming::Closed(RankId(0)))));
    }
}
