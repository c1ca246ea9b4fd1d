//! A number in an input: an exact integer or a double.
//!
//! `2` and `2.0` are different inputs to [`power`](crate::kernels::power()): the first asks for an exact integer. Text formats get a
//! bare number (`9`, `0.5`), binary formats a tagged enum, because a format that does not describe itself cannot tell the
//! two apart when it reads them back. Serde's `is_human_readable` distinguishes the two kinds of format.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An exact integer of up to 128 bits, or a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Written without point and exponent.
    Int(i128),
    /// Everything else. Always finite when it was read from text.
    Float(f64),
}

impl Number {
    /// Returns the nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::Int(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Float(value)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(value) => value.fmt(f),
            // Debug keeps the point of 2.0, so that the kind of number survives being printed.
            Number::Float(value) => fmt::Debug::fmt(value, f),
        }
    }
}

/// The text is not a finite number, or an integer beyond 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a finite number")]
pub struct NotANumber;

impl FromStr for Number {
    type Err = NotANumber;

    /// Digits with an optional sign are an integer, and an error if they do not fit 128 bits: an integer is never rounded.
    fn from_str(text: &str) -> Result<Number, NotANumber> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Number::Int).map_err(|_| NotANumber);
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Number::Float(value)),
            _ => Err(NotANumber),
        }
    }
}

/// The form in binary formats.
#[derive(serde::Serialize, serde::Deserialize)]
enum Tagged {
    Int(i128),
    Float(f64),
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (serializer.is_human_readable(), *self) {
            (true, Number::Int(value)) => serializer.serialize_i128(value),
            (true, Number::Float(value)) => serializer.serialize_f64(value),
            (false, Number::Int(value)) => Tagged::Int(value).serialize(serializer),
            (false, Number::Float(value)) => Tagged::Float(value).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(BareNumber);
        }
        Ok(match Tagged::deserialize(deserializer)? {
            Tagged::Int(value) => Number::Int(value),
            Tagged::Float(value) => Number::Float(value),
        })
    }
}

struct BareNumber;

impl Visitor<'_> for BareNumber {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number::Int(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Number, E> {
        Ok(Number::Int(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
        Ok(Number::Float(value))
    }
}

#[cfg(test)]
mod tests {
    use super::Number::{Float, Int};
    use super::*;

    #[test]
    fn json_sees_a_bare_number_and_integers_stay_exact() {
        let text = |number: Number| serde_json::to_string(&number).unwrap();
        assert_eq!(text(Int(-7)), "-7");
        assert_eq!(text(Int(i128::MAX)), "170141183460469231731687303715884105727");
        assert_eq!(text(Float(2.0)), "2.0");
        assert_eq!(text(Float(0.1)), "0.1");
        let read = |text| serde_json::from_str::<Number>(text).unwrap();
        assert_eq!(read("-7"), Int(-7));
        assert_eq!(read("18446744073709551615"), Int(u64::MAX.into()));
        assert_eq!(read("7.0"), Float(7.0));
        assert!(serde_json::from_str::<Number>("\"7\"").is_err());
    }

    #[test]
    fn text_without_point_or_exponent_is_an_integer_and_is_never_rounded() {
        assert_eq!("12".parse(), Ok(Int(12)));
        assert_eq!("+12".parse(), Ok(Int(12)));
        assert_eq!("-0".parse(), Ok(Int(0)));
        assert_eq!("12.".parse(), Ok(Float(12.0)));
        assert_eq!("1e3".parse(), Ok(Float(1000.0)));
        assert_eq!("170141183460469231731687303715884105727".parse(), Ok(Int(i128::MAX)));
        assert_eq!("170141183460469231731687303715884105728".parse::<Number>(), Err(NotANumber));
        for bad in ["", "-", "nan", "inf", "1e999", "abc", "1 2", "0x10", "--1"] {
            assert_eq!(bad.parse::<Number>(), Err(NotANumber), "{bad:?}");
        }
    }

    #[test]
    fn display_reads_back_as_the_same_kind_of_number() {
        for number in [Int(0), Int(i128::MIN), Float(2.0), Float(-1.5e300), Float(1e-7)] {
            assert_eq!(number.to_string().parse(), Ok(number));
        }
    }
}
