//! A status as text: a head about the run, and a table with a line for each rank, the worst first.

use std::cmp::Ordering;
use std::time::Duration;

use super::status::{RankStatus, State, Status};
use crate::console::in_one_line;
use crate::report::pace::{rate_in_words, three_digits, time_in_words};

/// The order of the ranks in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// Lost and silent ranks, then those with the longest-running job.
    #[default]
    Worst,
    /// The least busy first.
    Busy,
    /// The slowest first.
    Rate,
    /// Those with most failures first.
    Failed,
    /// By their numbers.
    Rank,
}

impl Order {
    /// Returns the next order.
    pub(crate) fn next(self) -> Order {
        match self {
            Order::Worst => Order::Busy,
            Order::Busy => Order::Rate,
            Order::Rate => Order::Failed,
            Order::Failed => Order::Rank,
            Order::Rank => Order::Worst,
        }
    }

    /// Returns what comes first.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Order::Worst => "worst first",
            Order::Busy => "least busy first",
            Order::Rate => "fewest jobs/s first",
            Order::Failed => "most failed first",
            Order::Rank => "by rank",
        }
    }

    /// Returns the ranks that compute in this order.
    pub(super) fn sorted(self, status: &Status) -> Vec<&RankStatus> {
        let mut ranks: Vec<_> = status.ranks.iter().filter(|rank| rank.threads > 0).collect();
        ranks.sort_by(|one, other| self.compare(one, other));
        ranks
    }

    fn compare(self, one: &RankStatus, other: &RankStatus) -> Ordering {
        let by_number = one.rank.cmp(&other.rank);
        let share = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        match self {
            Order::Worst => {
                let badness = |rank: &RankStatus| {
                    let seconds = rank.slowest.as_ref().map_or(0.0, |job| job.seconds);
                    (rank.lost_seconds.is_some(), is_silent(rank), seconds)
                };
                let ((lost, silent, seconds), (other_lost, other_silent, other_seconds)) =
                    (badness(one), badness(other));
                let first = other_lost.cmp(&lost).then(other_silent.cmp(&silent));
                first.then(other_seconds.total_cmp(&seconds)).then(by_number)
            }
            Order::Busy => share(one.busy).total_cmp(&share(other.busy)).then(by_number),
            Order::Rate => share(one.jobs_per_second).total_cmp(&share(other.jobs_per_second)).then(by_number),
            Order::Failed => other.failed.cmp(&one.failed).then(by_number),
            Order::Rank => by_number,
        }
    }
}

/// A rank has reported nothing for so long that this is worth a word, in s. It reports about once a second.
const SILENT: f64 = 10.0;

fn is_silent(rank: &RankStatus) -> bool {
    rank.heard_seconds.is_some_and(|seconds| seconds > SILENT)
}

/// A status as lines of text.
pub(crate) struct Table {
    /// The lines about the run.
    pub head: Vec<String>,
    /// The names of the columns.
    pub columns: String,
    /// A line for each rank.
    pub ranks: Vec<String>,
}

impl Table {
    /// Makes the lines of a status.
    pub(crate) fn new(status: &Status, order: Order) -> Table {
        let ranks = order.sorted(status);
        let hosts = ranks.iter().map(|rank| in_one_line(&rank.host).chars().count().min(LONGEST_HOST));
        let width = hosts.max().unwrap_or(0).max("host".len());
        let columns = format!(
            "{:>5} {:<width$} {:>4} {:>6} {:>9} {:>8} {:>7}  {}",
            "rank", "host", "thr", "busy", "jobs/s", "jobs", "failed", "slowest running job"
        );
        Table { head: head(status), columns, ranks: ranks.iter().map(|rank| line(rank, width)).collect() }
    }
}

/// Names of hosts are cut to this number of characters.
const LONGEST_HOST: usize = 24;

fn seconds(seconds: f64) -> String {
    time_in_words(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Returns what the table has about a rank: number, host, threads, busy, jobs/s, jobs, failed, the slowest running job.
pub(super) fn rank_cells(rank: &RankStatus) -> [String; 8] {
    let host = in_one_line(&rank.host).chars().take(LONGEST_HOST).collect();
    let busy = rank.busy.map_or("-".into(), |busy| format!("{:.0} %", 100.0 * busy));
    let rate = rank.jobs_per_second.map_or("-".into(), three_digits);
    let what = match (rank.lost_seconds, &rank.slowest) {
        (Some(lost), _) => format!("lost after {}", seconds(lost)),
        (None, _) if is_silent(rank) => format!("silent for {}", seconds(rank.heard_seconds.unwrap_or_default())),
        (None, Some(job)) => {
            let number = job.job.map_or("job ?".into(), |number| format!("job {number}"));
            let attempt = if job.attempt > 1 { format!(" (attempt {})", job.attempt) } else { String::new() };
            let input = job.input.as_ref().map_or(String::new(), |input| format!(": {}", in_one_line(input)));
            format!("{number}{attempt} for {}{input}", seconds(job.seconds))
        }
        (None, None) => "-".into(),
    };
    let RankStatus { rank, threads, jobs, failed, .. } = rank;
    [rank.to_string(), host, threads.to_string(), busy, rate, jobs.to_string(), failed.to_string(), what]
}

/// Returns the line of a rank.
fn line(rank: &RankStatus, width: usize) -> String {
    let [rank, host, threads, busy, rate, jobs, failed, what] = rank_cells(rank);
    format!("{rank:>5} {host:<width$} {threads:>4} {busy:>6} {rate:>9} {jobs:>8} {failed:>7}  {what}")
}

/// Returns the lines about the run.
fn head(status: &Status) -> Vec<String> {
    let Status { name, jobs, settled, failed, restored, .. } = status;
    let (name, elapsed) = (in_one_line(name), seconds(status.elapsed_seconds));
    let state = match (status.state, status.exit_code) {
        (State::Running, _) => format!("running for {elapsed}"),
        (State::Stopping, _) => format!("stopping after {elapsed}: no more jobs are started"),
        (State::Ended, Some(code)) => format!("ended after {elapsed} with exit code {code}"),
        (State::Ended, None) => format!("ended after {elapsed}"),
        (State::Unknown, _) => format!("in a state that this rankpool does not know, after {elapsed}"),
    };
    let mut done = match jobs {
        Some(total) if *total > 0 => {
            let percent = 100.0 * *settled as f64 / *total as f64;
            format!("{settled} of {total} jobs ({percent:.0} %)")
        }
        _ => format!("{settled} jobs"),
    };
    if *restored > 0 {
        done += &format!(", {restored} of them by an earlier run");
    }
    done += &format!(", {failed} failed");
    if let Some(rate) = status.jobs_per_second.filter(|_| status.state != State::Ended) {
        done += &format!(", {}", rate_in_words(rate));
    }
    if let Some(left) = status.seconds_left {
        done += &format!(", about {} left", seconds(left));
    }
    let threads: u64 = status.ranks.iter().map(|rank| u64::from(rank.threads)).sum();
    let lost = status.ranks.iter().filter(|rank| rank.lost_seconds.is_some()).count();
    let mut ranks = format!("{} rank(s), {threads} thread(s)", status.ranks.len());
    if lost > 0 {
        ranks += &format!(", {lost} lost");
    }
    let (busy, of) = status.ranks.iter().fold((0.0, 0.0), |(busy, of), rank| match rank.busy {
        Some(share) => (busy + share * f64::from(rank.threads), of + f64::from(rank.threads)),
        None => (busy, of),
    });
    if of > 0.0 {
        ranks += &format!(", {:.0} % busy", 100.0 * busy / of);
    }
    vec![format!("{name}: {state}"), done, ranks]
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::example;
    use super::*;

    fn numbers(table: &Table) -> Vec<u32> {
        table.ranks.iter().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_worst_ranks_come_first() {
        let mut status = example(5);
        status.ranks[1].lost_seconds = Some(12.0);
        status.ranks[2].heard_seconds = Some(100.0);
        let table = Table::new(&status, Order::Worst);
        assert_eq!(numbers(&table), [1, 2, 4, 3, 0]);
        assert!(table.ranks[0].ends_with("lost after 12 s"), "{}", table.ranks[0]);
        assert!(table.ranks[1].ends_with("silent for 1 min 40 s"), "{}", table.ranks[1]);
        assert!(table.ranks[2].ends_with("job 7 for 7.0 s: \"x.txt\""), "{}", table.ranks[2]);
        let of = |order| numbers(&Table::new(&status, order));
        assert_eq!(of(Order::Busy), [4, 3, 2, 1, 0]);
        assert_eq!(of(Order::Failed), [1, 3, 0, 2, 4]);
        assert_eq!(of(Order::Rank), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn all_orders_are_reached_one_after_the_other() {
        let orders: Vec<_> = std::iter::successors(Some(Order::Worst), |order| Some(order.next())).take(6).collect();
        assert_eq!((orders[0], orders[5]), (Order::Worst, Order::Worst));
        assert!((1..5).all(|index| orders[index] != Order::Worst));
    }

    #[test]
    fn the_head_has_what_is_done_and_left_and_says_how_it_ended() {
        let mut status = example(2);
        let head = Table::new(&status, Order::Worst).head;
        assert_eq!(head[0], "run: running for 1 min 05 s");
        assert_eq!(head[1], "250 of 1000 jobs (25 %), 3 failed, 4.20 jobs/s, about 2 min 58 s left");
        assert_eq!(head[2], "2 rank(s), 4 thread(s), 75 % busy");
        (status.state, status.exit_code, status.seconds_left) = (State::Ended, Some(3), None);
        let head = Table::new(&status, Order::Worst).head;
        assert_eq!(head[0], "run: ended after 1 min 05 s with exit code 3");
        assert_eq!(head[1], "250 of 1000 jobs (25 %), 3 failed");
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let mut status = example(1);
        status.name = "a\x1b[2Jb\nc".into();
        status.ranks[0].host = "\x1b]0;x\x07".repeat(100);
        status.ranks[0].slowest.as_mut().unwrap().input = Some("\r\x1b[31m".into());
        let Table { head, ranks, .. } = Table::new(&status, Order::Worst);
        let all = head.concat() + &ranks.concat();
        assert!(!all.chars().any(char::is_control), "{all:?}");
        assert!(ranks[0].len() < 300);
    }
}
