//! The bar that shows progress on a terminal, made with the crate `indicatif`.

use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// A bar; its clones are the same bar.
#[derive(Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Makes a bar. (Without the feature `program` it returns `None`.)
    pub(super) fn new(name: &str, total: Option<u64>) -> Option<Bar> {
        let (bar, template) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{prefix} [{bar:30}] {human_pos}/{human_len} {per_sec} ETA {eta}{msg}")
            }
            None => (ProgressBar::new_spinner(), "{prefix} {spinner} {human_pos} {per_sec} {elapsed}{msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_string());
        Some(Bar(bar))
    }

    pub(super) fn show(&self, jobs: u64, failed: u64) {
        if failed > 0 {
            self.0.set_message(format!(", {failed} failed"));
        }
        self.0.set_position(jobs);
    }

    /// Leaves the last state on the terminal.
    pub(super) fn finish(&self) {
        self.0.abandon();
    }

    /// Calls `work`, which writes to standard error, while the bar is hidden.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

/// Returns a rounded time: `5 seconds`, `2 hours`.
pub(super) fn in_words(time: Duration) -> String {
    HumanDuration(time).to_string()
}
