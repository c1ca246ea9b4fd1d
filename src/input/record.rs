//! A record: one line or row of input, and its place.

use std::borrow::Cow;
use std::sync::Arc;

use csv::StringRecord;

use super::cell::{Cell, Label, Raw};
use super::error::{InputError, Place, quote};
use super::header::Header;
use super::json::{self, JsonText, Parts};

/// One line or row of input.
#[derive(Clone, Debug)]
pub struct Record {
    place: Place,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Line(Box<str>),
    /// As many fields as the header has columns.
    Row {
        header: Arc<Header>,
        fields: StringRecord,
    },
    Json(JsonText),
}

impl Record {
    pub(super) fn from_line(place: Place, text: Box<str>) -> Record {
        Record { place, content: Content::Line(text) }
    }

    pub(super) fn from_row(place: Place, header: Arc<Header>, fields: StringRecord) -> Record {
        Record { place, content: Content::Row { header, fields } }
    }

    pub(super) fn from_json(place: Place, json: JsonText) -> Record {
        Record { place, content: Content::Json(json) }
    }

    /// Returns where the record begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether its values have an order: a row or a JSON array, as against a JSON object or a single value.
    pub fn is_sequence(&self) -> bool {
        match &self.content {
            Content::Row { .. } => true,
            Content::Json(json) => json.as_str().starts_with('['),
            Content::Line(_) => false,
        }
    }

    /// Returns its column names or keys in order; none for an array, a line, or a row without header.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (columns, keys) = match &self.content {
            Content::Row { header, .. } => (Some(header.names()), None),
            Content::Json(json) => match json.parts() {
                Parts::Object(object) => (None, Some(object.keys())),
                Parts::Array(_) | Parts::Scalar => (None, None),
            },
            Content::Line(_) => (None, None),
        };
        columns.into_iter().flatten().chain(keys.into_iter().flatten()).map(String::as_str)
    }

    /// Returns the value of a column or key.
    pub fn get(&self, name: &str) -> Option<Cell<'_>> {
        match &self.content {
            Content::Line(_) => None,
            Content::Row { header, fields } => {
                let position = header.position(name)?;
                Some(self.cell(Label::Column(header, position), Raw::Field(fields.get(position)?)))
            }
            Content::Json(json) => match json.parts() {
                Parts::Object(object) => {
                    let (_, key, range) = object.get_full(name)?;
                    Some(self.cell(Label::Key(key), Raw::Json(json.part(range))))
                }
                Parts::Array(_) | Parts::Scalar => None,
            },
        }
    }

    /// Returns the value at a position, from 1: a field, an item, the value of a key. A line or single value is the first.
    pub fn position(&self, number: usize) -> Option<Cell<'_>> {
        let at = number.checked_sub(1)?;
        match &self.content {
            Content::Line(text) => (at == 0).then(|| self.cell(Label::Whole, Raw::Field(text))),
            Content::Row { header, fields } => {
                fields.get(at).map(|text| self.cell(Label::Column(header, at), Raw::Field(text)))
            }
            Content::Json(json) => match json.parts() {
                Parts::Object(object) => {
                    object.get_index(at).map(|(key, range)| self.cell(Label::Key(key), Raw::Json(json.part(range))))
                }
                Parts::Array(items) => {
                    items.get(at).map(|range| self.cell(Label::Item(at), Raw::Json(json.part(range))))
                }
                Parts::Scalar => (at == 0).then(|| self.cell(Label::Whole, Raw::Json(json.as_str()))),
            },
        }
    }

    /// Returns the value of a column or key.
    ///
    /// # Errors
    /// If there is none.
    pub fn require(&self, name: &str) -> Result<Cell<'_>, InputError> {
        self.get(name).ok_or_else(|| {
            let kind = if matches!(self.content, Content::Json(_)) { "key" } else { "column" };
            let names: Vec<&str> = self.names().collect();
            let present = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            InputError::Missing { place: self.place.clone(), what: format!("{kind} {}", quote(name)), present }
        })
    }

    /// Returns all its values in order: fields, items, values by key, or the single one.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        (1..).map_while(|number| self.position(number))
    }

    /// Returns the whole record as one text: a line; a JSON string without its quotes, any other JSON as it was written; the only
    /// field of a row, or several as they would be in their file.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Line(text) => Cow::Borrowed(text),
            Content::Row { fields, .. } if fields.len() == 1 => Cow::Borrowed(&fields[0]),
            Content::Row { header, fields } => Cow::Owned(header.row_text(fields)),
            Content::Json(json) => json::string(json.as_str()).unwrap_or(Cow::Borrowed(json.as_str())),
        }
    }

    /// Appends the record as one JSON value: JSON as it was written; a row as an object, or as an array if its columns have
    /// no names; a line as a single value. A text that is a JSON number becomes that number, unless `text_only`, and any
    /// other text a string: `1.5` and `1e3`, but `"007"`, `"+1"`, `"nan"`.
    pub fn push_json(&self, text_only: bool, out: &mut Vec<u8>) {
        match &self.content {
            Content::Line(text) => json::push_value(text, text_only, out),
            Content::Row { header, fields } => header.push_json(fields, text_only, out),
            Content::Json(json) => out.extend_from_slice(json.as_str().as_bytes()),
        }
    }

    /// Makes the error that this record is not of the kind `expected`.
    pub fn wrong_shape(&self, expected: &'static str) -> InputError {
        InputError::Shape { place: self.place.clone(), expected }
    }

    fn cell<'a>(&'a self, label: Label<'a>, raw: Raw<'a>) -> Cell<'a> {
        Cell { place: &self.place, label, raw }
    }
}
