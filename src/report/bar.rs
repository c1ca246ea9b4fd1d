//! The bar on a terminal that shows how many jobs are finished, with the crate `indicatif`.

use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// A bar; its clones are the same one.
#[derive(Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Always a bar. (Without the feature `program` there is none.)
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

    /// Does what writes to standard error, with the bar out of its way.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

/// `5 seconds`, `2 hours`
pub(super) fn in_words(time: Duration) -> String {
    HumanDuration(time).to_string()
}
