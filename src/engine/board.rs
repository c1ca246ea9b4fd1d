//! The board: counters of a run and the times of events that happen at most once, written on rank 0 where they happen, and read by
//! other threads at any time without a request to the master.
//!
//! The master owns the only [`BoardWriter`] of a run. For a message or a chunk it writes a few numbers on a cache line that no
//! other thread writes; it takes no lock. (The loads of the ranks, which come about once a second if they were asked for, are
//! behind one lock for each rank.) Readers have a [`Board`]. A map whose progress is shown has its own [`Settled`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::placement::Rank;
use crate::engine::schedule::RankId;
use crate::engine::stats::{RankStats, Stats};
use crate::engine::wire::Load;

/// An event of a run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// All ranks are there; no job has started.
    Started {
        /// All of them, in order.
        ranks: &'a [Rank],
    },
    /// A rank is gone, or has been silent for too long; its jobs go to other ranks.
    Lost {
        /// The rank.
        rank: RankId,
        /// The name of its host.
        host: &'a str,
    },
    /// A signal asked for the end: queued jobs are cancelled, running ones may end.
    Stopping,
}

/// Receives notices. It is called in the master's loop, so it must return quickly. The same facts can be read from [`Stats`].
pub trait Listener: Send {
    /// Handles a notice.
    fn notice(&mut self, notice: Notice<'_>);
}

/// The numbers of settled jobs of one map: counted where the jobs are settled, read by the display of progress.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    jobs: AtomicU64,
    failed: AtomicU64,
    restored: AtomicU64,
}

impl Settled {
    /// Adds `jobs` settled jobs, `failed` of which have failed.
    pub(crate) fn add(&self, jobs: u64, failed: u64) {
        self.jobs.fetch_add(jobs, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    /// Adds a job that an earlier run has settled.
    #[cfg(feature = "program")]
    pub(crate) fn add_restored(&self, failed: u64) {
        self.restored.fetch_add(1, Ordering::Relaxed);
        self.add(1, failed);
    }

    /// Returns the number of settled jobs that an earlier run has settled: they took none of the time of this one.
    pub(crate) fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// Returns the number of settled jobs, and of those that have failed.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.jobs.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// A number with one writing thread.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    /// Adds without the cost of an atomic addition, which a number with one writer does not need.
    fn add(&self, more: u64) {
        // A thread that reads this number also sees all numbers that were counted before it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn time(&self) -> Duration {
        Duration::from_nanos(self.read())
    }
}

/// The time of an event in ns since the board was made; 0 if it has not happened.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, since_start: Duration) {
        let ns = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.0.store(ns, Ordering::Release);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn read(&self) -> Option<Duration> {
        let ns = self.0.load(Ordering::Acquire);
        (ns > 0).then(|| Duration::from_nanos(ns))
    }
}

/// The counters of the whole run, which share their cache line with nothing else.
#[derive(Debug, Default)]
#[repr(align(64))]
struct RunCounts {
    jobs: Count,
    failed: Count,
    first_dispatch: Moment,
    last_result: Moment,
    stop_requested: Moment,
    ended: AtomicBool,
}

/// The counters of one rank, which share their cache lines with nothing else.
#[derive(Debug, Default)]
#[repr(align(64))]
struct RankCounts {
    jobs: Count,
    failed: Count,
    wall_ns: Count,
    useful_ns: Count,
    messages_to: Count,
    bytes_to: Count,
    messages_from: Count,
    bytes_from: Count,
    lost: Moment,
}

/// A chunk that a rank has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkDone {
    /// The number of its jobs.
    pub jobs: u64,
    /// The number of its failed jobs.
    pub failed: u64,
    /// From its first job's start to its last job's end, on its thread.
    pub wall_ns: u64,
    /// The part of that time that went into the function of its jobs alone.
    pub useful_ns: u64,
}

/// A run's board for readers.
#[derive(Debug)]
pub(crate) struct Board {
    ranks: Vec<Rank>,
    made: Instant,
    run: RunCounts,
    /// The counters of each rank, in the order of `ranks`.
    by_rank: Vec<RankCounts>,
    /// The last load of each rank, and the time at which it came, since the board was made.
    loads: Vec<Mutex<Option<(Load, Duration)>>>,
}

impl Board {
    /// Returns the ranks of the run, rank 0 first.
    pub(crate) fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    /// Returns the time at which a signal asked for the end of the run.
    pub(crate) fn stop_requested(&self) -> Option<Instant> {
        self.made.checked_add(self.run.stop_requested.read()?)
    }

    /// Returns the name of a rank's host.
    pub(crate) fn host(&self, rank: RankId) -> &str {
        self.ranks.get(rank.0 as usize).map_or("an unknown host", |rank| &rank.facts.host)
    }

    /// Returns the time since the board was made.
    #[cfg(feature = "program")]
    pub(crate) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// Returns the last load of each rank, in order, and when it came, since the board was made. They come after
    /// [`Pool::report_loads`](crate::Pool::report_loads).
    #[cfg(feature = "program")]
    pub(crate) fn loads(&self) -> Vec<Option<(Load, Duration)>> {
        self.loads.iter().map(|load| *load.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Returns the statistics of the run so far; `None` when the run has ended.
    pub(crate) fn stats(&self) -> Option<Stats> {
        if self.run.ended.load(Ordering::Acquire) {
            return None;
        }
        let RunCounts { jobs, failed, first_dispatch, last_result, stop_requested, ended: _ } = &self.run;
        // The jobs are read first, so the numbers that are read later include all of them.
        let jobs = jobs.read();
        let wall = match (first_dispatch.read(), last_result.read()) {
            (Some(first), Some(last)) => last.saturating_sub(first),
            _ => Duration::ZERO,
        };
        let ranks = (0..).zip(&self.ranks).zip(&self.by_rank).map(|((number, rank), counts)| RankStats {
            rank: number,
            host: rank.facts.host.clone(),
            threads: rank.threads,
            jobs: counts.jobs.read(),
            failed: counts.failed.read(),
            busy: counts.useful_ns.time(),
            on_chunks: counts.wall_ns.time(),
            messages_to: counts.messages_to.read(),
            bytes_to: counts.bytes_to.read(),
            messages_from: counts.messages_from.read(),
            bytes_from: counts.bytes_from.read(),
            lost: counts.lost.read(),
        });
        let ranks = ranks.collect();
        Some(Stats { jobs, failed: failed.read(), wall, stop_requested: stop_requested.read(), ranks })
    }
}

/// Writes a run's board, and notifies the listeners.
pub(crate) struct BoardWriter<'l> {
    board: Arc<Board>,
    listeners: Vec<Box<dyn Listener + 'l>>,
}

impl<'l> BoardWriter<'l> {
    /// Makes the board of a run of these ranks, at its start.
    pub(crate) fn new(ranks: Vec<Rank>, listeners: Vec<Box<dyn Listener + 'l>>) -> Self {
        let by_rank = ranks.iter().map(|_| RankCounts::default()).collect();
        let loads = ranks.iter().map(|_| Mutex::default()).collect();
        let board = Board { ranks, made: Instant::now(), run: RunCounts::default(), by_rank, loads };
        BoardWriter { board: Arc::new(board), listeners }
    }

    /// Returns the board for readers.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    fn notify(&mut self, notice: Notice<'_>) {
        for listener in &mut self.listeners {
            listener.notice(notice);
        }
    }

    /// Notifies the listeners that all ranks are there.
    pub(crate) fn started(&mut self) {
        let board = self.board.clone();
        self.notify(Notice::Started { ranks: &board.ranks });
    }

    /// Notes that a rank is gone.
    pub(crate) fn lost(&mut self, rank: RankId) {
        let board = self.board.clone();
        if let Some(counts) = board.by_rank.get(rank.0 as usize) {
            counts.lost.set(board.made.elapsed());
        }
        self.notify(Notice::Lost { rank, host: board.host(rank) });
    }

    /// Notes that a signal asked for the end.
    pub(crate) fn stop_requested(&mut self) {
        self.board.run.stop_requested.set(self.board.made.elapsed());
        self.notify(Notice::Stopping);
    }

    /// Notes that jobs were sent to a rank.
    pub(crate) fn dispatched(&mut self) {
        if !self.board.run.first_dispatch.has_come() {
            self.board.run.first_dispatch.set(self.board.made.elapsed());
        }
    }

    /// Counts a chunk that a rank has done.
    pub(crate) fn chunk_done(&mut self, rank: RankId, chunk: ChunkDone) {
        let Board { run, by_rank, made, .. } = &*self.board;
        let Some(counts) = by_rank.get(rank.0 as usize) else { return };
        counts.failed.add(chunk.failed);
        counts.wall_ns.add(chunk.wall_ns);
        counts.useful_ns.add(chunk.useful_ns);
        // The jobs are written last and read first: a reader that sees them sees their times, too.
        counts.jobs.add(chunk.jobs);
        run.last_result.set(made.elapsed());
    }

    /// Counts settled jobs: they have a result or have failed after all retries.
    pub(crate) fn settled(&mut self, jobs: u64, failed: u64) {
        self.board.run.failed.add(failed);
        self.board.run.jobs.add(jobs);
    }

    /// Counts a message to a rank.
    pub(crate) fn sent(&mut self, rank: RankId, bytes: usize) {
        if let Some(counts) = self.board.by_rank.get(rank.0 as usize) {
            counts.messages_to.add(1);
            counts.bytes_to.add(bytes as u64);
        }
    }

    /// Keeps the load of a rank.
    pub(crate) fn load(&mut self, rank: RankId, load: Load) {
        if let Some(last) = self.board.loads.get(rank.0 as usize) {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some((load, self.board.made.elapsed()));
        }
    }

    /// Counts a message from a rank.
    pub(crate) fn received(&mut self, rank: RankId, bytes: usize) {
        if let Some(counts) = self.board.by_rank.get(rank.0 as usize) {
            counts.messages_from.add(1);
            counts.bytes_from.add(bytes as u64);
        }
    }
}

impl Drop for BoardWriter<'_> {
    fn drop(&mut self) {
        self.board.run.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::engine::placement::RankFacts;

    fn ranks(number: u32) -> Vec<Rank> {
        let facts = |rank| RankFacts {
            host: format!("node{rank}"),
            pid: 1,
            processes: 1,
            cpus: vec![0],
            parallelism: 1,
            machine_cpus: 1,
            threads_asked: None,
            cpus_per_job: NonZeroU32::MIN,
            executable: 0,
            complaint: None,
        };
        (0..number).map(|rank| Rank { facts: facts(rank), threads: rank + 1 }).collect()
    }

    #[test]
    fn the_board_shows_what_was_written_until_its_writer_is_gone() {
        let mut writer = BoardWriter::new(ranks(2), Vec::new());
        let board = writer.board().clone();
        let fresh = board.stats().unwrap();
        assert_eq!(
            (fresh.jobs, fresh.wall, fresh.stop_requested, fresh.ranks[1].lost),
            (0, Duration::ZERO, None, None)
        );
        writer.dispatched();
        writer.sent(RankId(1), 100);
        writer.sent(RankId(1), 11);
        writer.received(RankId(1), 7);
        let wall = Duration::from_millis(2);
        thread::sleep(wall);
        writer.chunk_done(RankId(1), ChunkDone { jobs: 5, failed: 2, wall_ns: 4_000, useful_ns: 3_000 });
        writer.chunk_done(RankId(1), ChunkDone { jobs: 1, failed: 0, wall_ns: 500, useful_ns: 400 });
        writer.dispatched();
        writer.settled(4, 0);
        writer.settled(2, 2);
        let stats = board.stats().unwrap();
        assert_eq!((stats.jobs, stats.failed, stats.threads()), (6, 2, 3));
        assert!(stats.wall >= wall, "from the first dispatch to the last result: {:?}", stats.wall);
        let rank = &stats.ranks[1];
        assert_eq!((rank.rank, &*rank.host, rank.threads, rank.jobs, rank.failed), (1, "node1", 2, 6, 2));
        assert_eq!((rank.on_chunks, rank.busy), (Duration::from_nanos(4_500), Duration::from_nanos(3_400)));
        let messages = (rank.messages_to, rank.bytes_to, rank.messages_from, rank.bytes_from);
        assert_eq!(messages, (2, 111, 1, 7));
        assert_eq!((stats.ranks[0].jobs, stats.ranks[0].messages_to), (0, 0));
        drop(writer);
        assert_eq!(board.stats(), None);
        assert_eq!(board.ranks().len(), 2);
    }

    #[test]
    fn a_lost_rank_and_a_stop_are_kept_with_their_times_and_listeners_are_notified() {
        struct Recorder<'e>(&'e Mutex<Vec<String>>);
        impl Listener for Recorder<'_> {
            fn notice(&mut self, notice: Notice<'_>) {
                self.0.lock().unwrap().push(match notice {
                    Notice::Started { ranks } => format!("{} ranks", ranks.len()),
                    Notice::Lost { rank, host } => format!("lost {rank} on {host}"),
                    Notice::Stopping => "stopping".into(),
                });
            }
        }
        let notices = Mutex::default();
        let mut writer = BoardWriter::new(ranks(3), vec![Box::new(Recorder(&notices)), Box::new(Recorder(&notices))]);
        writer.started();
        writer.lost(RankId(2));
        writer.stop_requested();
        let stats = writer.board().stats().unwrap();
        assert!(stats.ranks[2].lost > Some(Duration::ZERO) && stats.stop_requested >= stats.ranks[2].lost);
        assert_eq!((stats.ranks[0].lost, stats.ranks[1].lost), (None, None));
        drop(writer);
        let once = ["3 ranks", "lost 2 on node2", "stopping"];
        assert_eq!(notices.into_inner().unwrap(), once.map(|notice| [notice, notice]).concat());
    }

    #[test]
    fn a_reader_never_sees_more_settled_jobs_than_were_run() {
        const JOBS: u64 = 200_000;
        let mut writer = BoardWriter::new(ranks(1), Vec::new());
        let board = writer.board().clone();
        let reader = thread::spawn(move || {
            let mut last = 0;
            while last < JOBS {
                let stats = board.stats().expect("the writer is there");
                assert!(stats.ranks[0].jobs >= stats.jobs && stats.failed >= stats.jobs && stats.jobs >= last);
                last = stats.jobs;
            }
        });
        for _ in 0..JOBS {
            writer.chunk_done(RankId(0), ChunkDone { jobs: 1, failed: 1, wall_ns: 1, useful_ns: 1 });
            writer.settled(1, 1);
        }
        reader.join().unwrap();
    }

    #[test]
    fn settled_jobs_of_a_map_are_added_up_over_threads() {
        let settled = Settled::default();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| settled.add(3, 1)));
            }
        });
        assert_eq!(settled.read(), (6000, 2000));
    }
}
