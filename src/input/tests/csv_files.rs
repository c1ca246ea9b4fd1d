use super::*;
use crate::kernels::convert;

#[test]
fn line_numbers_are_right_behind_empty_lines_carriage_returns_and_quoted_line_breaks() {
    let text = "a,b\r\n\r\n1,2\r\n\r\n\n\"3\r\n3\",\"4,\"\"4\"\r\n5,6";
    let expected = [(3, ["1", "2"]), (6, ["3\r\n3", "4,\"4"]), (8, ["5", "6"])];
    let expected = expected.map(|(line, fields)| Ok((line, fields.map(str::to_owned).to_vec())));
    assert_eq!(parsed("jobs.csv", text, texts), expected);
}

#[test]
fn a_byte_order_mark_blanks_around_names_and_numbers_and_a_missing_last_newline_do_no_harm() {
    let text = "\u{feff}x , y\n 1 ,\t2.5 ";
    assert_eq!(values("jobs.csv", text, pair), [(Int(1), Float(2.5))]);
}

#[test]
fn a_wrong_value_is_named_with_file_line_column_and_text() {
    let text = "p1,p2,p3\n1,2,3\n\n1,2,abc\n";
    assert_eq!(error("jobs.csv", text, vector), "jobs.csv:4: column 'p3': 'abc' is not a number");
    assert_eq!(error("j.csv", "x\n1.5\n", integer), "j.csv:2: column 'x': '1.5' is not an integer");
    assert_eq!(error("j.csv", "x,y\n,2\n", integer), "j.csv:2: column 'x': '' is not an integer");
    let large = "j.csv:2: column 'x': '9223372036854775808' does not fit a 64-bit integer";
    assert_eq!(error("j.csv", "x\n9223372036854775808\n", integer), large);
    assert_eq!(error("j.csv", "x\nnan\n", convert::float), "j.csv:2: column 'x': 'nan' is not a finite number");
    assert_eq!(error("j.csv", "x\n-1\n", index), "j.csv:2: column 'x': '-1' is negative");
    assert_eq!(error("j.csv", "h\n0\n", width), "j.csv:2: column 'h': '0' is not above 0");
}

#[test]
fn a_long_or_many_lined_value_is_shown_shortened_on_one_line() {
    let text = format!("x\n\"a\nb{}\"\n", "c".repeat(100));
    let expected = format!("j.csv:2: column 'x': 'a\\nb{}…' is not an integer", "c".repeat(37));
    assert_eq!(error("j.csv", text, integer), expected);
}

#[test]
fn a_row_of_another_length_is_an_error_and_the_next_row_is_read() {
    let text = "a,b,c,d,e\n1,2,3\n1,2,3,4,5\n1\n";
    let outcomes = parsed("jobs.csv", text, vector);
    assert_eq!(outcomes[0], Err("jobs.csv:2: 3 columns, but the header has 5".to_owned()));
    assert_eq!(outcomes[1], Ok((3, vec![1.0, 2.0, 3.0, 4.0, 5.0])));
    assert_eq!(outcomes[2], Err("jobs.csv:4: 1 column, but the header has 5".to_owned()));
}

#[test]
fn text_that_is_not_utf_8_is_an_error_of_its_row_alone() {
    let outcomes = parsed("jobs.csv", b"x,y\n1,2\n\n3,\xFF4\n5,6\n", pair);
    assert_eq!(
        outcomes[1],
        Err("jobs.csv:4: column 'y': '\u{fffd}4' is not UTF-8 text (iconv converts a file from another encoding)"
            .to_owned())
    );
    assert_eq!(outcomes[2], Ok((5, (Int(5), Int(6)))));
}

#[test]
fn a_file_without_usable_header_is_refused() {
    let refused = |text: &[u8]| error("jobs.csv", text, integer);
    let hint = "a CSV file of jobs begins with the names of its columns (--no-header: it has no names; --header: these \
                are its names)";
    assert_eq!(refused(b"\n1,2.5\n3,4\n"), format!("jobs.csv:2: the first line is '1,2.5'; {hint}"));
    assert_eq!(refused(b"a,b,a\n1,2,3\n"), "jobs.csv:1: two columns have the name 'a'");
    assert_eq!(
        refused(b"a,\xFF\n1,2\n"),
        "jobs.csv:1: column 2: '\u{fffd}' is not UTF-8 text (iconv converts a file from another encoding)"
    );
}

#[test]
fn columns_without_a_name_are_ignored_by_name_and_labelled_by_position() {
    assert_eq!(values("j.csv", "x,,\n1,a,\n", integer), [1]);
    assert_eq!(error("j.csv", "a,,\n1,b,3\n", vector), "j.csv:2: column 2: 'b' is not a number");
}

#[test]
fn a_header_alone_is_no_jobs_and_so_is_nothing_at_all() {
    for text in ["x\n", "", "\n\n", "\u{feff}"] {
        assert_eq!(values("j.csv", text, integer), [0_i64; 0], "{text:?}");
    }
}

/// Checks the beginning and the end of the message about a quote.
#[track_caller]
fn quote_fault(text: &str, begins: &str, ends: &str) {
    let errors: Vec<String> = parsed("j.csv", text, texts).into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
    assert!(errors[0].starts_with(begins), "{text:?}: {errors:?}");
    assert!(errors[0].contains(ends), "{text:?}: {errors:?}");
}

#[test]
fn a_quote_that_is_never_closed_is_named_with_its_line() {
    let never = "the quote that opens here is never closed: everything behind it";
    quote_fault("a,b\n1,x\n2,\"y\n3,z\n4,w\n", "j.csv:3:3: ", &format!("{never}, up to line 5,"));
    quote_fault("a,b\n1,x\n2,\"y\n3,z\n4,w", "j.csv:3:3: ", &format!("{never}, up to line 5,"));
    quote_fault("a,b\r\n1,x\r\n2,\"y\r\n3,z\r\n", "j.csv:3:3: ", &format!("{never}, up to line 4,"));
    quote_fault("a,b\n1,\"x\ny\"\n\n2,\"y", "j.csv:5:3: ", &format!("{never} would"));
    quote_fault("a\n1\n\"", "j.csv:3:1: ", &format!("{never} would"));
    quote_fault("a\n\"1\"\"\n2\n", "j.csv:2:1: ", &format!("{never}, up to line 3,"));
    quote_fault("a,b\n\"1\",\"x\n", "j.csv:2:5: ", never);
    quote_fault("a,b\n1,\"x\n\",\"y\n3,z\n", "j.csv:3:3: ", never);
}

#[test]
fn text_behind_a_closing_quote_is_an_error_and_the_next_row_is_read() {
    let text = "a,b\n1,\"x\"y\n2,z\n3,\"u\n4,\"w\"\n5,v\n";
    let outcomes = parsed("j.csv", text, texts);
    let behind = "and text follows where a comma should (a quote within a field is written twice)";
    let closed = "the quote that opens here is closed";
    assert_eq!(outcomes[0], Err(format!("j.csv:2:3: {closed}, {behind}")));
    assert_eq!(outcomes[1], Ok((3, vec!["2".to_owned(), "z".to_owned()])));
    assert_eq!(outcomes[2], Err(format!("j.csv:4:3: {closed} on line 5, {behind}")));
    assert_eq!(outcomes[3], Ok((6, vec!["5".to_owned(), "v".to_owned()])));
    quote_fault("a\n\"a \"quoted\" word\"\n2\n", "j.csv:2:1: ", closed);
    quote_fault("a\n\"a\" b\n2\n", "j.csv:2:1: ", closed);
    quote_fault("a\r\"a\"b\r2\r", "j.csv:1:3: ", closed);
}

#[test]
fn a_fault_in_the_quotes_of_the_header_is_one_of_the_file() {
    for (text, place) in [("a,\"b\n1,x\n2,y\n", "j.csv:1:3: "), ("a,\"b\n1,\"x\"\n2,y\n", "j.csv:1:3: ")] {
        let error = records("j.csv", text).err().unwrap();
        assert!(error.to_string().starts_with(place), "{error}");
        assert!(!error.is_bad_record());
    }
}

#[test]
fn quotes_that_are_meant_are_no_fault() {
    let fields = |text: &str| values("j.csv", text, texts).concat();
    assert_eq!(fields("a,b\n\"1\n\n2\r\n3\",\"\"\n"), ["1\n\n2\r\n3", ""]);
    assert_eq!(fields("a,b\n\"\"\"\",\"\"\"x\"\"\""), ["\"", "\"x\""]);
    assert_eq!(fields("a,b\n1\",x\"y\"\n \"z,5\"\"\n"), ["1\"", "x\"y\"", " \"z", "5\"\""]);
    assert_eq!(fields("a,b\n\"1\" ,\"2\"\t\r\n"), ["1 ", "2\t"]);
    assert_eq!(fields("a,b\r\"1\",2\r3,\"4\"\r"), ["1", "2", "3", "4"]);
    assert_eq!(values("j.tsv", "a\tb\n\"1\t2\n", texts).concat(), ["\"1", "2"]);
}
