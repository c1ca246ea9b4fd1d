use super::*;

fn sweep(axes: &[&str], draws: &[&str], repeats: Option<u64>, seed: u64) -> Result<Sweep, String> {
    let axes = axes.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let draws = draws.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Sweep::new(axes, draws, repeats, seed)
}

fn rows(sweep: &Sweep) -> Vec<String> {
    (0..sweep.count()).map(|i| sweep.record(i).text().into_owned()).collect()
}

/// The draws of one name, read as numbers.
fn drawn(draw: &str, count: u64) -> Vec<f64> {
    drawn_from(draw, count, 7)
}

fn drawn_from(draw: &str, count: u64, seed: u64) -> Vec<f64> {
    let sweep = sweep(&[], &[draw], Some(count), seed).unwrap();
    rows(&sweep).iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_grid_is_every_combination_and_the_last_name_is_the_fastest() {
    let grid = sweep(&["a=1,2", "b=x,y,\"u,v\""], &[], None, 0).unwrap();
    assert_eq!(rows(&grid), ["1,x", "1,y", "1,\"u,v\"", "2,x", "2,y", "2,\"u,v\""]);
    let record = grid.record(5);
    assert_eq!(record.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((record.get("b").unwrap().to_text().as_ref(), record.place().to_string()), ("u,v", "--grid:6".into()));
    assert_eq!(rows(&sweep(&[" lr =0.1"], &[], None, 0).unwrap()), ["0.1"]);
    assert_eq!(rows(&sweep(&["flag=,-v"], &[], None, 0).unwrap()), ["", "-v"]);
    assert_eq!(rows(&sweep(&["expression=a=b"], &[], None, 0).unwrap()), ["a=b"]);
}

#[test]
fn samples_are_drawn_for_each_combination() {
    let both = sweep(&["a=1,2"], &["x=0.0:1.0", "n=1:6"], Some(3), 4).unwrap();
    let rows = rows(&both);
    assert_eq!(rows.iter().map(|row| &row[..2]).collect::<Vec<_>>(), ["1,", "1,", "1,", "2,", "2,", "2,"]);
    assert_eq!(rows.iter().collect::<std::collections::BTreeSet<_>>().len(), 6, "no draw occurs twice");
    assert_eq!(sweep(&["a=1,2"], &["x=0:1"], None, 0).unwrap().count(), 2);
    assert_eq!(sweep(&["a=1,2"], &["x=0:1"], Some(0), 0).unwrap().count(), 0);
}

#[test]
fn a_draw_depends_on_seed_name_and_place_alone() {
    let alone = sweep(&[], &["x=0.0:1.0"], Some(20), 4).unwrap();
    let other_seed = sweep(&[], &["x=0.0:1.0"], Some(20), 5).unwrap();
    let among = sweep(&["a=1,2"], &["y=0.0:1.0", "x=0.0:1.0"], Some(10), 4).unwrap();
    for i in 0..20 {
        let value = |sweep: &Sweep, name| sweep.record(i).get(name).unwrap().float().unwrap();
        assert_eq!(value(&alone, "x"), value(&among, "x"));
        assert_ne!(value(&alone, "x"), value(&among, "y"));
        assert_ne!(value(&alone, "x"), value(&other_seed, "x"));
    }
}

/// Results must be reproducible: a new version of the generator's crates that changes them must be noticed.
#[test]
fn draws_stay_the_same_from_release_to_release() {
    let sweep = sweep(&[], &["x=0.0:1.0", "n=1:6", "k=1:1000:log"], Some(3), 0).unwrap();
    assert_eq!(rows(&sweep), ["0.8710994505908333,6,9", "0.1751160800047712,3,74", "0.9467958177704726,5,40"]);
    // The last digits depend on the system's logarithm.
    let expected = [0.001_539_983_191_34, 0.036_603_022_367_27, 0.000_021_003_534_151_40];
    for (sample, expected) in drawn_from("r=1e-5:0.1:log", 3, 0).iter().zip(expected) {
        assert!((sample / expected - 1.0).abs() < 1e-9, "{sample} is not {expected}");
    }
}

#[test]
fn draws_are_even_and_stay_between_their_ends() {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let floats = drawn("x=-1.0:3.0", 10_000);
    assert!(floats.iter().all(|x| (-1.0..=3.0).contains(x)) && (mean(&floats) - 1.0).abs() < 0.05);
    let dice = drawn("x=1:6", 12_000);
    for face in 1..=6 {
        let count = dice.iter().filter(|&&x| x == f64::from(face)).count();
        assert!((1800..2200).contains(&count), "{face}: {count}");
    }
    let logs: Vec<f64> = drawn("x=1e-4:1.0:log", 10_000).iter().map(|x| x.log10()).collect();
    assert!(logs.iter().all(|x| (-4.0..=0.0).contains(x)) && (mean(&logs) + 2.0).abs() < 0.05);
    let integers = drawn("x=1:1000:log", 10_000);
    assert!(integers.iter().all(|x| (1.0..=1000.0).contains(x) && x.fract() == 0.0));
    let small = integers.iter().filter(|&&x| x < 32.0).count();
    assert!((4700..5300).contains(&small), "half of them are below the square root: {small}");
}

#[test]
fn the_widest_and_the_narrowest_ends_are_all_right() {
    assert_eq!(drawn("x=5:5", 3), [5.0; 3]);
    assert_eq!(drawn("x=0.5:0.5", 3), [0.5; 3]);
    let (low, high) = (i64::MIN, i64::MAX);
    let all = sweep(&[], &[&format!("x={low}:{high}")], Some(100), 0).unwrap();
    assert!(rows(&all).iter().all(|text| text.parse::<i64>().is_ok()));
    assert!(drawn(&format!("x=1:{high}:log"), 100).iter().all(|&x| x >= 1.0));
    let floats = drawn(&format!("x={:e}:{:e}", f64::MIN, f64::MAX), 100);
    assert!(floats.iter().all(|x| x.is_finite()));
}

#[test]
fn a_wrong_sweep_is_refused_with_a_message() {
    for (axes, draws, repeats, message) in [
        (&["a"][..], &[][..], None, "not of the form NAME=V1,V2,…"),
        (&["=1"], &[], None, "not of the form NAME=V1,V2,…"),
        (&["a="], &[], None, "'a' has no values: write a=V1,V2,…"),
        (&["a=1\n2"], &[], None, "the values of 'a' hold a line break: put the value that has it in quotes"),
        (
            &["a=1,\"2,3"],
            &[],
            None,
            "'1,\"2,3', byte 3: the quote that opens here is never closed: everything behind it would be one field (a quote within a \
             field is written twice)",
        ),
        (
            &["a=\"1\"2,3"],
            &[],
            None,
            "'\"1\"2,3', byte 1: the quote that opens here is closed, and text follows where a comma should (a quote within a field is \
             written twice)",
        ),
        (&["a=1", "a=2"], &[], None, "the name 'a' is given twice among --grid and --sample"),
        (&["a=1"], &["a=0:1"], None, "the name 'a' is given twice among --grid and --sample"),
        (&["a=1"], &[], Some(3), "--count sets the number of samples, so it needs at least one --sample"),
        (&[], &["x=0:1"], None, "--sample needs --count N, the number of samples to draw"),
        (&[], &["x=1"], Some(1), "not of the form NAME=LOW:HIGH or NAME=LOW:HIGH:log"),
        (&[], &["x=1:2:lin"], Some(1), "not of the form NAME=LOW:HIGH or NAME=LOW:HIGH:log"),
        (&[], &["x=1:b"], Some(1), "'b' is not a number"),
        (&[], &["x=0.0:inf"], Some(1), "'inf' is not a number"),
        (&[], &["x=2:1"], Some(1), "2 is above 1: the lower end comes first"),
        (&[], &["x=0:1:log"], Some(1), "with `log` both ends must be above 0, and 0 is not"),
    ] {
        assert_eq!(sweep(axes, draws, repeats, 0).unwrap_err(), message);
    }
    let axis = format!("a{}", ",1".repeat(1000).replacen(',', "=", 1));
    let axes: Vec<String> = (0..7).map(|i| axis.replacen('a', &format!("a{i}"), 1)).collect();
    let axes: Vec<&str> = axes.iter().map(String::as_str).collect();
    let error = sweep(&axes, &[], None, 0).unwrap_err();
    assert_eq!(error, "--grid has more than 18446744073709551615 combinations");
}
