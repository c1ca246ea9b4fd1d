//! Files that are read: what is wrong in them, what becomes of a run whose input changes, and that none is written over.

use std::fs;

use crate::{Files, kernel, run_batch};

#[test]
fn an_unclosed_quote_is_an_error_that_names_its_line() {
    let files = Files::new();
    files.with("jobs.csv", "a,b\n1,x\n2,\"y\n3,z\n4,w\n");
    let words = ["-i", "jobs.csv", "-o", "out", "--", "echo", "{a}"];
    let run = run_batch(&files, &words);
    assert_eq!(run.expect_code(2).expect_said("jobs.csv:3:3: the quote that opens here is never closed").out(), "");
    assert_eq!(files.names(), ["jobs.csv"]);
    let run = run_batch(&files, &[&["--skip-bad"], &words[..]].concat());
    run.expect_code(0).expect_said("1 bad record(s) left out: jobs.csv:3:3: ").expect_said(", up to line 5,");
    assert_eq!(fs::read_to_string(files.path("out")).expect("the output"), "1\n");
    let samples = files.with("samples.csv", "1,2\n3,\"4\n5,6\n");
    kernel(&format!("parzen --samples {samples}")).expect_code(2).expect_said("samples.csv:2:3: the quote that opens");
}
