use super::*;

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
