//! Where a batch's inputs come from, without ever waiting for them: an iterator that is asked, or a pipe that is read on a
//! thread of its own.

use std::{io, thread};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::console::reason;
use crate::pool::Next;

/// How many items are read ahead from a pipe.
const AHEAD: usize = 64;

/// The system has no thread left for the reader of a pipe.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start the thread that reads the inputs: {}; let this user have more threads (ulimit -u, or the limit of the job's \
     cgroup), or give the inputs as a file",
    reason(.0)
)]
pub(crate) struct NoThread(#[source] io::Error);

/// Items that are read without waiting.
pub(crate) enum Intake<T> {
    /// They can be had at once.
    Ready(Box<dyn Iterator<Item = T> + Send>),
    /// Another thread reads them: the next line may be a long time coming.
    Piped(Receiver<T>),
}

impl<T: Send + 'static> Intake<T> {
    /// Items that can be had at once.
    pub(crate) fn ready(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        Intake::Ready(Box::new(items))
    }

    /// Items that may have to be waited for.
    ///
    /// # Errors
    /// There is no thread left that could wait.
    pub(crate) fn piped(items: impl Iterator<Item = T> + Send + 'static) -> Result<Self, NoThread> {
        // It is never joined: it may wait for a line that never comes.
        Self::read_by(items, |read| thread::Builder::new().name("rankpool input".into()).spawn(read).map(drop))
    }

    fn read_by(
        items: impl Iterator<Item = T> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> Result<Self, NoThread> {
        let (sender, read) = bounded(AHEAD);
        spawn(Box::new(move || {
            for item in items {
                if sender.send(item).is_err() {
                    return;
                }
            }
        }))
        .map_err(NoThread)?;
        Ok(Intake::Piped(read))
    }
}

impl<T> Intake<T> {
    pub(crate) fn next(&mut self) -> Next<T> {
        match self {
            Intake::Ready(items) => items.next().map_or(Next::End, Next::Item),
            Intake::Piped(items) => match items.try_recv() {
                Ok(item) => Next::Item(item),
                Err(TryRecvError::Empty) => Next::Later,
                Err(TryRecvError::Disconnected) => Next::End,
            },
        }
    }

    /// What has something, or is disconnected, when it is worth asking again after [`Next::Later`].
    pub(crate) fn wake(&self) -> Option<&Receiver<T>> {
        match self {
            Intake::Ready(_) => None,
            Intake::Piped(items) => Some(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn items_of_a_pipe_come_when_they_are_there_and_then_the_end() {
        let (sender, lines) = mpsc::channel();
        let mut intake = Intake::piped(lines.into_iter()).expect("there are threads");
        assert!(matches!(intake.next(), Next::Later));
        sender.send(7).expect("it is read");
        while !matches!(intake.next(), Next::Item(7)) {}
        assert!(matches!(intake.next(), Next::Later));
        drop(sender);
        let wake = intake.wake().expect("it is a pipe").clone();
        assert!(wake.recv().is_err(), "the end wakes, too");
        assert!(matches!(intake.next(), Next::End));
    }

    #[test]
    fn a_system_without_threads_is_an_error_in_words() {
        let none_left = |_: Box<dyn FnOnce() + Send>| Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let error = Intake::read_by(0..3, none_left).err().expect("there is no thread").to_string();
        assert!(error.starts_with("cannot start the thread that reads the inputs: Resource temporarily"), "{error}");
        assert!(error.contains("ulimit -u") && !error.contains("os error"), "{error}");
    }
}
