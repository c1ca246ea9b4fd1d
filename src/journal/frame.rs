//! The layout of a journal: a file header, then frames, each with a checksum and a link to the frame before it.
//!
//! All numbers are little-endian. The file header has 64 bytes:
//!
//! | bytes | |
//! |---|---|
//! | 0–7 | `RPJOURNL` |
//! | 8–11 | version, 1 |
//! | 12–15 | 0 |
//! | 16–23 | identifier of the journal |
//! | 24–31 | time of its creation, µs since 1970 |
//! | 32–55 | 0 |
//! | 56–63 | XXH3 (64 bits) of bytes 0–55 |
//!
//! A frame has a head of 24 bytes and its payload, and is padded with zeros to a multiple of 8:
//!
//! | bytes | |
//! |---|---|
//! | 0–7 | XXH3 (64 bits) of bytes 8–23 and the payload |
//! | 8–11 | length of the payload |
//! | 12–13 | `0x9E4A` |
//! | 14 | kind, see [`Kind`] |
//! | 15 | 0 |
//! | 16–19 | number of the frame, from 0 |
//! | 20–23 | the lower half of the checksum of the frame before it; 0 in the first |
//!
//! Frames begin at multiples of 8, so that no head is torn by a page, and so that a reader finds the next frame behind damage.

use xxhash_rust::xxh3::xxh3_64;

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const HEAD_BYTES: usize = 24;
pub(super) const VERSION: u32 = 1;
/// The largest payload. A longer output is divided, so that a reader never allocates more than this because of a damaged length.
pub(super) const MAX_PAYLOAD_BYTES: usize = 16 << 20;
const MAGIC: [u8; 8] = *b"RPJOURNL";
const MARK: [u8; 2] = 0x9E4A_u16.to_le_bytes();
const ALIGNMENT: usize = 8;

/// What a frame contains. Readers skip kinds that they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A run has opened the journal; fields say which.
    Owner,
    /// What all jobs have in common; fields.
    Spec,
    /// A job is settled: its key, status and output, see [`settled`](super::settled).
    Settled,
    /// A piece of the output of a job that is not settled yet.
    Part,
    /// The run has ended by itself, and its outputs are complete; fields with counts. All its jobs are settled, but for those that its
    /// stop policy has cancelled.
    Complete,
    /// The run has closed the journal before all jobs were settled.
    Closed,
    /// What the run knows of itself when all ranks are there; fields.
    Ranks,
    /// The entries before it were settled by this time: 8 bytes, µs since 1970.
    Moment,
    /// What the run has counted when its last job was settled; fields.
    Statistics,
    Unknown(u8),
}

const KINDS: [(u8, Kind); 9] = [
    (1, Kind::Owner),
    (2, Kind::Spec),
    (3, Kind::Settled),
    (4, Kind::Part),
    (5, Kind::Complete),
    (6, Kind::Closed),
    (7, Kind::Ranks),
    (8, Kind::Moment),
    (9, Kind::Statistics),
];

impl Kind {
    fn from_byte(byte: u8) -> Kind {
        KINDS.iter().find(|(of, _)| *of == byte).map_or(Kind::Unknown(byte), |(_, kind)| *kind)
    }

    fn to_byte(self) -> u8 {
        match self {
            Kind::Unknown(byte) => byte,
            kind => KINDS.iter().find(|(_, of)| *of == kind).map_or(0, |(byte, _)| *byte),
        }
    }
}

/// The head of a frame whose checksum was not verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub checksum: u64,
    pub length: usize,
    pub kind: Kind,
    pub number: u32,
    pub previous: u32,
}

impl Head {
    /// Reads a head; `None` if these bytes cannot be one.
    pub(super) fn read(bytes: &[u8]) -> Option<Head> {
        let bytes = bytes.first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let checksum = u64::from(number(0)) | u64::from(number(4)) << 32;
        let length = usize::try_from(number(8)).ok()?;
        let is_head = bytes[12..14] == MARK && bytes[15] == 0 && length <= MAX_PAYLOAD_BYTES;
        is_head.then(|| Head {
            checksum,
            length,
            kind: Kind::from_byte(bytes[14]),
            number: number(16),
            previous: number(20),
        })
    }

    /// Returns the length of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        (HEAD_BYTES + self.length).next_multiple_of(ALIGNMENT)
    }

    /// Whether `frame`, which begins with this head, has its checksum.
    pub(super) fn is_intact(&self, frame: &[u8]) -> bool {
        frame.get(8..HEAD_BYTES + self.length).is_some_and(|bytes| xxh3_64(bytes) == self.checksum)
    }
}

/// The links between frames: the number of the next one, and the checksum of the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub number: u32,
    pub previous: u32,
}

impl Chain {
    /// Returns the chain behind a frame with this head.
    pub(super) fn after(head: &Head) -> Chain {
        Chain { number: head.number.wrapping_add(1), previous: head.checksum as u32 }
    }

    /// Appends a frame to `out`, whose payload `write` appends, and goes on behind it.
    pub(super) fn append(&mut self, kind: Kind, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_BYTES]);
        write(out);
        let end = out.len();
        let length = (end - start - HEAD_BYTES) as u32;
        debug_assert!(length as usize <= MAX_PAYLOAD_BYTES, "a payload of {length} bytes");
        let head = &mut out[start..start + HEAD_BYTES];
        head[8..12].copy_from_slice(&length.to_le_bytes());
        head[12..14].copy_from_slice(&MARK);
        head[14] = kind.to_byte();
        head[16..20].copy_from_slice(&self.number.to_le_bytes());
        head[20..24].copy_from_slice(&self.previous.to_le_bytes());
        let checksum = xxh3_64(&out[start + 8..end]);
        out[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
        let padding = (end - start).next_multiple_of(ALIGNMENT) - (end - start);
        out.extend_from_slice(&[0; ALIGNMENT][..padding]);
        *self = Chain { number: self.number.wrapping_add(1), previous: checksum as u32 };
    }
}

/// Returns the header of a new journal. `created` is in µs since 1970.
pub(super) fn header(identifier: u64, created: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&identifier.to_le_bytes());
    header[24..32].copy_from_slice(&created.to_le_bytes());
    let checksum = xxh3_64(&header[..56]);
    header[56..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// What the first bytes of a file say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Intact,
    /// A journal of a later version, which this program cannot read.
    Newer(u32),
    /// Not a header. There may be frames behind it.
    Damaged,
}

/// Reads the header of a journal.
pub(super) fn read_header(bytes: &[u8]) -> Header {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Header::Damaged };
    let checksum = xxh3_64(&header[..56]).to_le_bytes();
    if header[..8] != MAGIC || header[56..] != checksum {
        return Header::Damaged;
    }
    match u32::from_le_bytes([header[8], header[9], header[10], header[11]]) {
        VERSION => Header::Intact,
        version => Header::Newer(version),
    }
}

/// Whether a file begins as journals do.
pub(super) fn has_magic(file: &std::fs::File) -> std::io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    let read = std::os::unix::fs::FileExt::read_at(file, &mut start, 0)?;
    Ok(read == start.len() && start == MAGIC)
}

/// Appends a list of names and values: the payload of the frames that describe a run.
pub(super) fn push_fields(fields: &[(String, String)], out: &mut Vec<u8>) {
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Reads a list of names and values; what is not one is left out.
pub(super) fn read_fields(mut payload: &[u8]) -> Vec<(String, String)> {
    let mut next = || {
        let (length, rest) = payload.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        payload = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    std::iter::from_fn(|| Some((next()?, next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_begins_at_a_multiple_of_eight() {
        let (mut chain, mut out) = (Chain::default(), Vec::new());
        for length in 0..20 {
            let start = out.len();
            assert_eq!(start % ALIGNMENT, 0);
            let before = chain;
            chain.append(Kind::Part, &mut out, |out| out.extend(vec![7; length]));
            let head = Head::read(&out[start..]).expect("it is a head");
            assert_eq!((head.kind, head.length, head.number), (Kind::Part, length, length as u32));
            assert_eq!((head.frame_bytes(), head.previous), (out.len() - start, before.previous));
            assert!(head.is_intact(&out[start..]));
            assert_eq!(Chain::after(&head), chain);
        }
    }

    #[test]
    fn no_bit_of_a_frame_changes_without_notice() {
        let (mut chain, mut frame) = (Chain { number: 3, previous: 9 }, Vec::new());
        chain.append(Kind::Settled, &mut frame, |out| out.extend_from_slice(b"thirteen byte"));
        for bit in 0..(HEAD_BYTES + 13) * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let intact = Head::read(&changed).is_some_and(|head| head.is_intact(&changed));
            assert!(!intact, "bit {bit}");
        }
    }

    #[test]
    fn a_header_says_its_version_and_whether_it_is_damaged() {
        let intact = header(1, 2);
        assert_eq!(read_header(&intact), Header::Intact);
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = intact;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_header(&changed), Header::Damaged, "bit {bit}");
        }
        assert_eq!(read_header(&intact[..63]), Header::Damaged);
        let mut newer = intact;
        newer[8] = 2;
        let checksum = xxh3_64(&newer[..56]);
        newer[56..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(read_header(&newer), Header::Newer(2));
    }

    #[test]
    fn fields_are_read_as_written_and_cut_fields_are_left_out() {
        let fields = vec![("command".to_string(), "echo {}\nü".to_string()), (String::new(), String::new())];
        let mut out = Vec::new();
        push_fields(&fields, &mut out);
        assert_eq!(read_fields(&out), fields);
        for cut in 0..out.len() {
            assert!(read_fields(&out[..cut]).len() < 2);
        }
    }
}
