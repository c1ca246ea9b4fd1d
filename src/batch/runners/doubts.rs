//! Answers that turn out to be doubtful after they were handed on.
//!
//! Only the end of a worker process proves that it wrote a line for each record and no more. So each rank notes which jobs a
//! process has answered since it began, and at the end of a batch, before anything is called a success, the driver has all ranks
//! end their workers and asks what that has shown.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::console;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::rank;
use crate::engine::transport::TransportInfo;
use crate::pool::Pool;
use crate::process::worker::{Verdict, Worker};

/// Jobs whose answers may be those of other jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Doubt {
    pub rank: u32,
    pub slot: u32,
    /// What has shown it, in words.
    pub why: String,
    pub spans: Vec<Span>,
}

/// Jobs that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The first one's number.
    pub number: u64,
    pub count: u64,
}

impl Span {
    fn numbers(self) -> RangeInclusive<u64> {
        self.number..=self.number + (self.count - 1)
    }
}

impl Doubt {
    /// The numbers of the jobs.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = u64> + '_ {
        self.spans.iter().flat_map(|span| span.numbers())
    }

    /// What is said of each job.
    pub(crate) fn message(&self) -> String {
        format!("its answer may be that of another job: {}", self.why)
    }

    /// Which jobs, for people.
    fn named(&self) -> String {
        const NAMED: usize = 10;
        let spans = self.spans.iter().take(NAMED).map(|span| match span.count {
            1 => span.number.to_string(),
            _ => format!("{}-{}", span.numbers().start(), span.numbers().end()),
        });
        let more = if self.spans.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", spans.collect::<Vec<_>>().join(", "))
    }
}

/// What one batch has on one rank: its workers that have nothing to do, and what they have answered.
#[derive(Default)]
pub(super) struct Room {
    /// By slot.
    idle: Mutex<HashMap<u32, Worker>>,
    /// What the process of each slot has answered since it began.
    answered: Mutex<HashMap<u32, Vec<Span>>>,
    doubts: Mutex<Vec<Doubt>>,
    /// Workers that have something to do.
    busy: Mutex<u32>,
    at_rest: Condvar,
    closing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// The worker of a slot, if it has one.
    pub(super) fn enter(&self, slot: u32) -> Option<Worker> {
        *lock(&self.busy) += 1;
        lock(&self.idle).remove(&slot)
    }

    /// Puts it back, if it can go on.
    pub(super) fn leave(&self, slot: u32, worker: Option<Worker>) {
        lock(&self.idle).extend(worker.map(|worker| (slot, worker)));
        *lock(&self.busy) -= 1;
        self.at_rest.notify_all();
    }

    /// A worker that has nothing to do, of whichever slot.
    pub(super) fn take_idle(&self) -> Option<Worker> {
        let mut idle = lock(&self.idle);
        let slot = idle.keys().next().copied()?;
        idle.remove(&slot)
    }

    /// Notes an answer that was handed on.
    pub(super) fn note(&self, slot: u32, number: u64) {
        let mut answered = lock(&self.answered);
        let spans = answered.entry(slot).or_default();
        match spans.last_mut() {
            Some(last) if number == last.number + last.count => last.count += 1,
            Some(_) | None => spans.push(Span { number, count: 1 }),
        }
    }

    /// What the end of a slot's process says.
    pub(super) fn judge(&self, rank: u32, slot: u32, verdict: Verdict) {
        let spans = lock(&self.answered).remove(&slot).unwrap_or_default();
        if let (Verdict::Doubtful(why), false) = (verdict, spans.is_empty()) {
            lock(&self.doubts).push(Doubt { rank, slot, why, spans });
        }
    }

    /// Ends the processes, all at the same time: each has some patience.
    pub(super) fn close(&self) {
        let _closing = lock(&self.closing);
        let mut idle = std::mem::take(&mut *lock(&self.idle));
        thread::scope(|scope| {
            for worker in idle.values_mut() {
                scope.spawn(|| worker.close());
            }
        });
    }

    fn await_rest(&self, until: Instant) {
        let mut busy = lock(&self.busy);
        while *busy > 0 && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            busy = self.at_rest.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Names a batch whose workers have to be asked at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Token(u64);

impl Token {
    /// Only the driver's process makes them.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Token(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The rooms of this process that the driver will ask for.
static ROOMS: Mutex<Vec<(Token, Arc<Room>)>> = Mutex::new(Vec::new());

/// A rank has begun with a batch.
pub(super) fn open(token: Option<Token>) -> Arc<Room> {
    let room = Arc::new(Room::default());
    lock(&ROOMS).extend(token.map(|token| (token, room.clone())));
    room
}

/// How long is waited for workers that have something to do, and for all ranks.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a rank was asked: which batch, and how long it may keep its thread busy if there is nothing to do, so that other ranks
/// get the next question.
type Question = (Token, Duration);

/// A rank's answer: who it is, and what it has found.
type Found = (u32, Vec<Doubt>);

fn ask((token, pause): &Question, _: u32) -> Found {
    let rank = rank::current_job().map_or(0, |job| job.rank);
    let mut rooms = Vec::new();
    lock(&ROOMS).retain(|(of, room)| {
        if of == token {
            rooms.push(room.clone());
        }
        of != token
    });
    if rooms.is_empty() {
        thread::sleep(*pause);
    }
    (rank, settle(&rooms))
}

fn settle(rooms: &[Arc<Room>]) -> Vec<Doubt> {
    let until = Instant::now() + PATIENCE;
    let mut doubts = Vec::new();
    for room in rooms {
        room.await_rest(until);
        room.close();
        doubts.append(&mut lock(&room.doubts));
    }
    doubts
}

/// Has all ranks end the workers of a batch, and gathers what that has shown.
///
/// # Errors
/// The pool has failed, or a rank does not answer.
pub(crate) fn gather(pool: &Pool, token: Token) -> Result<Vec<Doubt>, JobError> {
    let is_local = *pool.transport() == TransportInfo::Local;
    let ranks = (0..).zip(pool.ranks()).filter(|(_, rank)| rank.threads > 0).map(|(at, _)| at);
    // The ranks of one process are asked all at once.
    let mut missing: BTreeSet<u32> = if is_local { BTreeSet::new() } else { ranks.collect() };
    let mut doubts = Vec::new();
    let mut pause = Duration::ZERO;
    let since = Instant::now();
    loop {
        for found in pool.map_with((token, pause), 0..pool.threads().max(1), ask).unordered().chunk_size(1) {
            let (rank, mut found) = found?;
            missing.remove(&rank);
            doubts.append(&mut found);
        }
        pause = (pause * 2).clamp(Duration::from_millis(1), Duration::from_millis(200));
        if missing.is_empty() {
            break;
        }
        if since.elapsed() > 2 * PATIENCE {
            let message = format!("rank(s) {missing:?} did not say how their workers ended");
            return Err(JobError::new(0, JobErrorKind::Closed, message));
        }
    }
    doubts.sort_by_key(|doubt| doubt.spans.first().map_or(0, |span| span.number));
    Ok(doubts)
}

/// The run has ended before the driver could ask: what there is to say is said here.
pub(crate) fn tell_the_rest() {
    let rooms = std::mem::take(&mut *lock(&ROOMS));
    for (_, room) in rooms {
        for doubt in lock(&room.doubts).drain(..) {
            console::complain(format_args!(
                "the answers of job(s) {} may be those of other jobs, whatever the records say; run them again: {}",
                doubt.named(),
                doubt.why
            ));
        }
    }
}

/// What is said at the end of a run with doubtful answers.
pub(crate) fn summary(doubts: &[Doubt]) -> Option<String> {
    let count: u64 = doubts.iter().flat_map(|doubt| &doubt.spans).map(|span| span.count).sum();
    let first = doubts.first()?;
    let named: Vec<_> = doubts.iter().map(Doubt::named).collect();
    Some(format!(
        "the answers of {count} job(s) ({}) may be those of other jobs, and count as failed: {}. A worker writes one line of JSON for \
         each record, and nothing else to its standard output; with --worker-ids each answer says which record it is for",
        named.join("; "),
        first.why
    ))
}
