//! Files in memory with large payloads, and the notes in them that say when their writer may write them again.
//!
//! The writer is a script or a worker, see `python/rankpool/_memfds.py`. A file that can be written again has a last page for notes, of
//! one byte each, which receivers set and only the writer clears.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::buffer::spare_capacity;
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::{Errno, pread, pwrite};

use crate::engine::memory;

/// The size of the notes.
const PAGE: u64 = 4096;
/// The note that the receiver needs the bytes no more.
const RELEASED: u64 = 0;
/// The note that more than one receiver has got the file, so that [`RELEASED`] says nothing.
const SEVERAL: u64 = 1;
/// The note that another process has opened the file.
const TAKEN: u64 = 2;

/// A file in memory with a payload. Nothing writes to it as long as the payload is needed.
#[derive(Debug)]
pub(crate) struct Memfd {
    pub descriptor: Arc<OwnedFd>,
    pub length: usize,
    was_delivered: AtomicBool,
}

impl Memfd {
    pub(super) fn new(descriptor: Arc<OwnedFd>, length: usize) -> Memfd {
        Memfd { descriptor, length, was_delivered: AtomicBool::new(false) }
    }

    /// Makes one with these bytes, and without notes.
    pub(super) fn of(parts: &[&[u8]]) -> io::Result<Memfd> {
        let mut file = File::from(memfd_create("rankpool", MemfdFlags::CLOEXEC)?);
        parts.iter().try_for_each(|part| file.write_all(part))?;
        let length = parts.iter().map(|part| part.len()).sum();
        Ok(Memfd::new(Arc::new(file.into()), length))
    }

    /// Returns the bytes.
    ///
    /// # Errors
    /// If the file is shorter than its writer has said.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "a payload is shorter than its head says");
        if self.size()? < self.length as u64 {
            return Err(short());
        }
        let mut bytes = memory::vec_with_capacity(self.length);
        while bytes.len() < self.length {
            // The capacity may be more than was asked for.
            let at = bytes.len() as u64;
            match pread(&*self.descriptor, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(short()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(self.length);
        Ok(bytes)
    }

    /// Notes that a receiver gets the file, which reads it at any time and may keep it.
    pub(super) fn note_delivery(&self) {
        if self.was_delivered.swap(true, Ordering::AcqRel) {
            self.set(SEVERAL);
        }
    }

    /// Notes that its bytes were read, and that they are what a receiver gets.
    pub(super) fn note_read(&self) {
        let was_delivered = self.was_delivered.swap(true, Ordering::AcqRel);
        self.set(if was_delivered { SEVERAL } else { RELEASED });
    }

    /// Notes that this process has opened it.
    pub(super) fn note_taken(&self) {
        if self.is_set(TAKEN) {
            self.set(SEVERAL);
        }
        self.set(TAKEN);
    }

    /// Whether a process has opened it. `None` if it has no notes.
    pub(super) fn is_taken(&self) -> Option<bool> {
        self.notes().map(|_| self.is_set(TAKEN))
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(u64::try_from(fstat(&*self.descriptor)?.st_size).unwrap_or(0))
    }

    /// Returns the position of the notes.
    fn notes(&self) -> Option<u64> {
        let notes = self.size().ok()?.checked_sub(PAGE)?;
        Some(notes).filter(|notes| *notes >= self.length as u64)
    }

    fn set(&self, note: u64) {
        if let Some(notes) = self.notes() {
            // Without the note, its writer makes a new file.
            let _ = pwrite(self.descriptor.as_fd(), &[1], notes + note);
        }
    }

    fn is_set(&self, note: u64) -> bool {
        let mut byte = [0];
        self.notes().is_some_and(|notes| pread(self.descriptor.as_fd(), &mut byte, notes + note) == Ok(1))
            && byte == [1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One with notes.
    fn noted(bytes: &[u8]) -> Memfd {
        let page = [0; PAGE as usize];
        let Memfd { descriptor, .. } = Memfd::of(&[bytes, &page]).expect("there is memory");
        Memfd::new(descriptor, bytes.len())
    }

    #[test]
    fn one_that_is_too_short_is_an_error() {
        let memfd = Memfd::of(&[b"x"]).expect("there is memory");
        assert!(Memfd::new(memfd.descriptor.clone(), 2).read().is_err());
        assert_eq!(memfd.read().expect("it is whole"), b"x");
    }

    #[test]
    fn one_that_was_read_is_released_unless_another_receiver_has_got_it() {
        let memfd = noted(b"some bytes");
        assert!(!memfd.is_set(RELEASED));
        memfd.note_read();
        assert!(memfd.is_set(RELEASED) && !memfd.is_set(SEVERAL));
        assert_eq!(memfd.read().expect("it is whole"), b"some bytes");

        let memfd = noted(b"some bytes");
        memfd.note_delivery();
        assert!(!memfd.is_set(SEVERAL));
        memfd.note_read();
        assert!(memfd.is_set(SEVERAL) && !memfd.is_set(RELEASED));
    }

    #[test]
    fn one_that_was_taken_twice_has_several_receivers() {
        let memfd = noted(b"x");
        assert_eq!(memfd.is_taken(), Some(false));
        memfd.note_taken();
        assert_eq!(memfd.is_taken(), Some(true));
        assert!(!memfd.is_set(SEVERAL));
        memfd.note_taken();
        assert!(memfd.is_set(SEVERAL));
    }

    #[test]
    fn notes_are_not_written_into_the_bytes_of_one_that_has_none() {
        let bytes = [7; 2 * PAGE as usize];
        let memfd = Memfd::of(&[&bytes]).expect("there is memory");
        memfd.note_read();
        memfd.note_taken();
        assert_eq!(memfd.is_taken(), None);
        assert_eq!(memfd.read().expect("it is whole"), bytes);
    }
}
