mod all_inputs;
mod changes;
mod conversions;
mod csv_files;
mod json_lines;
mod line_files;
mod properties;
mod ranges;
mod sources;
mod sweeps;
mod tables;
mod texts;
mod tsv_files;

use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::{NamedTempFile, TempDir};

use super::readers::table::Table;
use super::source::Reader;
use super::source::Records;
use super::*;
use crate::kernels::Number::{Float, Int};
use crate::kernels::Summands;
use crate::kernels::convert::{index, integer, number, pair, summands, vector, width};

fn records(name: &str, text: impl Into<Vec<u8>>) -> Result<Records, InputError> {
    records_as(name, text, Layout::default())
}

/// The file's ending decides if the layout does not.
fn records_as(name: &str, text: impl Into<Vec<u8>>, layout: Layout) -> Result<Records, InputError> {
    let format = layout.format_of(Some(Path::new(name)));
    Records::new(name, Cursor::new(text.into()), Layout { format, ..layout })
}

/// Returns the result of `parse` for each record, with its place; errors as messages.
fn parsed<T>(
    name: &str,
    text: impl Into<Vec<u8>>,
    parse: impl Fn(&Record) -> Result<T, InputError>,
) -> Vec<Result<(u64, T), String>> {
    let one = |record: Result<Record, InputError>| {
        let record = record?;
        Ok((record.place().line, parse(&record)?))
    };
    match records(name, text) {
        Ok(records) => records.map(|record| one(record).map_err(|error: InputError| error.to_string())).collect(),
        Err(error) => vec![Err(error.to_string())],
    }
}

/// Returns only the values of a text without errors.
fn values<T>(name: &str, text: &str, parse: impl Fn(&Record) -> Result<T, InputError>) -> Vec<T> {
    parsed(name, text, parse).into_iter().map(|outcome| outcome.unwrap().1).collect()
}

/// Returns the only error of a text.
#[track_caller]
fn error<T>(name: &str, text: impl Into<Vec<u8>>, parse: impl Fn(&Record) -> Result<T, InputError>) -> String {
    let mut errors: Vec<String> = parsed(name, text, parse).into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn texts(record: &Record) -> Result<Vec<String>, InputError> {
    record.cells().map(|cell| Ok(cell.to_text().into_owned())).collect()
}
