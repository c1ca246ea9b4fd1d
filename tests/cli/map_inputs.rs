//! What a function of `rankpool map` is called with, and what becomes of what it returns.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::map_support::{Module, lines};
use crate::{Files, LIMIT, support};

/// Says which type an argument has.
const KIND: &str = "def f(x): return [type(x).__name__, x]\n";

#[test]
fn every_input_is_a_python_value() {
    let module = Module::new(KIND);
    let csv = module.files.with("t.csv", "a,b,c\n1,007,x y\n2.50,-1e3,\n");
    let tsv = module.files.with("t.tsv", "a\tb\n1\t\"q\"\n");
    let list = module.files.with("t.txt", "1\n007\n1_000\ntrue\nhé \u{1f600}\n");
    let json = module.files.with("t.jsonl", "{\"a\":[1,null]}\n\"7\"\n[]\nfalse\n");
    for (words, expected) in [
        (
            vec!["--input", &csv],
            "[\"dict\",{\"a\":1,\"b\":\"007\",\"c\":\"x y\"}]\n[\"dict\",{\"a\":2.5,\"b\":-1000.0,\"c\":\"\"}]\n",
        ),
        (
            vec!["--input", &csv, "--text"],
            "[\"dict\",{\"a\":\"1\",\"b\":\"007\",\"c\":\"x y\"}]\n[\"dict\",{\"a\":\"2.50\",\"b\":\"-1e3\",\"c\":\"\"}]\n",
        ),
        (vec!["--input", &tsv], "[\"dict\",{\"a\":1,\"b\":\"\\\"q\\\"\"}]\n"),
        (
            vec!["--input", &list],
            "[\"int\",1]\n[\"str\",\"007\"]\n[\"str\",\"1_000\"]\n[\"str\",\"true\"]\n[\"str\",\"hé \u{1f600}\"]\n",
        ),
        (vec!["--input", &list, "--take", "1", "--text"], "[\"str\",\"1\"]\n"),
        (vec!["--input", &json], "[\"dict\",{\"a\":[1,null]}]\n[\"str\",\"7\"]\n[\"list\",[]]\n[\"bool\",false]\n"),
        (vec!["--args", "1", "-2.5", "x", "--"], ""),
        (vec!["--range", "0:1:0.5"], "[\"int\",0]\n[\"float\",0.5]\n[\"int\",1]\n"),
        (
            vec!["--grid", "a=1,x", "--grid", "b=007"],
            "[\"dict\",{\"a\":1,\"b\":\"007\"}]\n[\"dict\",{\"a\":\"x\",\"b\":\"007\"}]\n",
        ),
    ] {
        let words: Vec<&str> = words.into_iter().filter(|word| *word != "--").collect();
        let expected = if expected.is_empty() { "[\"int\",1]\n[\"float\",-2.5]\n[\"str\",\"x\"]\n" } else { expected };
        assert_eq!(module.map("f", &words).expect_code(0).out(), expected, "{words:?}");
    }
}

#[test]
fn samples_are_the_same_on_any_number_of_ranks() {
    let module = Module::new("def f(x): return x\n");
    let words = ["--sample", "a=0.0:1.0", "--sample", "b=1:6", "--count", "20", "--seed", "7"];
    let outputs = [1, 2, 4].map(|ranks| module.map_on(ranks, "f", &words).expect_code(0).out());
    assert_eq!(outputs[0].lines().count(), 20);
    assert!(outputs[0].lines().all(|line| line.starts_with("{\"a\":0.") && line.contains(",\"b\":")), "{}", outputs[0]);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    assert_ne!(module.map("f", &["--sample", "a=0.0:1.0", "--sample", "b=1:6", "--count", "20"]).out(), outputs[0]);
}

#[test]
fn star_makes_arguments_of_lists_and_objects() {
    let module = Module::new("def f(a, b=10): return [a, b]\n");
    let json = module.files.with("t.jsonl", "[1,2]\n[5]\n{\"b\":1,\"a\":2}\n{\"c\":7}\n3\n");
    let run = module.map("f", &["--star", "--input", &json]);
    let out = lines(run.expect_code(3).expect_said("unexpected keyword argument 'c'"));
    assert_eq!(out[..3], [serde_json::json!([1, 2]), serde_json::json!([5, 10]), serde_json::json!([2, 1])]);
    assert_eq!(out[3]["error"]["kind"], "exception");
    assert!(out[4]["error"]["message"].as_str().expect("a text").contains("--star needs a list or an object"));
    let grid = module.map("f", &["--star", "--grid", "a=1,2", "--grid", "b=3"]);
    assert_eq!(grid.expect_code(0).out(), "[1,3]\n[2,3]\n");
}

#[test]
fn numbers_and_texts_come_back_as_they_went() {
    let module = Module::new("def f(x): return x\n");
    let values = [
        "123456789012345678901234567890",
        "-9223372036854775809",
        "0.1",
        "1e-7",
        "1.7976931348623157e308",
        "5e-324",
        "\"\u{fc}\u{1f600}\\u0000\\n\\\"\"",
        "\"\u{2028}\"",
        "[[],{},null,true]",
    ];
    let file = module.files.with("t.jsonl", values.join("\n"));
    let out = module.map("f", &["--input", &file]).expect_code(0).out();
    for (line, value) in out.lines().zip(values) {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        // Numbers that serde_json would round are compared as text.
        if value.len() > 17 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            assert_eq!(line, value);
        } else {
            assert_eq!(parse(line), parse(value));
        }
    }
    assert_eq!(out.lines().count(), values.len());
}

#[test]
fn twenty_thousand_quick_calls_are_answered_in_order() {
    let module = Module::new("def f(x): return x * x\n");
    let mut expected = String::new();
    (1..=20_000_u64).for_each(|x| writeln!(expected, "{}", x * x).expect("memory"));
    assert!(module.map_on(4, "f", &["--range", "1:20000"]).expect_code(0).out() == expected);
    let unordered = module.map("f", &["--range", "1:2000", "--unordered"]).expect_code(0).out();
    let mut numbers: Vec<u64> = unordered.lines().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((1..=2000).map(|x| x * x)));
}

#[test]
fn results_of_five_megabytes_are_whole() {
    let module = Module::new("def f(x): return str(x) * 5_000_000\n");
    let out = module.map("f", &["--range", "1:6"]).expect_code(0).stdout.clone();
    assert_eq!(out.len(), 6 * 5_000_003);
    for (at, line) in out.split(|&byte| byte == b'\n').take(6).enumerate() {
        let digit = b'1' + u8::try_from(at).expect("few lines");
        assert!(line[1..line.len() - 1].iter().all(|&byte| byte == digit));
    }
}

#[test]
fn what_numpy_has_becomes_json() {
    let has_numpy = Command::new("python3").args(["-c", "import numpy"]).stderr(Stdio::null()).status();
    if !has_numpy.is_ok_and(|status| status.success()) {
        return;
    }
    let module = Module::new(
        "import numpy as np\ndef f(x): return [np.float32(x), np.arange(x), {\"m\": np.eye(2) * np.nan}, np.int64(2**62)]\n",
    );
    let out = module.map("f", &["--args", "2"]).expect_code(0).out();
    assert_eq!(out, "[2.0,[0,1],{\"m\":[[null,null],[null,null]]},4611686018427387904]\n");
}

#[test]
fn an_empty_input_is_an_empty_output() {
    let module = Module::new("def f(x): return x\n");
    let run = module.map("f", &["--input", "/dev/null"]);
    assert_eq!(run.expect_code(0).out(), "");
    let none = module.map("f", &[]);
    none.expect_code(2).expect_said("there are no records: give --input FILE");
}

#[test]
fn a_dry_run_shows_the_arguments() {
    let files = Files::new();
    let csv = files.with("t.csv", "a,b\n1,007\n");
    let dry = |words: &[&str]| {
        let mut all = vec!["map", "--python", "there/is/no.py:f", "--dry-run", "-q", "--input", &csv];
        all.extend(words);
        support::run(crate::command(&all).current_dir(files.0.path()), LIMIT)
    };
    assert_eq!(dry(&[]).expect_code(0).out(), "{\"a\":1,\"b\":\"007\"}\n");
    assert_eq!(dry(&["--text"]).expect_code(0).out(), "{\"a\":\"1\",\"b\":\"007\"}\n");
    assert_eq!(files.names(), ["t.csv"]);
}
