//! What a run asks of a journal, and why it can be refused.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::VERSION;
use super::owner::Owner;
use super::scan::Damage;
use crate::console::reason;

/// How a run uses a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalOptions {
    pub path: PathBuf,
    /// Continue an existing journal.
    pub resume: bool,
    /// Run the jobs again that have failed.
    pub retry_failed: bool,
    /// Continue also if the jobs are defined differently.
    pub accept_changed: bool,
    /// Continue also if another run seems to write the journal.
    pub break_lock: bool,
    /// The longest time for which entries stay unsynced.
    pub sync: Duration,
}

impl JournalOptions {
    /// Returns the options with which a run continues the journal of this path, or starts one.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        JournalOptions {
            path: path.into(),
            resume: true,
            retry_failed: false,
            accept_changed: false,
            break_lock: false,
            sync: Duration::from_secs(1),
        }
    }
}

/// What all jobs of a run have in common: names and values. Jobs of another run are the same only if these are equal.
pub(crate) type Spec = Vec<(String, String)>;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot read or write the journal {}: {}", .path.display(), reason(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not a journal", .0.display())]
    NotAJournal(PathBuf),
    #[error("{} has version {version}, and this program reads version {VERSION}: use a newer rankpool", .path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("{} is the journal of an earlier run", .0.display())]
    Exists(PathBuf),
    #[error("the journal {} is in use by {owner}", .path.display())]
    InUse { path: PathBuf, owner: Box<Owner> },
    #[error("{}", describe(.path, .changes))]
    Changed { path: PathBuf, changes: Vec<Change> },
}

impl JournalError {
    /// Returns the error with the options of the program that help.
    pub(crate) fn with_options(&self) -> String {
        let advice = match self {
            JournalError::Io { .. } | JournalError::Newer { .. } => "",
            JournalError::NotAJournal(_) => ": give another --journal, so that it is not overwritten",
            JournalError::Exists(_) => ": add --resume to continue it, or give another --journal",
            JournalError::InUse { .. } => ": wait until that run ends, or end it. If it is gone, add --break-lock",
            JournalError::Changed { .. } => {
                "\nGive another --journal, or add --accept-changed to keep the results of settled jobs all the same"
            }
        };
        format!("{self}{advice}")
    }
}

/// A value that all jobs have in common, in the journal and in this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub name: String,
    pub before: String,
    pub now: String,
}

fn describe(path: &Path, changes: &[Change]) -> String {
    let mut text = format!("the journal {} is of other jobs:", path.display());
    for Change { name, before, now } in changes {
        text += &format!("\n  {name} in the journal: {before}\n  {name} of this run:   {now}");
    }
    text
}

/// A damaged journal that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// The name of the damaged file.
    pub original: PathBuf,
    pub damage: Vec<Damage>,
    /// The number of jobs whose entries are kept.
    pub kept: u64,
}

/// Returns the values that differ.
pub(super) fn changes(before: &Spec, now: &Spec) -> Vec<Change> {
    let value = |spec: &Spec, name: &str| spec.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone());
    let mut names: Vec<&String> = before.iter().chain(now).map(|(name, _)| name).collect();
    names.dedup();
    let mut changes: Vec<Change> = Vec::new();
    for name in names {
        let (before, now) = (value(before, name), value(now, name));
        if before != now && !changes.iter().any(|change| change.name == *name) {
            let none = || "none".to_string();
            let (before, now) = (before.unwrap_or_else(none), now.unwrap_or_else(none));
            changes.push(Change { name: name.clone(), before, now });
        }
    }
    changes
}
