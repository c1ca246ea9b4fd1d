//! Doubtful answers: answers of workers that may be those of other jobs, which shows after they were handed on.
//!
//! Only the end of a worker process proves that it wrote exactly one line for each record. So each rank notes which jobs a process
//! has answered since it began. At the end of a batch, before it counts as a success, the driver has all ranks end their workers
//! and collects the doubtful answers.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::batch::policy::BUSY_WORKER_LIMIT;
use crate::console;
use crate::engine::error::{JobError, JobErrorKind};
use crate::engine::rank;
use crate::engine::transport::TransportInfo;
use crate::pool::Pool;
use crate::process::worker::{AnswerCheck, Worker};

/// Jobs whose answers may be those of other jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoubtfulAnswers {
    pub rank: u32,
    pub slot: u32,
    /// Why the answers are doubtful.
    pub why: String,
    pub spans: Vec<Span>,
}

/// Jobs with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The number of the first job.
    pub number: u64,
    pub count: u64,
}

impl Span {
    fn numbers(self) -> RangeInclusive<u64> {
        self.number..=self.number + (self.count - 1)
    }
}

impl DoubtfulAnswers {
    /// Returns the numbers of the jobs.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = u64> + '_ {
        self.spans.iter().flat_map(|span| span.numbers())
    }

    /// Returns the error message of each of the jobs.
    pub(crate) fn message(&self) -> String {
        format!("its answer may be that of another job: {}", self.why)
    }

    /// Returns the numbers of the jobs as text, at most ten spans: `3, 7-9`.
    fn numbers_text(&self) -> String {
        const NAMED: usize = 10;
        let spans = self.spans.iter().take(NAMED).map(|span| match span.count {
            1 => span.number.to_string(),
            _ => format!("{}-{}", span.numbers().start(), span.numbers().end()),
        });
        let more = if self.spans.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", spans.collect::<Vec<_>>().join(", "))
    }
}

/// The workers of one batch on one rank: the idle ones, and the jobs that each has answered.
#[derive(Default)]
pub(super) struct RankWorkers {
    /// The idle workers, by slot.
    idle: Mutex<HashMap<u32, Worker>>,
    /// The jobs that the process of each slot has answered since it began.
    answered: Mutex<HashMap<u32, Vec<Span>>>,
    doubtful: Mutex<Vec<DoubtfulAnswers>>,
    /// The number of workers that answer a chunk.
    busy: Mutex<u32>,
    all_idle: Condvar,
    /// Held while workers are closed, so that a second call waits for the first.
    closing: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RankWorkers {
    /// Takes the worker of a slot, if there is one. The slot counts as busy until [`put_back`](Self::put_back).
    pub(super) fn take_worker(&self, slot: u32) -> Option<Worker> {
        *lock(&self.busy) += 1;
        lock(&self.idle).remove(&slot)
    }

    /// Ends the use of a slot's worker, and keeps the worker, if one is given, for the next chunk.
    pub(super) fn put_back(&self, slot: u32, worker: Option<Worker>) {
        lock(&self.idle).extend(worker.map(|worker| (slot, worker)));
        *lock(&self.busy) -= 1;
        self.all_idle.notify_all();
    }

    /// Takes an idle worker of any slot.
    pub(super) fn take_idle(&self) -> Option<Worker> {
        let mut idle = lock(&self.idle);
        let slot = idle.keys().next().copied()?;
        idle.remove(&slot)
    }

    /// Notes an answer that was handed on.
    pub(super) fn note_answer(&self, slot: u32, number: u64) {
        let mut answered = lock(&self.answered);
        let spans = answered.entry(slot).or_default();
        match spans.last_mut() {
            Some(last) if number == last.number + last.count => last.count += 1,
            Some(_) | None => spans.push(Span { number, count: 1 }),
        }
    }

    /// Takes the verdict on the answers of a slot's process, which has ended.
    pub(super) fn check_answers(&self, rank: u32, slot: u32, verdict: AnswerCheck) {
        let spans = lock(&self.answered).remove(&slot).unwrap_or_default();
        if let (AnswerCheck::Doubtful(why), false) = (verdict, spans.is_empty()) {
            lock(&self.doubtful).push(DoubtfulAnswers { rank, slot, why, spans });
        }
    }

    /// Closes all idle workers side by side, because each may take some time to end.
    pub(super) fn close(&self) {
        let _closing = lock(&self.closing);
        let mut idle = std::mem::take(&mut *lock(&self.idle));
        thread::scope(|scope| {
            for worker in idle.values_mut() {
                scope.spawn(|| worker.close());
            }
        });
    }

    /// Waits until no worker is busy, at most until `until`.
    fn wait_until_idle(&self, until: Instant) {
        let mut busy = lock(&self.busy);
        while *busy > 0 && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            busy = self.all_idle.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Identifies a batch whose workers are checked at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Token(u64);

impl Token {
    /// Makes a new token. Tokens are unique in the driver's process, which alone makes them.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Token(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The workers of the ranks of this process that the driver will check.
static ALL_WORKERS: Mutex<Vec<(Token, Arc<RankWorkers>)>> = Mutex::new(Vec::new());

/// Makes the workers of a batch on a rank, and registers them for the final check if there is a token.
pub(super) fn register(token: Option<Token>) -> Arc<RankWorkers> {
    let workers = Arc::new(RankWorkers::default());
    lock(&ALL_WORKERS).extend(token.map(|token| (token, workers.clone())));
    workers
}

/// The request to a rank: the batch, and how long the rank keeps its thread busy if it has no workers of it, so that other ranks
/// get the next request.
type Request = (Token, Duration);

/// The reply of a rank: its number, and its doubtful answers.
type Reply = (u32, Vec<DoubtfulAnswers>);

/// Closes the workers of a batch on the calling rank and returns their doubtful answers.
fn collect_on_rank((token, pause): &Request, _: u32) -> Reply {
    let rank = rank::current_job().map_or(0, |job| job.rank);
    let mut found = Vec::new();
    lock(&ALL_WORKERS).retain(|(of, workers)| {
        if of == token {
            found.push(workers.clone());
        }
        of != token
    });
    if found.is_empty() {
        thread::sleep(*pause);
    }
    (rank, close_and_collect(&found))
}

fn close_and_collect(found: &[Arc<RankWorkers>]) -> Vec<DoubtfulAnswers> {
    let until = Instant::now() + BUSY_WORKER_LIMIT;
    let mut doubtful = Vec::new();
    for workers in found {
        workers.wait_until_idle(until);
        workers.close();
        doubtful.append(&mut lock(&workers.doubtful));
    }
    doubtful
}

/// Closes the workers of a batch on all ranks and returns their doubtful answers, in the order of job numbers.
///
/// # Errors
/// If the pool has failed, or a rank does not reply.
pub(crate) fn collect(pool: &Pool, token: Token) -> Result<Vec<DoubtfulAnswers>, JobError> {
    let is_local = *pool.transport() == TransportInfo::Local;
    let ranks = (0..).zip(pool.ranks()).filter(|(_, rank)| rank.threads > 0).map(|(at, _)| at);
    // The ranks of one process are covered by any one request.
    let mut missing: BTreeSet<u32> = if is_local { BTreeSet::new() } else { ranks.collect() };
    let mut doubtful = Vec::new();
    let mut pause = Duration::ZERO;
    let since = Instant::now();
    loop {
        for found in pool.map_with((token, pause), 0..pool.threads().max(1), collect_on_rank).unordered().chunk_size(1)
        {
            let (rank, mut found) = found?;
            missing.remove(&rank);
            doubtful.append(&mut found);
        }
        pause = (pause * 2).clamp(Duration::from_millis(1), Duration::from_millis(200));
        if missing.is_empty() {
            break;
        }
        if since.elapsed() > 2 * BUSY_WORKER_LIMIT {
            let message = format!("rank(s) {missing:?} did not report how their workers ended");
            return Err(JobError::new(0, JobErrorKind::Closed, message));
        }
    }
    doubtful.sort_by_key(|answers| answers.spans.first().map_or(0, |span| span.number));
    Ok(doubtful)
}

/// Reports the doubtful answers that the driver has not collected, because the run has ended before.
pub(crate) fn report_uncollected() {
    let left = std::mem::take(&mut *lock(&ALL_WORKERS));
    for (_, workers) in left {
        for answers in lock(&workers.doubtful).drain(..) {
            console::eprint_error(format_args!(
                "the answers of job(s) {} may be those of other jobs, even if the job log says ok; run them again: {}",
                answers.numbers_text(),
                answers.why
            ));
        }
    }
}

/// Returns the message at the end of a run with doubtful answers; `None` if there are none.
pub(crate) fn summary(doubtful: &[DoubtfulAnswers]) -> Option<String> {
    let count: u64 = doubtful.iter().flat_map(|answers| &answers.spans).map(|span| span.count).sum();
    let first = doubtful.first()?;
    let named: Vec<_> = doubtful.iter().map(DoubtfulAnswers::numbers_text).collect();
    Some(format!(
        "the answers of {count} job(s) ({}) may be those of other jobs, and count as failed: {}. A worker writes one line of JSON for \
         each record, and nothing else to its standard output; with --worker-ids each answer says which record it is for",
        named.join("; "),
        first.why
    ))
}
