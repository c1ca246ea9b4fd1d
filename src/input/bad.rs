//! The bad records that were left out: their number, and the messages of the first few.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::InputError;

/// Most messages that are kept.
const REMEMBERED: usize = 5;

/// The bad records that were left out so far. Clones share them, so that they can be read while the reading goes on.
#[derive(Clone, Debug, Default)]
pub struct BadRecords(Arc<Mutex<Bad>>);

#[derive(Debug, Default)]
struct Bad {
    count: u64,
    /// The messages of the first few.
    first: Vec<String>,
}

impl BadRecords {
    /// Returns their number.
    pub fn count(&self) -> u64 {
        self.bad().count
    }

    pub(super) fn add(&self, error: &InputError) {
        let mut bad = self.bad();
        bad.count += 1;
        if bad.first.len() < REMEMBERED {
            bad.first.push(error.to_string());
        }
    }

    fn bad(&self) -> MutexGuard<'_, Bad> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for BadRecords {
    /// `2 bad record(s) left out: jobs.csv:3: …; jobs.csv:9: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bad = self.bad();
        write!(f, "{} bad record(s) left out: {}", bad.count, bad.first.join("; "))?;
        match bad.count.saturating_sub(bad.first.len() as u64) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
