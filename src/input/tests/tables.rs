use super::*;

fn table(text: &str) -> Result<Table, String> {
    let bytes: Bytes = Box::new(Cursor::new(text.to_owned().into_bytes()));
    Table::read("s.csv".into(), bytes, MAX_RECORD_BYTES).map_err(|error| error.to_string())
}

#[test]
fn a_first_row_of_numbers_is_data_and_one_without_numbers_is_a_header() {
    let expected = Table { columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
    assert_eq!(table("1,2\n3,4\n").as_ref(), Ok(&expected));
    assert_eq!(table("x,y\r\n1, 2\r\n\r\n3,4").as_ref(), Ok(&expected));
    assert_eq!(table(""), Ok(Table { columns: 0, values: vec![] }));
}

#[test]
fn faults_are_named_with_line_and_column() {
    assert_eq!(table("1,2\n\n3,4,5\n"), Err("s.csv:3: 3 columns, but the first row has 2".to_owned()));
    assert_eq!(table("x,y\n1\n"), Err("s.csv:2: 1 column, but the header has 2".to_owned()));
    assert_eq!(table("x,y\n1,b\n"), Err("s.csv:2: column 'y': 'b' is not a number".to_owned()));
    assert_eq!(table("1,b\n"), Err("s.csv:1: column 2: 'b' is not a number".to_owned()));
    assert_eq!(table("1\n1e999\n"), Err("s.csv:2: column 1: '1e999' is not a finite number".to_owned()));
}

#[test]
fn the_reference_samples_are_ten_thousand_pairs() {
    let table = Source::new("tests/data/gaussian_2d.csv").table().unwrap();
    assert_eq!((table.columns, table.values.len()), (2, 20_000));
    assert_eq!(table.values[0], -1.085_630_603_300_561_2);
}

#[test]
fn a_byte_order_mark_before_numbers_does_no_harm() {
    let mut file = NamedTempFile::with_suffix(".csv").unwrap();
    file.write_all("\u{feff}1,2\n".as_bytes()).unwrap();
    let table = Source::new(file.path()).table().unwrap();
    assert_eq!(table, Table { columns: 2, values: vec![1.0, 2.0] });
}
