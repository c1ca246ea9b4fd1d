use super::*;
use crate::kernels::convert;

#[test]
fn empty_lines_carriage_returns_and_a_missing_last_newline_do_no_harm() {
    let outcomes = parsed("j.jsonl", "\u{feff}1\r\n\r\n  \n -2 \n3", integer);
    assert_eq!(outcomes, [Ok((1, 1)), Ok((4, -2)), Ok((5, 3))]);
    assert_eq!(values("j.jsonl", "", integer), [0_i64; 0]);
}

#[test]
fn a_fault_is_named_with_line_and_column_and_the_next_line_is_read() {
    let outcomes = parsed("jobs.jsonl", "1\n\n2\n{\"x\": 1, \"y\"}\n5\n", integer);
    assert_eq!(outcomes[2], Err("jobs.jsonl:4:13: expected `:`".to_owned()));
    assert_eq!(outcomes[3], Ok((5, 5)));
    assert_eq!(error("j.jsonl", "1 2\n", integer), "j.jsonl:1:3: trailing characters");
    let pretty = "j.json:1:1: EOF while parsing a list (each line must hold a whole JSON value)";
    assert_eq!(parsed("j.json", "[\n 1\n]\n", integer)[0], Err(pretty.to_owned()));
    assert!(error("j.jsonl", b"\"\xFF\"\n", integer).starts_with("j.jsonl:1:"));
}

#[test]
fn a_wrong_value_is_named_with_its_key_or_position() {
    let wrong = |text, expected: &str| assert_eq!(error("j.jsonl", text, vector), expected);
    wrong("{\"p1\":\"5\"}", "j.jsonl:1: key 'p1': \"5\" is not a number");
    wrong("[1,null]", "j.jsonl:1: item 2: null is not a number");
    assert_eq!(error("j.jsonl", "true", integer), "j.jsonl:1: true is not an integer");
    assert_eq!(error("j.jsonl", "1.0", integer), "j.jsonl:1: 1.0 is not an integer");
    let large = "j.jsonl:1: 18446744073709551615 does not fit a 64-bit integer";
    assert_eq!(error("j.jsonl", "18446744073709551615", integer), large);
}

#[test]
fn numbers_are_the_nearest_doubles() {
    for text in ["0.1", "5e-324", "1.7976931348623157e308", "122.416294033786585", "0.30000000000000004"] {
        let expected: f64 = text.parse().unwrap();
        assert_eq!(values("j.jsonl", text, convert::float), [expected]);
    }
}

#[test]
fn deep_nesting_is_no_crash() {
    assert!(error("j.jsonl", "[".repeat(100_000), integer).contains("EOF while parsing"));
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(error("j.jsonl", deep.as_str(), integer).contains("is not an integer"));
}
