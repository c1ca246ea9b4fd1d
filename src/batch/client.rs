//! A script as the client of a batch: its requests are the source of jobs, and it takes their results.
//!
//! Both go through one socket, in the frames of [`calls::frame`](crate::process::calls::frame). A job of such a batch is a *call*
//! with one or more jobs of the script.

mod requests;
mod results;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::runners::call::Call;
use super::source::{Jobs, Keep};
use crate::pool::Pool;
use crate::process::calls::memfd::Memfd;
use crate::process::calls::payload::Payload;
use requests::Requests;
pub(crate) use results::{ClientSink, kept};

/// The connection to a script.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: Arc<OwnedFd>,
    /// Readable when the script has ended, also if a child of it holds the socket open.
    end: Option<Arc<OwnedFd>>,
    /// Whether the script is gone, so that nothing takes results any more.
    gone: Arc<AtomicBool>,
    /// The memfds of calls without a result, by the numbers of the calls: ranks may open them.
    memfds: Arc<Mutex<HashMap<u64, Arc<Memfd>>>>,
}

impl Client {
    /// `end` becomes readable when the script has ended.
    pub(crate) fn new(socket: OwnedFd, end: Option<OwnedFd>) -> Self {
        Client { socket: Arc::new(socket), end: end.map(Arc::new), gone: Arc::default(), memfds: Arc::default() }
    }

    /// Returns the script's calls, which are read as they come.
    pub(crate) fn jobs(&self, pool: &Pool) -> Jobs<Call> {
        let (client, pool) = (self.clone(), pool.clone());
        Jobs::asked(move |keep: Keep| Requests::new(client.clone(), pool.clone(), keep))
    }

    /// Returns the sink for the results of calls, and greets the script.
    pub(crate) fn sink(&self, pool: &Pool, has_journal: bool) -> ClientSink {
        ClientSink::new(self.clone(), pool, has_journal)
    }

    /// Closes the connection: the script's unanswered calls fail, and so do later ones.
    pub(crate) fn close(&self) {
        self.leave();
        // If the script has closed it, there is nothing to do.
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
    }

    /// Keeps the memfd of a call until it is settled.
    fn keep(&self, number: u64, payload: &Payload) {
        if let Payload::Memfd(memfd) = payload {
            self.memfds().insert(number, memfd.clone());
        }
    }

    fn settled(&self, number: u64) {
        self.memfds().remove(&number);
    }

    fn memfds(&self) -> MutexGuard<'_, HashMap<u64, Arc<Memfd>>> {
        self.memfds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }
}
