//! A record: what one line or row of input says, and where it says it.

use std::collections::HashMap;
use std::sync::Arc;

use csv::StringRecord;
use serde_json::Value;

use super::error::{InputError, Place, quote, shorten};
use crate::kernels::Number;

/// The column names of a CSV file.
#[derive(Debug, Default)]
pub(super) struct Header {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Header {
    /// An `Err` holds the name that occurs twice. Columns without a name can be many; they are reached by position.
    pub(super) fn new(names: Vec<String>) -> Result<Header, String> {
        let mut positions = HashMap::new();
        for (position, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if positions.insert(name.clone(), position).is_some() {
                return Err(name.clone());
            }
        }
        Ok(Header { names, positions })
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Names a column in messages.
    pub(super) fn label(&self, column: usize) -> String {
        match self.names.get(column) {
            Some(name) if !name.is_empty() => format!("column {}: ", quote(name)),
            _ => super::csv::column_number(column),
        }
    }
}

/// One line or row of input.
#[derive(Clone, Debug)]
pub struct Record {
    place: Place,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// As many fields as the header has names.
    Row {
        header: Arc<Header>,
        fields: StringRecord,
    },
    Json(Value),
}

impl Record {
    pub(super) fn from_row(place: Place, header: Arc<Header>, fields: StringRecord) -> Record {
        Record { place, content: Content::Row { header, fields } }
    }

    pub(super) fn from_json(place: Place, value: Value) -> Record {
        Record { place, content: Content::Json(value) }
    }

    /// Where the record begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether its values have an order: a row or a JSON array, as against a JSON object or a single value.
    pub fn is_sequence(&self) -> bool {
        matches!(&self.content, Content::Row { .. } | Content::Json(Value::Array(_)))
    }

    /// Its column names or keys, in order; none for an array or a single value.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (columns, keys) = match &self.content {
            Content::Row { header, .. } => (Some(header.names.iter()), None),
            Content::Json(Value::Object(object)) => (None, Some(object.keys())),
            Content::Json(_) => (None, None),
        };
        columns.into_iter().flatten().chain(keys.into_iter().flatten()).map(String::as_str)
    }

    /// The value under that column name or key.
    pub fn get(&self, name: &str) -> Option<Cell<'_>> {
        match &self.content {
            Content::Row { header, fields } => {
                let position = *header.positions.get(name)?;
                let raw = Raw::Field(fields.get(position)?);
                Some(Cell { place: &self.place, label: Label::Column(header, position), raw })
            }
            Content::Json(value) => {
                let (key, value) = value.as_object()?.get_key_value(name)?;
                Some(Cell { place: &self.place, label: Label::Key(key), raw: Raw::Json(value) })
            }
        }
    }

    /// The value under that column name or key.
    ///
    /// # Errors
    /// If there is none.
    pub fn require(&self, name: &str) -> Result<Cell<'_>, InputError> {
        self.get(name).ok_or_else(|| {
            let (place, kind) = (self.place.clone(), if self.is_json() { "key" } else { "column" });
            let names: Vec<&str> = self.names().collect();
            let present = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            InputError::Missing { place, what: format!("{kind} {}", quote(name)), present }
        })
    }

    /// All its values in order: fields, items, values by key, or the single one.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let cell = |label, raw| Cell { place: &self.place, label, raw };
        let cells: Box<dyn Iterator<Item = Cell<'_>>> = match &self.content {
            Content::Row { header, fields } => Box::new(
                fields.iter().enumerate().map(move |(i, text)| cell(Label::Column(header, i), Raw::Field(text))),
            ),
            Content::Json(Value::Array(items)) => {
                Box::new(items.iter().enumerate().map(move |(i, value)| cell(Label::Item(i), Raw::Json(value))))
            }
            Content::Json(Value::Object(object)) => {
                Box::new(object.iter().map(move |(key, value)| cell(Label::Key(key), Raw::Json(value))))
            }
            Content::Json(value) => Box::new(std::iter::once(cell(Label::Whole, Raw::Json(value)))),
        };
        cells
    }

    /// That this record is of another kind than `expected`.
    pub fn wrong_shape(&self, expected: &'static str) -> InputError {
        InputError::Shape { place: self.place.clone(), expected }
    }

    fn is_json(&self) -> bool {
        matches!(self.content, Content::Json(_))
    }
}

/// One value of a record. Its getters name file, line and column when they fail.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    place: &'a Place,
    label: Label<'a>,
    raw: Raw<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Label<'a> {
    Column(&'a Header, usize),
    Item(usize),
    Key(&'a str),
    Whole,
}

#[derive(Clone, Copy, Debug)]
enum Raw<'a> {
    Field(&'a str),
    Json(&'a Value),
}

impl<'a> Cell<'a> {
    /// An integer of 64 bits. A field may have blanks around it; a number with a point is not an integer.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn integer(&self) -> Result<i64, InputError> {
        match self.exact_integer() {
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => Err(self.wrong("does not fit a 64-bit integer")),
            None => Err(self.wrong("is not an integer")),
        }
    }

    /// A finite double: the one nearest to what is written.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn float(&self) -> Result<f64, InputError> {
        let value = match self.raw {
            Raw::Field(text) => text.trim().parse().ok(),
            Raw::Json(value) => value.as_f64(),
        };
        match value {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => Err(self.wrong("is not a finite number")),
            None => Err(self.wrong("is not a number")),
        }
    }

    /// An exact integer or a finite double. JSON integers beyond 64 bits arrive as doubles; those in CSV keep 128 bits.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn number(&self) -> Result<Number, InputError> {
        let number = match self.raw {
            Raw::Field(text) => text.trim().parse().ok(),
            Raw::Json(Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Some(Number::Int(value.into())),
                (None, Some(value)) => Some(Number::Int(value.into())),
                (None, None) => number.as_f64().map(Number::Float),
            },
            Raw::Json(_) => None,
        };
        number.ok_or_else(|| self.wrong("is not a number"))
    }

    /// The text of a field or of a JSON string, blanks included.
    ///
    /// # Errors
    /// If it is another JSON value.
    pub fn text(&self) -> Result<&'a str, InputError> {
        match self.raw {
            Raw::Field(text) => Ok(text),
            Raw::Json(Value::String(text)) => Ok(text),
            Raw::Json(_) => Err(self.wrong("is not a string")),
        }
    }

    /// That this value is not what it should be; `fault` reads as `is not a number`.
    pub fn wrong(&self, fault: &'static str) -> InputError {
        let value = match self.raw {
            Raw::Field(text) => quote(text),
            Raw::Json(value) => shorten(&value.to_string()),
        };
        let label = match self.label {
            Label::Column(header, position) => header.label(position),
            Label::Item(position) => format!("item {}: ", position + 1),
            Label::Key(key) => format!("key {}: ", quote(key)),
            Label::Whole => String::new(),
        };
        InputError::Value { place: self.place.clone(), label, value, fault }
    }

    /// `None` if it is not written as an integer, `Some(Err)` if it is too large a one.
    fn exact_integer(&self) -> Option<Result<i64, TooLarge>> {
        match self.raw {
            Raw::Field(text) => {
                let text = text.trim();
                let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
                let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                is_integer.then(|| text.parse().map_err(|_| TooLarge))
            }
            Raw::Json(value) => match (value.as_i64(), value.as_u64()) {
                (Some(value), _) => Some(Ok(value)),
                (None, Some(_)) => Some(Err(TooLarge)),
                (None, None) => None,
            },
        }
    }
}

struct TooLarge;
