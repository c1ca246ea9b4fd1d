//! Messages on standard error: how they are escaped and written. Results never go there.

mod text;
#[cfg(feature = "program")]
pub(crate) mod words;

use std::cell::Cell;
use std::io::Write;
#[cfg(any(feature = "mpi", test))]
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
#[cfg(feature = "mpi")]
use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use text::{escaped, in_one_line, reason, shortened};

/// Writes an error message to standard error, as `rankpool: MESSAGE`. Errors of the write are ignored: standard error may be closed.
pub(crate) fn eprint_error(message: impl std::fmt::Display) {
    eprint(&format!("rankpool: {message}\n"));
}

/// Writes text to standard error, with control characters escaped. Everything that rankpool itself writes there goes through
/// this function. Errors of the write are ignored.
pub(crate) fn eprint(text: &str) {
    aside(|| {
        let _ = std::io::stderr().lock().write_all(escaped(text).as_bytes());
    });
}

/// Something that stays on the last line of standard error and steps aside for other text.
pub(crate) trait Display: Send + Sync {
    /// Calls `work`, which writes to standard error, once, while the display is hidden.
    fn aside(&self, work: &mut dyn FnMut());
}

static DISPLAY: Mutex<Option<Arc<dyn Display>>> = Mutex::new(None);

thread_local! {
    /// Whether this thread writes while the display is hidden.
    static IS_ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Sets what stays on the last line of standard error.
#[cfg(feature = "program")]
pub(crate) fn set_display(display: Option<Arc<dyn Display>>) {
    *DISPLAY.lock().unwrap_or_else(PoisonError::into_inner) = display;
}

/// Calls `work`, which writes to standard error, while no display is there.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    let display = DISPLAY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(display) = display.filter(|_| !IS_ASIDE.get()) else { return work() };
    let (mut work, mut result) = (Some(work), None);
    display.aside(&mut || {
        IS_ASIDE.set(true);
        result = work.take().map(|work| work());
        IS_ASIDE.set(false);
    });
    // A display that has not called it does not keep it from being done.
    result.unwrap_or_else(|| work.take().expect("it was not done yet")())
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
