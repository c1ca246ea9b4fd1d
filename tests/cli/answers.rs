//! What each function answers, and that nothing about the run changes it.

use std::fmt::Write as _;
use std::fs;

use crate::{Files, data, floats, json, kernel, piped};

#[track_caller]
fn assert_close(answers: &[f64], expected: &[f64]) {
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(expected) {
        assert!((answer - expected).abs() <= 1e-12 * expected.abs(), "{answer} is not {expected}");
    }
}

/// A column of `slow_fn_512.csv`.
fn reference(column: usize) -> Vec<f64> {
    let text = fs::read_to_string(data("slow_fn_512.csv")).expect("the reference values");
    text.lines()
        .skip(1)
        .map(|line| line.split(',').nth(column).expect("7 columns").parse().expect("a number"))
        .collect()
}

#[test]
fn integers_in_give_exact_integers_out() {
    assert_eq!(kernel("square").expect_code(0).out(), "0\n1\n4\n9\n16\n25\n36\n49\n64\n81\n");
    assert_eq!(kernel("cube").expect_code(0).out(), "1\n8\n27\n64\n125\n216\n");
    assert_eq!(kernel("power").expect_code(0).out(), "0\n1\n4\n9\n16\n25\n36\n49\n64\n81\n");
    assert_eq!(kernel("power --each-y --exponent 3").expect_code(0).out().lines().last(), Some("729"));
    let powers = kernel("power --y 0.5").expect_code(0).out();
    assert_close(&floats(&powers), &(0..10).map(|x| f64::from(x).sqrt()).collect::<Vec<_>>());
}

#[test]
fn roots_of_1_to_4999() {
    let roots = floats(&kernel("sqrt").expect_code(0).out());
    assert!(roots.iter().copied().eq((1..5000).map(|x| f64::from(x).sqrt())), "as exact as a double can be");
}

#[test]
fn sums_are_records() {
    let expected = [25, 37, 50, 19, 547, 27, 57, 68, 38].map(|sum| format!("{{\"sum\":{sum}}}\n")).concat();
    assert_eq!(kernel("sum").expect_code(0).out(), expected);
}

#[test]
fn random_strings_depend_on_seed_and_index() {
    let expected = "[0,\"ptudg\"]\n[1,\"ywbv8\"]\n[2,\"FVH51\"]\n[3,\"QC1DP\"]\n";
    assert_eq!(kernel("rand-string").expect_code(0).out(), expected);
    assert_eq!(kernel("rand-string --jobs 2 --seed 0").expect_code(0).out(), expected[..24]);
    assert_ne!(kernel("rand-string --seed 1").expect_code(0).out(), expected);
    let long = kernel("rand-string --count 1 --length 40").expect_code(0).out();
    assert_eq!(long.len(), "[0,\"\"]\n".len() + 40);
}

#[test]
fn slow_fn_agrees_with_the_reference_values() {
    let file = data("slow_fn_512.csv");
    assert_close(&floats(&kernel(&format!("slow-fn --input {file}")).expect_code(0).out()), &reference(5));
    let default = kernel("slow-fn --n 10").expect_code(0).out();
    assert_eq!(default.lines().count(), 512);
    assert_ne!(kernel("slow-fn --n 10 --seed 1").expect_code(0).out(), default);
}

#[test]
fn slow_fn_malloc_agrees_with_the_reference_values() {
    let files = Files::new();
    let text = fs::read_to_string(data("slow_fn_512.csv")).expect("the reference values");
    let some: Vec<&str> = text.lines().take(33).collect();
    let file = files.with("some.csv", some.join("\n"));
    let answers = floats(&kernel(&format!("slow-fn-malloc --input {file}")).expect_code(0).out());
    assert_close(&answers, &reference(6)[..32]);
    assert_eq!(kernel("slow-fn-malloc --n 2 -q").expect_code(0).out().lines().count(), 4096);
}

#[test]
fn parzen_counts_the_samples_in_each_window() {
    let samples = data("gaussian_2d.csv");
    let out = kernel(&format!("parzen --samples {samples} --point 0,0 --widths 0.1:1.2:12")).expect_code(0).out();
    let answers: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let counts: Vec<_> = answers.iter().map(|answer| answer["count"].as_u64().expect("a count")).collect();
    assert_eq!(counts, [16, 61, 135, 247, 390, 547, 742, 939, 1194, 1445, 1728, 2022]);
    assert_eq!((&answers[4]["h"], &answers[4]["density"]), (&0.5.into(), &0.156.into()));
    let default = kernel(&format!("parzen --samples {samples}")).expect_code(0).out();
    assert_eq!(default.lines().count(), 100);
    assert!(default.starts_with("{\"h\":1.0,\"count\":1445,"), "{default}");
    assert!(default.lines().last().is_some_and(|line| line.starts_with("{\"h\":1.2,\"count\":2022,")), "{default}");
}

#[test]
fn parzen_takes_points_of_any_dimension() {
    let files = Files::new();
    let samples = "0,0,0\n0.2,0.2,0.2\n0.1,-0.1,-0.3\n-1.2,0.3,-0.3\n0.8,-0.82,-0.9\n1,0.6,-0.7\n0.8,0.7,0.2\n\
                   0.7,-0.8,-0.45\n-0.3,0.6,0.9\n0.7,-0.6,-0.8\n";
    let samples = files.with("samples.csv", samples);
    let out = kernel(&format!("parzen --samples {samples} --widths 1:1:1")).expect_code(0).out();
    assert_eq!(out, "{\"h\":1.0,\"count\":3,\"density\":0.3}\n");
    let elsewhere = kernel(&format!("parzen --samples {samples} --point -1.2,0.3,-0.3 --widths 1:1:1"));
    assert_eq!(elsewhere.expect_code(0).out(), "{\"h\":1.0,\"count\":1,\"density\":0.1}\n");
    kernel(&format!("parzen --samples {samples} --point 0,0")).expect_code(2).expect_said("3 coordinates each");
}

#[test]
fn the_measuring_functions_answer_their_indices() {
    let indices = |count: u32| (0..count).fold(String::new(), |text, i| text + &format!("{i}\n"));
    assert_eq!(kernel("nop").expect_code(0).out(), indices(1000));
    assert_eq!(kernel("nop --jobs 0").expect_code(0).out(), "");
    assert_eq!(kernel("spin --jobs 100 --micros 20").expect_code(0).out(), indices(100));
    assert_eq!(kernel("sleep --jobs 4 --seconds 0.01").expect_code(0).out(), indices(4));
    assert_eq!(kernel("sleep-square --seconds 0.01").expect_code(0).out(), kernel("square").out());
}

#[test]
fn the_same_bytes_for_every_number_of_ranks_and_threads_and_chunk_size() {
    let samples = data("gaussian_2d.csv");
    let parzen = format!("parzen --samples {samples} --widths 0.1:1.2:12");
    for words in [
        "square",
        "cube",
        "sqrt",
        "power --y 3",
        "power --each-y",
        "sum",
        "rand-string --jobs 50 --seed 3",
        "sleep-square --seconds 0",
        "slow-fn --n 10 --seed 5",
        "slow-fn-malloc --n 10 --jobs 100",
        &parzen,
        "nop --jobs 5000",
        "spin --jobs 50 --micros 5",
        "sleep --jobs 20 --seconds 0.001",
    ] {
        let expected = kernel(&format!("{words} --local 1 --threads 1")).expect_code(0).out();
        assert!(!expected.is_empty());
        for local in [1, 2, 3, 5] {
            for threads in [1, 2] {
                for chunk in ["auto", "1", "7"] {
                    let options = format!("{words} --local {local} --threads {threads} --chunk {chunk} -q");
                    assert!(kernel(&options).expect_code(0).out() == expected, "{options} answers otherwise");
                }
            }
        }
    }
}

#[test]
fn unordered_results_are_the_same_lines() {
    let mut lines = floats(&kernel("nop --jobs 3000 --unordered --window 100 --chunk 3").expect_code(0).out());
    lines.sort_by(f64::total_cmp);
    assert!(lines.into_iter().eq((0..3000).map(f64::from)));
}

#[test]
fn jobs_are_read_from_files_and_pipes() {
    let files = Files::new();
    let csv = files.with("jobs.csv", "name,x\na,3\nb,-4\n");
    let json = files.with("jobs.jsonl", "3\n{\"x\":-4}\n\n");
    assert_eq!(kernel(&format!("square --input {csv}")).expect_code(0).out(), "9\n16\n");
    assert_eq!(kernel(&format!("square -i {json}")).expect_code(0).out(), "9\n16\n");
    assert_eq!(piped("square", "x\n3\n-4\n").expect_code(0).out(), "9\n16\n");
    assert_eq!(piped("power --each-y", "[2, 10]\n[3, 2]\n").expect_code(0).out(), "1024\n9\n");
    assert_eq!(piped("sum", "{\"param1\":1,\"param2\":0.5}").expect_code(0).out(), "{\"sum\":1.5}\n");
    let many: String = (0..20_000).fold(String::new(), |mut text, i| {
        let _ = writeln!(text, "{i}");
        text
    });
    assert_eq!(piped("nop", &many).expect_code(0).out(), many);
}

#[test]
fn an_empty_input_is_no_jobs() {
    let files = Files::new();
    for (name, text) in [("a.csv", ""), ("b.csv", "x\n"), ("c.jsonl", ""), ("d.jsonl", "\n\n")] {
        let (file, summary) = (files.with(name, text), files.path("summary.json"));
        let run = kernel(&format!("square --input {file} --summary {}", summary.display()));
        assert_eq!(run.expect_code(0).expect_said("square: 0 jobs").out(), "");
        assert_eq!(json(&summary)["jobs"], 0);
    }
    assert_eq!(piped("square", "").expect_code(0).out(), "");
}

#[test]
fn failed_jobs_have_a_line_in_their_place_and_exit_code_3() {
    let files = Files::new();
    let (jobs, summary) = (files.with("jobs.jsonl", "4\n-1\n9\n-2\n"), files.path("summary.json"));
    let run = kernel(&format!("sqrt --input {jobs} --summary {}", summary.display()));
    let message = |job, x| {
        format!(
            "{{\"error\":{{\"job\":{job},\"kind\":\"panic\",\"message\":\"sqrt of -{x}: only a number from 0 up has a real \
             square root\"}}}}\n"
        )
    };
    let expected = format!("2.0\n{}3.0\n{}", message(2, 1), message(4, 2));
    assert_eq!(run.expect_code(3).expect_said("2 of 4 job(s) failed:\n  job 2: sqrt of -1: ").out(), expected);
    assert_eq!((&json(&summary)["jobs"], &json(&summary)["failed"]), (&4.into(), &2.into()));
    let file = files.path("out.jsonl");
    kernel(&format!("sqrt --input {jobs} --retries 2 -q --output {}", file.display())).expect_code(3);
    assert_eq!(fs::read_to_string(file).expect("a whole file"), expected, "the file is whole");
}

#[test]
fn jobs_come_from_words_ranges_grids_and_samples() {
    for (words, expected) in [
        ("square --args 3 -4 5", "9\n16\n25\n"),
        ("square --range 1:9:4", "1\n25\n81\n"),
        ("square --range 3:-3:-3 --local 3 --chunk 1", "9\n0\n9\n"),
        ("power --each-y --grid x=2,3 --grid y=1,2", "2\n4\n3\n9\n"),
        ("square --range 1:1000000000 --skip 999999998 --take 1", "999999998000000001\n"),
        ("nop --range 5:100 --take 2", "5\n6\n"),
        ("square --sample x=7:7 --count 2", "49\n49\n"),
    ] {
        assert_eq!(kernel(words).expect_code(0).out(), expected, "{words}");
    }
    let roots = floats(&kernel("sqrt --range 0:1:0.25").expect_code(0).out());
    assert_eq!(roots, [0.0, 0.5, 0.5_f64.sqrt(), 0.75_f64.sqrt(), 1.0]);
    let drawn = kernel("sqrt --sample x=1.0:4.0 --count 50 --seed 3").expect_code(0).out();
    assert!(floats(&drawn).iter().all(|root| (1.0..=2.0).contains(root)));
    assert_eq!(drawn, kernel("sqrt --sample x=1.0:4.0 --count 50 --seed 3 --local 3 --chunk 7").expect_code(0).out());
}

#[test]
fn several_files_of_several_formats_are_one_input() {
    let files = Files::new();
    let (lines, tsv) = (files.with("a.txt", "1\r\n\n2"), files.with("b.tsv", "n\tx\na\t3\nb\t4\n"));
    let (json, bare) = (files.with("c.jsonl", "5\n{\"x\":6}\n"), files.with("d", "7,8\n"));
    let all = format!("square --input {lines} --input {tsv} -i {json}");
    assert_eq!(kernel(&all).expect_code(0).out(), "1\n4\n9\n16\n25\n36\n");
    assert_eq!(kernel(&format!("{all} --skip 1 --take 3")).expect_code(0).out(), "4\n9\n16\n");
    assert_eq!(kernel(&format!("power --each-y --input {bare} --no-header")).expect_code(0).out(), "5764801\n");
    assert_eq!(piped("square --format lines --null", "3\0-4\0").expect_code(0).out(), "9\n16\n");
    assert_eq!(piped(&format!("square --input {lines}"), "9\n").expect_code(0).out(), "1\n4\n81\n");
}
