//! Who writes a journal: the lock, and the entry that says which run it is.
//!
//! The lock is advice. Some shared file systems have none, or have one for each node; therefore the entry of the owner is looked
//! at, too.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::engine::environment;

/// A journal that was written within this time by a run on another host is taken to be in use.
const RECENT: Duration = Duration::from_secs(60);

/// The run that has opened a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub host: String,
    pub process: u32,
    /// What identifies the allocation of the resource manager; empty outside of one.
    pub allocation: String,
    /// When the journal was opened, as RFC 3339 writes it.
    pub since: String,
    /// The absolute path of the output.
    pub output: String,
}

/// The environment variables with the identifier of an allocation.
const ALLOCATIONS: [&str; 4] = ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID"];

impl Owner {
    /// Returns the entry of this process, whose output goes to `output`.
    pub(super) fn this(output: Option<&Path>) -> Owner {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let allocation = ALLOCATIONS.iter().find_map(|name| environment::environment(name)).unwrap_or_default();
        Owner {
            host,
            process: std::process::id(),
            allocation,
            since: humantime::format_rfc3339_seconds(SystemTime::now().max(UNIX_EPOCH)).to_string(),
            output: output.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }

    pub(super) fn to_fields(&self) -> Vec<(String, String)> {
        let fields = [
            ("host", self.host.clone()),
            ("process", self.process.to_string()),
            ("allocation", self.allocation.clone()),
            ("since", self.since.clone()),
            ("output", self.output.clone()),
            ("version", env!("CARGO_PKG_VERSION").into()),
        ];
        fields.map(|(name, value)| (name.to_string(), value)).into()
    }

    pub(super) fn from_fields(fields: &[(String, String)]) -> Owner {
        let field = |name| fields.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone()).unwrap_or_default();
        Owner {
            host: field("host"),
            process: field("process").parse().unwrap_or_default(),
            allocation: field("allocation"),
            since: field("since"),
            output: field("output"),
        }
    }

    /// Whether this owner may still write the file, although the lock was free: it is on another host, belongs to another
    /// allocation, and the file was written a moment ago.
    pub(super) fn may_be_alive(&self, file: &File) -> bool {
        let this = Owner::this(None);
        let is_other = self.host != this.host && (self.allocation.is_empty() || self.allocation != this.allocation);
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
        is_other && age < RECENT
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.is_empty() {
            return write!(f, "another run");
        }
        write!(f, "the run with process {} on {}", self.process, self.host)?;
        if !self.allocation.is_empty() {
            write!(f, ", allocation {}", self.allocation)?;
        }
        write!(f, ", since {}", self.since)
    }
}

/// Locks a journal for this process. Returns false if another process has locked it.
///
/// # Errors
/// If locking fails. A file system without locks is no error.
pub(super) fn lock(file: &File) -> io::Result<bool> {
    loop {
        return match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written_and_named_in_full() {
        let owner = Owner { allocation: "42".into(), ..Owner::this(Some(Path::new("/data/out"))) };
        assert_eq!(Owner::from_fields(&owner.to_fields()), owner);
        let text = owner.to_string();
        assert!(text.contains(&owner.host) && text.contains("allocation 42"), "{text}");
    }

    #[test]
    fn only_a_run_elsewhere_that_has_written_a_moment_ago_may_be_alive() {
        let file = tempfile::tempfile().expect("there is a folder");
        let this = Owner::this(None);
        assert!(!this.may_be_alive(&file), "the lock of this host is free");
        let other = Owner { host: "elsewhere".into(), allocation: "7".into(), ..this.clone() };
        assert!(other.may_be_alive(&file));
        let then = SystemTime::now() - RECENT * 2;
        file.set_modified(then).expect("it is ours");
        assert!(!other.may_be_alive(&file));
    }
}
