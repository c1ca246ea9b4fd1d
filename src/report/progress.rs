//! The display of progress while a map runs: a bar on a terminal, a line every few seconds in a log file.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::bar::{Bar, Neighbours};
use super::pace::{Pace, rate_in_words, time_in_words};
#[cfg(feature = "program")]
use super::terminal::Shown;
use crate::console::{eprint, in_one_line};
use crate::engine::board::{Board, Settled};

/// How progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Progress {
    /// A bar if a terminal shows standard error, directly or by way of `mpiexec`; else lines. Without the feature `program` always
    /// lines.
    #[default]
    Auto,
    /// A bar with rate and estimated time, wherever standard error goes.
    Bar,
    /// A line every five seconds.
    Line,
    /// Nothing.
    Off,
}

const LINE_PERIOD: Duration = Duration::from_secs(5);

impl Progress {
    /// Decides the display of progress, if `asked` is the user's wish and standard output, with the results, is shown there: a bar
    /// between results on the same terminal would make both unreadable.
    #[cfg(feature = "program")]
    pub(crate) fn beside(shown: Shown, asked: Option<Progress>, is_quiet: bool) -> Progress {
        match (asked, shown) {
            (None, _) if is_quiet => Progress::Off,
            (None | Some(Progress::Auto), Shown::Terminal) => Progress::Off,
            (None | Some(Progress::Auto), Shown::LaunchersTerminal) => Progress::Line,
            (None, Shown::Elsewhere) => Progress::Auto,
            (Some(progress), _) => progress,
        }
    }

    /// Shows the number of settled jobs until the ticker is dropped.
    pub(crate) fn start(
        self,
        name: &str,
        total: Option<u64>,
        settled: Arc<Settled>,
        board: Arc<Board>,
    ) -> Option<Ticker> {
        let name = in_one_line(name);
        let bar = match self {
            Progress::Off => return None,
            Progress::Bar => Bar::anywhere(&name, total),
            Progress::Line => None,
            Progress::Auto => Bar::on_terminal(&name, total),
        };
        let (stop, stopped) = bounded(0);
        let mut watch = Watch { start: Instant::now(), total, settled, board, pace: Pace::default() };
        let show = move || match bar {
            Some(bar) => show_bar(&bar, &mut watch, &stopped),
            None => show_lines(&name, &mut watch, &stopped),
        };
        let thread = thread::Builder::new().name("rankpool progress".into()).spawn(show).ok()?;
        Some(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

/// A running display of progress; dropping it ends the display.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
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

fn show_bar(bar: &Bar, watch: &mut Watch, stopped: &Receiver<()>) {
    loop {
        bar.show(&watch.view(false));
        if !pause(stopped, bar.period()) {
            break;
        }
    }
    bar.finish(&watch.view(true));
}

fn show_lines(name: &str, watch: &mut Watch, stopped: &Receiver<()>) {
    let neighbours = Neighbours::on_terminal();
    watch.view(false);
    while pause(stopped, LINE_PERIOD) {
        neighbours.clear_bar();
        eprint(&(watch.view(false).line(name) + "\n"));
    }
}

/// A run whose progress is shown.
struct Watch {
    start: Instant,
    total: Option<u64>,
    settled: Arc<Settled>,
    board: Arc<Board>,
    pace: Pace,
}

impl Watch {
    /// Returns what is to be shown now; `is_last`: for the last time.
    fn view(&mut self, is_last: bool) -> View {
        let elapsed = self.start.elapsed();
        let (jobs, failed) = self.settled.read();
        // What an earlier run has settled took none of this one's time.
        self.pace.add(elapsed, jobs.saturating_sub(self.settled.restored()));
        let is_stopped = self.board.stop_requested().is_some();
        let state = match (is_last, is_stopped) {
            (true, true) => Doing::Stopped,
            (true, false) => Doing::Ended,
            (false, true) => Doing::Stopping,
            (false, false) => Doing::Running,
        };
        let left = self.total.map(|total| total.saturating_sub(jobs));
        let left = left.filter(|_| state == Doing::Running && self.pace.has_jobs());
        View {
            jobs,
            failed,
            total: self.total,
            rate: self.pace.now(),
            left: left.and_then(|left| self.pace.time_for(left)),
            elapsed,
            doing: state,
        }
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Running,
    Stopping,
    Stopped,
    Ended,
}

/// What is shown of a run at a moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub jobs: u64,
    pub failed: u64,
    pub total: Option<u64>,
    /// Jobs per second.
    pub rate: Option<f64>,
    /// The time that the rest takes, as far as it is known.
    pub left: Option<Duration>,
    pub elapsed: Duration,
    pub doing: Doing,
}

impl View {
    fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        u64::try_from(u128::from(self.jobs) * 100 / u128::from(total)).ok()
    }

    /// Returns the failures, as `, 3 failed`.
    fn failures(&self) -> String {
        if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() }
    }

    /// Returns what is left, or how it ends.
    fn end(&self) -> String {
        let elapsed = time_in_words(self.elapsed);
        match (self.doing, self.left) {
            (Doing::Running, Some(left)) => format!(", {} left", time_in_words(left)),
            (Doing::Running, None) => format!(", {elapsed}"),
            (Doing::Stopping, _) => ", stopping".into(),
            (Doing::Stopped, _) => format!(", stopped after {elapsed}"),
            (Doing::Ended, _) => format!(" in {elapsed}"),
        }
    }

    /// Returns a line: `name: 500 of 1000 jobs (50 %), 3 failed, 100 jobs/s, 5.0 s left`.
    fn line(&self, name: &str) -> String {
        let done = match (self.total, self.percent()) {
            (Some(total), Some(percent)) => format!("{} of {total} jobs ({percent} %)", self.jobs),
            _ => format!("{} jobs", self.jobs),
        };
        format!("{name}: {done}{}, {}{}", self.failures(), rate_in_words(self.rate.unwrap_or(0.0)), self.end())
    }

    /// Returns the text behind a bar, of no more than this number of characters: the failures and what is left are worth more than
    /// the rest.
    #[cfg_attr(not(any(feature = "program", test)), expect(dead_code, reason = "there is no bar"))]
    pub(super) fn text(&self, room: usize) -> String {
        let jobs = self.total.map_or_else(|| format!("{} jobs", self.jobs), |total| format!("{}/{total}", self.jobs));
        let percent = self.percent().map_or(String::new(), |percent| format!(" ({percent} %)"));
        let short = self.percent().map_or_else(|| self.jobs.to_string(), |percent| format!("{percent} %"));
        let rate = self.rate.map_or(String::new(), |rate| format!(", {}", rate_in_words(rate)));
        let (failures, end) = (self.failures(), self.end());
        let texts = [
            format!("{jobs}{percent}{failures}{rate}{end}"),
            format!("{jobs}{percent}{failures}{end}"),
            format!("{jobs}{failures}{end}"),
            format!("{short}{failures}{end}"),
            format!("{short}{failures}"),
        ];
        let fits = texts.iter().find(|text| text.chars().count() <= room);
        fits.map_or_else(|| short.chars().take(room).collect(), String::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(jobs: u64, failed: u64, total: Option<u64>) -> View {
        let left = total.map(|_| Duration::from_secs(5));
        View { jobs, failed, total, rate: Some(100.0), left, elapsed: Duration::from_secs(5), doing: Doing::Running }
    }

    #[test]
    fn a_progress_line_has_count_failures_rate_and_time_left() {
        let line = view(500, 3, Some(1000)).line("slow-fn");
        assert_eq!(line, "slow-fn: 500 of 1000 jobs (50 %), 3 failed, 100 jobs/s, 5.0 s left");
        let nothing = View { rate: None, ..view(0, 0, None) };
        assert_eq!(nothing.line("x"), "x: 0 jobs, 0 jobs/s, 5.0 s");
    }

    #[test]
    fn a_run_that_is_stopped_has_no_time_left_to_show() {
        let stopping = View { doing: Doing::Stopping, ..view(500, 0, Some(1000)) };
        assert_eq!(stopping.text(80), "500/1000 (50 %), 100 jobs/s, stopping");
        let stopped = View { doing: Doing::Stopped, ..stopping };
        assert_eq!(stopped.text(80), "500/1000 (50 %), 100 jobs/s, stopped after 5.0 s");
        assert_eq!(View { doing: Doing::Ended, ..stopped }.text(80), "500/1000 (50 %), 100 jobs/s in 5.0 s");
    }

    #[test]
    fn a_narrow_terminal_has_less_and_failures_last_longest() {
        let view = view(500, 3, Some(1000));
        let whole = "500/1000 (50 %), 3 failed, 100 jobs/s, 5.0 s left";
        for (room, text) in [
            (whole.len(), whole),
            (whole.len() - 1, "500/1000 (50 %), 3 failed, 5.0 s left"),
            (30, "500/1000, 3 failed, 5.0 s left"),
            (26, "50 %, 3 failed, 5.0 s left"),
            (20, "50 %, 3 failed"),
            (5, "50 %"),
            (2, "50"),
            (0, ""),
        ] {
            assert_eq!(view.text(room), text, "{room}");
        }
    }
}
