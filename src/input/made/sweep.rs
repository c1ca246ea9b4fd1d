//! Sweeps: every combination of given values, and random draws.
//!
//! A record is computed from its index alone, so a sweep of any size takes no memory, and a part of it is the same wherever it is
//! computed.

use std::io::Cursor;
use std::str::FromStr;
use std::sync::Arc;

use csv::StringRecord;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_128;

use crate::input::MAX_RECORD_BYTES;
use crate::input::error::{InputError, Place, quote};
use crate::input::header::{Header, Separator, column_number};
use crate::input::readers::csv::CsvRows;
use crate::input::record::Record;

/// The values of one name, written `NAME=V1,V2,…`. A value with a comma stands in quotes, as in CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    name: String,
    values: Vec<String>,
}

/// The random numbers of one name, written `NAME=LOW:HIGH[:log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    name: String,
    kind: DrawKind,
    is_log: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum DrawKind {
    /// Both ends included.
    Integers(i64, i64),
    Numbers(f64, f64),
}

/// Every combination of the axes' values, the last axis fastest, each repeated with new draws.
#[derive(Debug)]
pub struct Sweep {
    axes: Vec<Axis>,
    draws: Vec<Draw>,
    /// Records for each combination.
    repeats: u64,
    seed: u64,
    count: u64,
    header: Arc<Header>,
    name: Arc<str>,
}

impl Sweep {
    /// Makes a sweep. With draws, each combination of the axes' values occurs `repeats` times; `None` means once if there are axes.
    ///
    /// # Errors
    /// A message, if a name occurs twice, `repeats` is missing, or there are too many combinations.
    pub fn new(axes: Vec<Axis>, draws: Vec<Draw>, repeats: Option<u64>, seed: u64) -> Result<Sweep, String> {
        if draws.is_empty() && repeats.is_some() {
            return Err("--count sets the number of samples, so it needs at least one --sample".into());
        }
        let repeats = match repeats {
            Some(repeats) => repeats,
            None if axes.is_empty() => {
                return Err("--sample needs --count N, the number of samples to draw".into());
            }
            None => 1,
        };
        let names = axes.iter().map(|axis| &axis.name).chain(draws.iter().map(|draw| &draw.name)).cloned().collect();
        let header = Header::new(names, Separator::Comma)
            .map_err(|name| format!("the name '{name}' is given twice among --grid and --sample"))?;
        let lengths = axes.iter().map(|axis| axis.values.len() as u64);
        let count = lengths.chain([repeats]).try_fold(1_u64, u64::checked_mul);
        let count = count.ok_or_else(|| format!("--grid has more than {} combinations", u64::MAX))?;
        let name = if axes.is_empty() { "--sample" } else { "--grid" }.into();
        Ok(Sweep { axes, draws, repeats, seed, count, header: Arc::new(header), name })
    }

    /// Returns how many records there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the record at an index, from 0.
    pub(in crate::input) fn record(&self, index: u64) -> Record {
        let mut combination = index / self.repeats.max(1);
        let mut chosen: Vec<&str> = Vec::with_capacity(self.axes.len());
        for axis in self.axes.iter().rev() {
            let length = axis.values.len() as u64;
            chosen.push(&axis.values[(combination % length) as usize]);
            combination /= length;
        }
        let mut fields: StringRecord = chosen.into_iter().rev().collect();
        for draw in &self.draws {
            fields.push_field(&draw.get(self.seed, index));
        }
        let place = Place { file: self.name.clone(), line: index + 1, column: None };
        Record::from_row(place, self.header.clone(), fields)
    }
}

impl Draw {
    /// Returns the value of the record at an index, which depends only on seed, name and index.
    ///
    /// The generator is `ChaCha8`: seed and name are its key, the index its stream.
    fn get(&self, seed: u64, index: u64) -> String {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..24].copy_from_slice(&xxh3_128(self.name.as_bytes()).to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(index);
        match (self.kind, self.is_log) {
            (DrawKind::Integers(low, high), false) => generator.random_range(low..=high).to_string(),
            (DrawKind::Integers(low, high), true) => {
                // Each integer stands for the interval up to the next one.
                let value = log_uniform(low as f64, high as f64 + 1.0, generator.random());
                (value.floor() as i64).clamp(low, high).to_string()
            }
            (DrawKind::Numbers(low, high), is_log) => {
                let part: f64 = generator.random();
                // Not `low + part * (high - low)`: the difference may be too large for a double.
                let value = if is_log { log_uniform(low, high, part) } else { low * (1.0 - part) + high * part };
                format!("{:?}", value.clamp(low, high))
            }
        }
    }
}

fn log_uniform(low: f64, high: f64, part: f64) -> f64 {
    (low.ln() * (1.0 - part) + high.ln() * part).exp()
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Axis, String> {
        let (name, values) = name_and_rest(text, "NAME=V1,V2,…")?;
        let bytes = Box::new(Cursor::new(values.to_owned()));
        let mut rows = CsvRows::new("--grid".into(), bytes, MAX_RECORD_BYTES);
        match (rows.next_row(column_number), rows.next_row(column_number)) {
            (Ok(Some((_, row))), Ok(None)) => Ok(Axis { name, values: row.iter().map(str::to_owned).collect() }),
            (Ok(None), _) => Err(format!("'{name}' has no values: write {name}=V1,V2,…")),
            (Err(InputError::Quote { place, fault } | InputError::Unclosed { place, fault }), _) => {
                Err(format!("{}, byte {}: {fault}", quote(values), place.column.unwrap_or(1)))
            }
            _ => Err(format!("the values of '{name}' hold a line break: put the value that has it in quotes")),
        }
    }
}

impl FromStr for Draw {
    type Err = String;

    fn from_str(text: &str) -> Result<Draw, String> {
        let (name, rest) = name_and_rest(text, "NAME=LOW:HIGH")?;
        let parts: Vec<&str> = rest.split(':').map(str::trim).collect();
        let (low, high, is_log) = match parts[..] {
            [low, high] => (low, high, false),
            [low, high, "log"] => (low, high, true),
            _ => return Err("not of the form NAME=LOW:HIGH or NAME=LOW:HIGH:log".into()),
        };
        let number = |text: &str| match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("'{text}' is not a number")),
        };
        let kind = match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) => DrawKind::Integers(low, high),
            _ => DrawKind::Numbers(number(low)?, number(high)?),
        };
        let (is_empty, is_positive) = match kind {
            DrawKind::Integers(low, high) => (low > high, low > 0),
            DrawKind::Numbers(low, high) => (low > high, low > 0.0),
        };
        if is_empty {
            return Err(format!("{low} is above {high}: the lower end comes first"));
        }
        if is_log && !is_positive {
            return Err(format!("with `log` both ends must be above 0, and {low} is not"));
        }
        Ok(Draw { name, kind, is_log })
    }
}

fn name_and_rest<'t>(text: &'t str, form: &str) -> Result<(String, &'t str), String> {
    match text.split_once('=') {
        Some((name, rest)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), rest)),
        _ => Err(format!("not of the form {form}")),
    }
}
