//! Polling and writing that signals do not interrupt.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};

/// Polls until the deadline; returns 0 when it has passed.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<usize, Errno> {
    loop {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Polls for `time`; returns whether a descriptor is ready. After an error of `poll` none is.
pub(super) fn is_ready_within(time: Duration, fds: &mut [PollFd<'_>]) -> bool {
    poll_until(fds, Instant::now().checked_add(time)).is_ok_and(|ready| ready > 0)
}

/// Whether a file descriptor is readable or hung up.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    is_ready_within(Duration::ZERO, &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)])
}

/// Writes as much as a non-blocking pipe takes; returns how many bytes that is.
///
/// # Errors
/// The pipe cannot be written any more: its reader has closed it.
pub(super) fn write_available(pipe: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match write(&pipe, &bytes[written..]) {
            Ok(length) => written += length,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Converts a duration for `poll`. A longer time, more than a century, is cut.
fn timespec(duration: Duration) -> Timespec {
    let seconds = duration.as_secs().min(1 << 32);
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::io::ioctl_fionbio;
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
    }

    #[test]
    fn a_pipe_takes_what_fits_and_reports_a_reader_that_has_closed_it() {
        let (read, write) = pipe();
        ioctl_fionbio(&write, true).expect("a pipe can be non-blocking");
        assert!(!is_readable(read.as_fd()));
        assert_eq!(write_available(&write, b"abc"), Ok(3));
        assert!(is_readable(read.as_fd()));
        let large = vec![0; 1 << 20];
        let taken = write_available(&write, &large).expect("there is a reader");
        assert!(0 < taken && taken < large.len(), "{taken}");
        assert_eq!(write_available(&write, &large), Ok(0));
        drop(read);
        // A child that another test starts has a copy of the reading end until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(60);
        while write_available(&write, b"abc") == Ok(0) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(write_available(&write, b"abc"), Err(Errno::PIPE));
    }

    #[test]
    fn a_time_beyond_the_systems_range_is_cut() {
        let (read, write) = pipe();
        let mut fds = [PollFd::new(&read, PollFlags::IN)];
        assert!(!is_ready_within(Duration::from_millis(1), &mut fds));
        assert_eq!(write_available(&write, b"x"), Ok(1));
        assert!(is_ready_within(Duration::MAX, &mut fds));
        assert_eq!(timespec(Duration::MAX).tv_sec, 1 << 32);
    }
}
