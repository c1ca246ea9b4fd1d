//! Makes the status of a run from its counters and its board. Whoever needs a status asks for it; a status that was made a moment
//! ago is used again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::status::{RankStatus, SCHEMA, SlowestJob, State, Status, VERSION};
use crate::console::shortened;
use crate::engine::board::{Board, Settled};
use crate::engine::wire::{Load, RunningJob};
use crate::report::pace::Pace;

/// A status is used again for this time.
const FRESH: Duration = Duration::from_millis(500);
/// The share of busy time is over at least this time, if there are reports of that long.
const BUSY_OVER: Duration = Duration::from_secs(5);
/// The most characters of a record that are shown.
const LONGEST_INPUT: usize = 80;

/// A job in words: its number, and its record if it is known.
pub(crate) type Named = (u64, Option<String>);

/// The names of running jobs: the board knows jobs by their index in the stream of attempts, the driver knows their numbers.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<u64, Named>>);

impl Names {
    /// Replaces the names by those of the jobs that are the slowest of their ranks now. `name` returns the name of a job; it is
    /// asked only for jobs that have none yet.
    pub(crate) fn update(&self, board: &Board, name: impl Fn(u64) -> Option<Named>) {
        let jobs = board.loads().into_iter().flatten().filter_map(|(load, _)| Some(load.slowest?.job));
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *names);
        names.extend(jobs.filter_map(|job| {
            let named = before.remove(&job).or_else(|| name(job));
            Some((job, named?))
        }));
    }

    fn get(&self, job: u64) -> Option<Named> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }
}

/// Returns the first characters of a record.
pub(crate) fn short_input(input: &str) -> String {
    // Cutting a copy of a record of many megabytes would take long.
    let end = (0..=input.len().min(4 * LONGEST_INPUT)).rev().find(|end| input.is_char_boundary(*end)).unwrap_or(0);
    shortened(input[..end].to_string(), LONGEST_INPUT)
}

/// What is known of a run.
#[derive(Debug)]
pub(crate) struct Observed {
    pub name: String,
    pub total: Option<u64>,
    pub settled: Arc<Settled>,
    pub board: Arc<Board>,
    pub names: Arc<Names>,
}

/// Observes a run.
#[derive(Debug)]
pub(crate) struct Observer {
    of: Observed,
    period: Duration,
    memory: Mutex<Memory>,
}

/// What is remembered from one status to the next.
#[derive(Debug, Default)]
struct Memory {
    pace: Pace,
    ranks: Vec<RankMemory>,
    last: Option<(Duration, Arc<Status>)>,
    sequence: u64,
    end: Option<Option<u8>>,
}

#[derive(Debug, Default)]
struct RankMemory {
    pace: Pace,
    /// Loads of the last seconds, oldest first.
    loads: Vec<Load>,
}

impl RankMemory {
    /// Adds the last load, and returns the share of the threads' time that was busy of late.
    fn busy(&mut self, load: Load, threads: u32) -> Option<f64> {
        if self.loads.last().is_none_or(|last| last.at_ns < load.at_ns) {
            self.loads.push(load);
        }
        let over = BUSY_OVER.as_nanos() as u64;
        while self.loads.get(1).is_some_and(|next| load.at_ns.saturating_sub(next.at_ns) >= over) {
            self.loads.remove(0);
        }
        let first = self.loads.first()?;
        let offered = load.at_ns.saturating_sub(first.at_ns) as f64 * f64::from(threads);
        let busy = load.busy_ns.saturating_sub(first.busy_ns) as f64;
        (offered > 0.0).then(|| (busy / offered).clamp(0.0, 1.0))
    }
}

impl Observer {
    /// Observes a run; `period` is the time from one status in the file to the next.
    pub(crate) fn new(of: Observed, period: Duration) -> Observer {
        Observer { of, period, memory: Mutex::default() }
    }

    /// Returns the status of the run. After its end, this is always the last one.
    pub(crate) fn status(&self) -> Arc<Status> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let age = self.of.board.age();
        self.status_at(&mut memory, age)
    }

    /// Returns the status; `age` is that of the run.
    fn status_at(&self, memory: &mut Memory, age: Duration) -> Arc<Status> {
        match &memory.last {
            Some((at, last)) if last.state == State::Ended || age.saturating_sub(*at) < FRESH => last.clone(),
            _ => {
                let status = Arc::new(self.observe(memory, age));
                memory.last = Some((age, status.clone()));
                status
            }
        }
    }

    /// Notes that the run has ended, with this exit code if it has one, and returns its last status.
    pub(crate) fn end(&self, code: Option<u8>) -> Arc<Status> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.end = Some(code);
        memory.last = None;
        drop(memory);
        self.status()
    }

    fn observe(&self, memory: &mut Memory, age: Duration) -> Status {
        let Observed { name, total, settled, board, .. } = &self.of;
        let (done, failed) = settled.read();
        let restored = settled.restored();
        memory.pace.add(age, done.saturating_sub(restored));
        memory.sequence += 1;
        let state = match memory.end {
            Some(_) => State::Ended,
            None if board.stop_requested().is_some() => State::Stopping,
            None => State::Running,
        };
        let left = total.map(|total| total.saturating_sub(done)).filter(|_| state == State::Running);
        let now = SystemTime::now();
        Status {
            schema: SCHEMA.into(),
            version: VERSION,
            name: name.clone(),
            state,
            exit_code: memory.end.flatten(),
            host: board.ranks().first().map_or_else(String::new, |rank| rank.facts.host.clone()),
            pid: std::process::id(),
            written: humantime::format_rfc3339_seconds(now).to_string(),
            written_unix: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            sequence: memory.sequence,
            period_seconds: self.period.as_secs_f64(),
            elapsed_seconds: age.as_secs_f64(),
            jobs: *total,
            settled: done,
            failed,
            restored,
            jobs_per_second: memory.pace.now(),
            seconds_left: left.and_then(|left| memory.pace.time_for(left)).map(|time| time.as_secs_f64()),
            ranks: self.ranks(memory, age, state),
        }
    }

    fn ranks(&self, memory: &mut Memory, age: Duration, state: State) -> Vec<RankStatus> {
        let board = &self.of.board;
        let (wall, stats) = board.stats().map(|stats| (stats.wall, stats.ranks)).unwrap_or_default();
        memory.ranks.resize_with(stats.len(), RankMemory::default);
        let ranks = stats.into_iter().zip(board.loads()).zip(&mut memory.ranks);
        let status = ranks.map(|((rank, load), memory)| {
            memory.pace.add(age, rank.jobs);
            let is_there = rank.lost.is_none() && state != State::Ended;
            let load = load.filter(|_| is_there);
            // At the end, over the whole run.
            let whole = (state == State::Ended && !wall.is_zero()).then_some(wall.as_secs_f64());
            RankStatus {
                rank: rank.rank,
                busy: match whole {
                    Some(_) => Some(rank.busy_fraction(wall)),
                    None => load.and_then(|(load, _)| memory.busy(load, rank.threads)),
                },
                jobs_per_second: whole.map_or_else(|| memory.pace.now(), |wall| Some(rank.jobs as f64 / wall)),
                host: rank.host,
                threads: rank.threads,
                jobs: rank.jobs,
                failed: rank.failed,
                running: load.map(|(load, _)| load.running),
                heard_seconds: load.map(|(_, came)| age.saturating_sub(came).as_secs_f64()),
                slowest: load.and_then(|(load, _)| Some(self.slowest(load.slowest?))),
                lost_seconds: rank.lost.map(|lost| lost.as_secs_f64()),
            }
        });
        status.collect()
    }

    /// Describes a running job, as its rank has reported it: meanwhile it may have ended.
    fn slowest(&self, running: RunningJob) -> SlowestJob {
        let named = self.of.names.get(running.job);
        let (job, input) = named.map_or((None, None), |(number, input)| (Some(number), input));
        let seconds = Duration::from_nanos(running.ns).as_secs_f64();
        SlowestJob { job, attempt: running.attempt, seconds, input }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::board::BoardWriter;

    /// Observes a run of five settled jobs, two of which failed, without ranks.
    pub(in crate::report) fn observer() -> Observer {
        let board = BoardWriter::new(Vec::new(), Vec::new()).board().clone();
        let settled = Arc::new(Settled::default());
        settled.add(5, 2);
        let of = Observed { name: "run".into(), total: Some(10), settled, board, names: Arc::default() };
        Observer::new(of, Duration::from_secs(2))
    }

    #[test]
    fn the_last_status_stays() {
        let observer = observer();
        let status = observer.status();
        assert_eq!((status.settled, status.failed, status.state, status.sequence), (5, 2, State::Running, 1));
        assert_eq!(observer.status().sequence, 1, "a status of a moment ago is used again");
        let later = |seconds| observer.status_at(&mut observer.memory.lock().unwrap(), Duration::from_secs(seconds));
        assert_eq!((later(60).sequence, later(120).sequence), (2, 3), "an older one is not");
        let last = observer.end(Some(3));
        assert_eq!((last.state, last.exit_code, last.sequence), (State::Ended, Some(3), 4));
        assert_eq!((last.seconds_left, observer.status().sequence), (None, 4));
        let again = later(240);
        assert_eq!((again.sequence, again.elapsed_seconds), (4, last.elapsed_seconds), "its figures do not change");
    }

    const SECOND: u64 = 1_000_000_000;

    fn load(at: u64, busy: u64) -> Load {
        Load { at_ns: at * SECOND, busy_ns: busy * SECOND, running: 1, slowest: None }
    }

    #[test]
    fn the_busy_share_is_of_the_last_seconds() {
        let mut memory = RankMemory::default();
        assert_eq!(memory.busy(load(100, 0), 2), None);
        assert_eq!(memory.busy(load(101, 1), 2), Some(0.5));
        assert_eq!(memory.busy(load(101, 1), 2), Some(0.5), "the same report again");
        for second in 2..50 {
            memory.busy(load(100 + second, 1), 2);
        }
        assert_eq!(memory.busy(load(150, 1), 2), Some(0.0));
        assert!(memory.loads.len() <= 7, "few are kept: {}", memory.loads.len());
        assert_eq!(memory.busy(load(155, 1_000), 2), Some(1.0), "never more than all");
    }

    #[test]
    fn a_record_is_cut_at_a_character() {
        assert_eq!(short_input("\"a\""), "\"a\"");
        let short = short_input(&"\u{1f600}".repeat(10_000));
        assert!(short.len() <= LONGEST_INPUT + "…".len() && short.starts_with('\u{1f600}'), "{short}");
    }
}
