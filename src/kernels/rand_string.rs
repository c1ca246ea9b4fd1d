//! Random strings that depend on seed and index alone.
//!
//! A generator shared by the jobs of a rank would make the results depend on which rank ran which job. Here each job has its own
//! stream of the ChaCha generator, so the same command prints the same strings on any number of ranks.

use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The context of [`rand_string`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RandString {
    /// The seed of all strings.
    pub seed: u64,
    /// The number of characters in each string.
    pub length: usize,
}

/// Returns the index and a string of `length` characters out of `A–Z a–z 0–9`, each equally likely.
///
/// The generator is ChaCha8 with `seed` as its key and `index` as its stream number.
pub fn rand_string(context: &RandString, index: u64) -> (u64, String) {
    let mut generator = ChaCha8Rng::seed_from_u64(context.seed);
    generator.set_stream(index);
    (index, Alphanumeric.sample_string(&mut generator, context.length))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn strings_depend_on_seed_and_index_alone() {
        let context = RandString { seed: 7, length: 5 };
        let forwards: Vec<_> = (0..100).map(|index| rand_string(&context, index)).collect();
        let mut backwards: Vec<_> = (0..100).rev().map(|index| rand_string(&context, index)).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        let other_seed: Vec<_> = (0..100).map(|index| rand_string(&RandString { seed: 8, ..context }, index)).collect();
        assert!(forwards.iter().zip(&other_seed).all(|(one, other)| one.1 != other.1));
        assert_eq!(forwards.iter().map(|(_, string)| string).collect::<BTreeSet<_>>().len(), 100);
    }

    /// The strings are reproducible results: a new version of the generator's crates must not change them.
    #[test]
    fn strings_stay_the_same_from_release_to_release() {
        let strings: Vec<_> = (0..4).map(|index| rand_string(&RandString { seed: 0, length: 5 }, index)).collect();
        let expected = ["ptudg", "ywbv8", "FVH51", "QC1DP"];
        assert_eq!(strings, (0..).zip(expected.map(String::from)).collect::<Vec<_>>());
    }

    #[test]
    fn strings_have_the_length_asked_for_and_use_all_62_characters() {
        let (index, string) = rand_string(&RandString { seed: 1, length: 10_000 }, 9);
        assert_eq!((index, string.len()), (9, 10_000));
        assert!(string.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(string.bytes().collect::<BTreeSet<_>>().len(), 62);
        assert_eq!(rand_string(&RandString { seed: 1, length: 0 }, 0).1, "");
    }
}
