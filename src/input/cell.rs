//! One value of a record, and its conversions.

use std::borrow::Cow;

use super::error::{InputError, Place, quote, shorten};
use super::header::Header;
use super::json;
use super::number::Number;

/// One value of a record. Errors of its getters name file, line and column.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    pub(super) place: &'a Place,
    pub(super) label: Label<'a>,
    pub(super) raw: Raw<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Label<'a> {
    Column(&'a Header, usize),
    Item(usize),
    Key(&'a str),
    Whole,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Field(&'a str),
    /// One JSON value, as it was written.
    Json(&'a str),
}

impl<'a> Cell<'a> {
    /// Returns an integer of 64 bits. A field may have blanks around it; a number with a point is not an integer.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn integer(&self) -> Result<i64, InputError> {
        match self.digits() {
            Some(text) => text.parse().map_err(|_| self.wrong("does not fit a 64-bit integer")),
            None => Err(self.wrong("is not an integer")),
        }
    }

    /// Returns the finite double nearest to the written number.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn float(&self) -> Result<f64, InputError> {
        match self.number_text().and_then(|text| text.parse::<f64>().ok()) {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => Err(self.wrong("is not a finite number")),
            None => Err(self.wrong("is not a number")),
        }
    }

    /// Returns an exact integer of up to 128 bits or a finite double.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn number(&self) -> Result<Number, InputError> {
        match (self.number_text().and_then(|text| text.parse().ok()), self.digits()) {
            (Some(number), _) => Ok(number),
            (None, Some(_)) => Err(self.wrong("does not fit a 128-bit integer")),
            (None, None) => Err(self.wrong("is not a number")),
        }
    }

    /// Returns any value as text: a field, a JSON string without its quotes, any other JSON as it was written.
    pub fn to_text(self) -> Cow<'a, str> {
        match self.raw {
            Raw::Field(text) => Cow::Borrowed(text),
            Raw::Json(value) => json::string(value).unwrap_or(Cow::Borrowed(value)),
        }
    }

    /// Makes the error that this value is wrong; `fault` reads as `is not a number`.
    pub fn wrong(&self, fault: &'static str) -> InputError {
        let value = match self.raw {
            Raw::Field(text) => quote(text),
            Raw::Json(value) => shorten(value),
        };
        let label = match self.label {
            Label::Column(header, position) => header.label(position),
            Label::Item(position) => format!("item {}: ", position + 1),
            Label::Key(key) => format!("key {}: ", quote(key)),
            Label::Whole => String::new(),
        };
        InputError::Value { place: self.place.clone(), label, value, fault }
    }

    /// Returns the text if it may be a number; JSON that is not one is left out.
    fn number_text(&self) -> Option<&'a str> {
        match self.raw {
            Raw::Field(text) => Some(text.trim()),
            Raw::Json(value) => {
                value.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then_some(value)
            }
        }
    }

    /// Returns the text if it is written as an integer.
    fn digits(&self) -> Option<&'a str> {
        let text = self.number_text()?;
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
    }
}
