//! Chunks by their ids, which are counted up: a map in which a chunk is found by one multiplication, and a list in the order of the ids.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::event::ChunkId;

#[expect(clippy::disallowed_types, reason = "its entries are seen in the order of their ids only")]
type Entries<V> = std::collections::HashMap<ChunkId, V, BuildHasherDefault<IdHasher>>;

/// A map by the id of a chunk. Two maps are compared and hashed by their entries in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkMap<V>(Entries<V>);

impl<V> Default for ChunkMap<V> {
    fn default() -> Self {
        ChunkMap(Entries::default())
    }
}

impl<V> ChunkMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, id: ChunkId) -> Option<&V> {
        self.0.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ChunkId) -> Option<&mut V> {
        self.0.get_mut(&id)
    }

    pub(crate) fn insert(&mut self, id: ChunkId, value: V) {
        self.0.insert(id, value);
    }

    pub(crate) fn remove(&mut self, id: ChunkId) -> Option<V> {
        self.0.remove(&id)
    }

    /// Returns the entries in the order of their ids. It takes time to sort them.
    pub(crate) fn in_order(&self) -> Vec<(ChunkId, &V)> {
        let mut entries: Vec<_> = self.0.iter().map(|(id, value)| (*id, value)).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
    }
}

impl<V: Hash> Hash for ChunkMap<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.in_order().hash(state);
    }
}

impl<V: Ord> PartialOrd for ChunkMap<V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<V: Ord> Ord for ChunkMap<V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.in_order().cmp(&other.in_order())
    }
}

/// Spreads ids over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // An odd number with bits all over: the golden ratio in 64 bits.
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Chunks in the order of their ids, which are counted up. They end mostly in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Held(VecDeque<ChunkId>);

impl Held {
    /// Adds a chunk with a higher id than all others.
    pub(super) fn push(&mut self, id: ChunkId) {
        debug_assert!(self.last().is_none_or(|last| last < id), "ids are counted up");
        self.0.push_back(id);
    }

    /// Removes a chunk. It takes as long as there are chunks before it, or after it if those are fewer.
    pub(super) fn remove(&mut self, id: ChunkId) {
        if self.0.front() == Some(&id) {
            self.0.pop_front();
        } else if let Ok(place) = self.0.binary_search(&id) {
            self.0.remove(place);
        }
    }

    pub(super) fn contains(&self, id: ChunkId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    pub(super) fn get(&self, place: usize) -> Option<ChunkId> {
        self.0.get(place).copied()
    }

    pub(super) fn last(&self) -> Option<ChunkId> {
        self.0.back().copied()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &ChunkId> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ids: impl IntoIterator<Item = u64>) -> ChunkMap<u64> {
        let mut map = ChunkMap::default();
        ids.into_iter().for_each(|id| map.insert(ChunkId(id), id));
        map
    }

    fn hash(map: &ChunkMap<u64>) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        map.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn maps_with_the_same_entries_are_equal_however_they_came_there() {
        let (one, mut other) = (map(0..100), map((0..200).rev()));
        (100..200).for_each(|id| assert_eq!(other.remove(ChunkId(id)), Some(id)));
        assert!(one == other && one.cmp(&other) == Ordering::Equal && hash(&one) == hash(&other));
        assert!(map([1, 2]) < map([1, 3]) && map([1]) < map([1, 0xffff]) && map([]) < map([0]));
        assert_ne!(hash(&map([1, 2])), hash(&map([1, 3])));
    }

    #[test]
    fn chunks_that_are_held_stay_in_order_whichever_end_first() {
        let mut held = Held::default();
        (0..10).for_each(|id| held.push(ChunkId(2 * id)));
        [0, 6, 18, 7, 2].into_iter().for_each(|id| held.remove(ChunkId(id)));
        let left: Vec<_> = held.iter().map(|id| id.0).collect();
        assert_eq!(left, [4, 8, 10, 12, 14, 16]);
        assert_eq!((held.get(0), held.last(), held.len()), (Some(ChunkId(4)), Some(ChunkId(16)), 6));
        assert!(held.contains(ChunkId(12)) && !held.contains(ChunkId(6)) && !held.is_empty());
    }

    #[test]
    fn counted_ids_are_spread_over_the_high_and_the_low_bits() {
        let bits = |shift: u32| {
            let of = |id| {
                let mut hasher = IdHasher::default();
                ChunkId(id).hash(&mut hasher);
                hasher.finish() >> shift & 127
            };
            (0..128).map(of).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(bits(0), 128);
        assert!(bits(57) > 100, "{}", bits(57));
    }
}
