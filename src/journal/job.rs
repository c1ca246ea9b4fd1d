//! One job as a journal or a job log describes it.

use std::borrow::Cow;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Status;
use super::entries::JobEntryRead;

/// A job. What its entry does not say is `None`.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub number: u64,
    pub status: Status,
    pub fields: Fields<'a>,
    /// In µs since 1970.
    pub start_us: Option<u64>,
    /// Its wall time.
    pub ns: Option<u64>,
    /// Whether its description could not be read.
    pub is_garbled: bool,
    /// The end of its standard error, as far as it is known.
    pub stderr: &'a [u8],
}

/// The fields of the description that a report uses. Texts are decoded when they are shown.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Fields<'a> {
    #[serde(borrow, default)]
    pub input: Option<&'a RawValue>,
    #[serde(default)]
    pub attempts: Option<u32>,
    #[serde(borrow, default)]
    pub host: Option<&'a RawValue>,
    #[serde(default)]
    pub rank: Option<u32>,
    #[serde(default)]
    pub slot: Option<u64>,
    #[serde(borrow, default)]
    pub start: Option<&'a RawValue>,
    #[serde(default)]
    pub seconds: Option<f64>,
    #[serde(default)]
    pub user: Option<f64>,
    #[serde(default)]
    pub system: Option<f64>,
    #[serde(default)]
    pub max_rss: Option<u64>,
    #[serde(default)]
    pub output_bytes: Option<u64>,
    #[serde(default)]
    pub exit: Option<i32>,
    #[serde(default)]
    pub signal: Option<i32>,
    #[serde(borrow, default)]
    pub message: Option<&'a RawValue>,
    /// How long it waited from when its record was read until its last attempt began, in s.
    #[serde(default)]
    pub queued: Option<f64>,
    /// How long it took from the end of its last attempt until rank 0 had its result, in s.
    #[serde(default)]
    pub returned: Option<f64>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(entry: &JobEntryRead<'a>) -> Job<'a> {
        let read = entry.description.map(serde_json::from_slice::<Fields<'a>>);
        let is_garbled = matches!(read, Some(Err(_)));
        let fields = read.and_then(Result::ok).unwrap_or_default();
        let start_us = fields.start.and_then(plain_text).and_then(micros);
        let ns = fields.seconds.filter(|seconds| *seconds >= 0.0).map(|seconds| (seconds * 1e9) as u64);
        Job { number: entry.number, status: entry.status, fields, start_us, ns, is_garbled, stderr: entry.stderr }
    }

    /// Whether it was run and did not succeed.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(self.status, Status::Ok | Status::Cancelled)
    }

    /// Returns when its last attempt began and ended, in µs since 1970.
    pub(crate) fn span_us(&self) -> Option<(u64, u64)> {
        let (start, ns) = self.start_us.zip(self.ns)?;
        Some((start, start.saturating_add(ns / 1000)))
    }

    /// Returns the CPU time of its processes, in s.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        Some(self.fields.user? + self.fields.system?)
    }

    pub(crate) fn host(&self) -> Option<Cow<'a, str>> {
        self.fields.host.map(text_of)
    }

    pub(crate) fn message(&self) -> Option<Cow<'a, str>> {
        self.fields.message.map(text_of)
    }
}

/// Returns the text of a JSON string without escapes.
fn plain_text(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains('\\'))
}

/// Returns the text of a JSON string, or other JSON as it is.
pub(crate) fn text_of(json: &RawValue) -> Cow<'_, str> {
    match plain_text(json) {
        Some(text) => Cow::Borrowed(text),
        None => serde_json::from_str(json.get()).map_or(Cow::Borrowed(json.get()), Cow::Owned),
    }
}

/// Reads a time as RFC 3339 writes it, in µs since 1970.
pub(crate) fn micros(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(description: &str) -> Job<'_> {
        Job::new(&JobEntryRead {
            number: 3,
            status: Status::Failed,
            description: Some(description.as_bytes()),
            stderr: &[],
        })
    }

    #[test]
    fn what_an_entry_does_not_say_is_not_known() {
        let bare = job("{}");
        assert_eq!((bare.span_us(), bare.cpu_seconds(), bare.host(), bare.is_garbled), (None, None, None, false));
        let full = job(
            r#"{"input":{"x":1},"host":"n\u0031","start":"1970-01-01T00:00:01.500Z","seconds":0.25,"user":0.1,"system":0.2,"later":[]}"#,
        );
        assert_eq!(full.span_us(), Some((1_500_000, 1_750_000)));
        assert_eq!((full.host().as_deref(), full.fields.input.map(RawValue::get)), (Some("n1"), Some("{\"x\":1}")));
        assert!((full.cpu_seconds().unwrap_or_default() - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_description_that_is_none_is_garbled_and_nothing_else() {
        for text in ["", "{", "7", r#"{"seconds":"x"}"#, "\u{0}"] {
            assert!(job(text).is_garbled, "{text}");
        }
        for text in [r#"{"start":"yesterday","seconds":-1}"#, r#"{"start":7,"seconds":1e300,"rank":null}"#] {
            assert_eq!(job(text).start_us, None, "{text}");
        }
    }
}
