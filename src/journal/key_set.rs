//! A set of short keys, which are hashes: one table of numbers, so that an insertion looks at one place of the memory.
//!
//! A run with a journal puts the key of each of its jobs into it. With a general hash set that took half of the time that a journal
//! costs a short job, because such a set looks at two places, and hashes a second time.

/// At most this part of the table is filled, in eighths.
const FILLED_EIGHTHS: usize = 6;
const FIRST_BITS: u32 = 10;

/// A set of numbers that are evenly distributed.
#[derive(Default)]
pub(super) struct KeySet {
    /// Each number is at the place that its first bits say, or in one of the next places. 0 is an empty place.
    places: Vec<u64>,
    bits: u32,
    length: usize,
    has_zero: bool,
}

impl KeySet {
    /// Adds a number. Returns false if it was there.
    pub(super) fn insert(&mut self, key: u64) -> bool {
        if key == 0 {
            return !std::mem::replace(&mut self.has_zero, true);
        }
        if self.length * 8 >= self.places.len() * FILLED_EIGHTHS {
            self.grow();
        }
        let is_new = self.put(key);
        self.length += usize::from(is_new);
        is_new
    }

    fn put(&mut self, key: u64) -> bool {
        let mask = self.places.len() - 1;
        let mut at = (key >> (u64::BITS - self.bits)) as usize;
        // A part of the table is empty, so that this ends.
        loop {
            match &mut self.places[at] {
                place if *place == key => return false,
                place @ 0 => {
                    *place = key;
                    return true;
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// Doubles the table. Its numbers are nearly in order, so both tables are passed through once.
    fn grow(&mut self) {
        self.bits = (self.bits + 1).max(FIRST_BITS);
        let places = std::mem::replace(&mut self.places, vec![0; 1 << self.bits]);
        places.into_iter().filter(|key| *key != 0).for_each(|key| {
            self.put(key);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_number_is_new_once() {
        let (mut set, mut expected) = (KeySet::default(), HashSet::new());
        // Every number twice, some at the ends of the table, and in clusters.
        for round in 0..2 {
            for number in 0..50_000_u64 {
                let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                for key in [hash, number % 300, u64::MAX - number % 200] {
                    assert_eq!(set.insert(key), expected.insert(key), "{key} in round {round}");
                }
            }
        }
        assert!(set.places.len() * FILLED_EIGHTHS >= set.length * 8);
    }
}
