//! How memfds go from rank to rank on one host: within a process by numbers, between processes by their places in `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat, open};
use serde::{Deserialize, Serialize};

use super::memfd::Memfd;
use crate::engine::placement::RankFacts;

/// How often it is looked which memfds were taken.
const LOOK_FOR_TAKEN: Duration = Duration::from_millis(20);

/// How the memfds of a run go from rank to rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Passing {
    /// Their bytes are sent.
    AsBytes = 0,
    /// All ranks are threads of this process.
    InProcess = 1,
    /// All ranks are processes of this host, which can open each other's files.
    OnHost = 2,
}

static OF_THIS_RUN: AtomicU8 = AtomicU8::new(Passing::AsBytes as u8);

impl Passing {
    /// Returns what is possible between these ranks. This process is the first one.
    pub(crate) fn between<'f>(mut facts: impl Iterator<Item = &'f RankFacts> + Clone) -> Passing {
        let Some(first) = facts.clone().next() else { return Passing::AsBytes };
        if facts.clone().any(|facts| facts.processes != first.processes) {
            Passing::AsBytes
        } else if facts.clone().all(|facts| facts.pid == first.pid) {
            Passing::InProcess
        // Whether this link can be read is what decides whether files can be opened.
        } else if facts.all(|facts| std::fs::read_link(format!("/proc/{}/exe", facts.pid)).is_ok()) {
            Passing::OnHost
        } else {
            Passing::AsBytes
        }
    }

    /// Has this process pass memfds in this way.
    pub(crate) fn begin(self) {
        OF_THIS_RUN.store(self as u8, Ordering::Relaxed);
    }

    pub(super) fn of_this_run() -> Passing {
        let this = OF_THIS_RUN.load(Ordering::Relaxed);
        [Passing::InProcess, Passing::OnHost].into_iter().find(|way| *way as u8 == this).unwrap_or(Passing::AsBytes)
    }
}

/// Memfds on their way to a thread of this process, by their tickets.
struct OnTheirWay {
    last_ticket: u64,
    memfds: BTreeMap<u64, Arc<Memfd>>,
    /// Those that were fetched, while they are in use.
    fetched: BTreeMap<u64, Weak<Memfd>>,
    /// Those that many fetch. Their sender keeps them as long as they may be fetched.
    lasting: BTreeMap<u64, Weak<Memfd>>,
}

static ON_THEIR_WAY: Mutex<OnTheirWay> = Mutex::new(OnTheirWay {
    last_ticket: 0,
    memfds: BTreeMap::new(),
    fetched: BTreeMap::new(),
    lasting: BTreeMap::new(),
});

fn on_their_way() -> MutexGuard<'static, OnTheirWay> {
    ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a memfd until it is fetched, and returns its ticket.
pub(super) fn leave(memfd: Arc<Memfd>) -> u64 {
    let mut on_their_way = on_their_way();
    on_their_way.last_ticket += 1;
    let ticket = on_their_way.last_ticket;
    on_their_way.memfds.insert(ticket, memfd);
    ticket
}

pub(super) fn fetch(ticket: u64) -> Option<Arc<Memfd>> {
    let mut on_their_way = on_their_way();
    on_their_way.fetched.retain(|_, memfd| memfd.strong_count() > 0);
    let memfd = on_their_way.memfds.remove(&ticket)?;
    on_their_way.fetched.insert(ticket, Arc::downgrade(&memfd));
    Some(memfd)
}

/// Keeps a memfd that was fetched until it is fetched again, with its ticket.
pub(super) fn leave_again(memfd: Arc<Memfd>) {
    let mut on_their_way = on_their_way();
    let is_it = |fetched: &Weak<Memfd>| fetched.as_ptr() == Arc::as_ptr(&memfd);
    let ticket = on_their_way.fetched.iter().find(|(_, fetched)| is_it(fetched)).map(|(ticket, _)| *ticket);
    if let Some(ticket) = ticket {
        on_their_way.fetched.remove(&ticket);
        on_their_way.memfds.insert(ticket, memfd);
    }
}

/// Lets many fetch a memfd as long as it is kept, and returns its ticket.
pub(super) fn show(memfd: &Arc<Memfd>) -> u64 {
    let mut on_their_way = on_their_way();
    on_their_way.lasting.retain(|_, memfd| memfd.strong_count() > 0);
    on_their_way.last_ticket += 1;
    let ticket = on_their_way.last_ticket;
    on_their_way.lasting.insert(ticket, Arc::downgrade(memfd));
    ticket
}

pub(super) fn find(ticket: u64) -> Option<Arc<Memfd>> {
    on_their_way().lasting.get(&ticket).and_then(Weak::upgrade)
}

/// Where another process of this host finds a memfd, as long as this one keeps it open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    pid: u32,
    number: i32,
    device: u64,
    inode: u64,
    length: u64,
}

impl Place {
    pub(super) fn of(memfd: &Memfd) -> io::Result<Place> {
        use std::os::fd::AsRawFd;
        let stat = fstat(&*memfd.descriptor)?;
        let (number, length) = (memfd.descriptor.as_raw_fd(), memfd.length as u64);
        Ok(Place { pid: std::process::id(), number, device: stat.st_dev, inode: stat.st_ino, length })
    }

    /// Opens the memfd.
    ///
    /// # Errors
    /// If its process has closed it.
    pub(super) fn open(&self) -> io::Result<Memfd> {
        // The number may mean another file by now, of which even the opening could wait.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = open(format!("/proc/{}/fd/{}", self.pid, self.number), flags, Mode::empty())?;
        let stat = fstat(&descriptor)?;
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its process has closed it"));
        }
        Ok(Memfd::new(Arc::new(descriptor), length))
    }
}

/// Memfds that another process will open. A thread closes them when that is done.
static AWAITED: Mutex<Vec<Arc<Memfd>>> = Mutex::new(Vec::new());

fn awaited() -> MutexGuard<'static, Vec<Arc<Memfd>>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a memfd until another process has opened it. One without notes is kept by its owner.
pub(super) fn keep_until_taken(memfd: &Arc<Memfd>) {
    if memfd.is_taken() != Some(false) {
        return;
    }
    let mut awaited = awaited();
    awaited.push(memfd.clone());
    if awaited.len() == 1 {
        // Without a thread, they are closed at the end.
        let _ = thread::Builder::new().name("rankpool memfds".into()).spawn(close_taken);
    }
}

/// Closes memfds when they were taken, until there are no more.
fn close_taken() {
    loop {
        thread::sleep(LOOK_FOR_TAKEN);
        let mut awaited = awaited();
        awaited.retain(|memfd| memfd.is_taken() == Some(false));
        if awaited.is_empty() {
            return;
        }
    }
}

/// Closes the memfds that no process has opened: none will.
pub(crate) fn close_awaited() {
    awaited().clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd() -> Arc<Memfd> {
        Arc::new(Memfd::of(&[b"x"]).expect("there is memory"))
    }

    #[test]
    fn a_ticket_is_used_once() {
        let ticket = leave(memfd());
        assert_eq!(fetch(ticket).map(|memfd| memfd.length), Some(1));
        assert!(fetch(ticket).is_none());
    }

    #[test]
    fn what_was_fetched_and_left_again_has_the_same_ticket() {
        let ticket = leave(memfd());
        for _ in 0..2 {
            leave_again(fetch(ticket).expect("it is there"));
        }
        assert!(fetch(ticket).is_some() && fetch(ticket).is_none());
    }

    #[test]
    fn a_lasting_ticket_is_fetched_by_many_while_its_memfd_is_kept() {
        let memfd = memfd();
        let ticket = show(&memfd);
        assert_eq!(find(ticket).map(|memfd| memfd.length), Some(1));
        assert!(find(ticket).is_some());
        drop(memfd);
        assert!(find(ticket).is_none());
    }

    #[test]
    fn a_memfd_is_opened_by_its_place_while_its_process_keeps_it() {
        let kept = memfd();
        let place = Place::of(&kept).expect("it is there");
        assert_eq!(place.open().expect("it is open").read().expect("it is whole"), b"x");
        let elsewhere = Place { inode: place.inode + 1, ..place.clone() };
        assert!(elsewhere.open().is_err());
        drop(kept);
        assert!(place.open().is_err());
    }
}
