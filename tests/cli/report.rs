//! `rankpool report`: a page, text, a table and lines of JSON from what a run has written.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{self, Finished};
use crate::{Files, LIMIT, kernel, run_batch};

#[track_caller]
fn report(files: &Files, words: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    support::run(command.arg("report").args(words).current_dir(files.0.path()), LIMIT)
}

/// Runs twelve jobs, of which three fail with two attempts each, with a journal `j` and a job log `r`.
#[track_caller]
fn twelve(files: &Files) {
    let script = "test \"$2\" -ne 3 || { echo \"<no> $1\" >&2; exit 4; }; echo $1";
    let words = ["--grid", "lr=0.1,0.2,0.3", "--grid", "n=1,2,3,4", "--retries", "1", "--retry-pause", "0s"];
    let outputs = ["--journal", "j", "--records", "r", "--output", "o", "--stderr", "e"];
    run_batch(files, &[&words[..], &outputs, &["--", "sh", "-c", script, "_", "{lr}", "{n}"]].concat()).expect_code(3);
}

#[test]
fn text_has_the_facts_of_the_run() {
    let files = Files::new();
    twelve(&files);
    let finished = report(&files, &["j"]);
    let text = finished.expect_code(0).out();
    for words in [
        "jobs: 12 (9 ok, 3 failed)",
        "state: complete",
        "of 2 ranks on 1 host ran jobs",
        "3 jobs had more than one attempt, 0 of them succeeded; 3 attempts more than the first",
        "#SBATCH --time=00:01:00",
        "#SBATCH --mem=",
        "Time by lr",
        "Time by n",
        "3 jobs: failed (exit code 4), first job 3",
        "| <no> 0.1",
        "--resume --retry-failed --journal j",
        "{\"lr\":0.1,\"n\":3}",
        "0.1 3",
        "queued: median",
        "Memory of a job",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(report(&files, &["j", "--text"]).expect_code(0).out(), text);
    let log = report(&files, &["r"]);
    let log = log.expect_code(0).out();
    assert!(log.contains("jobs: 12 (9 ok, 3 failed)") && log.contains("add to the command: --only-failed r"), "{log}");
    assert!(log.contains("A job log does not have the command line"), "{log}");
}

#[test]
fn the_commands_of_a_report_run_the_jobs_again() {
    let files = Files::new();
    twelve(&files);
    let finished = report(&files, &["j", "--text"]);
    let text = finished.expect_code(0).out();
    let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).expect(start).to_string();
    let again = |command: &str| {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_rankpool")).parent().expect("a folder").to_path_buf();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
        support::run(Command::new("sh").args(["-c", command]).env("PATH", path).current_dir("/"), LIMIT)
    };
    let all = line("Run them again: ");
    again(&all).expect_code(3).expect_said("3 of 12 job(s) failed");
    let one = text.lines().map(str::trim).find(|line| line.starts_with("sh -c ")).expect("the command of a job");
    let finished = again(one);
    finished.expect_code(4).expect_said("<no> 0.1");
}

#[test]
fn a_table_and_lines_of_json_have_a_row_for_each_job() {
    let files = Files::new();
    twelve(&files);
    for file in ["j", "r"] {
        let csv = report(&files, &[file, "--csv"]);
        let csv = csv.expect_code(0).out();
        let mut lines = csv.lines();
        let head: Vec<_> = lines.next().expect("a head").split(',').collect();
        assert!(
            head.starts_with(&["number", "status"]) && head.ends_with(&["input", "input.lr", "input.n"]),
            "{head:?}"
        );
        let rows: Vec<_> = lines.collect();
        assert_eq!(rows.len(), 12);
        assert_eq!(rows.iter().filter(|row| row.contains(",failed,4,,2,")).count(), 3, "{csv}");
        assert!(rows.iter().all(|row| row.split(',').count() >= head.len()));
        let json = report(&files, &[file, "--json"]);
        let json = json.expect_code(0).out();
        let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len(), 12);
        for row in &rows {
            assert!(row["seconds"].is_f64() && row["queued"].is_number() && row["returned"].is_number(), "{row}");
            assert!(row["input"]["lr"].is_number() && row["slot"].is_u64() && row["max_rss"].is_u64(), "{row}");
        }
    }
}

#[test]
fn a_page_is_written_as_a_whole_and_never_over_its_source() {
    let files = Files::new();
    twelve(&files);
    report(&files, &["j", "-o", "report.html"]).expect_code(0);
    let page = fs::read_to_string(files.path("report.html")).expect("it is there");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(page.contains("&lt;no&gt; 0.1") && !page.contains("<no>"));
    assert!(page.contains("12 jobs in ") && page.contains("3 failed"), "{page}");
    for (words, said) in [(["j", "-o", "j"], "--output would overwrite j"), (["j", "-o", "./j"], "give another name")] {
        report(&files, &words).expect_code(2).expect_said(said);
    }
    report(&files, &["j", "-o", "no/folder"]).expect_code(1).expect_said("no/folder");
    report(&files, &["j", "--csv", "--json"]).expect_code(2).expect_said("cannot be used with");
    assert!(!files.names().iter().any(|name| name.ends_with(".partial")), "{:?}", files.names());
}

#[test]
fn a_file_that_is_neither_is_refused_with_advice() {
    let files = Files::new();
    files.with("text", "hello\n");
    files.with("empty", "");
    report(&files, &["text"]).expect_code(2).expect_said("text is neither a journal nor a job log");
    report(&files, &["none"]).expect_code(1).expect_said("cannot read none: No such file or directory");
    report(&files, &["."]).expect_code(2).expect_said("neither a journal nor a job log");
    report(&files, &[]).expect_code(2).expect_said("JOURNAL_OR_RECORDS");
    for form in ["--text", "--html", "--csv", "--json"] {
        report(&files, &["empty", form]).expect_code(0);
    }
}

#[test]
fn built_in_functions_have_a_course_and_busy_ranks_and_what_is_not_known_is_said() {
    let files = Files::new();
    let path = files.path("k").display().to_string();
    kernel(&format!("spin --jobs 3000 --micros 200 --journal {path} --output /dev/null --quiet")).expect_code(0);
    let finished = report(&files, &["k"]);
    let text = finished.expect_code(0).out();
    for words in [
        "jobs: 3000 (3000 ok)",
        "over time",
        "Ranks: the part of their threads' time",
        "rank 1 on ",
        "add --records FILE",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("Times of jobs"), "{text}");
    // Of a job log, everything is known.
    let log = files.path("r").display().to_string();
    kernel(&format!("spin --jobs 300 --micros 200 --records {log} --output /dev/null --quiet")).expect_code(0);
    let finished = report(&files, &["r"]);
    assert!(finished.expect_code(0).out().contains("Times of jobs"));
}

#[test]
fn a_resumed_run_counts_each_job_once() {
    let files = Files::new();
    let words = |journal: &'static [&str], records| {
        [
            &["--range", "1:6", "--records", records, "--output", "o"][..],
            journal,
            &["--", "sh", "-c", "test $1 -ne 2 -o -e x", "_", "{}"],
        ]
        .concat()
    };
    run_batch(&files, &words(&["--journal", "j"], "r1")).expect_code(3);
    files.with("x", "");
    run_batch(&files, &words(&["--journal", "j", "--resume", "--retry-failed"], "r2")).expect_code(0);
    let finished = report(&files, &["j"]);
    let text = finished.expect_code(0).out();
    assert!(text.contains("jobs: 6 (6 ok)") && text.contains("state: complete, after 2 runs"), "{text}");
}

#[test]
fn a_compacted_journal_keeps_its_run_and_a_run_that_goes_on_is_not_kept_from_its_journal() {
    let files = Files::new();
    twelve(&files);
    let before = report(&files, &["j", "--json"]).expect_code(0).out();
    crate::journal::journal(&files, &["compact", "j"]).expect_code(0);
    assert_eq!(report(&files, &["j", "--json"]).expect_code(0).out(), before);
    let finished = report(&files, &["j"]);
    let text = finished.expect_code(0).out();
    assert!(text.contains("command: rankpool --local 2 run") && text.contains("fit on a node with"), "{text}");
    // A report of a journal that another process has locked.
    let held = fs::File::open(files.path("j")).expect("it is there");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("it is free");
    let finished = report(&files, &["j"]);
    assert!(finished.expect_code(0).out().contains("state: a run goes on"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let files = Files::new();
    twelve(&files);
    let script =
        format!("{} report j --json | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_rankpool"));
    let mut command = Command::new("bash");
    let finished = support::run(command.args(["-c", &script]).current_dir(files.0.path()), LIMIT);
    assert_eq!(finished.expect_code(0).out(), "0\n");
    assert_eq!(finished.stderr, "");
}

/// All commands of docs/report.md.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/report.md")).expect("there is a page");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).map(str::to_string).collect()
}

#[test]
fn the_commands_of_the_page_about_reports_do_what_it_says() {
    let files = Files::new();
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_rankpool")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let commands = documented();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in &commands {
        let mut shell = Command::new("sh");
        let finished = support::run(shell.args(["-c", command]).env("PATH", &path).current_dir(files.0.path()), LIMIT);
        finished.expect_code(0);
    }
    let page = fs::read_to_string(files.path("report.html")).expect("it is there");
    assert!(page.contains("6 jobs in ") && page.contains("2 failed"), "{page}");
    let rows = fs::read_to_string(files.path("jobs.csv")).expect("it is there");
    assert_eq!(rows.lines().count(), 7);
}
