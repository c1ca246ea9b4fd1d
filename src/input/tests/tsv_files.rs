use super::*;

#[test]
fn any_text_between_tabs_is_a_field() {
    let text = "\u{feff}a\tb \r\n\r\n\"x\t y,\"\"\r\n\t\n1\t2";
    let expected = [(3, ["\"x", " y,\"\""]), (4, ["", ""]), (5, ["1", "2"])];
    let expected = expected.map(|(line, fields)| Ok((line, fields.map(str::to_owned).to_vec())));
    assert_eq!(parsed("j.tsv", text, texts), expected);
    assert_eq!(values("j.tsv", "y\tx\n0.5\t2\n", pair), [(Int(2), Float(0.5))]);
}

#[test]
fn faults_are_named_as_in_csv() {
    assert_eq!(error("j.tsv", "a\tb\n1\n", vector), "j.tsv:2: 1 column, but the header has 2");
    assert_eq!(error("j.tsv", "x\ty\n1.5\t2\n", integer), "j.tsv:2: column 'x': '1.5' is not an integer");
    assert_eq!(error("j.tsv", "a\ta\n", integer), "j.tsv:1: two columns have the name 'a'");
    let outcomes = parsed("j.tsv", b"a\tb\n1\t\xFF2\n3\t4\n", texts);
    let hint = "is not UTF-8 text (iconv converts a file from another encoding)";
    assert_eq!(outcomes[0], Err(format!("j.tsv:2: column 'b': '\u{fffd}2' {hint}")));
    assert!(outcomes[1].is_ok());
    assert!(
        error("j.tsv", "1\t2\n", vector)
            .contains("the first line is '1\\t2'; a TSV file of jobs begins with the names")
    );
}

#[test]
fn a_table_without_header_has_positions_and_the_columns_of_its_first_row() {
    for (name, text) in [("j.csv", "1,2\n3,4\n5\n"), ("j.tsv", "1\t2\n3\t4\n5\n")] {
        let layout = Layout { header: Some(false), ..Layout::default() };
        let outcomes: Vec<_> = records_as(name, text, layout).unwrap().map(|record| pair(&record?)).collect();
        assert_eq!(*outcomes[0].as_ref().unwrap(), (Int(1), Int(2)));
        assert_eq!(*outcomes[1].as_ref().unwrap(), (Int(3), Int(4)));
        let message = outcomes[2].as_ref().unwrap_err().to_string();
        assert_eq!(message, format!("{name}:3: 1 column, but the first row has 2"));
        let record = records_as(name, text, layout).unwrap().next().unwrap().unwrap();
        assert_eq!((record.names().count(), record.position(2).unwrap().to_text().as_ref()), (0, "2"));
        assert!(record.position(0).is_none() && record.position(3).is_none() && record.get("1").is_none());
    }
}

#[test]
fn who_says_that_there_is_a_header_is_believed() {
    let layout = Layout { header: Some(true), ..Layout::default() };
    let record = records_as("j.csv", "2020,2021\n1,2\n", layout).unwrap().next().unwrap().unwrap();
    assert_eq!(record.get("2021").unwrap().to_text(), "2");
    // JSON has no header, so with a header digits at the beginning are not JSON.
    let layout = Layout { header: Some(false), ..Layout::default() };
    let record = records_as("jobs", "1,2\n", layout).unwrap().next().unwrap().unwrap();
    assert_eq!(pair(&record).unwrap(), (Int(1), Int(2)));
}
