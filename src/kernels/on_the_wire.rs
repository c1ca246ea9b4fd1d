//! Inputs and results of the built-in functions survive the binary encoding in which chunks travel.

use super::{Number, Parzen, RandString, Summands, cube, parzen, rand_string, square, sum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::wire;

fn there_and_back<T: Serialize + DeserializeOwned>(value: &T) -> T {
    wire::decode(&wire::encode(value).unwrap()).unwrap()
}

#[test]
fn numbers_keep_their_kind_and_every_bit() {
    for value in [i128::MIN, -1, 0, i64::MAX.into(), i128::MAX] {
        assert_eq!(there_and_back(&Number::Int(value)), Number::Int(value));
    }
    for value in [2.0, -0.1, f64::MAX, f64::MIN_POSITIVE] {
        assert_eq!(there_and_back(&Number::Float(value)), Number::Float(value));
    }
}

#[test]
fn inputs_contexts_and_answers_survive() {
    let summands = Summands { param1: Number::Int(3), param2: Number::Float(0.5) };
    assert_eq!(there_and_back(&summands), summands);
    assert_eq!(there_and_back(&sum(summands)), sum(summands));
    assert_eq!(there_and_back(&square(i64::MIN)), square(i64::MIN));
    assert_eq!(there_and_back(&cube(-3)), -27);
    let strings = RandString { seed: u64::MAX, length: 5 };
    assert_eq!(there_and_back(&rand_string(&strings, 9)), rand_string(&there_and_back(&strings), 9));
    let context = Parzen::new(2, vec![0.1, 0.2, 0.3, 0.4], vec![0.0, 0.0]).unwrap();
    assert_eq!(there_and_back(&context), context);
    assert_eq!(there_and_back(&parzen(&context, 0.5)), parzen(&context, 0.5));
}
