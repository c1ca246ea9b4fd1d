//! A line of a job log as it is read back.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Status;
use crate::input::MAX_RECORD_BYTES;

/// The longest line: a record of the greatest length with each character escaped, and the other fields.
pub(super) const MAX_LINE_BYTES: usize = 7 * MAX_RECORD_BYTES;

/// The fields of an entry that are read; others are ignored.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub number: u64,
    #[serde(borrow)]
    pub input: &'a RawValue,
    pub status: Status,
    #[serde(borrow, default)]
    pub output: Option<Place<'a>>,
}

/// The place of a job's output in an entry.
#[derive(Deserialize)]
pub(super) struct Place<'a> {
    #[serde(borrow)]
    pub file: Cow<'a, str>,
    pub at: u64,
    pub length: u64,
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
}
