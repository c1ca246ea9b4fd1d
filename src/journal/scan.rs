//! Reads the frames of a journal from its beginning, and goes on behind damaged regions.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::frame::{Chain, HEAD_BYTES, HEADER_BYTES, Head, Header, Kind, MAX_PAYLOAD_BYTES, read_header};
use super::settled::{Piece, stream_of};
use super::storage::read_up_to;
use crate::engine::exchange::OutputStream;

/// The number of bytes that are read at once.
const BLOCK_BYTES: usize = 1 << 20;
const STEP: u64 = 8;
const _: () = assert!(MAX_PAYLOAD_BYTES > BLOCK_BYTES);

/// A region of a file without readable frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub bytes: Range<u64>,
    /// The number of frames that are missing there, by the numbers of the frames around it.
    pub frames: u32,
}

/// A readable frame.
pub(super) struct Frame<'s> {
    /// Where it begins in the file.
    pub at: u64,
    pub kind: Kind,
    pub payload: &'s [u8],
}

/// Reads frames one after the other. The file may grow meanwhile; what is added is not read.
pub(super) struct Scan<'f> {
    file: &'f File,
    length: u64,
    header: Header,
    block: Vec<u8>,
    /// Where `block` begins in the file.
    block_at: u64,
    at: u64,
    chain: Chain,
    damage: Vec<Damage>,
    /// The end of the last readable frame.
    end: u64,
}

impl<'f> Scan<'f> {
    /// Begins to read a journal.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn new(file: &'f File) -> io::Result<Scan<'f>> {
        let length = file.metadata()?.len();
        let mut scan = Scan {
            file,
            length,
            header: Header::Damaged,
            block: Vec::new(),
            block_at: 0,
            at: 0,
            chain: Chain::default(),
            damage: Vec::new(),
            end: HEADER_BYTES as u64,
        };
        scan.fill(0, HEADER_BYTES)?;
        scan.header = read_header(&scan.block);
        match scan.header {
            Header::Damaged if length > 0 => scan.damage.push(Damage { bytes: 0..HEADER_BYTES as u64, frames: 0 }),
            Header::Damaged | Header::Intact | Header::Newer(_) => {}
        }
        scan.at = HEADER_BYTES as u64;
        Ok(scan)
    }

    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// Returns the length that the file had at the beginning.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the damaged regions before the last readable frame that was returned.
    pub(super) fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Returns the end of the last readable frame: what is behind it was not written completely.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the links of the frame that would follow.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// Reads a block, so that it contains `bytes` bytes at this position, or all to the end of the file.
    fn fill(&mut self, at: u64, bytes: usize) -> io::Result<()> {
        let wanted = (bytes as u64).min(self.length.saturating_sub(at)) as usize;
        let offset = at.checked_sub(self.block_at).filter(|offset| *offset <= self.block.len() as u64);
        if offset.is_some_and(|offset| self.block.len() - offset as usize >= wanted) {
            return Ok(());
        }
        let length = (wanted.max(BLOCK_BYTES) as u64).min(self.length.saturating_sub(at)) as usize;
        self.block.resize(length, 0);
        self.block_at = at;
        let filled = read_up_to(self.file, &mut self.block, at)?;
        // The file may have been cut meanwhile.
        self.block.truncate(filled);
        Ok(())
    }

    /// Returns the bytes at this position that are in the block.
    fn bytes(&self, at: u64) -> &[u8] {
        let offset = at.saturating_sub(self.block_at) as usize;
        self.block.get(offset..).unwrap_or_default()
    }

    /// Returns the head of the readable frame at this position.
    fn head_at(&mut self, at: u64) -> io::Result<Option<Head>> {
        self.fill(at, HEAD_BYTES)?;
        let Some(head) = Head::read(self.bytes(at)) else { return Ok(None) };
        if at + head.frame_bytes() as u64 > self.length {
            return Ok(None);
        }
        self.fill(at, head.frame_bytes())?;
        Ok(head.is_intact(self.bytes(at)).then_some(head))
    }

    /// Returns the next readable frame.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let start = self.at;
        let mut at = self.at;
        let head = loop {
            if at + HEAD_BYTES as u64 > self.length {
                return Ok(None);
            }
            if let Some(head) = self.head_at(at)? {
                break head;
            }
            at += STEP;
        };
        let missing = head.number.wrapping_sub(self.chain.number);
        // More than half of all numbers ahead is behind.
        let is_stale = missing > u32::MAX / 2;
        let follows = (head.number, head.previous) == (self.chain.number, self.chain.previous);
        let begins = self.chain == Chain::default() && start == HEADER_BYTES as u64 && at == start && head.number == 0;
        if at > start || !(follows || begins) {
            self.damage.push(Damage { bytes: start..at, frames: if is_stale { 0 } else { missing } });
        }
        if !is_stale {
            self.chain = Chain::after(&head);
        }
        self.at = at + head.frame_bytes() as u64;
        self.end = self.at;
        let payload = &self.bytes(at)[HEAD_BYTES..HEAD_BYTES + head.length];
        Ok(Some(Frame { at, kind: head.kind, payload }))
    }
}

/// Reads single frames at known positions.
pub(super) struct FrameReader {
    /// The bytes that were read last.
    block: Vec<u8>,
    /// Where `block` begins in the file.
    block_at: u64,
}

impl FrameReader {
    /// The number of bytes that are read at once: frames are mostly read in the order of the file.
    const AHEAD_BYTES: usize = 256 << 10;

    pub(super) fn new() -> FrameReader {
        FrameReader { block: Vec::new(), block_at: 0 }
    }

    /// Returns the kind and the payload of the frame at this position; `None` if there is no readable one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(&mut self, file: &File, at: u64) -> io::Result<Option<(Kind, &[u8])>> {
        if self.bytes(at).len() < HEAD_BYTES {
            self.fill(file, at, Self::AHEAD_BYTES)?;
        }
        let Some(head) = Head::read(self.bytes(at)) else { return Ok(None) };
        if self.bytes(at).len() < head.frame_bytes() {
            self.fill(file, at, head.frame_bytes().max(Self::AHEAD_BYTES))?;
        }
        let frame = self.bytes(at);
        Ok(head.is_intact(frame).then(|| (head.kind, &frame[HEAD_BYTES..HEAD_BYTES + head.length])))
    }

    /// Returns the stream and the bytes of the piece of output with this number; `None` if it is not there.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read_piece(&mut self, file: &File, number: u64) -> io::Result<Option<(OutputStream, &[u8])>> {
        let piece = Piece::from_number(number);
        let is_part = matches!(self.read(file, piece.at)?, Some((Kind::Part, [_, ..])));
        let head = Head::read(self.bytes(piece.at)).filter(|_| is_part);
        let Some(head) = head.filter(|head| head.checksum as u32 & 0xFF_FFFF == piece.check) else { return Ok(None) };
        let payload = self.bytes(piece.at).get(HEAD_BYTES..HEAD_BYTES + head.length);
        Ok(payload.and_then(|payload| payload.split_first()).map(|(stream, bytes)| (stream_of(*stream), bytes)))
    }

    fn bytes(&self, at: u64) -> &[u8] {
        let offset = at.checked_sub(self.block_at).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.block.get(offset..)).unwrap_or_default()
    }

    fn fill(&mut self, file: &File, at: u64, bytes: usize) -> io::Result<()> {
        self.block.resize(bytes, 0);
        self.block_at = at;
        let filled = read_up_to(file, &mut self.block, at);
        // After an error the block has nothing.
        self.block.truncate(*filled.as_ref().unwrap_or(&0));
        filled.map(drop)
    }
}
