//! Measures the ranks of a run: start-up, round trips, the cost of a job, large values, the efficiency for each length of job, and
//! what waiting costs.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::UsageWho;
use serde::Serialize;

use super::curve::{Metg, Point, metg};
use super::machine::cpu_seconds;
use super::median;
use crate::engine::error::JobError;
use crate::engine::func::{CrossesRanks, Value};
use crate::engine::memory;
use crate::engine::rank::current_job;
use crate::kernels::{nop, spin};
use crate::pool::{JobHandle, Pool};

/// Lengths of jobs that are measured: 1, 2 and 5 in each power of ten, from the first to the last, in ns.
const SHORTEST_NS: u64 = 100;
const LONGEST_NS: u64 = 100_000_000;
/// Sizes of large values, in bytes.
const SIZES: [usize; 3] = [1_000_000, 10_000_000, 100_000_000];
/// The number of rounds in which each rank gets a job.
const ROUNDS: usize = 50;
/// The least number of jobs for each compute thread.
const LEAST_JOBS: u64 = 4;
/// The number of times that a large value is sent.
const TRIES: usize = 5;
/// For this time rank 0 is held at most.
const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// How often a length of job is measured again whose efficiency is below that of a shorter one.
const AGAIN: usize = 2;
/// The time for which each rank holds a job, so that every thread gets one.
const HOLD: Duration = Duration::from_micros(200);

/// How jobs go to the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunking {
    OneByOne,
    Automatic,
}

/// A figure for jobs that are sent one by one, and for those in automatic chunks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Both<T> {
    pub one_by_one: T,
    pub automatic: T,
}

/// The time from the submission of a job to its result, without the job itself, when each thread has one at the same time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RoundTrip {
    pub rank: u32,
    pub median_seconds: f64,
}

/// The time for a large value in each direction, between rank 0 and another rank; within rank 0 if there is no other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Large {
    pub bytes: usize,
    pub input_seconds: f64,
    pub result_seconds: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Allocation {
    /// From the start of rank 0's process until all ranks had joined, to 10 ms.
    pub startup_seconds: Option<f64>,
    pub round_trips: Vec<RoundTrip>,
    /// The wall time for each job that does nothing.
    pub job_seconds: Both<f64>,
    pub large: Vec<Large>,
    pub efficiency: Both<Vec<Point>>,
    /// The shortest jobs with which half and nine tenths of the time are useful.
    pub metg_50: Both<Option<Metg>>,
    pub metg_90: Both<Option<Metg>>,
    /// The CPU time of a rank that waits, as a share of a core; the mean and the largest of all ranks.
    pub waiting: Option<(f64, f64)>,
}

/// Measures the ranks of a pool; each figure for about this time. `begin` is called before each part with what it measures.
///
/// # Errors
/// If a job fails.
pub(crate) fn measure(pool: &Pool, each: Duration, begin: &mut dyn FnMut(&str)) -> Result<Allocation, JobError> {
    let startup_seconds = since_start_of_process();
    begin("the round trip to each rank");
    let round_trips = round_trips(pool)?;
    begin("the cost of a job");
    let job_seconds =
        Both { one_by_one: cost(pool, Chunking::OneByOne, each)?, automatic: cost(pool, Chunking::Automatic, each)? };
    begin("large values");
    let large = without_first_rank(pool, || SIZES.into_iter().map(|bytes| large(pool, bytes)).collect())?;
    begin("the efficiency of jobs sent one by one");
    let one_by_one = efficiency(pool, Chunking::OneByOne, each, job_seconds.one_by_one)?;
    begin("the efficiency of automatic chunks");
    let automatic = efficiency(pool, Chunking::Automatic, each, job_seconds.automatic)?;
    begin("what waiting costs");
    let waiting = waiting(pool)?;
    let reach = |share| Both { one_by_one: metg(&one_by_one, share), automatic: metg(&automatic, share) };
    let (metg_50, metg_90) = (reach(0.5), reach(0.9));
    let efficiency = Both { one_by_one, automatic };
    Ok(Allocation { startup_seconds, round_trips, job_seconds, large, efficiency, metg_50, metg_90, waiting })
}

/// Returns the shortest job with which nine tenths of the time are useful, in automatic chunks.
///
/// # Errors
/// If a job fails.
pub(crate) fn metg_90(pool: &Pool, each: Duration) -> Result<Option<Metg>, JobError> {
    let cost = cost(pool, Chunking::Automatic, each)?;
    Ok(metg(&efficiency(pool, Chunking::Automatic, each, cost)?, 0.9))
}

/// Returns the age of this process, to 10 ms.
fn since_start_of_process() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain anything.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    Some(uptime - ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn rank_of_job() -> u32 {
    current_job().map_or(0, |job| job.rank)
}

/// Has each compute thread run a job at the same time, and returns for each of them its rank, what it returned, and the time from its
/// submission to its result.
fn on_all_threads<O: Value + 'static>(
    pool: &Pool,
    function: impl Fn(u64) -> O + CrossesRanks,
) -> Result<Vec<(O, Duration)>, JobError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let handles: Vec<JobHandle<O>> = (0..u64::from(pool.threads()))
        .map(|number| {
            let (begin, sender) = (Instant::now(), sender.clone());
            let handle = pool.submit(function, number);
            handle.on_done(move |_| {
                // Who waits for it keeps the receiver.
                let _ = sender.send((number, begin.elapsed()));
            });
            handle
        })
        .collect();
    drop(sender);
    let times: BTreeMap<u64, Duration> = receiver.into_iter().collect();
    handles
        .iter()
        .zip(0..)
        .map(|(handle, number)| Ok((handle.wait()?, times.get(&number).copied().unwrap_or_default())))
        .collect()
}

fn round_trips(pool: &Pool) -> Result<Vec<RoundTrip>, JobError> {
    let mut by_rank: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let answers = on_all_threads(pool, |_| {
            let begin = Instant::now();
            spin(&HOLD, 0);
            (rank_of_job(), begin.elapsed())
        })?;
        for ((rank, in_job), total) in answers {
            by_rank.entry(rank).or_default().push(total.saturating_sub(in_job).as_secs_f64());
        }
    }
    Ok(by_rank.into_iter().map(|(rank, times)| RoundTrip { rank, median_seconds: median(&times) }).collect())
}

/// Runs jobs of a length, and returns the wall time.
fn run(pool: &Pool, length: Duration, jobs: u64, chunking: Chunking) -> Result<Duration, JobError> {
    let begin = Instant::now();
    // A job that does nothing reads no clock.
    let map = if length.is_zero() { pool.map(nop, 0..jobs) } else { pool.map_with(length, 0..jobs, spin) };
    let map = if chunking == Chunking::OneByOne { map.chunk_size(1) } else { map };
    for result in map {
        result?;
    }
    Ok(begin.elapsed())
}

/// Returns the wall time for each job that does nothing.
fn cost(pool: &Pool, chunking: Chunking, each: Duration) -> Result<f64, JobError> {
    let mut jobs = 1000;
    loop {
        let wall = run(pool, Duration::ZERO, jobs, chunking)?;
        if wall * 2 >= each || jobs > 1 << 30 {
            return Ok(wall.as_secs_f64() / jobs as f64);
        }
        let factor = each.as_secs_f64() / wall.as_secs_f64().max(1e-6);
        jobs = (jobs as f64 * factor.clamp(2.0, 100.0)) as u64;
    }
}

fn lengths() -> impl Iterator<Item = Duration> {
    let decades = std::iter::successors(Some(SHORTEST_NS), |ns| Some(ns * 10));
    let all = decades.flat_map(|ns| [ns, 2 * ns, 5 * ns]).take_while(|ns| *ns <= LONGEST_NS);
    all.map(Duration::from_nanos)
}

/// Returns how long a job of this length takes by itself, in a loop. A job reads the clock until its time is over, so it takes longer
/// than its length, by less than two readings.
fn alone(length: Duration) -> f64 {
    /// Longer jobs take as long as they should.
    const SHORT: Duration = Duration::from_micros(200);
    /// The fastest loop counts: in the others something else ran.
    const LOOPS: u32 = 10;
    if length > SHORT {
        return length.as_secs_f64();
    }
    let calls = SHORT.as_nanos().div_ceil(length.as_nanos().max(1)) as u64;
    let fastest = (0..LOOPS).map(|_| {
        let begin = Instant::now();
        for index in 0..calls {
            std::hint::black_box(spin(std::hint::black_box(&length), index));
        }
        begin.elapsed().as_secs_f64() / calls as f64
    });
    fastest.fold(f64::INFINITY, f64::min)
}

/// Returns the efficiency for each length of job. `job_seconds`: the wall time for each job that does nothing.
fn efficiency(pool: &Pool, chunking: Chunking, each: Duration, job_seconds: f64) -> Result<Vec<Point>, JobError> {
    let threads = f64::from(pool.threads().max(1));
    let measure = |length: Duration, seconds: f64| {
        let wall_of_job = (seconds / threads).max(job_seconds);
        let jobs = ((each.as_secs_f64() / wall_of_job) as u64).max(LEAST_JOBS * u64::from(pool.threads()));
        let wall = run(pool, length, jobs, chunking)?.as_secs_f64();
        // What a job took longer than by itself is not counted as useful.
        Ok::<f64, JobError>((jobs as f64 * seconds / (threads * wall)).min(1.0))
    };
    let mut points: Vec<Point> = Vec::new();
    for length in lengths() {
        let seconds = alone(length);
        let mut efficiency = measure(length, seconds)?;
        // A pool is not less efficient with longer jobs: something else ran on the machine.
        for _ in 0..AGAIN {
            if points.last().is_none_or(|shorter| shorter.efficiency <= efficiency) {
                break;
            }
            efficiency = efficiency.max(measure(length, seconds)?);
        }
        points.push(Point { seconds, efficiency });
    }
    Ok(points)
}

/// Returns the times of a large value: a list of numbers, as results mostly are.
fn large(pool: &Pool, bytes: usize) -> Result<Large, JobError> {
    let (mut inputs, mut results) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let value = numbers(bytes);
        let begin = Instant::now();
        pool.apply(|value: Vec<f64>| value.len(), value)?;
        inputs.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let value = pool.apply(numbers, bytes)?;
        let wall = begin.elapsed().as_secs_f64();
        // The time in which the rank has made it does not count.
        results.push((wall - value.first().copied().unwrap_or(0.0)).max(0.0));
    }
    Ok(Large { bytes, input_seconds: median(&inputs), result_seconds: median(&results) })
}

/// Makes a list of numbers of this size. The first one says how many seconds that took.
fn numbers(bytes: usize) -> Vec<f64> {
    let begin = Instant::now();
    let mut numbers = memory::vec_with_capacity(bytes / size_of::<f64>());
    numbers.resize(bytes / size_of::<f64>(), 1.0);
    if let Some(first) = numbers.first_mut() {
        *first = begin.elapsed().as_secs_f64();
    }
    numbers
}

/// The jobs that hold rank 0's threads: whether they still have to.
static HOLDING: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Calls `function` while the threads of rank 0, which is this process, are busy: all jobs go to other ranks, if there are some.
fn without_first_rank<T>(pool: &Pool, function: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    let is_alone = pool.ranks().iter().skip(1).all(|rank| rank.threads == 0);
    if is_alone {
        return function();
    }
    let set = |holds: bool| {
        *HOLDING.0.lock().unwrap_or_else(PoisonError::into_inner) = holds;
        HOLDING.1.notify_all();
    };
    set(true);
    // A single job goes to rank 0 as long as that has an idle thread. Those that go elsewhere return at once.
    let holding: Vec<_> = (0..pool.ranks()[0].threads).map(|_| pool.submit(|_: ()| hold_first_rank(), ())).collect();
    let done = function();
    set(false);
    holding.iter().try_for_each(JobHandle::wait)?;
    done
}

fn hold_first_rank() {
    if rank_of_job() > 0 {
        return;
    }
    let holds = HOLDING.0.lock().unwrap_or_else(PoisonError::into_inner);
    drop(HOLDING.1.wait_timeout_while(holds, LONGEST_HOLD, |holds| *holds));
}

/// Returns the CPU time of a waiting rank as a share of a core: the mean, and that of the busiest one. Ranks that are threads of a
/// process have equal parts of its time.
fn waiting(pool: &Pool) -> Result<Option<(f64, f64)>, JobError> {
    let before = cpu_of_ranks(pool)?;
    std::thread::sleep(Duration::from_secs(1));
    let after = cpu_of_ranks(pool)?;
    let shares: Vec<f64> = after
        .iter()
        .filter_map(|(rank, (cpu, at))| {
            let (cpu_before, at_before) = before.get(rank)?;
            let facts = |rank: usize| pool.ranks().get(rank).map(|rank| (&rank.facts.host, rank.facts.pid));
            let sharing = (0..pool.ranks().len()).filter(|other| facts(*other) == facts(*rank as usize)).count();
            Some((cpu - cpu_before) / (at - at_before).max(1e-3) / sharing.max(1) as f64)
        })
        .collect();
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    Ok(shares.iter().copied().reduce(f64::max).map(|largest| (mean, largest)))
}

/// Returns the CPU time of each rank's process and when it was read, both in seconds; for ranks that are threads, of the one process.
fn cpu_of_ranks(pool: &Pool) -> Result<BTreeMap<u32, (f64, f64)>, JobError> {
    let ranks = pool.ranks().iter().filter(|rank| rank.threads > 0).count();
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS {
        let answers = on_all_threads(pool, |_| {
            std::thread::sleep(HOLD);
            (rank_of_job(), own_cpu())
        })?;
        let now = monotonic();
        found.extend(answers.into_iter().map(|((rank, cpu), _)| (rank, (cpu, now))));
        if found.len() == ranks {
            break;
        }
    }
    Ok(found)
}

fn own_cpu() -> f64 {
    let (user, system) = cpu_seconds(UsageWho::RUSAGE_SELF);
    user + system
}

/// Returns the seconds since the first call.
fn monotonic() -> f64 {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_have_three_in_each_power_of_ten() {
        let lengths: Vec<_> = lengths().collect();
        assert_eq!(lengths.len(), 19);
        assert_eq!(lengths[..4], [100, 200, 500, 1000].map(Duration::from_nanos));
        assert_eq!(lengths[18], Duration::from_millis(100));
    }

    #[test]
    fn a_job_by_itself_takes_its_length_and_at_most_a_look_at_the_clock() {
        for length in lengths() {
            let (alone, length) = (alone(length), length.as_secs_f64());
            assert!(alone >= length && (alone < length + 2e-6 || alone == length), "{alone} for {length}");
        }
    }

    #[test]
    fn this_process_is_younger_than_the_machine() {
        let age = since_start_of_process().expect("there is /proc");
        assert!((-0.02..1e6).contains(&age), "{age}");
    }
}
