//! JSON: a value kept as it was written, and values written into JSON.
//!
//! A value is checked when it is read and parsed only when a part of it is used. So it is passed on unchanged: integers of any
//! size, the digits of a float, the order of the keys.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use indexmap::IndexMap;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::error::NOT_UTF_8;

/// A JSON value as it was written.
#[derive(Clone, Debug)]
pub(super) struct JsonText {
    text: Box<str>,
    parts: OnceLock<Parts>,
}

/// The ranges of the parts of a value in its text.
#[derive(Clone, Debug)]
pub(super) enum Parts {
    Object(IndexMap<String, Range<usize>>),
    Array(Vec<Range<usize>>),
    Scalar,
}

impl JsonText {
    /// Checks a line; an `Err` holds the column of the fault, from 1, and a message.
    pub(super) fn new(line: &[u8]) -> Result<JsonText, (usize, String)> {
        let value: &RawValue = serde_json::from_slice(line).map_err(|error| match std::str::from_utf8(line) {
            Ok(_) => explain(&error),
            Err(error) => (error.valid_up_to() + 1, format!("this {NOT_UTF_8}")),
        })?;
        let text = value.get();
        if let Some(at) = lone_surrogate(text.as_bytes()) {
            let column = line.len() - line.trim_ascii_start().len() + at + 1;
            return Err((column, "half of a character in a \\u escape (lone surrogate)".to_owned()));
        }
        Ok(JsonText { text: text.into(), parts: OnceLock::new() })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    pub(super) fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| {
            let text: &str = &self.text;
            let range = |part: &RawValue| {
                let start = part.get().as_ptr() as usize - text.as_ptr() as usize;
                start..start + part.get().len()
            };
            // The text was checked, so parsing as an object or array succeeds.
            match text.as_bytes().first() {
                Some(b'{') => serde_json::from_str::<IndexMap<String, &RawValue>>(text)
                    .map_or(Parts::Scalar, |object| {
                        Parts::Object(object.into_iter().map(|(key, value)| (key, range(value))).collect())
                    }),
                Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
                    .map_or(Parts::Scalar, |items| Parts::Array(items.into_iter().map(range).collect())),
                _ => Parts::Scalar,
            }
        })
    }
}

fn explain(error: &serde_json::Error) -> (usize, String) {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let mut message = text.strip_suffix(&position).unwrap_or(&text).to_owned();
    if error.classify() == Category::Eof {
        // The usual cause is a JSON document on several lines.
        message.push_str(" (each line must hold a whole JSON value)");
    }
    (error.column(), message)
}

/// Returns the position of a lone surrogate in an escape, which makes a string invalid for every reader.
fn lone_surrogate(json: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(found) = json.get(at..)?.iter().position(|&byte| byte == b'\\') {
        at += found;
        at += match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => 6,
            None => 2,
        };
    }
    None
}

/// Returns the text of a JSON string; `None` for any other value.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Whether a text is a JSON number, and, if it is not an integer, in the range of a double.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_written_so = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits);
    let is_integer = fraction.is_none() && exponent.is_none();
    is_written_so && (is_integer || text.parse::<f64>().is_ok_and(f64::is_finite))
}

/// Appends a text as a JSON value: a number if it is one, otherwise a string.
pub(super) fn push_value(text: &str, text_only: bool, out: &mut Vec<u8>) {
    if !text_only && is_number(text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_string(text, out);
    }
}

/// Appends a text as a JSON string.
pub(super) fn push_string(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail, and every text is a JSON string.
    let _ = serde_json::to_writer(out, text);
}
