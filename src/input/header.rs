//! The columns of a table: their names, and rows as text or JSON.

use std::collections::HashMap;

use ::csv::{StringRecord, WriterBuilder};

use super::error::{quote, shorten};
use super::json::{push_string, push_value};

/// The columns of a table.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// One for each column, or empty.
    names: Vec<String>,
    positions: HashMap<String, usize>,
    columns: usize,
    /// For each column its key in a JSON object, as `"name":`.
    json_keys: Vec<Vec<u8>>,
    separator: Separator,
}

/// The separator of the fields of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Separator {
    #[default]
    Comma,
    Tab,
}

impl Header {
    /// Makes a header; an `Err` holds the name that occurs twice. Several columns may have no name: they are reached by position.
    pub(super) fn new(names: Vec<String>, separator: Separator) -> Result<Header, String> {
        let mut positions = HashMap::new();
        for (position, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if positions.insert(name.clone(), position).is_some() {
                return Err(name.clone());
            }
        }
        let key = |(position, name): (usize, &String)| {
            let mut key = Vec::new();
            // The key of a column without a name is its number, as in a template.
            let number = (position + 1).to_string();
            push_string(if name.is_empty() { &number } else { name }, &mut key);
            key.push(b':');
            key
        };
        let json_keys = names.iter().enumerate().map(key).collect();
        Ok(Header { columns: names.len(), names, positions, json_keys, separator })
    }

    /// A single column.
    pub(super) fn of_one(name: String) -> Header {
        // One name cannot occur twice.
        Header::new(vec![name], Separator::Comma).unwrap_or_default()
    }

    /// `columns` columns without names.
    pub(super) fn without_names(columns: usize, separator: Separator) -> Header {
        Header { columns, separator, ..Header::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.columns
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// Returns the name of a column for messages.
    pub(super) fn label(&self, column: usize) -> String {
        match self.names.get(column) {
            Some(name) if !name.is_empty() => format!("column {}: ", quote(name)),
            _ => column_number(column),
        }
    }

    /// Returns a row as it would be in its file.
    pub(super) fn row_text(&self, fields: &StringRecord) -> String {
        if self.separator == Separator::Tab {
            return fields.iter().collect::<Vec<_>>().join("\t");
        }
        let mut writer = WriterBuilder::new().has_headers(false).buffer_capacity(256).from_writer(Vec::new());
        // Writing to memory does not fail, and the fields are UTF-8.
        let _ = writer.write_record(fields);
        let mut bytes = writer.into_inner().unwrap_or_default();
        // The end of the line.
        bytes.pop();
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Appends a row as a JSON object, or as an array if the columns have no names.
    pub(super) fn push_json(&self, fields: &StringRecord, text_only: bool, out: &mut Vec<u8>) {
        let is_object = !self.names.is_empty();
        out.push(if is_object { b'{' } else { b'[' });
        for (position, field) in fields.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.json_keys.get(position).map_or(&[], Vec::as_slice));
            push_value(field, text_only, out);
        }
        out.push(if is_object { b'}' } else { b']' });
    }
}

/// Reads the names in the first row, without the blanks around them. `is_sure`: the user has said that these are names.
pub(super) fn read_header(row: &StringRecord, separator: Separator, is_sure: bool) -> Result<Header, String> {
    let names: Vec<String> = row.iter().map(|name| name.trim().to_owned()).collect();
    // Otherwise a file without header would silently lose its first job.
    if !is_sure && names.iter().all(|name| name.parse::<f64>().is_ok()) {
        let (row, kind) = match separator {
            Separator::Comma => (shorten(&names.join(",")), "CSV"),
            Separator::Tab => (shorten(&names.join("\t")), "TSV"),
        };
        return Err(format!(
            "the first line is '{row}'; a {kind} file of jobs begins with the names of its columns (--no-header: it has no \
             names; --header: these are its names)"
        ));
    }
    Header::new(names, separator).map_err(|name| format!("two columns have the name {}", quote(&name)))
}

/// Returns the name for messages of a field of a row without header.
pub(super) fn column_number(column: usize) -> String {
    format!("column {}: ", column + 1)
}
