//! Everything that the master's loop tells the outside while it runs. (The count of finished jobs goes straight to
//! the display that asked for it, see `meter`.)

use crate::engine::placement::Rank;
use crate::engine::schedule::RankId;

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// All ranks are there; no job has started.
    Started {
        /// All of them, in order.
        ranks: &'a [Rank],
    },
    /// A rank is gone; its jobs are given to others.
    Lost {
        /// Which one.
        rank: RankId,
        /// The name of its host.
        host: &'a str,
    },
    /// A signal asked for the end: queued jobs are given up, running ones are waited for.
    Stopping,
}

/// Somebody who wants to know. It is called in the master's loop, so it must not take long.
pub trait Listener: Send {
    /// Takes in one notice.
    fn notice(&mut self, notice: Notice<'_>);
}
