//! A table of numbers, read whole: data that all jobs share, such as samples.

use std::sync::Arc;

use super::csv::CsvRows;
use crate::input::Bytes;
use crate::input::error::{InputError, quote};
use crate::input::header::column_number;

/// Rows of numbers, all of the same length.
///
/// CSV with or without header. A first row in which no field is a number is a header; any other first row is data, so a
/// misspelt number in it is an error and not a header.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Numbers in each row; 0 if there is no row.
    pub columns: usize,
    /// Row after row. All are finite.
    pub values: Vec<f64>,
}

impl Table {
    pub(in crate::input) fn read(name: Arc<str>, bytes: Bytes, limit: usize) -> Result<Table, InputError> {
        let mut rows = CsvRows::new(name, bytes, limit);
        let mut table = Table { columns: 0, values: Vec::new() };
        let mut header: Option<Vec<String>> = None;
        let mut is_first = true;
        loop {
            let label = |column: usize| match header.as_ref().and_then(|names| names.get(column)) {
                Some(name) if !name.is_empty() => format!("column {}: ", quote(name)),
                _ => column_number(column),
            };
            let Some((place, row)) = rows.next_row(label)? else {
                return Ok(table);
            };
            if is_first {
                is_first = false;
                table.columns = row.len();
                if row.iter().all(|field| field.trim().parse::<f64>().is_err()) {
                    header = Some(row.iter().map(|name| name.trim().to_owned()).collect());
                    continue;
                }
            }
            if row.len() != table.columns {
                let (found, expected) = (row.len(), table.columns);
                return Err(InputError::Columns { place, found, expected, header: header.is_some() });
            }
            for (column, field) in row.iter().enumerate() {
                let fault = match field.trim().parse::<f64>() {
                    Ok(value) if value.is_finite() => {
                        table.values.push(value);
                        continue;
                    }
                    Ok(_) => "is not a finite number",
                    Err(_) => "is not a number",
                };
                return Err(InputError::Value { place, label: label(column), value: quote(field), fault });
            }
        }
    }
}
