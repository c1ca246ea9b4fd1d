//! The fast encoding has the same bytes as the slow one, decodes the same values, and trusts no length.

use std::fmt::Debug;

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Encodes and decodes a value both ways. Values are compared by their encoding: a NaN is not equal to itself.
fn same_both_ways<T: Serialize + DeserializeOwned + Debug + 'static>(value: &T) {
    let (mut fast, mut slow) = (b"before".to_vec(), b"before".to_vec());
    encode_value(value, &mut fast).unwrap();
    encode_into(value, &mut slow).unwrap();
    assert!(fast == slow, "written otherwise: {value:?}");
    let bytes = &slow[6..];
    for read in [decode_value::<T>(bytes).unwrap(), decode::<T>(bytes).unwrap()] {
        let mut again = b"before".to_vec();
        encode_into(&read, &mut again).unwrap();
        assert!(again == slow, "read otherwise: {value:?}");
    }
}

fn is_refused<T: DeserializeOwned + Debug + 'static>(bytes: &[u8]) {
    let mut result = None;
    let used = measure(|| result = Some(decode_value::<T>(bytes)));
    let result = result.expect("it was read");
    assert!(result.is_err(), "{result:?}");
    assert!(used.bytes_max < 10_000, "{} bytes were allocated", used.bytes_max);
}

fn all_are_refused(bytes: &[u8]) {
    is_refused::<Vec<f64>>(bytes);
    is_refused::<Vec<f32>>(bytes);
    is_refused::<Vec<u8>>(bytes);
    is_refused::<Box<[f64]>>(bytes);
    is_refused::<String>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn numbers_and_texts_are_the_same_both_ways(bits in vec(any::<u64>(), 0..1500), text in ".*") {
        let doubles: Vec<f64> = bits.iter().map(|&bits| f64::from_bits(bits)).collect();
        let floats: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits as u32)).collect();
        let bytes: Vec<u8> = bits.iter().map(|&bits| bits as u8).collect();
        same_both_ways(&doubles.clone().into_boxed_slice());
        same_both_ways(&floats.clone().into_boxed_slice());
        same_both_ways(&bytes.clone().into_boxed_slice());
        same_both_ways(&(text.clone(), doubles.clone()));
        same_both_ways(&doubles);
        same_both_ways(&floats);
        same_both_ways(&bytes);
        same_both_ways(&text);
        same_both_ways(&bits);
    }

    #[test]
    fn garbage_is_read_as_it_is_the_slow_way(bytes in vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(decode_value::<Vec<u8>>(&bytes).ok(), decode::<Vec<u8>>(&bytes).ok());
        prop_assert_eq!(decode_value::<String>(&bytes).ok(), decode::<String>(&bytes).ok());
        let bits = |numbers: Result<Vec<f32>, CodecError>| numbers.ok().map(|numbers| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        prop_assert_eq!(bits(decode_value(&bytes)), bits(decode(&bytes)));
    }
}

#[test]
fn lists_of_all_lengths_near_a_limit_are_the_same_both_ways() {
    for length in (0..600).chain(65_530..65_540) {
        let numbers: Vec<f64> = (0..length).map(f64::from).collect();
        same_both_ways(&numbers);
        same_both_ways(&numbers.iter().map(|&number| number as f32).collect::<Vec<_>>());
        same_both_ways(&numbers.iter().map(|&number| number as u8).collect::<Vec<_>>());
        same_both_ways(&"x".repeat(numbers.len()));
    }
}

#[test]
fn a_length_that_is_a_lie_is_an_error_and_allocates_nothing() {
    for length in [1_000u64, 1 << 20, 1 << 32, 1 << 61, (1 << 61) + 1, 1 << 63, u64::MAX] {
        let mut bytes = Vec::new();
        encode_into(&length, &mut bytes).unwrap();
        all_are_refused(&bytes);
        bytes.extend([0; 64]);
        all_are_refused(&bytes);
    }
    all_are_refused(b"");
    // A list that is longer than its length.
    all_are_refused(&[0, 0]);
    // Half a number.
    is_refused::<Vec<f64>>(&[1, 0, 0, 0, 0]);
    is_refused::<String>(&[2, 0xc3, 0x28]);
}

#[test]
fn a_list_is_written_and_read_into_one_allocation() {
    let numbers = vec![0.5f64; 1_000_000];
    let mut bytes = Vec::new();
    let used = measure(|| encode_value(&numbers, &mut bytes).unwrap());
    assert!(used.bytes_total < 8_100_000, "{used:?}");
    let mut read = None;
    let used = measure(|| read = decode_value::<Vec<f64>>(&bytes).ok());
    assert!(read == Some(numbers) && used.bytes_total < 8_100_000, "{used:?}");
}
