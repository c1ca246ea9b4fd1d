//! The plain protocol, with programs in shell.

use super::*;

const ECHO: &str = "while read -r line; do printf '%s\\n' \"$line\"; done";

#[test]
fn an_echo_answers_every_record_in_order() {
    let list = answered(&mut shell(ECHO), list(0..300));
    assert_eq!(list.short(), (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_worker_without_records_is_not_started() {
    assert_eq!(shell("exit 1").answer(&mut list::<u8>([])), Ok(AnswerEnd::AllAnswered));
}

#[test]
fn a_worker_stays_from_one_list_to_the_next() {
    let mut worker = shell("while read -r line; do echo $$; done");
    let first = answered(&mut worker, list(0..5)).short();
    assert_eq!(first, answered(&mut worker, list(0..5)).short());
    assert!(first.iter().all(|pid| *pid == first[0]));
    worker.close();
    assert_ne!(first[..1], answered(&mut worker, list(0..1)).short()[..]);
}

#[test]
fn an_error_object_is_a_failure_and_nothing_else_is() {
    let values =
        [r#"{"error": 5}"#, r#"{"error": "x", "more": 1}"#, r#"{"errors": "x"}"#, r#"{}"#, r#"{"a": {"error": "x"}}"#];
    let failures = [
        r#"{"error": "too hot"}"#,
        r#"{ "error" : {"message": "too cold"}}"#,
        r#"{"error": {"kind": "weather", "message": "too wet"}}"#,
    ];
    let list = answered(&mut shell(ECHO), list(values.iter().chain(&failures)));
    assert_eq!(list.short()[..5], values);
    assert_eq!(list.short()[5..], ["!error", "!error", "!weather"]);
    assert_eq!([5, 6, 7].map(|at| list.failure(at).message.as_str()), ["too hot", "too cold", "too wet"]);
}

#[test]
fn records_of_many_lines_travel_as_one() {
    let list = answered(&mut shell(ECHO), list(["[1,\n2]", "{\r\n}"]));
    assert_eq!(list.short(), ["[1, 2]", "{  }"]);
}

#[test]
fn large_records_and_answers_pass_each_other() {
    let record = format!("\"{}\"", "x".repeat(300_000));
    let list = answered(&mut shell("exec cat"), list(vec![record.clone(); 20]));
    assert!(list.short().iter().all(|answer| *answer == record));
}

#[test]
fn a_worker_that_reads_late_and_answers_much_does_not_block_the_rank() {
    // It answers 200 KiB for the first record before it reads the rest.
    let script = "read -r a; head -c 200000 /dev/zero | tr '\\0' 1; echo; exec cat";
    let record = format!("\"{}\"", "x".repeat(200_000));
    let list = answered(&mut shell(script), list(vec![record; 4]));
    assert!(list.short().iter().all(|answer| answer.len() >= 200_000));
}

#[test]
fn slow_records_are_given_one_at_a_time_and_quick_ones_many() {
    let numbered = |script: &str| shell_with(script, |options| options.protocol = Protocol::Numbered).0;
    let slow = "while read -r line; do sleep 0.02; echo \"${line%%,*}, \\\"result\\\": 1}\"; done";
    let slow = answered(&mut numbered(slow), list(0..6));
    assert_eq!(slow.most_ahead, 1);
    assert!(slow.durations.iter().all(|duration| *duration >= Duration::from_millis(15)), "{:?}", slow.durations);
    let quick = answered(&mut numbered("exec sed -u s/record/result/"), list(0..3000));
    assert!((8..=512).contains(&quick.most_ahead), "{}", quick.most_ahead);
}

#[test]
fn a_worker_that_does_not_flush_is_asked_about_it_once() {
    let (mut worker, warnings) = shell_with("exec sed ''", |options| {
        options.silence = Duration::from_millis(100);
        options.timeout = Some(Duration::from_millis(400));
    });
    let list = answered(&mut worker, list(0..2));
    assert_eq!(list.short(), ["!timeout", "!timeout"]);
    assert_eq!(warnings.all().len(), 1);
    assert!(warnings.all()[0].contains("flush"), "{:?}", warnings.all());
}

#[test]
fn garbage_is_the_failure_of_its_record() {
    for (garbage, said) in [("not json", "not json"), ("", "an empty line"), ("1 2", "1 2"), ("{\"a\": }", "a")] {
        let script = format!("while read -r line; do [ $line = 1 ] && echo '{garbage}' || echo $line; done");
        let list = answered(&mut shell(&script), list(0..4));
        assert_eq!(list.short(), ["0", "!garbage", "2", "3"]);
        assert!(list.failure(1).message.contains(said), "{}", list.failure(1).message);
    }
    let list = answered(&mut shell("while read -r line; do printf '\"\\377\"\\n'; done"), list(0..2));
    assert_eq!(list.short(), ["!garbage", "!garbage"]);
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let script = "while read -r line; do [ $line = 1 ] && exec cat /dev/zero; echo $line; done";
    let list = answered(&mut shell(script), list(0..3));
    assert_eq!(list.short(), ["0", "!garbage", "2"]);
    assert!(list.failure(1).message.contains("64 MiB"), "{}", list.failure(1).message);
}

#[test]
fn a_program_that_answers_each_record_twice_is_no_worker() {
    let (failure, list) = no_start(&mut shell("while read -r line; do printf '1\\n2\\n'; done"), 0..100);
    assert!(failure.message.contains("more than one line for a record, 3 times"), "{}", failure.message);
    assert!(list.short().iter().all(|answer| answer == "!surplus") && list.answers.len() < 10, "{:?}", list.short());
}

#[test]
fn the_examples_work() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workers");
    let upper = answered(&mut shell(&format!("exec sh '{folder}/upper.sh'")), list(["\"h\u{e4} \\n b\"", "5"]));
    assert_eq!(upper.short(), ["\"H\u{e4} \\n B\"", "!error"]);
    let square = answered(&mut shell(&format!("exec python3 '{folder}/square.py'")), list(["5", "\"a\"", "1.5"]));
    assert_eq!(square.short(), ["25", "!type", "2.25"]);
}
