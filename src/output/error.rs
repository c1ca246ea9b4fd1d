//! What can go wrong with an output.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::console::reason;

/// Why a result cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The reader of a pipe has gone away. Usually on purpose, so the program should end without a word.
    #[error("the reader of {name} has gone away")]
    Closed {
        /// How messages call the output.
        name: Arc<str>,
    },
    /// Opening, writing or renaming failed.
    #[error("cannot write {name}: {}", reason(source))]
    Unwritable {
        /// How messages call the output.
        name: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// A result has no JSON form, such as a map whose keys are not strings.
    #[error("cannot write a result to {name} as JSON: {source}")]
    Value {
        /// How messages call the output.
        name: Arc<str>,
        /// What it has instead.
        source: serde_json::Error,
    },
    /// The temporary file that keeps what waits for its turn cannot be used.
    #[error("cannot keep outputs that wait for their turn in a temporary file in {}: {} (TMPDIR chooses another folder)",
        .folder.display(), reason(source))]
    Waiting {
        /// Where the temporary file is.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed before, so there is nothing whole to finish.
    #[error("{name} is not complete: writing it failed before")]
    Incomplete {
        /// How messages call the output.
        name: Arc<str>,
    },
}

impl OutputError {
    /// Whether the reader of a pipe has gone away, which ends the program quietly.
    pub fn is_closed(&self) -> bool {
        matches!(self, OutputError::Closed { .. })
    }

    pub(crate) fn from_io(name: &Arc<str>, source: io::Error) -> OutputError {
        let name = name.clone();
        match source.kind() {
            io::ErrorKind::BrokenPipe => OutputError::Closed { name },
            _ => OutputError::Unwritable { name, source },
        }
    }
}
