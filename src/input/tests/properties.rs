use super::*;

/// Reads everything in every way: it must end without a panic, with any result.
fn exercise(bytes: &[u8], layout: Layout) {
    let owned = Cursor::new(bytes.to_vec());
    if let Ok(records) = Records::with_limit("any".into(), Box::new(owned.clone()), layout, 64) {
        for record in records {
            match record {
                Ok(record) => {
                    let outcomes = [
                        integer(&record).map(drop),
                        number(&record).map(drop),
                        pair(&record).map(drop),
                        summands(&record).map(drop),
                        vector(&record).map(drop),
                        texts(&record).map(drop),
                    ];
                    record.push_json(false, &mut Vec::new());
                    assert!(record.cells().all(|cell| cell.to_text().len() <= record.text().len().max(64)));
                    for error in outcomes.into_iter().filter_map(Result::err) {
                        assert!(!error.to_string().chars().any(char::is_control));
                    }
                }
                Err(error) => assert!(error.to_string().starts_with("any:")),
            }
        }
    }
    let _: Result<Table, InputError> = Table::read("any".into(), Box::new(owned), 64);
}

/// Every way in which a file can be read.
pub(super) fn layouts() -> impl Iterator<Item = Layout> {
    let formats = [None, Some(Format::Lines), Some(Format::Csv), Some(Format::Tsv), Some(Format::JsonLines)];
    let headers = [None, Some(true), Some(false)];
    formats.into_iter().flat_map(move |format| {
        let layout = move |header| Layout { format, header, ..Layout::default() };
        headers.into_iter().map(layout).chain([Layout { null: true, ..layout(None) }])
    })
}

/// Text of characters with a meaning in CSV or JSON, and some without.
pub(super) fn tricky_bytes() -> impl Strategy<Value = Vec<u8>> {
    let token: Vec<&'static [u8]> = [
        "\"", ",", "\r", "\n", "\r\n", "[", "]", "{", "}", ":", "1", "-2.5e3", "x", "p1", " ", "\u{feff}", "é", "null",
    ]
    .map(str::as_bytes)
    .into_iter()
    .chain([&b"\xFF"[..], b"\0"])
    .collect();
    vec(proptest::sample::select(token), 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    // A case that fails is printed whole; no file is left behind.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_records_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        for layout in layouts() {
            exercise(&bytes, layout);
        }
    }

    #[test]
    fn any_mixture_of_delimiters_gives_records_or_an_error(bytes in tricky_bytes()) {
        for layout in layouts() {
            exercise(&bytes, layout);
        }
    }

    #[test]
    fn any_csv_reads_the_same_however_its_bytes_come_and_as_the_parser_alone_reads_it(bytes in tricky_bytes()) {
        let layout = Layout { format: Some(Format::Csv), header: Some(false), ..Layout::default() };
        let rows = |bytes: Bytes| -> Vec<Result<(u64, Vec<String>), String>> {
            let row = |record: Record| (record.place().line, texts(&record).unwrap());
            let records = Records::with_limit("any".into(), bytes, layout, 64).unwrap();
            records.map(|record| record.map(row).map_err(|error| error.to_string())).collect()
        };
        let whole = rows(Box::new(Cursor::new(bytes.clone())));
        for size in [1, 2, 3, 7] {
            prop_assert_eq!(&whole, &rows(Box::new(BufReader::with_capacity(size, Cursor::new(bytes.clone())))));
        }
        if let Ok(whole) = whole.into_iter().map(|row| row.map(|(_, row)| row)).collect::<Result<Vec<_>, _>>() {
            let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
            let parser = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
            let alone: Vec<Vec<String>> =
                parser.into_records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
            prop_assert_eq!(whole, alone);
        }
    }

    #[test]
    fn any_fields_written_as_csv_are_read_back_with_their_lines(
        rows in vec(([".*", ".*"], 0_usize..3), 0..20),
        crlf: bool,
    ) {
        let newline = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("a,b{newline}");
        let mut expected = Vec::new();
        for (fields, empty_lines) in rows {
            text += &newline.repeat(empty_lines);
            let line = 1 + text.matches('\n').count() as u64;
            let quoted = fields.clone().map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
            text += &(quoted.join(",") + newline);
            expected.push(Ok((line, fields.to_vec())));
        }
        prop_assert_eq!(parsed("j.csv", text, texts), expected);
    }

    #[test]
    fn any_finite_numbers_are_read_back_exactly(rows in vec(vec(any::<f64>(), 3), 1..20)) {
        let rows: Vec<Vec<f64>> = rows.into_iter().filter(|row| row.iter().all(|x| x.is_finite())).collect();
        let lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        prop_assert_eq!(&values("j.jsonl", &lines.join("\n"), vector), &rows);
        let csv: String = lines.iter().map(|line| line.trim_matches(['[', ']']).to_owned() + "\n").collect();
        prop_assert_eq!(&values("j.csv", &format!("p1,p2,p3\n{csv}"), vector), &rows);
    }

    #[test]
    fn any_integer_is_read_back_exactly(values_written in vec(any::<i64>(), 0..20)) {
        let text: String = values_written.iter().map(|x| format!("{x}\n")).collect();
        prop_assert_eq!(&values("j.jsonl", &text, integer), &values_written);
        prop_assert_eq!(&values("j.csv", &format!("x\n{text}"), integer), &values_written);
    }
}
