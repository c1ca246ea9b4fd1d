//! Evenly spaced numbers, written `START:END[:STEP]`, exact to the last written digit.

use std::str::FromStr;

/// The numbers from a start to an end in equal steps; the end is included if a step hits it.
///
/// The numbers are decimals, not doubles: 0:1:0.1 is eleven numbers, and the fourth is 0.3. Each is computed by itself, so
/// nothing drifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// In units of the last decimal.
    start: i128,
    step: i128,
    /// Decimals behind the point.
    decimals: u32,
    count: u64,
}

/// Upper limit of the numbers and their differences, so that no product overflows.
const LARGEST: i128 = 10_i128.pow(30);
const MOST_DECIMALS: u32 = 30;

impl Range {
    /// Returns how many numbers there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number at an index, from 0, written as short as possible: `3`, `0.25`, `-7`.
    pub fn get(&self, index: u64) -> Option<String> {
        if index >= self.count {
            return None;
        }
        let value = self.start + self.step * i128::from(index);
        if self.decimals == 0 {
            return Some(value.to_string());
        }
        let sign = if value < 0 { "-" } else { "" };
        let unit = 10_u128.pow(self.decimals);
        let (whole, fraction) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
        let fraction = format!("{fraction:0width$}", width = self.decimals as usize);
        let text = format!("{sign}{whole}.{fraction}");
        Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (start, end, step) = match parts[..] {
            [start, end] => (start, end, "1"),
            [start, end, step] => (start, end, step),
            _ => return Err("not of the form START:END or START:END:STEP".into()),
        };
        let numbers = [Decimal::read(start)?, Decimal::read(end)?, Decimal::read(step)?];
        let decimals = numbers.iter().map(|number| number.decimals).max().unwrap_or(0);
        let too_long = || format!("numbers from {start} to {end} in steps of {step} have too many digits");
        let units = |number: &Decimal| number.in_units(decimals).ok_or_else(too_long);
        let (first, last, step_units) = (units(&numbers[0])?, units(&numbers[1])?, units(&numbers[2])?);
        let span = last - first;
        if step_units == 0 {
            return Err("the step is 0".into());
        }
        if span.signum() * step_units.signum() < 0 {
            let (direction, right) = if span < 0 { ("down", "-1") } else { ("up", "1") };
            return Err(format!(
                "from {start} to {end} it goes {direction}: write {start}:{end}:{right}, or another step"
            ));
        }
        let count = u64::try_from(span / step_units + 1).map_err(|_| format!("more than {} numbers", u64::MAX))?;
        Ok(Range { start: first, step: step_units, decimals, count })
    }
}

/// A number as it is written: its digits, and how many of them are behind the point.
struct Decimal {
    digits: i128,
    decimals: u32,
}

impl Decimal {
    fn read(text: &str) -> Result<Decimal, String> {
        let text = text.trim();
        let wrong = || format!("'{text}' is not a number");
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (is_negative, whole) = match whole.strip_prefix('-') {
            Some(whole) => (true, whole),
            None => (false, whole.strip_prefix('+').unwrap_or(whole)),
        };
        let written = format!("{whole}{fraction}");
        if written.is_empty() || !written.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let too_long = || format!("'{text}' has too many digits");
        let fraction = fraction.trim_end_matches('0');
        // The zero is for a mantissa such as `.0`, which leaves no digits.
        let magnitude: i128 = format!("0{whole}{fraction}").parse().map_err(|_| too_long())?;
        let digits = if is_negative { -magnitude } else { magnitude };
        let places = i64::try_from(fraction.len()).map_err(|_| too_long())? - i64::from(exponent);
        match u32::try_from(places) {
            Ok(decimals) if decimals <= MOST_DECIMALS => Ok(Decimal { digits, decimals }),
            Ok(_) => Err(too_long()),
            Err(_) => {
                let zeros = u32::try_from(-places).ok().filter(|&zeros| zeros <= MOST_DECIMALS).ok_or_else(too_long)?;
                let digits = digits.checked_mul(10_i128.pow(zeros)).ok_or_else(too_long)?;
                Ok(Decimal { digits, decimals: 0 })
            }
        }
    }

    fn in_units(&self, decimals: u32) -> Option<i128> {
        let units = self.digits.checked_mul(10_i128.pow(decimals - self.decimals))?;
        (units.abs() < LARGEST).then_some(units)
    }
}
