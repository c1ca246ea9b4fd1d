//! `--journal` and `--resume`: whatever ends a run, the next one has the output of an undisturbed run, and computes nothing twice
//! that was finished.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{self, Finished};
use crate::{Files, LIMIT, batch, command, disk, records, run_batch, until};

pub fn text(files: &Files, name: &str) -> String {
    fs::read_to_string(files.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `rankpool journal` with these words, in the directory of the test.
#[track_caller]
pub fn journal(files: &Files, words: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    support::run(command.arg("journal").args(words).current_dir(files.0.path()), LIMIT)
}

/// The settled jobs of a journal, by `rankpool journal export`.
#[track_caller]
fn exported(files: &Files, name: &str) -> Vec<Value> {
    let finished = journal(files, &["export", name]);
    let out = finished.expect_code(0).out();
    let mut jobs: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    jobs.sort_by_key(|job| job["number"].as_u64().expect("a number"));
    jobs
}

/// The number of settled jobs of a journal that a run may be writing.
fn settled(files: &Files, name: &str) -> usize {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    command.args(["journal", "export", name]).current_dir(files.0.path()).stderr(Stdio::null());
    command.output().map_or(0, |output| output.stdout.split(|byte| *byte == b'\n').count() - 1)
}

/// How often each job was started: each writes its number to a file.
fn starts(files: &Files) -> usize {
    fs::read_to_string(files.path("starts")).unwrap_or_default().lines().count()
}

/// Numbers that no test foresees, the same in each run of a test.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// A subcommand and its words, with a journal.
fn resuming<'w>(task: &[&'w str]) -> Vec<&'w str> {
    [&task[..1], &["--journal", "j", "--resume"], &task[1..]].concat()
}

/// Kills runs of these words again and again, each some time after it has begun to settle jobs, and resumes. Returns the number
/// of kills that met a run which was not complete.
fn kill_and_resume(files: &Files, words: &[&str], kills: u32, seed: u64) -> u32 {
    let mut random = random(seed);
    let mut met = 0;
    for _ in 0..kills {
        let ranks = (1 + random(3)).to_string();
        let before = settled(files, "j");
        let mut again = Command::new(env!("CARGO_BIN_EXE_rankpool"));
        again.args(["--local", &ranks, "--progress", "off"]).args(resuming(words)).current_dir(files.0.path());
        let mut child = support::start(&mut again);
        let wanted = before + 1 + random(30) as usize;
        until("some jobs are settled", || {
            settled(files, "j") >= wanted || child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        met += u32::from(child.try_wait().expect("it is a child").is_none());
        support::signal(&child, Signal::SIGKILL);
        child.wait().expect("it ends");
    }
    met
}

#[test]
fn commands_that_are_killed_again_and_again_have_the_output_of_an_undisturbed_run() {
    let files = Files::new();
    let script = "echo {} >>starts; sleep 0.01; echo out {}; echo err {} >&2; exit $(({} % 7 == 0))";
    let task = ["run", "--range", "1:250", "--stderr", "e", "-o", "o", "--", "sh", "-c", script];
    let kills = disk::kills(4);
    let met = kill_and_resume(&files, &task, kills, 1);
    let words = resuming(&task);
    let end = support::run(command(&words).current_dir(files.0.path()), LIMIT);
    end.expect_code(3).expect_said("job(s) were settled already");
    assert!(met > 0, "no kill met a run");
    let out: String = (1..=250).map(|number| format!("out {number}\n")).collect();
    let err: String = (1..=250).map(|number| format!("err {number}\n")).collect();
    assert_eq!((text(&files, "o"), text(&files, "e")), (out, err));
    // What was under way when the run was killed, or not written yet, was started again: at most 0.2 s of work of three ranks.
    assert!(starts(&files) < 250 + met as usize * 80, "{} starts", starts(&files));
    journal(&files, &["show", "j"]).expect_code(0);
    assert!(journal(&files, &["show", "j"]).out().contains("complete: yes\nsettled: 250 job(s), 35 of them failed\n"));
    assert!(!files.names().iter().any(|name| name.contains("partial")), "{:?}", files.names());
    // Another --resume runs nothing, and writes the same again.
    let before = (starts(&files), text(&files, "o"));
    support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(3);
    assert_eq!((starts(&files), text(&files, "o")), before);
}

#[test]
fn python_functions_and_built_in_functions_are_resumed_likewise() {
    let files = Files::new();
    let function = "import time\ndef f(x):\n    time.sleep(0.005)\n    if x % 50 == 0:\n        raise ValueError(f'no {x}')\n    return {'square': x * x}\n";
    files.with("f.py", function);
    for (task, seed) in [
        (&["map", "--range", "1:200", "--python", "f.py:f"][..], 3),
        (&["kernel", "sleep", "--jobs", "200", "--seconds", "0.005"], 4),
    ] {
        let undisturbed = [task, &["-o", "whole"]].concat();
        let code = support::run(command(&undisturbed).current_dir(files.0.path()), LIMIT).code.expect("a code");
        let task = [task, &["-o", "o"]].concat();
        let met = kill_and_resume(&files, &task, disk::kills(2), seed);
        let words = resuming(&task);
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(code);
        assert_eq!(text(&files, "o"), text(&files, "whole"), "{task:?}");
        assert!(met > 0);
        fs::remove_file(files.path("j")).expect("it is there");
    }
}

#[test]
fn an_input_that_is_reordered_extended_or_shortened_resumes_rightly() {
    let files = Files::new();
    let run = |input: &[u32]| {
        let lines: String = input.iter().map(|number| format!("{number}\n")).collect();
        files.with("in", &lines);
        let before = starts(&files);
        let script = "echo {} >>starts; echo got {}";
        let words = ["-i", "in", "-o", "o", "--journal", "j", "--resume", "--", "sh", "-c", script];
        run_batch(&files, &words).expect_code(0);
        let expected: String = input.iter().map(|number| format!("got {number}\n")).collect();
        assert_eq!(text(&files, "o"), expected);
        starts(&files) - before
    };
    assert_eq!(run(&[1, 2, 3, 4, 5]), 5);
    assert_eq!(run(&[5, 3, 1, 2, 4]), 0, "reordered");
    assert_eq!(run(&[9, 5, 3, 1, 2, 4, 8]), 2, "extended");
    assert_eq!(run(&[8, 2]), 0, "shortened");
    assert_eq!(run(&[2, 2, 8, 2]), 2, "the second and third of equal records are jobs of their own");
    assert_eq!(run(&[2, 8, 2, 2, 1]), 0);
    assert_eq!(run(&[]), 0, "empty");
}

#[test]
fn equal_records_keep_their_results_apart() {
    let files = Files::new();
    files.with("in", "x\n".repeat(40));
    let task = |script| ["run", "-i", "in", "-o", "o", "--", "sh", "-c", script];
    kill_and_resume(&files, &task("sleep 0.02; echo $RANKPOOL_JOB"), disk::kills(2), 5);
    let words = ["-i", "in", "-o", "o", "--journal", "j", "--resume", "--"];
    let words = [&words[..], &["sh", "-c", "sleep 0.02; echo $RANKPOOL_JOB"]].concat();
    run_batch(&files, &words).expect_code(0);
    assert_eq!(text(&files, "o"), (1..=40).map(|number| format!("{number}\n")).collect::<String>());
}

#[test]
fn where_the_command_contains_the_jobs_number_a_moved_record_is_another_job() {
    let files = Files::new();
    for (input, expected) in [("a\nb\n", "1 a\n2 b\n"), ("b\na\n", "1 b\n2 a\n"), ("a\nb\n", "1 a\n2 b\n")] {
        files.with("in", input);
        let words = ["-i", "in", "-o", "o", "--journal", "j", "--resume", "--", "echo", "{#}", "{}"];
        run_batch(&files, &words).expect_code(0);
        assert_eq!(text(&files, "o"), expected);
    }
    assert_eq!(exported(&files, "j").len(), 4);
}

#[test]
fn other_jobs_are_refused_with_both_and_accepted_on_demand() {
    let files = Files::new();
    let words = |more: &[&'static str], command: &'static str| -> Vec<&str> {
        [&["--range", "1:3", "-o", "o", "--journal", "j"], more, &["--", "echo", command, "{}"]].concat()
    };
    run_batch(&files, &words(&[], "one")).expect_code(0);
    let again = run_batch(&files, &words(&[], "one"));
    again.expect_code(2).expect_said("j is the journal of an earlier run: add --resume to continue it");
    let other = run_batch(&files, &words(&["--resume"], "two"));
    other.expect_code(2).expect_said("command in the journal: echo one '{}'").expect_said("run:   echo two '{}'");
    assert_eq!(text(&files, "o"), "one 1\none 2\none 3\n");
    run_batch(&files, &words(&["--resume", "--accept-changed"], "two")).expect_code(0);
    assert_eq!(text(&files, "o"), "one 1\none 2\none 3\n");
    for more in [&["--resume", "--seed", "5"][..], &["--resume", "--timeout", "9s"], &["--resume", "--env", "A=b"]] {
        run_batch(&files, &words(more, "two")).expect_code(2).expect_said("of other jobs");
    }
    files.with("f.py", "def f(x):\n    return x\n");
    let map = ["map", "--range", "1:3", "--python", "f.py:f", "--journal", "m", "--resume"];
    let run = || support::run(command(&map).current_dir(files.0.path()), LIMIT);
    run().expect_code(0);
    files.with("f.py", "def f(x):\n    return x + 1\n");
    run().expect_code(2).expect_said("f.py in the journal: a file with the hash");
    for line in ["kernel power --y 2", "kernel power --y 3", "kernel square"] {
        let words: Vec<&str> = line.split(' ').chain(["--journal", "k", "--resume"]).collect();
        let code = if line.ends_with('2') { 0 } else { 2 };
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(code);
    }
}

#[test]
fn failed_jobs_stay_failed_until_they_are_retried() {
    let files = Files::new();
    let script = "echo {} >>starts; test -e mended || test {} != 2 && echo ok {}";
    let run = |more: &[&str]| {
        let options = ["--range", "1:3", "-o", "o", "--journal", "j", "--resume", "--records", "r"];
        run_batch(&files, &[&options[..], more, &["--", "sh", "-c", script]].concat())
    };
    run(&[]).expect_code(3);
    assert_eq!((text(&files, "o").as_str(), starts(&files)), ("ok 1\nok 3\n", 3));
    files.with("mended", "");
    assert_eq!(run(&["--dry-run"]).expect_code(0).out(), "");
    assert!(run(&["--retry-failed", "--dry-run"]).expect_code(0).out().contains("test 2 != 2"));
    run(&[]).expect_code(3).expect_said("job 2: exit code 1").expect_said("add: --resume --retry-failed");
    assert_eq!(starts(&files), 3);
    let statuses: Vec<_> = records(&files, "r").iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses, ["ok", "failed", "ok"], "the job log has the jobs of earlier runs, too");
    run(&["--retry-failed"]).expect_code(0);
    assert_eq!((text(&files, "o").as_str(), starts(&files)), ("ok 1\nok 2\nok 3\n", 4));
    assert_eq!(records(&files, "r").len(), 3);
    run(&["--retry-failed"]).expect_code(0);
    assert_eq!(starts(&files), 4);
}

#[test]
fn a_failed_job_that_was_moved_is_run_again_because_its_error_names_its_place() {
    let files = Files::new();
    files.with("f.py", "def f(x):\n    assert x != 2, 'no two'\n    return x\n");
    for (input, expected) in [("1\n2\n", 2), ("2\n1\n", 1)] {
        files.with("in", input);
        let words = ["map", "-i", "in", "--python", "f.py:f", "-o", "o", "--journal", "j", "--resume"];
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(3);
        let error: Value =
            serde_json::from_str(text(&files, "o").lines().nth(expected - 1).expect("a line")).expect("JSON");
        assert_eq!(error["error"]["job"], expected);
    }
}

#[test]
fn jobs_that_were_cancelled_are_run_by_the_next_run() {
    let files = Files::new();
    let run = |more: &[&str]| {
        let options = ["--threads", "1", "--range", "1:30", "-o", "o", "--journal", "j", "--resume"];
        run_batch(&files, &[&options[..], more, &["--", "sh", "-c", "test -e mended && echo {}"]].concat())
    };
    run(&["--max-failures", "2"]).expect_code(3).expect_said("were cancelled");
    let failed = exported(&files, "j").len();
    assert!((3..30).contains(&failed), "{failed} jobs have failed");
    let shown = journal(&files, &["show", "j"]).out();
    assert!(shown.contains(&format!("cancelled: {} job(s)", 30 - failed)), "{shown}");
    files.with("mended", "");
    run(&[]).expect_code(3);
    assert_eq!(text(&files, "o").lines().count(), 30 - failed);
    run(&["--retry-failed"]).expect_code(0);
    assert_eq!(text(&files, "o"), (1..=30).map(|number| format!("{number}\n")).collect::<String>());
}

#[test]
fn a_long_output_is_whole_or_not_there() {
    let files = Files::new();
    // Pieces go ahead of the results; some jobs fail first and print something else.
    let script = "test -e was{} || { touch was{}; head -c 700000 /dev/zero | tr '\\0' x; test {} -gt 3; } || exit 1; \
                  sleep 0.02; head -c 900000 /dev/zero | tr '\\0' a; echo; echo end {}; echo e{} >&2";
    let task = ["run", "--range", "1:12", "--retries", "2", "--retry-pause", "0.01s", "-o", "o", "--stderr", "e", "--"];
    let task = [&task[..], &["sh", "-c", script]].concat();
    kill_and_resume(&files, &task, disk::kills(3), 9);
    let words = resuming(&task);
    support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(0);
    let out = text(&files, "o");
    let ends: Vec<&str> = out.lines().filter(|line| line.starts_with("end")).collect();
    assert_eq!(ends, (1..=12).map(|number| format!("end {number}")).collect::<Vec<_>>());
    let lines = out.lines().filter(|line| !line.starts_with("end"));
    for (number, line) in (1..).zip(lines) {
        let (before, rest) = line.split_at(line.find('a').expect("each job prints them"));
        // What the first attempt of a job printed counts only if that attempt did not fail. (A kill may have made it another one.)
        let may_be_there = number > 3 && before.len() == 700_000;
        assert!(
            rest.len() == 900_000 && (before.is_empty() || may_be_there),
            "{number}: {} {}",
            before.len(),
            rest.len()
        );
    }
    assert_eq!(text(&files, "e"), (1..=12).map(|number| format!("e{number}\n")).collect::<String>());
    let before = journal(&files, &["compact", "j"]);
    before.expect_code(0);
    let (first, again) = (text(&files, "o"), support::run(command(&words).current_dir(files.0.path()), LIMIT));
    again.expect_code(0);
    assert!(text(&files, "o") == first, "the compacted journal has the same outputs");
}

#[test]
fn a_signal_leaves_the_rest_to_the_next_run_and_says_how() {
    let files = Files::new();
    let script = "test {} -lt 20 || until test -e go; do sleep 0.05; done; echo {}";
    let words =
        ["--range", "1:30", "--grace", "0.2s", "-o", "o", "--journal", "j", "--resume", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    until("19 jobs are settled", || settled(&files, "j") == 19);
    support::signal(&child, Signal::SIGTERM);
    let output = {
        let status = support::wait(&mut child, LIMIT).expect("it ends");
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().expect("it is piped"), &mut stderr).expect("text");
        (status.code(), stderr)
    };
    assert_eq!(output.0, Some(75), "{}", output.1);
    assert!(output.1.contains("--resume continues"), "{}", output.1);
    assert!(journal(&files, &["show", "j"]).out().contains("complete: no"));
    files.with("go", "");
    run_batch(&files, &words).expect_code(0).expect_said("19 of 30 job(s) were settled already");
    assert_eq!(text(&files, "o"), (1..=30).map(|number| format!("{number}\n")).collect::<String>());
    assert!(journal(&files, &["show", "j"]).out().contains("complete: yes"));
}

#[test]
fn a_second_run_on_the_same_journal_is_refused() {
    let files = Files::new();
    let script = "until test -e go; do sleep 0.02; done";
    let words = ["--range", "1:2", "--journal", "j", "--resume", "--", "sh", "-c", script];
    let mut first = support::start(&mut batch(&files, &words));
    until("the first run has the journal", || journal(&files, &["show", "j"]).out().contains("in use: yes"));
    let second = run_batch(&files, &words);
    second.expect_code(2).expect_said(&format!("is in use by the run with process {}", first.id()));
    second.expect_said("--break-lock");
    files.with("go", "");
    assert!(support::wait(&mut first, LIMIT).is_some_and(|status| status.success()));
    run_batch(&files, &words).expect_code(0);
}

#[test]
fn a_damaged_journal_is_checked_repaired_and_continued() {
    let files = Files::new();
    let words =
        ["--range", "1:400", "-o", "o", "--journal", "j", "--resume", "--", "sh", "-c", "echo {} >>starts; echo {}"];
    run_batch(&files, &words).expect_code(0);
    assert_eq!((text(&files, "o").lines().count(), starts(&files)), (400, 400));
    let mut bytes = fs::read(files.path("j")).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16_384].fill(0);
    fs::write(files.path("j"), &bytes).expect("it is ours");
    let lost = 400 - exported(&files, "j").len();
    let checked = journal(&files, &["check", "j"]);
    let words_of_check = checked.expect_code(1).out();
    // Some entries are of no job: the longer the run takes, the more of them say when it had come so far.
    let entries = words_of_check.split_once(" entries lost").and_then(|(before, _)| before.rsplit(' ').next());
    let entries: usize = entries.and_then(|number| number.parse().ok()).expect(&words_of_check);
    assert!((lost..lost + 30).contains(&entries), "{lost} jobs: {words_of_check}");
    assert!((30..90).contains(&lost), "{lost} jobs of 16 KiB are lost");
    run_batch(&files, &words).expect_code(0).expect_said("The damaged file is kept as ").expect_said("/j.broken");
    assert_eq!(starts(&files), 400 + lost);
    assert_eq!(text(&files, "o"), (1..=400).map(|number| format!("{number}\n")).collect::<String>());
    assert_eq!(fs::read(files.path("j.broken")).expect("it is kept"), bytes);
    journal(&files, &["check", "j"]).expect_code(0);
}

#[test]
fn wrong_usage_is_refused_in_words() {
    let files = Files::new();
    files.with("data", "1\n2\n");
    for (words, message) in [
        (&["--resume"][..], "--journal <FILE>"),
        (&["--journal", "j", "--only-failed", "r"], "cannot be used with"),
        (&["--journal", "data", "--resume"], "data is not a journal: give another --journal"),
        (&["--journal", ".", "--resume"], "Is a directory"),
        (&["--journal", "no/j", "--resume"], "No such file or directory"),
        (&["--journal", "o", "-o", "o"], "--output and --journal cannot both be written to o"),
        (&["--journal", "data", "-i", "data"], "--journal would overwrite the input data"),
    ] {
        let input: &[&str] = if words.contains(&"-i") { &[] } else { &["--range", "1:2"] };
        let run = run_batch(&files, &[input, words, &["--", "echo", "{}"]].concat());
        run.expect_code(2).expect_said(message);
    }
    assert_eq!(text(&files, "data"), "1\n2\n");
    run_batch(&files, &["--range", "1:2", "--journal", "j", "--", "echo", "{}"]).expect_code(0);
    let log = run_batch(&files, &["--range", "1:2", "--only-failed", "j", "--", "echo", "{}"]);
    log.expect_code(2).expect_said("this is a journal, not a job log: give it as --journal");
    for (task, code) in [("show", 2), ("check", 2), ("export", 2), ("compact", 2)] {
        journal(&files, &[task, "data"]).expect_code(code).expect_said("data is not a journal");
        journal(&files, &[task, "none"]).expect_code(1).expect_said("No such file");
    }
    assert_eq!(text(&files, "data"), "1\n2\n");
}

#[test]
fn results_on_standard_output_are_all_there_after_a_resume() {
    let files = Files::new();
    let words = ["--range", "1:50", "--journal", "j", "--resume", "--", "echo", "{}"];
    let all: String = (1..=50).map(|number| format!("{number}\n")).collect();
    assert_eq!(run_batch(&files, &words).expect_code(0).out(), all);
    assert_eq!(run_batch(&files, &words).expect_code(0).out(), all);
    let unordered = [&["--unordered"], &words[..]].concat();
    assert_eq!(run_batch(&files, &unordered).expect_code(0).out(), all);
    let head = format!("{} --local 1 -q run {} | head -n 3", env!("CARGO_BIN_EXE_rankpool"), words.join(" "));
    let first = support::run(Command::new("sh").args(["-c", &head]).current_dir(files.0.path()), LIMIT);
    assert_eq!((first.expect_code(0).out().as_str(), first.stderr.as_str()), ("1\n2\n3\n", ""));
}

#[test]
fn a_run_leaves_no_files_beside_its_journal_and_its_output() {
    let files = Files::new();
    let words = ["--range", "1:5", "-o", "o", "--journal", "j", "--resume", "--sync", "0s", "--", "echo", "{}"];
    run_batch(&files, &words).expect_code(0);
    assert_eq!(files.names(), ["j", "o"]);
    journal(&files, &["compact", "j"]).expect_code(0);
    assert_eq!(files.names(), ["j", "o"]);
}
