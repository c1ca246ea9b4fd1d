//! Errors of outputs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::console::reason;

/// Why a result cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The reader of a pipe has closed it. Usually on purpose, so the program should end without a message.
    #[error("the reader of {name} has closed it")]
    Closed {
        /// The output's name in messages.
        name: Arc<str>,
    },
    /// Opening, writing or renaming failed.
    #[error("cannot write {name}: {}", reason(source))]
    Unwritable {
        /// The output's name in messages.
        name: Arc<str>,
        /// The system's error.
        source: io::Error,
    },
    /// A result has no JSON form, such as a map whose keys are not strings.
    #[error("cannot write a result to {name} as JSON: {source}")]
    Value {
        /// The output's name in messages.
        name: Arc<str>,
        /// The reason.
        source: serde_json::Error,
    },
    /// The temporary file for outputs that wait for their turn cannot be used.
    #[error("cannot keep outputs that wait for their turn in a temporary file in {}: {} (set TMPDIR to use another folder)",
        .folder.display(), reason(source))]
    Waiting {
        /// The folder of the temporary file.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Writing failed before, so the output is not whole.
    #[error("{name} is not complete: writing it failed before")]
    Incomplete {
        /// The output's name in messages.
        name: Arc<str>,
    },
}

impl OutputError {
    /// Whether the reader of a pipe has closed it, after which the program should end quietly.
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
