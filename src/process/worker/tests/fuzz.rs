//! Workers that write anything: each record has one answer or one failure, and nothing panics or waits for ever.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::super::protocol::{Outgoing, Reply};
use super::*;

/// Parts of lines of all protocols, and what may be among them.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let tokens: Vec<&[u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"\"id\"",
        b"\"result\"",
        b"\"error\"",
        b"\"message\"",
        b"\"kind\"",
        b"\"traceback\"",
        b"null",
        b"true",
        b"0",
        b"1",
        b"-1",
        b"1e999",
        b"18446744073709551616",
        b"r5 ",
        b"e0 ",
        b"b7 ",
        b"v3.11 ",
        b"+",
        b"!",
        b" ",
        b"\t",
        b"\r",
        b"\\u0000",
        b"\\ud800",
        b"x",
        b"\xFF",
        b"\0",
    ];
    let token = proptest::sample::select(tokens);
    let valid: Vec<&[u8]> = vec![
        b"1",
        b"{\"error\":\"no\"}",
        b"{\"error\":{\"message\":\"no\",\"kind\":\"k\"}}",
        b"{\"id\":1,\"result\":null}",
        b"{\"id\":0,\"error\":\"no\"}",
        b"r12 [1]",
        b"e9 {\"message\":\"m\"}",
        b"b1 [1,2]",
        b"+",
        b"!{\"message\":\"m\"}",
    ];
    prop_oneof![
        2 => vec(token, 0..12).prop_map(|tokens| tokens.concat()),
        1 => proptest::sample::select(valid).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..40),
    ]
}

const PROTOCOLS: [Protocol; 4] =
    [Protocol::Lines, Protocol::Numbered, Protocol::Python { batch: 1 }, Protocol::Python { batch: 3 }];

/// A few cases of those that start processes, or as many as PROPTEST_CASES says.
fn few() -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { given } else { ProptestConfig { cases: 12, ..given } }
}

fn is_json_line(text: &str) -> bool {
    !text.contains('\n') && serde_json::from_str::<&RawValue>(text).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line_is_a_reply_with_json_or_is_described(line in line()) {
        // Lines are divided before they are understood.
        let line: Vec<u8> = line.into_iter().filter(|byte| *byte != b'\n').collect();
        for protocol in PROTOCOLS {
            match protocol.understand(&line) {
                Reply::One(_, Ok(json)) | Reply::Numbered(_, Ok(json)) => prop_assert!(is_json_line(json)),
                Reply::Many(_, results) => prop_assert!(results.iter().all(|result| is_json_line(result.get()))),
                Reply::Garbage(what) => prop_assert!(what.len() < 2000 && !what.contains('\n'), "{what}"),
                Reply::One(_, Err(_)) | Reply::Numbered(_, Err(_)) | Reply::CannotStart(_) => {}
                Reply::Runs | Reply::Ready => prop_assert!(protocol.announces()),
            }
        }
    }

    #[test]
    fn any_record_is_asked_for_in_one_line(
        records in vec(("[a\"\\\\é{}]{0,8}", "[ \t\r\n]{0,3}"), 1..4), number: u64, attempt: u32, seed: u64
    ) {
        let json: Vec<String> = records.iter().map(|(text, space)| {
            format!("[{space}{}{space},{space}1]", serde_json::Value::from(text.as_str()))
        }).collect();
        let records = json.iter().map(|json| Outgoing { head: JobHead { number, attempt, seed }, json: json.as_bytes() });
        for protocol in PROTOCOLS {
            for batched in [false, true] {
                let mut out = Vec::new();
                protocol.request(records.clone(), batched, &mut out);
                let text = String::from_utf8(out).expect("text");
                let is_one = batched && !protocol.is_plain();
                let lines: Vec<&str> = text.lines().collect();
                prop_assert!(text.ends_with('\n') && !text.contains('\r'));
                prop_assert_eq!(lines.len(), if is_one { 1 } else { json.len() });
                // The record is the last word, and was not changed but for its white space.
                let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
                for (line, json) in lines.iter().zip(&json) {
                    match protocol {
                        Protocol::Lines => prop_assert_eq!(value(line), value(json)),
                        Protocol::Numbered => prop_assert_eq!(&value(line)["record"], &value(json)),
                        Protocol::Python { .. } => {
                            let last = value(line.splitn(4, ' ').nth(3).expect("four words"));
                            prop_assert_eq!(if is_one { &last[0] } else { &last }, &value(json));
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_worker_that_writes_anything_fails_or_answers_each_record_once(
        lines in vec(line(), 1..6), of_each in 1_usize..3, ends: bool, numbered: bool
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        for (turn, lines) in lines.chunks(of_each).enumerate() {
            let text: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
            fs::write(folder.path().join(turn.to_string()), text).expect("there is room");
        }
        let (end, turns) = (if ends { "exit 3" } else { ":" }, lines.len().div_ceil(of_each));
        let script = format!(
            "cd {} || exit; turn=0; while read -r record; do cat $((turn % {turns})); turn=$((turn + 1)); [ $turn -lt 4 ] || {end}; done",
            folder.path().display()
        );
        let (mut worker, _) = shell_with(&script, |options| {
            options.protocol = if numbered { Protocol::Numbered } else { Protocol::Lines };
        });
        let mut list = list(0..6);
        let outcome = worker.answer(&mut list);
        prop_assert!(list.answers.len() as u64 <= list.given);
        if let Ok(outcome) = outcome {
            prop_assert_eq!((outcome, list.answers.len()), (AnswerEnd::AllAnswered, 6));
            for json in list.answers.iter().filter_map(|(_, result)| result.as_ref().ok()) {
                prop_assert!(is_json_line(json), "{json}");
            }
        }
    }
}
