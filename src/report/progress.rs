//! The display of progress while a map runs: a bar on a terminal, a line every few seconds in a log file.

use std::io::IsTerminal;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::bar::{Bar, in_words};
use crate::console::{eprint, in_one_line};
use crate::engine::board::Settled;

/// How progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Progress {
    /// A bar if standard error is a terminal, else lines. Without the feature `program` always lines.
    #[default]
    Auto,
    /// A bar with rate and estimated time.
    Bar,
    /// A line every five seconds.
    Line,
    /// Nothing.
    Off,
}

const LINE_PERIOD: Duration = Duration::from_secs(5);
const BAR_PERIOD: Duration = Duration::from_millis(100);

impl Progress {
    /// Shows the number of settled jobs until the ticker is dropped.
    pub(crate) fn start(self, name: &str, total: Option<u64>, settled: Arc<Settled>) -> Option<Ticker> {
        let terminal = std::io::stderr().is_terminal();
        let bar = match self {
            Progress::Off => return None,
            Progress::Bar => true,
            Progress::Line => false,
            Progress::Auto => terminal,
        };
        let name = in_one_line(name);
        let bar = if bar { Bar::new(&name, total) } else { None };
        let (stop, stopped) = bounded(0);
        let shown = bar.clone();
        let show = move || match shown {
            Some(bar) => show_bar(&bar, &settled, &stopped),
            None => show_lines(&name, total, &settled, &stopped),
        };
        let thread = thread::Builder::new().name("rankpool progress".into()).spawn(show).ok()?;
        Some(Ticker { stop: Some(stop), thread: Some(thread), bar })
    }
}

/// A running display of progress; dropping it ends the display.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    bar: Option<Bar>,
}

impl Ticker {
    /// Calls `work`, which writes to standard error, while the bar is hidden.
    pub(crate) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.aside(work),
            None => work(),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for `period`. Returns false if the display is ended before.
fn pause(stopped: &Receiver<()>, period: Duration) -> bool {
    stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout)
}

fn show_bar(bar: &Bar, settled: &Settled, stopped: &Receiver<()>) {
    while pause(stopped, BAR_PERIOD) {
        let (jobs, failed) = settled.read();
        bar.show(jobs, failed);
    }
    let (jobs, failed) = settled.read();
    bar.show(jobs, failed);
    bar.finish();
}

fn show_lines(name: &str, total: Option<u64>, settled: &Settled, stopped: &Receiver<()>) {
    let start = Instant::now();
    while pause(stopped, LINE_PERIOD) {
        let (jobs, failed) = settled.read();
        let line = progress_line(name, jobs, failed, total, start.elapsed());
        eprint(&(line + "\n"));
    }
}

/// Returns a line: `name: 500 of 1000 jobs (50 %), 3 failed, 100 jobs/s, 5 seconds left`.
fn progress_line(name: &str, jobs: u64, failed: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = jobs as f64 / elapsed.as_secs_f64().max(1e-9);
    let mut line = match total {
        Some(total) if total > 0 => format!("{name}: {jobs} of {total} jobs ({} %)", 100 * jobs / total),
        _ => format!("{name}: {jobs} jobs"),
    };
    if failed > 0 {
        line += &format!(", {failed} failed");
    }
    line += &format!(", {rate:.*} jobs/s", usize::from(rate < 10.0) * 2);
    if let Some(left) = total.map(|total| total.saturating_sub(jobs)).filter(|_| jobs > 0) {
        let left = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX);
        line += &format!(", {} left", in_words(left));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_has_count_failures_rate_and_time_left() {
        let line = progress_line("slow-fn", 500, 3, Some(1000), Duration::from_secs(5));
        assert_eq!(line, "slow-fn: 500 of 1000 jobs (50 %), 3 failed, 100 jobs/s, 5 seconds left");
        assert_eq!(progress_line("x", 0, 0, None, Duration::from_secs(5)), "x: 0 jobs, 0.00 jobs/s");
    }
}
