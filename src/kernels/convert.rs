//! Reads the inputs of the built-in functions from records.
//!
//! Each function here reads one record. Columns that it does not name are ignored, so that a table of results can be read as a
//! table of jobs.

use super::{Number, Summands};
use crate::input::{Cell, InputError, Record};

/// The names of a single value among others, in the order in which they are tried.
pub const SINGLE_VALUE_NAMES: [&str; 4] = ["x", "n", "index", "h"];

/// Returns a 64-bit integer: see [`single`].
///
/// # Errors
/// If the record has no single value, or it is not an integer.
pub fn integer(record: &Record) -> Result<i64, InputError> {
    single(record)?.integer()
}

/// Returns a job index: an integer from 0 up, see [`single`].
///
/// # Errors
/// If the record has no single value, or it is not an integer, or it is negative.
pub fn index(record: &Record) -> Result<u64, InputError> {
    let cell = single(record)?;
    cell.integer()?.try_into().map_err(|_| cell.wrong("is negative"))
}

/// Returns a finite double: see [`single`].
///
/// # Errors
/// If the record has no single value, or it is not a finite number.
pub fn float(record: &Record) -> Result<f64, InputError> {
    single(record)?.float()
}

/// Returns a window width: a finite double above 0, see [`single`].
///
/// # Errors
/// If the record has no single value, or it is not a positive finite number.
pub fn width(record: &Record) -> Result<f64, InputError> {
    let cell = single(record)?;
    match cell.float()? {
        width if width > 0.0 => Ok(width),
        _ => Err(cell.wrong("is not above 0")),
    }
}

/// Returns an exact integer or finite double: see [`single`].
///
/// # Errors
/// If the record has no single value, or it is not a number.
pub fn number(record: &Record) -> Result<Number, InputError> {
    single(record)?.number()
}

/// Returns (x, y): the columns or keys `x` and `y` if one of them exists, else the two values of a row or JSON array of two.
///
/// # Errors
/// If there are not two, or they are not numbers.
pub fn pair(record: &Record) -> Result<(Number, Number), InputError> {
    if record.get("x").is_some() || record.get("y").is_some() {
        return Ok((record.require("x")?.number()?, record.require("y")?.number()?));
    }
    let mut cells = record.cells();
    match (cells.next(), cells.next(), cells.next()) {
        (Some(x), Some(y), None) if record.is_sequence() => Ok((x.number()?, y.number()?)),
        _ => Err(record.wrong_shape("two values, or the names 'x' and 'y'")),
    }
}

/// Returns the columns or keys `param1` and `param2`.
///
/// # Errors
/// If one is missing or not a number.
pub fn summands(record: &Record) -> Result<Summands, InputError> {
    Ok(Summands { param1: record.require("param1")?.number()?, param2: record.require("param2")?.number()? })
}

/// Returns a vector of any length: the columns or keys `p1`, `p2`, … without a gap if there are any, wherever they stand, else all
/// columns of a row or all items of a JSON array.
///
/// # Errors
/// If a value is not a finite number, one of `p1`, `p2`, … is missing, or the record is a single JSON value.
pub fn vector(record: &Record) -> Result<Vec<f64>, InputError> {
    let count = record.names().filter(|name| is_component(name)).count();
    if count > 0 {
        return (1..=count).map(|i| record.require(&format!("p{i}"))?.float()).collect();
    }
    if record.is_sequence() {
        return record.cells().map(|cell| cell.float()).collect();
    }
    Err(record.wrong_shape("an array of numbers, or the names 'p1', 'p2' and so on"))
}

/// Returns the single value of a record: a JSON value that is neither array nor object; the first of the columns or keys `x`, `n`,
/// `index` and `h` that exists; or the only column, item or key.
///
/// # Errors
/// If there are several and none has such a name, or there is none.
pub fn single(record: &Record) -> Result<Cell<'_>, InputError> {
    if let Some(cell) = SINGLE_VALUE_NAMES.iter().find_map(|name| record.get(name)) {
        return Ok(cell);
    }
    let mut cells = record.cells();
    match (cells.next(), cells.next()) {
        (Some(cell), None) => Ok(cell),
        _ => Err(record.wrong_shape("one value, or the name 'x' (or 'n', 'index', 'h')")),
    }
}

/// Whether a name is `p` followed by a number from 1 up.
fn is_component(name: &str) -> bool {
    name.strip_prefix('p').is_some_and(|digits| {
        !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}
