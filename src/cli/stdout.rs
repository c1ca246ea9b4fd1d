//! Prints results of subcommands on standard output.

use std::io::{self, Write};

use crate::console;
use crate::launch::ExitCode;
use crate::output::OutputError;

/// Prints `bytes`. Returns whether there is still a reader, and the exit code: a reader that has gone away is not an error.
pub(super) fn print(bytes: &[u8]) -> (bool, ExitCode) {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => (true, ExitCode::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (false, ExitCode::Success),
        Err(error) => {
            console::eprint_error(OutputError::from_io(&"standard output".into(), error));
            (false, ExitCode::Failure)
        }
    }
}
