use super::*;

#[test]
fn the_ending_tells_the_format_and_else_the_first_byte() {
    let ending = |name| Format::from_ending(Path::new(name));
    assert_eq!(ending("a/b.CSV"), Some(Format::Csv));
    assert_eq!([ending("j.jsonl"), ending("j.ndjson"), ending("j.json")], [Some(Format::JsonLines); 3]);
    assert_eq!([ending("j.txt"), ending("j.list"), ending("j.lst")], [Some(Format::Lines); 3]);
    assert_eq!(ending("j.tsv"), Some(Format::Tsv));
    assert_eq!([ending("jobs"), ending("jobs.dat"), ending(".csv")], [None; 3]);
    for text in ["1\n", "\n\n [1]\n", "\u{feff}{\"x\":1}", "-0.5"] {
        assert!(matches!(records("jobs", text).unwrap().reader, Reader::JsonLines(_)), "{text:?}");
    }
    for text in ["x\n1\n", "\u{feff}\n\"x\"\n"] {
        assert!(matches!(records("jobs", text).unwrap().reader, Reader::Table(_)), "{text:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let (missing, shown) = (directory.path().join("jobs.csv"), directory.path().display().to_string());
    let refused = |path: &Path| Inputs::from(Source::new(path)).check(integer).unwrap_err().to_string();
    assert_eq!(refused(&missing), format!("cannot read {shown}/jobs.csv: No such file or directory"));
    assert_eq!(refused(directory.path()), format!("cannot read {shown}: Is a directory"));
    assert!(Source::new(&missing).table().is_err());
}

#[test]
fn a_check_counts_the_records_or_names_the_first_bad_one() {
    let mut file = NamedTempFile::with_suffix(".csv").unwrap();
    file.write_all(b"x\n1\n2\n").unwrap();
    let source = Inputs::from(Source::new(file.path()));
    assert_eq!(source.check(integer).unwrap(), Some(2));
    file.write_all(b"3.5\nfour\n").unwrap();
    let error = source.check(integer).unwrap_err().to_string();
    assert!(error.ends_with(":4: column 'x': '3.5' is not an integer"), "{error}");
}

#[test]
fn a_source_that_can_be_read_only_once_is_not_checked() {
    assert_eq!(Source::new("-"), Source::Stdin);
    assert_eq!(Inputs::from(Source::Stdin).check(integer).unwrap(), None);
    assert_eq!(Inputs::from(Source::new("/dev/null")).check(integer).unwrap(), None);
}

#[test]
fn a_record_beyond_the_limit_ends_the_reading_without_growing_further() {
    let endless = |first: &'static [u8]| Box::new(Cursor::new(first).chain(BufReader::new(io::repeat(b'a'))));
    for (format, first) in [
        (Format::Csv, &b"x\n\n1\n\""[..]),
        (Format::Tsv, b"x\n\n1\n"),
        (Format::Lines, b"x\n\n1\n"),
        (Format::JsonLines, b"{}\n\n1\n\""),
    ] {
        let mut records = Records::with_limit("j".into(), endless(first), format.into(), 1000).unwrap();
        let error = records.by_ref().find_map(Result::err).unwrap();
        assert!(error.to_string().starts_with("j:4: a record of more than 1000 bytes"), "{error}");
        assert!(!error.is_bad_record());
        assert!(records.next().is_none());
    }
}

#[test]
fn a_record_within_the_limit_is_read_however_many_there_are() {
    let rows = format!("x\n{}{}", "\n".repeat(1000), "\"123456\"\n\n".repeat(1000));
    let bytes: Bytes = Box::new(Cursor::new(rows.into_bytes()));
    let records = Records::with_limit("j".into(), bytes, Format::Csv.into(), 10).unwrap();
    assert_eq!(records.map(|record| integer(&record.unwrap()).unwrap()).filter(|&x| x == 123_456).count(), 1000);
}

#[test]
fn a_record_of_exactly_the_limit_is_read_and_one_byte_more_is_too_long() {
    let null = Layout { null: true, ..Layout::default() };
    for (layout, header, ends) in [
        (Format::Lines.into(), "", &["", "\n", "\r\n", "\n\n"][..]),
        (null, "", &["", "\0", "\0\0"]),
        (Format::Csv.into(), "x\n", &["", "\n", "\r\n", "\r", "\n\n\r\n"]),
        (Format::Tsv.into(), "x\n", &["", "\n", "\r\n"]),
        (Format::JsonLines.into(), "", &["", "\n", "\r\n"]),
    ] {
        let quote = if matches!(layout.format, Some(Format::Csv | Format::JsonLines)) { "\"" } else { "" };
        let read = |length: usize, end: &str| -> Vec<Result<usize, String>> {
            let record = format!("{quote}{}{quote}", "a".repeat(length - 2 * quote.len()));
            let text = format!("{header}{record}{end}{}", if end.is_empty() { "" } else { "b" });
            let text = if quote.is_empty() { text } else { text.replace('b', "\"b\"") };
            let records = Records::with_limit("j".into(), Box::new(Cursor::new(text)), layout, 1000).unwrap();
            records.map(|record| record.map(|record| record.text().len()).map_err(|error| error.to_string())).collect()
        };
        for end in ends {
            let others = usize::from(!end.is_empty());
            let length = 1000 - 2 * quote.len();
            assert_eq!(read(1000, end), [vec![Ok(length)], vec![Ok(1); others]].concat(), "{layout:?} {end:?}");
            assert!(read(1001, end)[0].as_ref().unwrap_err().contains("more than 1000 bytes"), "{layout:?} {end:?}");
        }
    }
    let rows = format!("x\n\"a\n{}\"\n", "\n".repeat(996));
    assert_eq!(
        Records::with_limit("j".into(), Box::new(Cursor::new(rows)), Format::Csv.into(), 1000).unwrap().count(),
        1
    );
}

#[test]
fn a_failing_read_ends_the_reading_with_its_reason() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    for (format, text) in
        [(Format::Csv, "x\n1\n"), (Format::Tsv, "x\n1\n"), (Format::Lines, "x\n"), (Format::JsonLines, "1\n1\n")]
    {
        let bytes = Cursor::new(text).chain(BufReader::new(Failing));
        let mut records = Records::new("j", bytes, format.into()).unwrap();
        let error = records.by_ref().find_map(Result::err).unwrap();
        assert_eq!(error.to_string(), "cannot read j: Input/output error");
        assert!(records.next().is_none());
    }
}

#[test]
fn reading_a_stream_asks_for_no_more_lines_than_it_hands_out() {
    struct OneLineThenPanic(Option<&'static [u8]>);
    impl Read for OneLineThenPanic {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let line = self.0.take().expect("the second line was not asked for");
            buffer[..line.len()].copy_from_slice(line);
            Ok(line.len())
        }
    }
    for (format, text) in
        [(Format::Csv, &b"x\n7\n"[..]), (Format::Tsv, b"x\n7\n"), (Format::Lines, b"7\n"), (Format::JsonLines, b"7\n")]
    {
        let mut records = Records::new("j", BufReader::new(OneLineThenPanic(Some(text))), format.into()).unwrap();
        assert_eq!(integer(&records.next().unwrap().unwrap()).unwrap(), 7);
    }
}
