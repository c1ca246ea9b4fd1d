//! Squares, cubes, roots, powers and sums: jobs of nanoseconds, which show the cost of the pool itself.
//!
//! Integer inputs give exact integer results. If no exact or finite result exists, the job panics with its input in the message.

use serde::{Deserialize, Serialize};

use crate::input::Number::{self, Float, Int};

/// Returns x², exact for every `i64` (at most 2^126).
pub fn square(x: i64) -> i128 {
    i128::from(x) * i128::from(x)
}

/// Returns x³, exact.
///
/// # Panics
/// If x³ does not fit 128 bits, which begins at |x| of about 5.5·10^12.
pub fn cube(x: i64) -> i128 {
    match i128::from(x).checked_pow(3) {
        Some(cube) => cube,
        None => panic!("cube of {x} does not fit 128 bits"),
    }
}

/// Returns √x for x ≥ 0.
///
/// # Panics
/// If x is negative or NaN: there is no real root, and JSON has no NaN.
pub fn sqrt(x: f64) -> f64 {
    assert!(x >= 0.0, "sqrt of {x}: only a number from 0 up has a real square root");
    x.sqrt()
}

/// Returns x^y, with y as the context that is sent once to each rank.
///
/// Exact if both are integers and y ≥ 0; the double `x.powf(y)` otherwise. 0^0 is 1.
///
/// # Panics
/// If the exact result does not fit 128 bits, or the double is not finite (0^−1, (−8)^0.5, 10.0^400).
pub fn power(y: &Number, x: Number) -> Number {
    if let (Int(base), Int(exponent @ 0..)) = (x, *y) {
        return match exact_power(base, exponent) {
            Some(power) => Int(power),
            None => panic!("{x} to the power {y} does not fit 128 bits; {x}.0 would give a rounded answer"),
        };
    }
    let power = x.to_f64().powf(y.to_f64());
    assert!(power.is_finite(), "{x} to the power {y} is not a finite real number");
    Float(power)
}

/// Returns x^y for a pair (x, y): [`power`] with an exponent in each job.
///
/// # Panics
/// As [`power`].
pub fn power_of_pair((x, y): (Number, Number)) -> Number {
    power(&y, x)
}

fn exact_power(base: i128, exponent: i128) -> Option<i128> {
    match u32::try_from(exponent) {
        Ok(exponent) => base.checked_pow(exponent),
        // With such an exponent only the powers of 0, 1 and −1 fit; those of −1 depend on the exponent's last bit alone.
        Err(_) if (-1..=1).contains(&base) => base.checked_pow(2 + u32::from(exponent % 2 == 1)),
        Err(_) => None,
    }
}

/// The input of [`sum`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summands {
    /// The first summand.
    pub param1: Number,
    /// The second summand.
    pub param2: Number,
}

/// The result of [`sum`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// param1 + param2: an exact integer if both are integers, a double otherwise.
    pub sum: Number,
}

/// Returns param1 + param2 as an object.
///
/// # Panics
/// If the exact sum does not fit 128 bits, or the double is not finite.
pub fn sum(Summands { param1, param2 }: Summands) -> Sum {
    let sum = match (param1, param2) {
        (Int(a), Int(b)) => match a.checked_add(b) {
            Some(sum) => Int(sum),
            None => panic!("the sum of {a} and {b} does not fit 128 bits"),
        },
        _ => Float(param1.to_f64() + param2.to_f64()),
    };
    assert!(sum.to_f64().is_finite(), "the sum of {param1} and {param2} is not a finite number");
    Sum { sum }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// Returns the message of the panic of `job`.
    fn panic_message<T>(job: impl FnOnce() -> T + std::panic::UnwindSafe) -> String {
        match catch_unwind(job) {
            Ok(_) => panic!("the job answered"),
            Err(payload) => payload.downcast_ref::<String>().expect("a formatted message").clone(),
        }
    }

    #[test]
    fn square_is_exact_to_the_ends_of_the_input_range_and_prints_as_an_integer() {
        assert_eq!((0..10).map(square).collect::<Vec<_>>(), [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
        assert_eq!(serde_json::to_string(&square(i64::MIN)).unwrap(), "85070591730234615865843651857942052864");
    }

    #[test]
    fn cube_is_exact_while_it_fits_and_panics_with_its_input_beyond() {
        assert_eq!((1..7).map(cube).collect::<Vec<_>>(), [1, 8, 27, 64, 125, 216]);
        assert_eq!(cube(-5_541_191_377_756), -(5_541_191_377_756_i128.pow(3)));
        assert_eq!(panic_message(|| cube(5_541_191_377_757)), "cube of 5541191377757 does not fit 128 bits");
        assert_eq!(panic_message(|| cube(i64::MIN)), "cube of -9223372036854775808 does not fit 128 bits");
    }

    #[test]
    fn sqrt_takes_numbers_from_zero_up_and_refuses_the_rest() {
        assert_eq!(sqrt(0.0), 0.0);
        assert_eq!(sqrt(4900.0), 70.0);
        assert!(panic_message(|| sqrt(-4.0)).starts_with("sqrt of -4:"));
        assert!(panic_message(|| sqrt(f64::NAN)).starts_with("sqrt of NaN:"));
    }

    #[test]
    fn power_is_exact_for_integers_and_a_double_otherwise() {
        let squares: Vec<_> = (0..10).map(|x| power(&Int(2), Number::from(x))).collect();
        assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81].map(Int));
        assert_eq!(power(&Int(0), Int(0)), Int(1));
        assert_eq!(power(&Int(39), Int(-9)), Int(-(3_i128.pow(78))));
        assert_eq!(power(&Int(2), Float(1.5)), Float(2.25));
        assert_eq!(power(&Float(0.5), Int(9)), Float(3.0));
        assert_eq!(power(&Int(-1), Int(4)), Float(0.25));
        assert_eq!(power_of_pair((Int(2), Int(10))), Int(1024));
    }

    #[test]
    fn high_powers_of_one_and_minus_one_are_exact() {
        let far = i128::from(u32::MAX) + 2;
        assert_eq!(power(&Int(far), Int(-1)), Int(-1));
        assert_eq!(power(&Int(far + 1), Int(-1)), Int(1));
        assert_eq!(power(&Int(far), Int(0)), Int(0));
        assert!(panic_message(move || power(&Int(far), Int(2))).contains("does not fit 128 bits"));
    }

    #[test]
    fn a_power_that_is_not_a_finite_real_number_panics() {
        for (x, y) in [(Int(0), Int(-1)), (Int(-8), Float(0.5)), (Float(10.0), Int(400))] {
            let message = panic_message(move || power(&y, x));
            assert_eq!(message, format!("{x} to the power {y} is not a finite real number"));
        }
        assert!(panic_message(|| power(&Int(127), Int(2))).starts_with("2 to the power 127 does not fit"));
    }

    #[test]
    fn sum_takes_an_object_and_returns_an_object() {
        let line = |param1| serde_json::to_string(&sum(Summands { param1, param2: Int(15) })).unwrap();
        let sums = [10, 22, 35, 4, 532, 12, 42, 53, 23].map(|param1| line(Int(param1)));
        assert_eq!(sums, [25, 37, 50, 19, 547, 27, 57, 68, 38].map(|sum| format!("{{\"sum\":{sum}}}")));
        assert_eq!(line(Float(0.5)), "{\"sum\":15.5}");
        assert!(panic_message(|| sum(Summands { param1: Int(i128::MAX), param2: Int(1) })).contains("128 bits"));
    }
}
