use super::*;

fn numbers(text: &str) -> Vec<String> {
    let range: Range = text.parse().unwrap();
    let numbers: Vec<String> = (0..range.count()).map_while(|i| range.get(i)).collect();
    assert_eq!((numbers.len() as u64, range.get(range.count())), (range.count(), None));
    numbers
}

#[test]
fn both_ends_are_included_if_a_step_hits_them() {
    assert_eq!(numbers("1:3"), ["1", "2", "3"]);
    assert_eq!(numbers("1:10:4"), ["1", "5", "9"]);
    assert_eq!(numbers("3:-3:-3"), ["3", "0", "-3"]);
    assert_eq!(numbers("5:5"), ["5"]);
    assert_eq!(numbers("5:5:-7"), ["5"]);
    assert_eq!(numbers("-2:1"), ["-2", "-1", "0", "1"]);
    assert_eq!(numbers("0.5:3"), ["0.5", "1.5", "2.5"]);
    assert_eq!(numbers("1e3:2e3:5e2"), ["1000", "1500", "2000"]);
}

#[test]
fn decimals_do_not_drift_and_are_as_short_as_can_be() {
    assert_eq!(numbers("0:1:0.1"), ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]);
    assert_eq!(numbers("1.50:1.0:-0.25"), ["1.5", "1.25", "1"]);
    assert_eq!(numbers("-.1:.1:.05"), ["-0.1", "-0.05", "0", "0.05", "0.1"]);
    assert_eq!(numbers("0:3e-9:1e-9"), ["0", "0.000000001", "0.000000002", "0.000000003"]);
    assert_eq!(numbers("0.0:100.0:50"), ["0", "50", "100"]);
    let long: Range = "0:1000000:0.000001".parse().unwrap();
    assert_eq!(long.get(123_456_789_012).as_deref(), Some("123456.789012"));
}

#[test]
fn integers_are_exact_to_the_end() {
    let (low, high) = (i64::MIN, i64::MAX);
    let range: Range = format!("{}:{high}", low + 1).parse().unwrap();
    assert_eq!(range.count(), u64::MAX);
    assert_eq!(range.get(0), Some((low + 1).to_string()));
    assert_eq!(range.get(u64::MAX - 1), Some(high.to_string()));
    assert_eq!(numbers(&format!("{}:{high}", high - 1)), [(high - 1).to_string(), high.to_string()]);
    let all = format!("{low}:{high}").parse::<Range>().unwrap_err();
    assert_eq!(all, "more than 18446744073709551615 numbers");
}

#[test]
fn a_wrong_range_is_refused_with_a_message() {
    let long = "1".repeat(60);
    for (text, message) in [
        ("5", "not of the form START:END or START:END:STEP"),
        ("1:2:3:4", "not of the form START:END or START:END:STEP"),
        ("1:x", "'x' is not a number"),
        (":5", "'' is not a number"),
        ("1:nan", "'nan' is not a number"),
        ("1:.", "'.' is not a number"),
        ("1:1e", "'1e' is not a number"),
        ("1:--2", "'--2' is not a number"),
        ("1:10:0", "the step is 0"),
        ("1:10:0.0", "the step is 0"),
        ("10:1", "from 10 to 1 it goes down: write 10:1:-1, or another step"),
        ("1:10:-2", "from 1 to 10 it goes up: write 1:10:1, or another step"),
        ("1:1e99", "'1e99' has too many digits"),
        ("1:1e-99", "'1e-99' has too many digits"),
        ("1:1e30", "numbers from 1 to 1e30 in steps of 1 have too many digits"),
        (&format!("1:{long}"), &format!("'{long}' has too many digits")),
    ] {
        assert_eq!(text.parse::<Range>(), Err(message.to_owned()), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_range_of_integers_is_the_one_that_counting_gives(start in -50_i64..50, end in -50_i64..50, step in 1_i64..9) {
        let (step, expected): (i64, Vec<i64>) = if start <= end {
            (step, (start..=end).step_by(step as usize).collect())
        } else {
            (-step, (end..=start).rev().step_by(step as usize).collect())
        };
        let expected: Vec<String> = expected.iter().map(i64::to_string).collect();
        prop_assert_eq!(&numbers(&format!("{start}:{end}:{step}")), &expected);
    }

    #[test]
    fn any_decimal_reads_as_the_double_nearest_to_it(start in -999_i64..999, step in 1_i64..99, count in 1_i64..30) {
        let decimal = |hundredths: i64| format!("{}{}.{:02}", if hundredths < 0 { "-" } else { "" }, hundredths.abs() / 100, hundredths.abs() % 100);
        let text = format!("{}:{}:{}", decimal(start), decimal(start + (count - 1) * step), decimal(step));
        let doubles: Vec<f64> = numbers(&text).iter().map(|number| number.parse().unwrap()).collect();
        let expected: Vec<f64> = (0..count).map(|i| (start + i * step) as f64 / 100.0).collect();
        prop_assert_eq!(doubles, expected);
    }

    #[test]
    fn any_text_is_a_range_or_an_error(text in "[-+.:eE0-9 x]{0,40}") {
        if let Ok(range) = text.parse::<Range>() {
            for i in [0, 1, range.count() / 2, range.count() - 1] {
                let number = range.get(i);
                prop_assert_eq!(number.is_some(), i < range.count());
            }
        }
    }
}
