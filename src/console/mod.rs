//! Messages on standard error: how they are escaped and written. Results never go there.

mod text;

use std::fmt::Display;
use std::io::Write;
#[cfg(any(feature = "mpi", test))]
use std::os::fd::AsFd;
#[cfg(feature = "mpi")]
use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use text::{escaped, in_one_line, reason, shortened};

/// Writes an error message to standard error, as `rankpool: MESSAGE`. Errors of the write are ignored: standard error may be closed.
pub(crate) fn eprint_error(message: impl Display) {
    eprint(&format!("rankpool: {message}\n"));
}

/// Writes text to standard error, with control characters escaped. Everything that rankpool itself writes there goes through
/// this function. Errors of the write are ignored.
pub(crate) fn eprint(text: &str) {
    let _ = std::io::stderr().lock().write_all(escaped(text).as_bytes());
}

/// Time limit for a launcher to read the messages before it is asked to end all ranks.
#[cfg(feature = "mpi")]
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a launcher to pass on the messages that it has read.
#[cfg(feature = "mpi")]
const PASS_ON: Duration = Duration::from_millis(100);

/// Waits until the launcher has passed on the last messages: it stops reading when it is asked to end all ranks.
#[cfg(feature = "mpi")]
pub(crate) fn wait_until_read() {
    let deadline = Instant::now() + READ_TIMEOUT;
    while has_unread(std::io::stderr()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(PASS_ON);
}

/// Whether this is a pipe with unread bytes.
#[cfg(any(feature = "mpi", test))]
fn has_unread(stream: impl AsFd) -> bool {
    let is_pipe = rustix::fs::fstat(&stream)
        .is_ok_and(|status| rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::Fifo);
    is_pipe && rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_in_a_pipe_is_unread_until_it_is_read() {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let (mut read, mut write) = (std::fs::File::from(read), std::fs::File::from(write));
        assert!(!has_unread(&write));
        write.write_all(b"words").expect("a reader");
        assert!(has_unread(&write));
        read.read_exact(&mut [0; 5]).expect("a writer");
        assert!(!has_unread(&write));
        assert!(!has_unread(tempfile::tempfile().expect("a file")));
    }
}
