//! What `rankpool run` does with the output of its jobs: order, streams, floods, pieces that come early.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Files, LIMIT, batch, json, run_batch, start_limited, support, until};

#[test]
fn outputs_are_whole_and_in_order_whatever_jobs_take() {
    let files = Files::new();
    let script = "echo a{}; echo e{} >&2; sleep 0.0$((({} * 7) % 5)); echo b{}; echo f{} >&2";
    let words = ["--threads", "3", "--range", "1:40", "-q", "--stderr", "err", "--", "sh", "-c", script];
    let run = run_batch(&files, &words);
    let expected =
        |one: char, other: char| (1..=40).map(|job| format!("{one}{job}\n{other}{job}\n")).collect::<String>();
    assert_eq!((run.expect_code(0).out(), run.stderr.as_str()), (expected('a', 'b'), ""));
    assert_eq!(fs::read_to_string(files.path("err")).expect("text"), expected('e', 'f'));
    let run = run_batch(&files, &[&["--unordered"], &words[..]].concat());
    let out = run.expect_code(0).out();
    let mut pairs: Vec<_> = out.split_inclusive("\nb").collect();
    assert_eq!(pairs.len(), 41, "{out}");
    pairs.clear();
    let lines: Vec<_> = out.lines().collect();
    assert!(lines.chunks(2).all(|pair| pair[0][1..] == pair[1][1..]), "no output is inside another: {out}");
    let mut numbers: Vec<u32> = lines.chunks(2).map(|pair| pair[0][1..].parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=40));
}

#[test]
fn unordered_output_does_not_wait_for_a_slow_job() {
    let files = Files::new();
    // The first job ends only when the output of the last one has been seen.
    let script = "case {} in 1) until test -e go; do sleep 0.01; done;; esac; echo {}";
    let words = ["--threads", "1", "--range", "1:20", "-q", "--unordered", "--", "sh", "-c", script];
    let (mut child, _limit) = start_limited(&mut batch(&files, &words), Stdio::null());
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for _ in 2..=20 {
        assert_ne!(lines.next().expect("a line").expect("text"), "1");
    }
    files.with("go", "");
    assert_eq!(lines.next().expect("a line").expect("text"), "1");
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(0));
}

#[test]
fn the_same_batch_gives_the_same_bytes_on_any_ranks_and_threads() {
    let files = Files::new();
    let script = "echo {} $RANKPOOL_SEED; sleep 0.00$((({} * 3) % 7)); test $(({} % 9)) -gt 0 && printf %s {#}";
    let mut seen = Vec::new();
    for ranks in ["1", "2", "4"] {
        for threads in ["1", "3"] {
            let options = ["--local", ranks, "--threads", threads, "-q", "--range", "1:40", "--tag", "--seed", "3"];
            let run = run_batch(&files, &[&options[..], &["--", "sh", "-c", script]].concat());
            run.expect_code(3);
            seen.push((run.stdout, run.stderr));
        }
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[test]
fn a_flood_arrives_whole_and_memory_stays_bounded() {
    let files = Files::new();
    let script = "case {} in 3) seq 1 40000000 | head -c 300000000;; *) echo small {};; esac";
    let words =
        ["-q", "--threads", "2", "--range", "1:8", "--summary", "s", "--records", "r", "--", "sh", "-c", script];
    let mut command = batch(&files, &words);
    // The temporary file is not in the directory, nor has it a name.
    let (mut child, _limit) = start_limited(&mut command, Stdio::null());
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    for expected in ["small 1\n", "small 2\n"] {
        line.clear();
        out.read_line(&mut line).expect("text");
        assert_eq!(line, expected);
    }
    let mut expected = support::start(Command::new("sh").args(["-c", "seq 1 40000000 | head -c 300000000"]));
    let mut source = expected.stdout.take().expect("it is piped");
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut left = 300_000_000;
    while left > 0 {
        let length = left.min(one.len());
        out.read_exact(&mut one[..length]).expect("it is all there");
        source.read_exact(&mut other[..length]).expect("it is all there");
        assert!(one[..length] == other[..length], "{left} bytes from the end");
        left -= length;
    }
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "small 4\nsmall 5\nsmall 6\nsmall 7\nsmall 8\n");
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(0));
    support::wait(&mut expected, LIMIT);
    let summary = json(&files.path("s"));
    let peak = summary["peak_memory_bytes"].as_u64().expect("a number");
    assert!(peak < 120 << 20, "{peak}");
    assert_eq!(files.names(), ["r", "s"]);
}

#[test]
fn bytes_that_are_no_text_pass_untouched() {
    let files = Files::new();
    let words = [
        "-q",
        "--range",
        "1:2",
        "--stderr",
        "err",
        "--",
        "sh",
        "-c",
        "printf '\\377\\000\\303{}\\r'; printf '\\200' >&2",
    ];
    assert_eq!(run_batch(&files, &words).expect_code(0).stdout, b"\xff\x00\xc31\r\xff\x00\xc32\r");
    assert_eq!(fs::read(files.path("err")).expect("bytes"), b"\x80\x80");
    let tagged = [&["--tag={#}"], &words[..]].concat();
    assert_eq!(run_batch(&files, &tagged).expect_code(0).stdout, b"1\t\xff\x00\xc31\r\n2\t\xff\x00\xc32\r\n");
    assert_eq!(files.names(), ["err"]);
}

#[test]
fn results_are_seen_before_the_next_record_is_written() {
    let files = Files::new();
    let mut command = batch(&files, &["-q", "--input", "-", "--records", "r", "--", "echo", "got {}"]);
    let (mut child, _limit) = start_limited(&mut command, Stdio::piped());
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    for record in ["a", "b b", "c"] {
        stdin.write_all(format!("{record}\n").as_bytes()).expect("it reads");
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        assert_eq!(line, format!("got {record}\n"));
        until("it is recorded, too", || fs::read_to_string(files.path("r")).is_ok_and(|text| text.contains(record)));
    }
    drop(stdin);
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(0));
}

#[test]
fn five_thousand_quick_jobs_in_few_file_descriptors() {
    let files = Files::new();
    let began = Instant::now();
    let binary = env!("CARGO_BIN_EXE_rankpool");
    let script =
        format!("ulimit -n 64; exec {binary} --local 2 run --threads 2 -q --range 1:5000 --records r -- echo {{}}");
    let run = support::run(Command::new("bash").args(["-c", &script]).current_dir(files.0.path()), LIMIT);
    let expected: String = (1..=5000).map(|number| format!("{number}\n")).collect();
    assert!(run.expect_code(0).out() == expected, "after {:?}", began.elapsed());
    assert_eq!(fs::read_to_string(files.path("r")).expect("text").matches("\"ok\"").count(), 5000);
}

#[test]
fn one_job_and_no_jobs_are_batches_too() {
    let files = Files::new();
    assert_eq!(run_batch(&files, &["-q", "--args", "x", "-o", "out", "--", "echo", "{}"]).expect_code(0).stderr, "");
    assert_eq!(fs::read_to_string(files.path("out")).expect("text"), "x\n");
    files.with("empty.txt", "");
    files.with("only.csv", "a,b\n");
    for input in ["empty.txt", "/dev/null", "only.csv", "-"] {
        let run = run_batch(&files, &["-i", input, "-o", "out", "--records", "r", "--", "touch", "made"]);
        assert_eq!(run.expect_code(0).expect_said("run: 0 jobs").out(), "");
        assert_eq!(fs::read(files.path("out")).expect("it is empty"), b"");
        assert_eq!(fs::read(files.path("r")).expect("it is empty"), b"");
    }
    assert_eq!(files.names(), ["empty.txt", "only.csv", "out", "r"]);
}

#[test]
fn a_reader_of_standard_error_that_goes_away_costs_no_result() {
    let files = Files::new();
    let script = format!(
        "cd {} && {{ {} --local 2 run --range 1:300 -o out --records r -- sh -c 'echo {{}}; echo said {{}} >&2' 2>&1 >&3 3>&- \
         | :; }} 3>/dev/null",
        files.path("").display(),
        env!("CARGO_BIN_EXE_rankpool")
    );
    support::run(Command::new("sh").args(["-c", &script]), LIMIT).expect_code(0);
    let expected: String = (1..=300).map(|number| format!("{number}\n")).collect();
    let out = fs::read_to_string(files.path("out")).expect("the whole output is there");
    assert_eq!(out, expected);
    assert_eq!(fs::read_to_string(files.path("r")).expect("so are the records").lines().count(), 300);
}
