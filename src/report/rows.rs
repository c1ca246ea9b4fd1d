//! A row for each job of a journal or a job log: a table (CSV) or lines of JSON, written while the file is read.

use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use super::facts::{members, status_name};
use crate::console::in_one_line;
use crate::journal::JournalError;
use crate::journal::entries::{Entries, Entry};
use crate::journal::job::{Job, text_of};

/// Rows are handed on in blocks of about this size.
const BLOCK_BYTES: usize = 64 << 10;

/// The columns of the table before those of the record.
const COLUMNS: [&str; 18] = [
    "number",
    "status",
    "exit",
    "signal",
    "attempts",
    "host",
    "rank",
    "slot",
    "start",
    "seconds",
    "queued",
    "returned",
    "user",
    "system",
    "max_rss",
    "output_bytes",
    "message",
    "input",
];

/// A job as a line of JSON. Fields that are not known are absent.
#[derive(Serialize)]
struct Row<'a> {
    number: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
}

/// A journal or a job log whose jobs are written as rows.
pub(crate) struct Rows {
    entries: Entries,
}

impl Rows {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read, or is neither a journal nor a job log.
    pub(crate) fn open(path: &Path) -> Result<Rows, JournalError> {
        Ok(Rows { entries: Entries::open(path)? })
    }

    /// Writes a line of JSON for each job. `take` gets blocks of whole lines, and returns false if it wants no more.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn json(&self, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), JournalError> {
        self.write(take, &[], |job, block| {
            let Job { number, status, fields, .. } = job;
            let row = Row {
                number: *number,
                status: status_name(*status),
                exit: fields.exit,
                signal: fields.signal,
                attempts: fields.attempts,
                host: fields.host,
                rank: fields.rank,
                slot: fields.slot,
                start: fields.start,
                seconds: fields.seconds,
                queued: fields.queued,
                returned: fields.returned,
                user: fields.user,
                system: fields.system,
                max_rss: fields.max_rss,
                output_bytes: fields.output_bytes,
                message: fields.message,
                input: fields.input,
            };
            // A row of such values always has a JSON form.
            if let Ok(json) = serde_json::to_string(&row) {
                block.extend_from_slice(harmless_json(&json).as_bytes());
                block.push(b'\n');
            }
        })
    }

    /// Writes a table. The members of the first job's record have columns of their own, as `input.NAME`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn csv(&self, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), JournalError> {
        let names = self.names()?;
        let mut head: Vec<String> = COLUMNS.map(str::to_string).into();
        head.extend(names.iter().map(|name| format!("input.{}", in_one_line(name))));
        self.write(take, &line_of(&head), |job, block| {
            let Job { number, status, fields, .. } = job;
            let text = |value: Option<&RawValue>| value.map_or_else(String::new, |value| in_one_line(&text_of(value)));
            let mut cells = vec![number.to_string(), status_name(*status).to_string()];
            cells.extend([known(fields.exit), known(fields.signal), known(fields.attempts), text(fields.host)]);
            cells.extend([known(fields.rank), known(fields.slot), text(fields.start), known(fields.seconds)]);
            cells.extend([fields.queued, fields.returned, fields.user, fields.system].map(known));
            cells.extend([known(fields.max_rss), known(fields.output_bytes), text(fields.message)]);
            cells.push(fields.input.map_or_else(String::new, |input| harmless_json(input.get())));
            let members = fields.input.filter(|_| !names.is_empty()).map(members).unwrap_or_default();
            let member = |name: &String| members.iter().find(|(of, _)| of == name).map(|(_, value)| *value);
            cells.extend(names.iter().map(|name| text(member(name))));
            block.extend_from_slice(&line_of(&cells));
        })
    }

    /// Returns the names of the members of the first job's record.
    fn names(&self) -> Result<Vec<String>, JournalError> {
        let mut names = None;
        self.entries.for_each(|entry| {
            if let (Entry::Job(job), None) = (entry, &names) {
                let job = Job::new(job);
                let members = job.fields.input.map(members);
                names = members
                    .map(|members| members.into_iter().map(|(name, _)| name).filter(|name| !name.is_empty()).collect());
            }
        })?;
        Ok(names.unwrap_or_default())
    }

    fn write(
        &self,
        take: &mut dyn FnMut(&[u8]) -> bool,
        head: &[u8],
        row: impl Fn(&Job<'_>, &mut Vec<u8>),
    ) -> Result<(), JournalError> {
        let (mut block, mut is_wanted) = (head.to_vec(), true);
        self.entries.for_each(|entry| {
            if let (Entry::Job(job), true) = (entry, is_wanted) {
                row(&Job::new(job), &mut block);
                if block.len() >= BLOCK_BYTES {
                    is_wanted = take(&block);
                    block.clear();
                }
            }
        })?;
        if is_wanted && !block.is_empty() {
            take(&block);
        }
        Ok(())
    }
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Returns a line of a table.
fn line_of(cells: &[String]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail.
    let _ = writer.write_record(cells);
    writer.into_inner().unwrap_or_default()
}

/// Returns JSON in one line in which characters that a terminal would not simply show are escaped; its value is the same.
fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        let mut bytes = [0; 4];
        let text = &*character.encode_utf8(&mut bytes);
        match character {
            // Line ends and tabs stand between values only.
            '\n' | '\r' | '\t' => shown.push(' '),
            _ if crate::console::escaped(text) == text => shown.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_same_value_when_it_is_harmless() {
        let json = serde_json::to_string("a\u{9b}2J\u{202e}\u{7f}é\n\u{1b}").unwrap_or_default();
        let shown = harmless_json(&json);
        assert!(shown.is_ascii() || !shown.contains(['\u{9b}', '\u{202e}', '\u{7f}']), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).ok(), serde_json::from_str::<String>(&json).ok());
        assert_eq!(harmless_json("{\"a\":\n1}"), "{\"a\": 1}");
    }
}
