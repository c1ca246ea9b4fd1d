//! What `rankpool run` says of its jobs: records, statuses, exit codes, and how just the failed ones are run again.

use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{Files, LIMIT, batch, records, run_batch, statuses, support, until};

/// Fields of which the value is not known exactly: whether they can be true.
#[track_caller]
fn assert_plausible(record: &Value, least_seconds: f64) {
    let number = |name: &str| record[name].as_f64().unwrap_or_else(|| panic!("{name}: {record}"));
    assert!(number("seconds") >= least_seconds && number("seconds") < 300.0, "{record}");
    assert!(number("user") >= 0.0 && number("system") >= 0.0, "{record}");
    assert!((1e5..1e9).contains(&number("max_rss")), "{record}");
    assert!(number("rank") < 2.0 && (1.0..=64.0).contains(&number("slot")), "{record}");
    assert!(!record["host"].as_str().expect("a name").is_empty(), "{record}");
    let start = humantime::parse_rfc3339(record["start"].as_str().expect("a date")).expect("a date");
    let age = SystemTime::now().duration_since(start).expect("it is over");
    assert!(age < Duration::from_secs(600) && age.as_secs_f64() + 0.01 > number("seconds"), "{record}");
}

#[test]
fn every_end_has_its_status_and_its_fields() {
    let files = Files::new();
    let script = "case {#} in 1) printf 123; echo 45 >&2;; 2) exit 9;; 3) kill -SEGV $$;; *) exec sleep 300;; esac";
    let words = ["-q", "--args", "sh", "sh", "sh", "sh", "no-such", "--timeout", "2s", "--records", "r"];
    let run = run_batch(&files, &[&words[..], &["--", "{}", "-c", script]].concat());
    run.expect_code(3)
        .expect_said("4 of 5 job(s) failed:\n  job 2: exit code 9\n  job 3: killed by SIGSEGV\n  job 4: ");
    run.expect_said("\n  job 5: no such program: no-such").expect_said("again, add: --only-failed r\n");
    assert_eq!(run.out(), "123");
    let found = records(&files, "r");
    assert_eq!(statuses(&files, "r"), ["ok", "failed", "signal", "timeout", "spawn"]);
    for (at, number, input) in [(0, 1, "sh"), (1, 2, "sh"), (2, 3, "sh"), (3, 4, "sh"), (4, 5, "no-such")] {
        let record = &found[at];
        assert_eq!(
            (&record["number"], &record["input"], &record["attempts"]),
            (&json!(number), &json!(input), &json!(1))
        );
        if at < 4 {
            assert_plausible(record, if at == 3 { 2.0 } else { 0.0 });
        }
    }
    assert_eq!((&found[0]["exit"], &found[0]["output_bytes"]), (&json!(0), &json!(6)));
    assert_eq!((&found[1]["exit"], &found[1]["message"]), (&json!(9), &json!("exit code 9")));
    assert_eq!(
        (&found[2]["signal"], &found[2]["signal_name"], &found[2]["exit"]),
        (&json!(11), &json!("SIGSEGV"), &Value::Null)
    );
    assert_eq!((&found[3]["message"], &found[3]["exit"]), (&json!("not done after 2 s"), &Value::Null));
    assert!(found[4]["message"].as_str().is_some_and(|message| message.starts_with("no such program")), "{}", found[4]);
    for field in ["exit", "signal", "max_rss", "user"] {
        assert!(found[4].get(field).is_none(), "{}", found[4]);
    }
    let all = "number input status exit attempts host rank slot start seconds queued returned user system max_rss output_bytes";
    let mut expected: Vec<_> = all.split(' ').collect();
    let mut present: Vec<_> = found[0].as_object().expect("an object").keys().collect();
    expected.sort_unstable();
    present.sort();
    assert_eq!(present, expected);
}

#[test]
fn records_tell_inputs_exactly() {
    let files = Files::new();
    files.with("j.jsonl", "{\"b\": 1.50, \"a\":\"\\u00e4\", \"b2\": 12345678901234567890123}\n\"x\"\n[1, 2]\n");
    run_batch(&files, &["-q", "-i", "j.jsonl", "--threads", "1", "--local", "1", "--records", "r", "--", "true"])
        .expect_code(0);
    let text = fs::read_to_string(files.path("r")).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0]
            .starts_with("{\"number\":1,\"input\":{\"b\": 1.50, \"a\":\"\\u00e4\", \"b2\": 12345678901234567890123},"),
        "{text}"
    );
    assert!(lines[1].contains("\"input\":\"x\",") && lines[2].contains("\"input\":[1, 2],"), "{text}");
    files.with("c.csv", "a,b\n\"x \"\"y\"\"\",007\n");
    run_batch(&files, &["-q", "-i", "c.csv", "--records", "r", "--", "true", "{a}"]).expect_code(0);
    let text = fs::read_to_string(files.path("r")).expect("text");
    assert_eq!(text.lines().count(), 1, "an old file is replaced: {text}");
    assert_eq!(records(&files, "r")[0]["input"]["a"], json!("x \"y\""));
}

#[test]
fn only_failed_runs_those_and_goes_on_with_its_records() {
    let files = Files::new();
    let words = |script: &'static str| ["--range", "1:6", "--records", "r", "--", "sh", "-c", script];
    run_batch(&files, &words("echo {}; test $(({} % 3)) -gt 0")).expect_code(3).expect_said("2 of 6 job(s) failed");
    let dry = run_batch(&files, &[&["--dry-run", "--only-failed", "r"], &words("run {}")[..]].concat());
    assert_eq!(dry.expect_code(0).out(), "sh -c 'run 3'\nsh -c 'run 6'\n");
    // Whatever the file is called: what it holds is not lost.
    let run = run_batch(&files, &[&["--only-failed", "./r"], &words("echo {}; test {} = 3")[..]].concat());
    run.expect_code(3).expect_said("1 of 2 job(s) failed:\n  job 6: ").expect_said("run: 2 jobs (1 failed)");
    assert_eq!((run.out().as_str(), records(&files, "r").len()), ("3\n6\n", 8));
    let run = run_batch(&files, &[&["--only-failed", "r"], &words("echo {}")[..]].concat());
    assert_eq!((run.expect_code(0).out().as_str(), records(&files, "r").len()), ("6\n", 9));
    let run = run_batch(&files, &[&["--only-failed", "r"], &words("echo {}")[..]].concat());
    assert_eq!((run.expect_code(0).out().as_str(), records(&files, "r").len()), ("", 9));
    // Other records: they are about the jobs of this run alone.
    let words = ["--range", "1:7", "--only-failed", "r", "--records", "s", "--", "echo", "{#}"];
    assert_eq!(run_batch(&files, &words).expect_code(0).out(), "7\n");
    assert_eq!((records(&files, "r").len(), records(&files, "s").len()), (9, 1));
}

#[test]
fn only_failed_refuses_another_input() {
    let files = Files::new();
    files.with("jobs", "a\nb\nc\n");
    run_batch(&files, &["-q", "-i", "jobs", "--records", "r", "--", "test", "{}", "=", "a"]).expect_code(3);
    files.with("jobs", "a\nx\nc\n");
    let words = ["-i", "jobs", "--only-failed", "r", "--records", "r", "--", "touch", "ran{#}"];
    let run = run_batch(&files, &words);
    run.expect_code(2).expect_said("jobs:2: record 2 is another one than in the job log of --only-failed");
    assert_eq!((run.out().as_str(), files.names()), ("", vec!["jobs".to_string(), "r".to_string()]));
    assert_eq!(records(&files, "r").len(), 3);
    // A first record that is right is not run either.
    files.with("jobs", "a\nb\nx\n");
    run_batch(&files, &words).expect_code(2).expect_said("jobs:3: record 3 is another one");
    assert_eq!((files.names().len(), records(&files, "r").len()), (2, 3));
    files.with("broken", "{\"number\":1,\"input\":\"a\",\"status\":\"ok\"}\nnonsense\n");
    let run = run_batch(&files, &["-i", "jobs", "--only-failed", "broken", "--", "true"]);
    run.expect_code(2).expect_said("broken:2:");
    run_batch(&files, &["-i", "jobs", "--only-failed", "none", "--", "true"])
        .expect_code(2)
        .expect_said("cannot read none");
}

/// A batch of jobs of which the first two are quick and the others wait for a file `go`; it is signalled when the quick ones
/// are recorded.
fn signalled(files: &Files, signal: Signal) -> support::Finished {
    let script = "echo {}; test {} -le 2 || test -e go || exec sleep 40";
    let words = ["--threads", "2", "--range", "1:9", "--records", "r", "-o", "out", "--", "sh", "-c", script];
    let mut command = batch(files, &words);
    let mut child = support::start(&mut command);
    until("the quick jobs are recorded", || {
        fs::read_to_string(files.path("r")).is_ok_and(|text| text.matches("\"ok\"").count() == 2)
    });
    support::signal(&child, signal);
    let status = support::wait(&mut child, LIMIT).expect("it ends");
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("it is piped"), &mut stderr).expect("text");
    support::Finished { code: status.code(), stdout: Vec::new(), stderr }
}

#[test]
fn only_failed_goes_on_after_a_signal_and_after_a_kill() {
    let rest = ["--range", "1:9", "--records", "r", "--only-failed", "r", "-q", "--", "echo", "{}"];
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let files = Files::new();
        let run = signalled(&files, signal);
        if signal == Signal::SIGTERM {
            run.expect_code(75)
                .expect_said("stopped early by a signal, after 2 job(s); the output so far is in out.partial");
            assert_eq!(fs::read_to_string(files.path("out.partial")).expect("text"), "1\n2\n");
            assert_eq!(files.names(), ["out.partial", "r"]);
        } else {
            // What a kill in the middle of a write leaves.
            let mut file = fs::File::options().append(true).open(files.path("r")).expect("the records");
            file.write_all(b"{\"number\":3,\"input\":3,\"sta").expect("it can be written");
        }
        assert_eq!(run_batch(&files, &rest).expect_code(0).out(), "3\n4\n5\n6\n7\n8\n9\n");
        assert_eq!(statuses(&files, "r"), ["ok"; 9]);
    }
}
