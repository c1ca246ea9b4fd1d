use std::fs;

use super::*;

/// Returns the records as number and text; errors as messages.
fn read(inputs: &Inputs) -> Vec<(u64, Result<String, String>)> {
    let text = |record: Result<Record, InputError>| {
        record.map(|record| record.text().into_owned()).map_err(|error| error.to_string())
    };
    inputs.open().map(|(number, record)| (number, text(record))).collect()
}

fn good(inputs: &Inputs) -> Vec<(u64, String)> {
    read(inputs).into_iter().map(|(number, record)| (number, record.unwrap())).collect()
}

fn pairs(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(number, text)| (*number, (*text).to_owned())).collect()
}

/// Files in a folder, one after the other.
fn files(directory: &TempDir, files: &[(&str, &[u8])]) -> Inputs {
    let source = |(name, text): &(&str, &[u8])| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        Source::new(path)
    };
    Inputs::files(files.iter().map(source).collect(), Layout::default())
}

fn words(words: &[&str]) -> Inputs {
    Inputs::words(words.iter().map(|&word| word.to_owned()).collect())
}

#[test]
fn files_are_read_one_after_the_other_and_records_are_numbered_through() {
    let directory = TempDir::new().unwrap();
    let some =
        [("a.txt", &b"a\n\nb"[..]), ("b.csv", b"x\n1\n\n2\n"), ("empty.jsonl", b"\n"), ("c.tsv", b"x\ty\n3\t4\n")];
    let inputs = files(&directory, &some);
    let expected = pairs(&[(1, "a"), (2, "b"), (3, "1"), (4, "2"), (5, "3\t4")]);
    assert_eq!(good(&inputs), expected);
    assert_eq!(inputs.check(|_| Ok(())).unwrap(), Some(5));
    assert_eq!(good(&inputs.clone().skip(1).take(3)), expected[1..4]);
    assert_eq!(good(&inputs.clone().skip(9)), []);
    assert_eq!(inputs.skip(3).take(u64::MAX).check(|_| Ok(())).unwrap(), Some(2));
}

#[test]
fn words_ranges_and_sweeps_are_numbered_and_cut_in_the_same_way() {
    let range: Range = "10:50:10".parse().unwrap();
    let axis: Axis = "x=10,20,30,40,50".parse().unwrap();
    for inputs in [
        words(&["10", "20", "30", "40", "50"]),
        Inputs::range(range),
        Inputs::sweep(Sweep::new(vec![axis], vec![], None, 0).unwrap()),
    ] {
        assert_eq!(good(&inputs), pairs(&[(1, "10"), (2, "20"), (3, "30"), (4, "40"), (5, "50")]));
        assert_eq!(good(&inputs.clone().skip(3)), pairs(&[(4, "40"), (5, "50")]));
        assert_eq!(good(&inputs.clone().skip(1).take(2)), pairs(&[(2, "20"), (3, "30")]));
        assert_eq!(good(&inputs.clone().skip(7)), []);
        assert_eq!(inputs.clone().skip(1).take(9).check(integer).unwrap(), Some(4));
        assert_eq!(inputs.clone().skip(7).check(integer).unwrap(), Some(0));
        assert_eq!(inputs.open().jobs(integer).map(|(_, job)| job.unwrap()).sum::<i64>(), 150);
        assert!(!inputs.is_stream() && !inputs.reads(&Source::Stdin));
    }
}

#[test]
fn a_word_may_be_empty() {
    assert_eq!(good(&words(&["", " ", "x\ny"])), pairs(&[(1, ""), (2, " "), (3, "x\ny")]));
}

#[test]
fn a_check_names_the_word_that_is_no_job() {
    let message = |inputs: Inputs| inputs.check(integer).unwrap_err().to_string();
    assert_eq!(message(words(&["1", "two"])), "--args:2: 'two' is not an integer");
    assert_eq!(message(Inputs::range("1:2:0.5".parse().unwrap())), "--range:2: '1.5' is not an integer");
    let axis: Axis = "x=1,b".parse().unwrap();
    let sweep = Inputs::sweep(Sweep::new(vec![axis], vec![], None, 0).unwrap());
    assert_eq!(message(sweep), "--grid:2: column 'x': 'b' is not an integer");
}

#[test]
fn billions_of_values_are_counted_without_computing_them() {
    let inputs = Inputs::range("1:4000000000000".parse().unwrap());
    assert_eq!(inputs.clone().skip(5).check(integer).unwrap(), Some(3_999_999_999_995));
    assert_eq!(good(&inputs.skip(3_999_999_999_999)), pairs(&[(4_000_000_000_000, "4000000000000")]));
}

#[test]
fn bad_records_have_numbers_and_end_nothing() {
    let directory = TempDir::new().unwrap();
    let inputs = files(&directory, &[("a.jsonl", b"1\n{\n3\n"), ("b.txt", b"\xFF\n5\n")]);
    let outcomes = read(&inputs);
    assert_eq!(outcomes.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(outcomes[1].1.is_err() && outcomes[3].1.is_err());
    assert_eq!(outcomes[4].1, Ok("5".to_owned()));
    assert!(inputs.check(integer).unwrap_err().to_string().contains("a.jsonl:2:"));
    assert_eq!(good(&inputs.skip(2).take(1)), pairs(&[(3, "3")]), "what is not wanted cannot be bad");
}

#[test]
fn bad_records_can_be_left_out_and_are_counted() {
    let directory = TempDir::new().unwrap();
    let inputs = files(&directory, &[("a.jsonl", b"1\n{\n\"x\"\n4\n"), ("b.txt", b"\xFF\n6\n")]).skip_bad(true);
    assert_eq!(good(&inputs), pairs(&[(1, "1"), (3, "x"), (4, "4"), (6, "6")]));
    assert_eq!(inputs.check(integer).unwrap(), Some(3));
    let reading = inputs.open();
    let bad = reading.bad_records();
    let jobs: Vec<_> = reading.jobs(integer).map(|(number, job)| (number, job.unwrap())).collect();
    assert_eq!(jobs, [(1, 1), (4, 4), (6, 6)]);
    assert_eq!(bad.count(), 3);
    let text = bad.to_string();
    assert!(
        text.starts_with("3 bad record(s) left out: ") && text.contains("a.jsonl:3: \"x\" is not an integer; "),
        "{text}"
    );
    assert_eq!(good(&inputs.clone().skip(1).take(2)), pairs(&[(3, "x")]), "bad records are among those that are taken");
    let words = words(&["1", "b", "3"]).skip_bad(true);
    assert_eq!(words.check(integer).unwrap(), Some(2));
}

#[test]
fn of_many_bad_records_the_first_few_are_remembered() {
    let inputs = Inputs::range("0:999999:1".parse().unwrap()).skip_bad(true);
    let odd = |record: &Record| match integer(record)? {
        x if x % 2 == 0 => Err(record.position(1).unwrap().wrong("is even")),
        x => Ok(x),
    };
    assert_eq!(inputs.check(odd).unwrap(), None, "not all of them were looked at");
    let reading = inputs.open();
    let bad = reading.bad_records();
    assert_eq!(reading.jobs(odd).count(), 500_000);
    assert_eq!((bad.count(), bad.to_string().matches("--range:").count()), (500_000, 5));
    assert!(bad.to_string().ends_with("--range:9: '8' is even; and 499995 more"), "{bad}");
}

#[test]
fn a_fault_of_a_file_ends_the_reading_even_where_bad_records_are_left_out() {
    let directory = TempDir::new().unwrap();
    let inputs = files(&directory, &[("a.txt", b"1\n"), ("b.csv", b"x,x\n1,2\n"), ("c.txt", b"2\n")]).skip_bad(true);
    let outcomes = read(&inputs);
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes[1].1.as_ref().is_err_and(|message| message.contains("b.csv:1: two columns have the name 'x'")));
    assert!(inputs.check(integer).is_err());
    assert_eq!(good(&inputs.take(1)), pairs(&[(1, "1")]), "what is behind the last record is not opened");
    let missing = Inputs::files(vec![Source::new(directory.path().join("missing"))], Layout::default());
    assert_eq!(read(&missing).len(), 1);
    assert_eq!(good(&missing.take(0)), []);
}

#[test]
fn files_around_a_stream_are_checked_and_the_stream_is_not_touched() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        Source::new(directory.path().join(name))
    };
    let (fine, bad) = (path("fine.txt", "1\n2\n"), path("bad.txt", "1\nx\n"));
    // It can be opened again, but not read again.
    let stream = Source::new("/dev/null");
    let inputs =
        |sources: &[&Source]| Inputs::files(sources.iter().map(|&source| source.clone()).collect(), Layout::default());
    assert!(inputs(&[&fine, &stream]).is_stream());
    assert_eq!(inputs(&[&fine, &stream, &fine]).check(integer).unwrap(), None);
    assert!(inputs(&[&bad, &stream]).check(integer).is_err());
    assert!(inputs(&[&stream, &bad]).check(integer).is_err());
    assert_eq!(inputs(&[&stream, &bad]).skip(1).check(integer).unwrap(), None, "which of them are wanted is not known");
    assert!(inputs(&[&fine, &Source::Stdin]).reads(&Source::Stdin));
}

#[test]
fn the_fallback_is_for_streams_and_endings_that_say_nothing() {
    let layout = Layout { fallback: Some(Format::Lines), ..Layout::default() };
    let format = |name| layout.format_of(Some(Path::new(name)));
    assert_eq!(
        [format("a.csv"), format("a.TXT"), format("a")].map(Option::unwrap),
        [Format::Csv, Format::Lines, Format::Lines]
    );
    assert_eq!(layout.format_of(None), Some(Format::Lines));
    assert_eq!(Layout { format: Some(Format::Tsv), ..layout }.format_of(Some(Path::new("a.csv"))), Some(Format::Tsv));
    assert_eq!(Layout { null: true, ..Layout::default() }.format_of(Some(Path::new("a.csv"))), Some(Format::Lines));
    assert_eq!(Layout::default().format_of(Some(Path::new("a"))), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_those_of_the_standard_library_without_blank_ones(text in "[a \t\r\né,\"]{0,60}") {
        let records: Vec<String> =
            records("f.txt", text.clone()).unwrap().map(|record| record.unwrap().text().into_owned()).collect();
        let expected: Vec<&str> = text.lines().filter(|line| !line.trim_ascii().is_empty()).collect();
        prop_assert_eq!(records, expected);
    }

    #[test]
    fn any_part_of_the_input_has_the_numbers_and_records_of_the_whole(
        counts in vec(0_usize..6, 1..4),
        skip in 0_u64..20,
        take in proptest::option::of(0_u64..20),
    ) {
        let directory = TempDir::new().unwrap();
        let mut sources = Vec::new();
        let mut whole = Vec::new();
        for (file, &count) in counts.iter().enumerate() {
            let lines: Vec<String> = (0..count).map(|line| format!("{file}/{line}")).collect();
            let path = directory.path().join(format!("{file}.txt"));
            fs::write(&path, lines.join("\n\n")).unwrap();
            whole.extend(lines);
            sources.push(Source::new(path));
        }
        let inputs = Inputs::files(sources, Layout::default()).skip(skip);
        let inputs = match take {
            Some(take) => inputs.take(take),
            None => inputs,
        };
        let take = take.unwrap_or(u64::MAX) as usize;
        let expected: Vec<(u64, String)> = (1..).zip(whole).skip(skip as usize).take(take).collect();
        prop_assert_eq!(inputs.check(|_| Ok(())).unwrap(), Some(expected.len() as u64));
        prop_assert_eq!(good(&inputs), expected);
    }

    #[test]
    fn any_record_is_written_as_one_line_of_json(bytes in properties::tricky_bytes(), text_only: bool) {
        for layout in properties::layouts() {
            let Ok(records) = records_as("any", bytes.clone(), layout) else { continue };
            for record in records.filter_map(Result::ok) {
                let mut out = Vec::new();
                record.push_json(text_only, &mut out);
                prop_assert!(!out.contains(&b'\n'));
                prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&out).is_ok());
            }
        }
    }

    #[test]
    fn any_row_s_text_is_read_back_as_the_row(fields in vec("[a,\"\n\r ]{0,5}", 2..5)) {
        let header: Vec<String> = (0..fields.len()).map(|i| format!("c{i}")).collect();
        let quoted: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        let text = format!("{}\n{}\n", header.join(","), quoted.join(","));
        let record = records("j.csv", text).unwrap().next().unwrap().unwrap();
        let again = format!("{}\n{}\n", header.join(","), record.text());
        prop_assert_eq!(values("j.csv", &again, texts), [fields]);
    }
}
