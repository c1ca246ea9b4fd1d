//! The entry of a settled job: its key, its status and its output.
//!
//! | bytes | |
//! |---|---|
//! | 0–15 | XXH3 (128 bits) of the record, see [`Key`] |
//! | 16–19 | occurrence of this record, from 0 |
//! | 20 | status: 0 ok, 1 failed, 2 signal, 3 timeout, 4 spawn, 5 lost |
//! | 21 | 1: the four fields after the number are present; otherwise all bytes after the number are standard output |
//! | 22–23 | 0 |
//! | 24–31 | the job's number, from 1 |
//! | 32–35 | length of the description |
//! | 36–39 | length of standard error |
//! | 40–43 | number of pieces of output before |
//! | 44–47 | 0 |
//!
//! Then follow the description (one line of JSON, as a job log has it, without the place of the output), standard error, for each
//! piece a [`Piece`] (8 bytes), and standard output. The payload of a piece is a byte, 1 for standard output and 2
//! for standard error, and the bytes of the output. A job's whole output is that of its pieces, and then what is in its entry.

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::Status;
use crate::engine::exchange::OutputStream;

const FIXED_BYTES: usize = 32;
const EXTENDED_BYTES: usize = 48;

/// The key of a job: what distinguishes it from the other jobs of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The hash of its record; and of its number, if its result may depend on it.
    pub content: u128,
    /// The number of jobs before it with the same content.
    pub occurrence: u32,
}

impl Key {
    /// Returns the hash of a record, and of the job's number, if its result may depend on it.
    pub(crate) fn content_of(record: &[u8], number: Option<u64>) -> u128 {
        xxh3_128_with_seed(record, number.unwrap_or(0))
    }

    /// Returns a number that is the same for equal keys, and for different ones almost never.
    pub(super) fn short(&self) -> u64 {
        (self.content as u64).wrapping_add(u64::from(self.occurrence).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// The entry of a settled job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled<'a> {
    pub key: Key,
    pub status: Status,
    /// The place of its record in the input, from 1.
    pub number: u64,
    /// The JSON object that describes its last attempt; empty if none was kept.
    pub description: &'a [u8],
    pub out: &'a [u8],
    pub err: &'a [u8],
    /// Where the pieces of its output are, as [`Piece::to_number`] says.
    pub parts: Parts<'a>,
}

/// Where a piece of output is, and which one it is.
///
/// As a number: in the lower 40 bits an eighth of the position of its frame, above them the lower 24 bits of the checksum of the
/// frame, so that another piece that has got to that position is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub at: u64,
    pub check: u32,
}

impl Piece {
    const AT_BITS: u32 = 40;

    /// Returns the piece in the frame at this position, with this checksum; `None` if a number has no room for the position.
    pub(super) fn new(at: u64, checksum: u32) -> Option<Piece> {
        (at / 8 < 1 << Self::AT_BITS).then_some(Piece { at, check: checksum & 0xFF_FFFF })
    }

    pub(super) fn to_number(self) -> u64 {
        (self.at / 8) | (u64::from(self.check) << Self::AT_BITS)
    }

    pub(super) fn from_number(number: u64) -> Piece {
        Piece { at: (number & ((1 << Self::AT_BITS) - 1)) * 8, check: (number >> Self::AT_BITS) as u32 }
    }
}

/// Returns the first byte of a piece of this stream.
pub(super) fn stream_byte(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

/// Returns the stream of a piece with this first byte.
pub(super) fn stream_of(byte: u8) -> OutputStream {
    if byte == stream_byte(OutputStream::Stderr) { OutputStream::Stderr } else { OutputStream::Stdout }
}

/// The numbers of pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.chunks_exact(8).map(|bytes| number(bytes, 0, 8))
    }
}

const STATUSES: [Status; 6] =
    [Status::Ok, Status::Failed, Status::Signal, Status::Timeout, Status::Spawn, Status::Lost];

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl<'a> Settled<'a> {
    /// Makes an entry without output.
    pub(crate) fn new(key: Key, status: Status, number: u64) -> Self {
        Settled { key, status, number, description: &[], out: &[], err: &[], parts: Parts::default() }
    }

    /// Appends the entry to `out`, with the numbers of these pieces. The status is that of a job that was run.
    pub(super) fn write(&self, parts: &[u64], out: &mut Vec<u8>) {
        let status = STATUSES.iter().position(|of| *of == self.status).unwrap_or(1) as u8;
        let extended = !(self.description.is_empty() && self.err.is_empty() && parts.is_empty());
        let mut fixed = [0; FIXED_BYTES];
        fixed[..16].copy_from_slice(&self.key.content.to_le_bytes());
        fixed[16..20].copy_from_slice(&self.key.occurrence.to_le_bytes());
        fixed[20] = status;
        fixed[21] = u8::from(extended);
        fixed[24..].copy_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&fixed);
        if extended {
            for length in [self.description.len(), self.err.len(), parts.len(), 0] {
                out.extend_from_slice(&(length as u32).to_le_bytes());
            }
            out.extend_from_slice(self.description);
            out.extend_from_slice(self.err);
            parts.iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes()));
        }
        out.extend_from_slice(self.out);
    }

    /// Reads an entry; `None` if the bytes are not one.
    pub(super) fn read(payload: &'a [u8]) -> Option<Settled<'a>> {
        let (fixed, rest) = payload.split_at_checked(FIXED_BYTES)?;
        let content = fixed.first_chunk::<16>().map(|bytes| u128::from_le_bytes(*bytes))?;
        let key = Key { content, occurrence: number(fixed, 16, 4) as u32 };
        let status = *STATUSES.get(usize::from(fixed[20]))?;
        let mut settled = Settled {
            key,
            status,
            number: number(fixed, 24, 8),
            description: &[],
            out: rest,
            err: &[],
            parts: Parts::default(),
        };
        if fixed[21] != 0 {
            let (lengths, rest) = rest.split_at_checked(EXTENDED_BYTES - FIXED_BYTES)?;
            let length = |at| usize::try_from(number(lengths, at, 4)).ok();
            let (description, rest) = rest.split_at_checked(length(0)?)?;
            let (err, rest) = rest.split_at_checked(length(4)?)?;
            let (parts, out) = rest.split_at_checked(length(8)?.checked_mul(8)?)?;
            settled = Settled { description, err, parts: Parts(parts), out, ..settled };
        }
        Some(settled)
    }

    /// Returns the key and the status of an entry without a look at the rest.
    pub(super) fn peek(payload: &[u8]) -> Option<(Key, Status)> {
        Settled::read(payload).map(|settled| (settled.key, settled.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(description: &'a [u8], err: &'a [u8], out: &'a [u8]) -> Settled<'a> {
        let key = Key { content: 1 << 100 | 5, occurrence: 3 };
        Settled { key, status: Status::Timeout, number: 77, description, out, err, parts: Parts::default() }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let parts = [64, 1 << 40];
        for (description, err, parts) in [
            (&b""[..], &b""[..], &[][..]),
            (b"{}", b"", &[]),
            (b"", b"oh", &[]),
            (b"", b"", &parts),
            (b"{}", b"e", &parts),
        ] {
            let mut bytes = Vec::new();
            let written = entry(description, err, b"result\n");
            written.write(parts, &mut bytes);
            let read = Settled::read(&bytes).expect("it is an entry");
            assert_eq!(Settled { parts: Parts::default(), ..read }, written);
            assert_eq!(read.parts.iter().collect::<Vec<_>>(), parts);
        }
    }

    #[test]
    fn a_piece_is_a_number_and_back() {
        for (at, checksum) in [(64, 0), (8, u32::MAX), ((1 << 43) - 8, 0x12_3456)] {
            let piece = Piece::new(at, checksum).expect("there is room");
            assert_eq!(Piece::from_number(piece.to_number()), piece);
            assert_eq!((piece.at, piece.check), (at, checksum & 0xFF_FFFF));
        }
        assert_eq!(Piece::new(1 << 43, 0), None);
    }

    #[test]
    fn bytes_that_are_no_entry_are_refused() {
        let mut bytes = Vec::new();
        entry(b"{}", b"err", b"").write(&[8], &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Settled::read(&bytes[..cut]), None, "{cut}");
        }
        bytes[20] = 9;
        assert_eq!(Settled::read(&bytes), None);
    }

    #[test]
    fn occurrences_of_a_record_have_different_keys() {
        let content = Key::content_of(b"\"x\"", None);
        let shorts: Vec<_> = (0..1000).map(|occurrence| Key { content, occurrence }.short()).collect();
        let mut sorted = shorts.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), shorts.len());
    }
}
