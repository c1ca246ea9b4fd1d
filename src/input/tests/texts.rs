use super::*;

fn only(name: &str, text: &str) -> Record {
    only_as(name, text, Layout::default())
}

fn only_as(name: &str, text: &str, layout: Layout) -> Record {
    let mut records = records_as(name, text, layout).unwrap();
    let record = records.next().unwrap().unwrap();
    assert!(records.next().is_none());
    record
}

fn json(record: &Record) -> String {
    let mut out = Vec::new();
    record.push_json(false, &mut out);
    String::from_utf8(out).unwrap()
}

fn json_of_texts(record: &Record) -> String {
    let mut out = Vec::new();
    record.push_json(true, &mut out);
    String::from_utf8(out).unwrap()
}

const WITHOUT_HEADER: Layout = Layout { header: Some(false), format: None, fallback: None, null: false };

#[test]
fn the_text_of_a_record_is_that_of_its_file() {
    assert_eq!(only("j.txt", " a b \n").text(), " a b ");
    assert_eq!(only("j.jsonl", r#""a \"b\" \u00e9\n""#).text(), "a \"b\" é\n");
    assert_eq!(only("j.jsonl", r#" {"b": 1.0e5, "a":[ ]}"#).text(), r#"{"b": 1.0e5, "a":[ ]}"#);
    assert_eq!(only("j.jsonl", "null").text(), "null");
    assert_eq!(only("j.csv", "a\n\"x,\"\"y\"\"\"\n").text(), "x,\"y\"");
    assert_eq!(only("j.csv", "a,b,c\nx,\"1,\"\"2\"\"\",\"l\nm\"\n").text(), "x,\"1,\"\"2\"\"\",\"l\nm\"");
    assert_eq!(only("j.tsv", "a\tb\nx,y\t\"\n").text(), "x,y\t\"");
}

#[test]
fn every_value_has_a_text() {
    let record = only("j.jsonl", r#"{"s": "a\tb", "n": 12345678901234567890123, "f": 1.50, "l": [1, "x"], "t": true}"#);
    let texts: Vec<_> = record.cells().map(|cell| cell.to_text().into_owned()).collect();
    assert_eq!(texts, ["a\tb", "12345678901234567890123", "1.50", "[1, \"x\"]", "true"]);
    assert_eq!(record.names().collect::<Vec<_>>(), ["s", "n", "f", "l", "t"], "in the order of the file");
    assert_eq!(record.position(3).unwrap().to_text(), "1.50");
    assert!(record.position(0).is_none() && record.position(6).is_none() && record.get("x").is_none());
    assert_eq!(only("j.jsonl", "[1, \"x\"]").position(2).unwrap().to_text(), "x");
    let line = only("j.txt", "x\n");
    assert_eq!(line.position(1).unwrap().to_text(), "x");
    assert!(line.position(2).is_none() && line.get("x").is_none());
}

#[test]
fn of_a_key_that_occurs_twice_the_last_value_counts() {
    let record = only("j.jsonl", r#"{"a":1,"b":2,"a":3}"#);
    assert_eq!(record.get("a").unwrap().integer().unwrap(), 3);
    assert_eq!((record.names().count(), record.cells().count()), (2, 2));
    assert_eq!(json(&record), r#"{"a":1,"b":2,"a":3}"#);
}

#[test]
fn json_leaves_as_it_came() {
    for text in [
        "123456789012345678901234567890",
        "1.10",
        "1E400",
        "-0",
        r#""\u00e9\ud83d\ude00\/""#,
        r#"{"b":1,"a":[1.0, 2]}"#,
        "[ ]",
        &"9".repeat(1000),
    ] {
        assert_eq!(json(&only("j.jsonl", &format!("\u{feff}  {text} \r\n"))), text);
        assert_eq!(json_of_texts(&only("j.jsonl", text)), text);
    }
}

#[test]
fn half_a_character_is_no_text() {
    let fault = "half of a character in a \\u escape (lone surrogate)";
    for (text, column) in [(r#""\ud800""#, 2), (r#" {"a":"\\\udc00"}"#, 10), (r#"["\ud83d\ud83d"]"#, 3)] {
        assert_eq!(error("j.jsonl", text, texts), format!("j.jsonl:1:{column}: {fault}"));
    }
    assert_eq!(values("j.jsonl", r#""\\ud800""#, texts), [[r"\ud800"]], "a backslash and letters");
    let message = error("j.jsonl", b"[1,\"\xFF\"]", texts);
    assert_eq!(message, "j.jsonl:1:5: this is not UTF-8 text (iconv converts a file from another encoding)");
}

#[test]
fn a_text_that_is_a_number_becomes_one_and_no_other_does() {
    for number in ["0", "-0", "7", "-12", "1.5", "0.50", "1e3", "-2.5E-7", "1e+3", "123456789012345678901234567890"] {
        assert_eq!(json(&only("j.txt", number)), number);
        assert_eq!(json_of_texts(&only("j.txt", number)), format!("\"{number}\""));
        assert!(serde_json::from_str::<serde_json::Value>(number).is_ok_and(|value| value.is_number()));
    }
    for text in
        ["007", "+1", "1.", ".5", "1e", "0x10", "1_000", "nan", "inf", "-Infinity", "1e999", "-", "--1", "1 2", " 1"]
    {
        assert_eq!(json(&only("j.txt", text)), format!("\"{text}\""));
    }
    assert_eq!(json(&only("j.txt", "a\"\\\t\u{1}é\n")), "\"a\\\"\\\\\\t\\u0001é\"");
}

#[test]
fn a_row_is_an_object_or_without_names_an_array() {
    let row = only("j.csv", "id,na\"me,x\n007,\"a\nb\",1.5\n");
    assert_eq!(json(&row), r#"{"id":"007","na\"me":"a\nb","x":1.5}"#);
    assert_eq!(json_of_texts(&row), r#"{"id":"007","na\"me":"a\nb","x":"1.5"}"#);
    assert_eq!(json(&only_as("j.csv", "7,,x\n", WITHOUT_HEADER)), r#"[7,"","x"]"#);
    assert_eq!(json(&only("j.csv", ",x,\n0,2,z\n")), r#"{"1":0,"x":2,"3":"z"}"#);
    let header = Layout { header: Some(true), ..Layout::default() };
    assert_eq!(json(&only_as("j.txt", "n\n5\n", header)), r#"{"n":5}"#);
}

#[test]
fn integers_beyond_64_bits_are_exact_in_every_format() {
    let large = 170_141_183_460_469_231_731_687_303_715_884_105_727;
    for (name, text) in [("j.jsonl", ""), ("j.txt", ""), ("j.csv", "x\n")] {
        assert_eq!(values(name, &format!("{text}{large}\n"), number), [Int(large)]);
        let message = error(name, format!("{text}{large}0\n"), number);
        assert!(message.ends_with("does not fit a 128-bit integer"), "{message}");
    }
}

#[test]
fn records_can_go_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync + Clone>() {}
    is_send_and_sync::<Record>();
    is_send_and_sync::<Inputs>();
    is_send_and_sync::<BadRecords>();
}
