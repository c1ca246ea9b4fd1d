//! Bad records that were left out: how many, and the first few in words.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::InputError;

/// How many bad records are remembered with their message.
const REMEMBERED: usize = 5;

/// What was left out so far. Clones share it, so that it can be asked while somebody else reads.
#[derive(Clone, Debug, Default)]
pub struct BadRecords(Arc<Mutex<Bad>>);

#[derive(Debug, Default)]
struct Bad {
    count: u64,
    first: Vec<(u64, String)>,
}

impl BadRecords {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.bad().count
    }

    /// The first few: each record's number, and what is wrong with it.
    pub fn first(&self) -> Vec<(u64, String)> {
        self.bad().first.clone()
    }

    pub(super) fn add(&self, number: u64, error: &InputError) {
        let mut bad = self.bad();
        bad.count += 1;
        if bad.first.len() < REMEMBERED {
            bad.first.push((number, error.to_string()));
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
        let messages: Vec<&str> = bad.first.iter().map(|(_, message)| message.as_str()).collect();
        write!(f, "{} bad record(s) left out: {}", bad.count, messages.join("; "))?;
        match bad.count.saturating_sub(messages.len() as u64) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
