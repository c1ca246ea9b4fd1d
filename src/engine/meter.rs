//! How many jobs of a map are settled, counted where they are settled and read where that is shown.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the jobs of a map that are settled. The master adds, the display of progress reads.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    jobs: AtomicU64,
    failed: AtomicU64,
}

impl Meter {
    pub(crate) fn add(&self, jobs: u64, failed: u64) {
        self.jobs.fetch_add(jobs, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.jobs.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
