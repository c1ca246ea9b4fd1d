//! The options about failures, for built-in functions: they are those of `run` and `map`.

use std::fs;

use super::{Files, kernel};

#[test]
fn a_kernel_writes_a_job_log_and_continues_it() {
    let files = Files::new();
    let jobs = files.with("jobs.jsonl", "4\n-1\n9\n-16\n");
    let (out, log) = (files.path("out"), files.path("log"));
    let words = format!("sqrt --input {jobs} --skip 1 --records {} --output {}", log.display(), out.display());
    kernel(&words).expect_code(3).expect_said("To run only the failed jobs again, add: --only-failed");
    let entries = fs::read_to_string(&log).expect("a job log");
    let entries: Vec<serde_json::Value> =
        entries.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
    let mut ends: Vec<_> = entries
        .iter()
        .map(|entry| (entry["number"].as_u64(), entry["status"].as_str(), entry["input"].as_i64()))
        .collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [(Some(2), Some("failed"), Some(-1)), (Some(3), Some("ok"), Some(9)), (Some(4), Some("failed"), Some(-16))]
    );
    assert!(entries.iter().all(|entry| entry["host"].is_string() && entry["attempts"] == 1), "{entries:?}");

    let again = format!("{words} --only-failed {}", log.display());
    kernel(&again).expect_code(3).expect_said("2 of 2 job(s) failed");
    let lines = fs::read_to_string(&out).expect("the output");
    assert_eq!(lines.lines().nth(1), Some("3.0"), "the result of the first run is still in its place: {lines}");
    fs::write(files.path("jobs.jsonl"), "4\n-1\n9\n25\n").expect("it can be changed");
    let refused = kernel(&again);
    refused.expect_code(2).expect_said("record 4 is another one than in the job log");
    assert!(!refused.stderr.contains("--skip-bad"), "it is no bad record: {}", refused.stderr);
}

#[test]
fn dry_run_shows_the_inputs_of_a_kernel_and_computes_nothing() {
    assert_eq!(kernel("sleep --jobs 3 --seconds 100 --dry-run").expect_code(0).out(), "0\n1\n2\n");
    assert_eq!(kernel("power --each-y --grid x=2,3 --grid y=5 --dry-run").expect_code(0).out(), "[2,5]\n[3,5]\n");
    kernel("sqrt --args 1 x --dry-run").expect_code(2).expect_said("--args:2");
}

#[test]
fn a_kernel_stops_at_too_many_failures_or_the_first_success() {
    let run = kernel("sqrt --range -100:-1 --max-failures 2 --window 2 --chunk 1");
    let lines = run.expect_code(3).out();
    let cancelled = lines.lines().filter(|line| line.contains("\"kind\":\"cancelled\"")).count();
    assert!((90..98).contains(&cancelled) && lines.lines().count() == 100, "{cancelled} were cancelled");
    run.expect_said("more jobs have failed than --max-failures allows");
    let run = kernel("sqrt --range -2:100 --stop-on-success --window 1 --chunk 1");
    run.expect_code(0).expect_said("a job has succeeded (--stop-on-success)");
}

#[test]
fn a_kernel_that_takes_too_long_fails_and_is_retried() {
    let run = kernel("sleep --args 0 --seconds 30 --timeout 50ms --retries 1 --retry-pause 10ms");
    run.expect_code(3).expect_said("1 of 1 job(s) failed");
    assert!(run.out().starts_with("{\"error\":{\"job\":1,\"kind\":\"timed out\""), "{}", run.out());
    let late = run.stderr.lines().filter(|line| line.contains("has not ended within its time limit")).count();
    assert_eq!(late, 2, "two attempts: {}", run.stderr);
}
