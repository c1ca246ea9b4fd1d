//! Finds the entry of a settled job by its key, with 14 bytes for each job.

use super::settled::Key;

/// The bytes of a packed entry: the short key, and the position with a bit for the status.
const ENTRY_BYTES: usize = 14;
/// The bit of the 48 bits of a position that says that the job has failed.
const FAILED: u64 = 1 << 47;
/// The number of entries in a group, on the average: few, so that a search reads one or two lines of the processor's cache.
const GROUP: usize = 2;

/// Where the entry of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub at: u64,
    pub has_failed: bool,
}

#[derive(Clone, Copy)]
struct Packed([u8; ENTRY_BYTES]);

impl Packed {
    fn new(short: u64, position: Position) -> Packed {
        let at = position.at & (FAILED - 1) | if position.has_failed { FAILED } else { 0 };
        let mut packed = [0; ENTRY_BYTES];
        packed[..8].copy_from_slice(&short.to_le_bytes());
        packed[8..].copy_from_slice(&at.to_le_bytes()[..6]);
        Packed(packed)
    }

    fn short(self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn position(self) -> Position {
        let mut at = [0; 8];
        at[..6].copy_from_slice(&self.0[8..]);
        let at = u64::from_le_bytes(at);
        Position { at: at & (FAILED - 1), has_failed: at & FAILED != 0 }
    }
}

/// Collects the positions of entries, in the order of the file: of several entries of a job the last one counts.
#[derive(Default)]
pub(super) struct IndexBuilder(Vec<Packed>);

impl IndexBuilder {
    pub(super) fn push(&mut self, key: Key, position: Position) {
        self.0.push(Packed::new(key.short(), position));
    }

    pub(super) fn build(mut self) -> Index {
        // Not a stable sort, which needs memory; the position decides between entries of one job.
        self.0.sort_unstable_by_key(|packed| (packed.short(), packed.position().at));
        self.0.dedup_by(|later, earlier| {
            let is_same = later.short() == earlier.short();
            if is_same {
                *earlier = *later;
            }
            is_same
        });
        let group_bits = (self.0.len() / GROUP).max(2).ilog2();
        let mut groups = Vec::with_capacity((1 << group_bits) + 1);
        groups.push(0);
        let mut end = 0;
        for group in 0..1 << group_bits {
            while self.0.get(end).is_some_and(|packed| packed.short() >> (64 - group_bits) == group) {
                end += 1;
            }
            groups.push(end as u32);
        }
        let taken = vec![0; self.0.len().div_ceil(64)];
        Index { packed: self.0, group_bits, groups, taken }
    }
}

/// An entry of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(usize);

/// The positions of entries by the keys of their jobs. An entry can be taken once.
#[derive(Default)]
pub(super) struct Index {
    packed: Vec<Packed>,
    /// The number of bits of a short key by which entries are grouped.
    group_bits: u32,
    /// Where each group of entries begins, by the first bits of the short key.
    groups: Vec<u32>,
    /// A bit for each entry.
    taken: Vec<u64>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.packed.len()
    }

    /// Returns the entry of this job; `None` if there is none.
    pub(super) fn find(&self, key: Key) -> Option<Entry> {
        let short = key.short();
        let group = short.checked_shr(64 - self.group_bits)? as usize;
        let (start, end) = (*self.groups.get(group)? as usize, *self.groups.get(group + 1)? as usize);
        let found = self.packed.get(start..end)?.binary_search_by_key(&short, |packed| packed.short()).ok()?;
        Some(Entry(start + found))
    }

    /// Takes an entry; `None` if it was taken.
    pub(super) fn take(&mut self, Entry(at): Entry) -> Option<Position> {
        let (word, bit) = (self.taken.get_mut(at / 64)?, 1 << (at % 64));
        let was_taken = std::mem::replace(word, *word | bit) & bit != 0;
        self.packed.get(at).filter(|_| !was_taken).map(|packed| packed.position())
    }

    /// Returns the positions of all entries, in the order of the file.
    pub(super) fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<_> = self.packed.iter().map(|packed| packed.position()).collect();
        positions.sort_unstable_by_key(|position| position.at);
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(content: u64) -> Key {
        Key { content: u128::from(content.wrapping_mul(0x9E37_79B9_7F4A_7C15)), occurrence: 0 }
    }

    #[test]
    fn the_last_entry_of_each_job_is_found_once() {
        let mut builder = IndexBuilder::default();
        for at in 0..3000 {
            builder.push(key(at % 1000), Position { at, has_failed: at < 1000 });
        }
        let mut index = builder.build();
        assert_eq!(index.len(), 1000);
        for of in 0..1000 {
            let entry = index.find(key(of)).expect("it is there");
            assert_eq!(index.take(entry), Some(Position { at: 2000 + of, has_failed: false }));
            assert_eq!((index.find(key(of)), index.take(entry)), (Some(entry), None));
        }
        assert_eq!(index.find(key(1000)), None);
        assert_eq!(index.positions().first().map(|position| position.at), Some(2000));
    }

    #[test]
    fn a_position_beyond_four_gigabytes_keeps_its_status() {
        let position = Position { at: (1 << 46) + 8, has_failed: true };
        assert_eq!(Packed::new(7, position).position(), position);
        assert_eq!(Packed::new(7, position).short(), 7);
        assert!(Index::default().find(key(1)).is_none());
    }
}
