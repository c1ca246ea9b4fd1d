//! Where a map's inputs come from, without ever waiting for them: an iterator that is asked, or a pipe that is read on a thread
//! of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError, bounded, never};

use crate::pool::Pause;

/// How many items are read ahead from a pipe.
const AHEAD: usize = 64;

/// What there is now.
pub(crate) enum Next<T> {
    Item(T),
    /// Nothing at the moment.
    Later,
    /// Nothing any more.
    End,
}

/// Items, and who says when there are new ones.
pub(crate) struct Intake<T> {
    items: Items<T>,
    wake: Receiver<()>,
    paused: Arc<AtomicBool>,
}

enum Items<T> {
    /// They can be had at once.
    Ready(Box<dyn Iterator<Item = T> + Send>),
    /// Another thread reads them: the next line may be a long time coming.
    Piped(Receiver<T>),
}

impl<T: Send + 'static> Intake<T> {
    /// Items that can be had at once.
    pub(crate) fn ready(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        Intake { items: Items::Ready(Box::new(items)), wake: never(), paused: Arc::default() }
    }

    /// Items for which somebody may have to wait.
    pub(crate) fn piped(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        let (sender, read) = bounded(AHEAD);
        let (waker, wake) = bounded(1);
        // Nobody joins it: it may wait for a line that never comes.
        thread::spawn(move || {
            for item in items {
                if sender.send(item).is_err() {
                    return;
                }
                // A call that was not heard yet is enough.
                let _ = waker.try_send(());
            }
        });
        Intake { items: Items::Piped(read), wake, paused: Arc::default() }
    }
}

impl<T> Intake<T> {
    /// How the map that pulls from here learns of pauses.
    pub(crate) fn pause(&self) -> Pause {
        Pause { paused: self.paused.clone(), wake: self.wake.clone() }
    }

    /// Set before an iterator over this returns `None` for [`Next::Later`].
    pub(crate) fn paused(&self) -> &AtomicBool {
        &self.paused
    }

    pub(crate) fn next(&mut self) -> Next<T> {
        match &mut self.items {
            Items::Ready(items) => items.next().map_or(Next::End, Next::Item),
            Items::Piped(items) => match items.try_recv() {
                Ok(item) => Next::Item(item),
                Err(TryRecvError::Empty) => Next::Later,
                Err(TryRecvError::Disconnected) => Next::End,
            },
        }
    }
}
