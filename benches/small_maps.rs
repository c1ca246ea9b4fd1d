//! Measures small maps one after the other: the duration of a map, and the number of its messages.
//!
//! `cargo bench --no-default-features --bench small_maps [-- MAPS]`; the ranks are threads of this process. The limits were
//! set for two idle cores, and for the maps of 10 jobs. Times are in ms; messages are those of one map to or
//! from one rank, whichever are more.

use std::time::{Duration, Instant};

use rankpool::{ExitCode, Launch, Pool};

/// Ranks, and threads of each.
const POOLS: &[(u32, u32)] = &[(1, 1), (1, 2), (2, 1), (3, 1)];
const JOBS: &[u64] = &[1, 3, 10, 30, 100, 1000];
/// The maps that have limits.
const HELD: u64 = 10;
const MEDIAN: Duration = Duration::from_micros(100);
const MAXIMUM: Duration = Duration::from_millis(5);
const MESSAGES: u64 = 12;

/// A job of about 1 µs.
fn job(x: u64) -> u64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(1) {
        std::hint::spin_loop();
    }
    x
}

/// The measurements of one row.
struct Row {
    times: Vec<Duration>,
    messages: Vec<u64>,
}

/// Returns the numbers of messages to and from each rank so far.
fn messages(pool: &Pool) -> Vec<u64> {
    let stats = pool.stats().expect("the pool works");
    stats.ranks.iter().flat_map(|rank| [rank.messages_to, rank.messages_from]).collect()
}

fn measure(pool: &Pool, maps: usize, jobs: u64) -> Row {
    let mut row = Row { times: Vec::with_capacity(maps), messages: Vec::with_capacity(maps) };
    let mut before = messages(pool);
    for _ in 0..maps {
        let begin = Instant::now();
        let sum = pool.map(job, 0..jobs).map(|result| result.expect("no job fails")).sum::<u64>();
        row.times.push(begin.elapsed());
        assert_eq!(sum, jobs * (jobs - 1) / 2);
        let after = messages(pool);
        row.messages.push(after.iter().zip(&before).map(|(after, before)| after - before).max().unwrap_or(0));
        before = after;
    }
    row.times.sort_unstable();
    row.messages.sort_unstable();
    row
}

#[expect(clippy::print_stdout, reason = "a table for people")]
fn main() {
    let maps = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(10_000_usize).max(1);
    let milli = |time: Duration| time.as_secs_f64() * 1e3;
    println!("limits for {HELD} jobs: median {} ms, maximum {} ms, {MESSAGES} messages", milli(MEDIAN), milli(MAXIMUM));
    println!(
        "{:>5} {:>7} {:>5} {:>6} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "ranks", "threads", "jobs", "maps", "median", "99 %", "maximum", "msgs", "max"
    );
    for &(ranks, threads) in POOLS {
        let code = Launch::new().local(ranks).threads(threads).run(|pool| {
            for &jobs in JOBS {
                let maps = if jobs > HELD { maps.div_ceil(5) } else { maps };
                let Row { times, messages } = measure(pool, maps, jobs);
                let (median, maximum) = (times[maps / 2], times[maps - 1]);
                let most = messages[maps - 1];
                let kept = median <= MEDIAN && maximum <= MAXIMUM && most <= MESSAGES;
                let verdict = if jobs != HELD {
                    ""
                } else if kept {
                    "ok"
                } else {
                    "MISSED"
                };
                println!(
                    "{ranks:>5} {threads:>7} {jobs:>5} {maps:>6} {:>8.3} {:>8.3} {:>8.3} {:>7} {most:>7} {verdict}",
                    milli(median),
                    milli(times[maps * 99 / 100]),
                    milli(maximum),
                    messages[maps / 2],
                );
            }
            Ok(())
        });
        assert_eq!(code, ExitCode::Success);
    }
}
