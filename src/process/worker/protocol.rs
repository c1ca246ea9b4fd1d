//! The protocols between a rank and a worker, line by line.
//!
//! In the plain protocol, for programs of users, a record is a JSON line, its answer is a JSON line, and `{"error": …}` is a
//! failure. The protocol of the Python side is described in `shim.py`.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JobHead, WorkerFailure};
use crate::console::shortened;

/// The protocol of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON lines.
    Lines,
    /// JSON lines with the record's number in each, both ways.
    Numbered,
    /// The protocol of `shim.py`, with up to `batch` records in a request.
    Python { batch: usize },
}

/// A line from a worker.
#[derive(Debug)]
pub(super) enum Reply<'a> {
    /// The process runs. The version of Python in this line is read by [`first_line`](super::prestarted::first_line).
    Runs,
    Ready,
    CannotStart(WorkerFailure),
    /// The answer to one record, and the time that it took if the worker reports it.
    One(Option<Duration>, Result<&'a str, WorkerFailure>),
    /// The answer to the record with this number.
    Numbered(u64, Result<&'a str, WorkerFailure>),
    /// The answers to all records of a batch.
    Many(Duration, Vec<&'a RawValue>),
    /// A line that the protocol does not allow; the description is for a message.
    Garbage(String),
}

/// A record to send.
pub(super) struct Outgoing<'a> {
    pub head: JobHead,
    pub json: &'a [u8],
}

impl Protocol {
    pub(super) fn batch(self) -> usize {
        match self {
            Protocol::Lines | Protocol::Numbered => 1,
            Protocol::Python { batch } => batch.max(1),
        }
    }

    /// Whether the worker is a program of the user's, not `shim.py`.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Protocol::Lines | Protocol::Numbered)
    }

    /// Whether the worker reports that it is ready.
    pub(super) fn announces(self) -> bool {
        matches!(self, Protocol::Python { .. })
    }

    /// Appends one request to `out`. `batched`: the function takes lists of records.
    pub(super) fn request<'a>(
        self,
        records: impl Iterator<Item = Outgoing<'a>> + Clone,
        batched: bool,
        out: &mut Vec<u8>,
    ) {
        if self.is_plain() || !batched {
            for Outgoing { head, json } in records {
                match self {
                    Protocol::Lines => {}
                    Protocol::Numbered => write(out, format_args!("{{\"id\": {}, \"record\": ", head.number)),
                    Protocol::Python { .. } => {
                        write(out, format_args!("{} {} {} ", head.number, head.attempt, head.seed));
                    }
                }
                push_line(out, json);
                out.extend_from_slice(if self == Protocol::Numbered { b"}\n" } else { b"\n" });
            }
            return;
        }
        let numbers: [fn(&JobHead) -> u64; 3] = [|head| head.number, |head| u64::from(head.attempt), |head| head.seed];
        for number in numbers {
            for (at, record) in records.clone().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                write(out, format_args!("{comma}{}", number(&record.head)));
            }
            out.push(b' ');
        }
        out.push(b'[');
        for (at, record) in records.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_line(out, record.json);
        }
        out.extend_from_slice(b"]\n");
    }

    /// Parses a line.
    pub(super) fn understand(self, line: &[u8]) -> Reply<'_> {
        match self {
            Protocol::Lines => understand_plain(line),
            Protocol::Numbered => {
                understand_numbered(line).unwrap_or_else(|why| Reply::Garbage(format!("{}, {why}", excerpt(line))))
            }
            Protocol::Python { .. } => {
                understand_shim(line).unwrap_or_else(|why| Reply::Garbage(format!("{}, {why}", excerpt(line))))
            }
        }
    }
}

fn write(out: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = out.write_fmt(what);
}

/// Appends JSON in one line: outside of strings, line ends in JSON are only white space.
fn push_line(out: &mut Vec<u8>, json: &[u8]) {
    let begin = out.len();
    out.extend_from_slice(json);
    for byte in &mut out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn understand_plain(line: &[u8]) -> Reply<'_> {
    let json = match json(line) {
        Ok(json) => json,
        Err(why) => return Reply::Garbage(format!("{}, {why}", excerpt(line))),
    };
    let begins = json.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\"error\""));
    let failure = if begins { serde_json::from_str::<ErrorAnswer>(json).ok() } else { None };
    Reply::One(None, failure.map_or(Ok(json), |failure| Err(failure.into())))
}

fn understand_numbered(line: &[u8]) -> Result<Reply<'_>, String> {
    let NumberedAnswer { id, result, error } =
        serde_json::from_str(json(line)?).map_err(|error| format!("which is not an answer with an id: {error}"))?;
    match (result, error) {
        (Some(result), None) => Ok(Reply::Numbered(id, Ok(result.get()))),
        (None, Some(error)) => Ok(Reply::Numbered(id, Err(ErrorAnswer { error }.into()))),
        _ => Err("which must have either \"result\" or \"error\"".into()),
    }
}

/// `{"id": 1, "result": …}` or `{"id": 1, "error": …}`, and nothing else in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberedAnswer<'a> {
    id: u64,
    // `null` is a result, too.
    #[serde(borrow, default, deserialize_with = "some")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorBody>,
}

fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// `{"error": "text"}` or `{"error": {"message": "text", "kind": "text"}}`, and nothing else in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorBody {
    Text(String),
    Object { message: String, kind: Option<String>, traceback: Option<String> },
}

impl From<ErrorAnswer> for WorkerFailure {
    fn from(answer: ErrorAnswer) -> Self {
        match answer.error {
            ErrorBody::Text(message) => failure("error", None, message, None),
            ErrorBody::Object { message, kind, traceback } => failure("error", kind, message, traceback),
        }
    }
}

/// Most bytes of the kind, the message and the traceback that are kept: they are repeated in outputs, records and messages.
const LONGEST: [usize; 3] = [100, 8 << 10, 64 << 10];

fn failure(default: &'static str, kind: Option<String>, message: String, traceback: Option<String>) -> WorkerFailure {
    let [of_kind, of_message, of_traceback] = LONGEST;
    WorkerFailure {
        kind: kind.map_or(default.into(), |kind| Cow::Owned(shortened(kind, of_kind))),
        message: shortened(message, of_message),
        traceback: traceback.map(|traceback| shortened(traceback, of_traceback)),
        ended: None,
    }
}

/// An exception as `shim.py` reports it.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    kind: Option<String>,
    message: String,
    #[serde(default)]
    traceback: String,
}

impl From<Described> for WorkerFailure {
    fn from(described: Described) -> Self {
        let traceback = Some(described.traceback).filter(|text| !text.is_empty());
        failure("exception", described.kind, described.message, traceback)
    }
}

fn understand_shim(line: &[u8]) -> Result<Reply<'_>, String> {
    const NOT_OURS: &str = "which is not in its protocol: other code writes into the pipe between Python and rankpool";
    let (&kind, rest) = line.split_first().ok_or(NOT_OURS)?;
    match kind {
        b'v' => return Ok(Reply::Runs),
        b'+' => return Ok(Reply::Ready),
        b'!' => return Ok(Reply::CannotStart(described(rest)?)),
        b'r' | b'e' | b'b' => {}
        _ => return Err(NOT_OURS.into()),
    }
    let space = rest.iter().position(|&byte| byte == b' ').ok_or(NOT_OURS)?;
    let nanoseconds = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse().ok()).ok_or(NOT_OURS)?;
    let (took, rest) = (Duration::from_nanos(nanoseconds), &rest[space + 1..]);
    Ok(match kind {
        b'r' => Reply::One(Some(took), Ok(json(rest)?)),
        b'e' => Reply::One(Some(took), Err(described(rest)?)),
        _ => Reply::Many(took, serde_json::from_slice(rest).map_err(|error| not_json(&error))?),
    })
}

/// Parses a failure as the shim writes it.
fn described(json: &[u8]) -> Result<WorkerFailure, String> {
    serde_json::from_slice::<Described>(json).map(WorkerFailure::from).map_err(|error| not_json(&error))
}

/// Says, after the excerpt of a line, that it is not JSON.
fn not_json(error: &serde_json::Error) -> String {
    format!("which is not JSON ({error})")
}

/// Parses a line that is one JSON value; returns it without the space around it.
fn json(line: &[u8]) -> Result<&str, String> {
    if line.trim_ascii().is_empty() {
        return Err("which is an empty line and not JSON".into());
    }
    let raw: &RawValue = serde_json::from_slice(line).map_err(|error| not_json(&error))?;
    Ok(raw.get())
}

/// Returns the beginning of a line, for a message.
pub(super) fn excerpt(line: &[u8]) -> String {
    const MOST: usize = 120;
    let text = String::from_utf8_lossy(&line[..line.len().min(MOST)]);
    format!("{text:?}{}", if line.len() > MOST { " …" } else { "" })
}
