use super::*;

/// Returns the texts of a file of lines with their places; errors as messages.
fn lines(text: impl Into<Vec<u8>>, layout: Layout) -> Vec<Result<(u64, String), String>> {
    let records = match records_as("f.txt", text, layout) {
        Ok(records) => records,
        Err(error) => return vec![Err(error.to_string())],
    };
    let one = |record: Record| (record.place().line, record.text().into_owned());
    records.map(|record| record.map(one).map_err(|error| error.to_string())).collect()
}

fn found(expected: &[(u64, &str)]) -> Vec<Result<(u64, String), String>> {
    expected.iter().map(|(line, text)| Ok((*line, (*text).to_owned()))).collect()
}

#[test]
fn every_line_that_says_something_is_a_record_with_its_place() {
    let text = "\u{feff}a b\r\n\n  \nä,\"\t'\n a\n a";
    assert_eq!(lines(text, Layout::default()), found(&[(1, "a b"), (4, "ä,\"\t'"), (5, " a"), (6, " a")]));
    assert_eq!(lines("", Layout::default()), []);
    assert_eq!(lines("\r\n\n", Layout::default()), []);
}

#[test]
fn lines_that_end_in_nul_may_hold_line_breaks_and_blanks() {
    let layout = Layout { null: true, ..Layout::default() };
    assert_eq!(lines("a\nb\0\0 \0c\r", layout), found(&[(1, "a\nb"), (3, " "), (4, "c\r")]));
}

#[test]
fn a_header_names_the_value() {
    let layout = Layout { header: Some(true), ..Layout::default() };
    let records: Vec<Record> =
        records_as("f.txt", "\n file \n\na,b\n7\n", layout).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|record| record.place().line).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(records[0].get("file").unwrap().to_text(), "a,b");
    assert_eq!((records[0].text().as_ref(), records[0].names().collect::<Vec<_>>()), ("a,b", vec!["file"]));
    assert_eq!(lines("", layout), []);
    let error = lines(b"\xFF\na\n", layout).remove(0).unwrap_err();
    assert_eq!(error, "f.txt:1: '\u{fffd}' is not UTF-8 text (iconv converts a file from another encoding)");
}

#[test]
fn a_line_that_is_not_utf_8_is_a_bad_record_and_the_next_one_is_read() {
    let outcomes = lines(b"a\ngr\xFC\xDF\nb\n", Layout::default());
    let expected = "f.txt:2: 'gr\u{fffd}\u{fffd}' is not UTF-8 text (iconv converts a file from another encoding)";
    assert_eq!(outcomes[1], Err(expected.to_owned()));
    assert_eq!(outcomes[2], Ok((3, "b".to_owned())));
}

#[test]
fn a_line_of_a_mebibyte_is_a_record_like_any_other() {
    let long = "ab".repeat(1 << 19);
    assert_eq!(lines(format!("{long}\nx\n{long}"), Layout::default()), found(&[(1, &long), (2, "x"), (3, &long)]));
    let rows = format!("a,b\n{long},1\n");
    assert_eq!(values("j.csv", &rows, texts)[0][0], long);
    assert_eq!(values("j.tsv", &rows.replace(',', "\t"), texts)[0][0], long);
    assert_eq!(values("j.jsonl", &format!("\"{long}\"\n"), texts)[0][0], long);
}

#[test]
fn numbers_on_lines_are_inputs_of_functions() {
    assert_eq!(values("j.txt", "3\n -4 \r\n", integer), [3, -4]);
    assert_eq!(values("j.list", "2\n2.0\n", number), [Int(2), Float(2.0)]);
    assert_eq!(error("j.lst", "x\n", integer), "j.lst:1: 'x' is not an integer");
    assert_eq!(error("j.txt", "1 2\n", pair), "j.txt:1: expected two values, or the names 'x' and 'y'");
}
