//! The program `rankpool` as its users see it: what goes in, what comes out, exit codes and messages. Without MPI, so that
//! it runs everywhere; `tests/mpi` asks the same of the program under `mpiexec`.

mod support;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::Finished;

/// No run here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    command.env_remove("RANKPOOL_THREADS").env_remove("RANKPOOL_LOCAL").args(["--local", "2"]).args(arguments);
    command
}

/// Runs `rankpool kernel` with these words.
#[track_caller]
fn kernel(words: &str) -> Finished {
    let words: Vec<&str> = ["kernel"].into_iter().chain(words.split_whitespace()).collect();
    support::run(&mut command(&words), LIMIT)
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A directory for the files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a directory for the test"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with this text.
    fn with(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).expect("a file for the test");
        self.path(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the directory is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn floats(out: &str) -> Vec<f64> {
    out.lines().map(|line| line.parse().expect("a number on each line")).collect()
}

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
fn a_hundred_billion_jobs_need_no_memory() {
    let words = ["kernel", "nop", "--jobs", "100000000000", "-q"];
    let mut child = support::start(&mut command(&words));
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut first = String::new();
    out.read_line(&mut first).expect("the first results come at once");
    assert_eq!(first, "0\n");
    let mut some = vec![0; 1 << 20];
    out.read_exact(&mut some).expect("more results come");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    drop(out);
    let end = support::wait(&mut child, LIMIT).expect("the reader has gone away");
    assert_eq!(end.code(), Some(0), "quietly");
    assert!(peak.is_none_or(|kilobytes| kilobytes < 200_000), "{peak:?} kB");
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

/// Runs `rankpool kernel` with these words, `--input -`, and this text to read.
fn piped(words: &str, text: &str) -> Finished {
    let files = Files::new();
    let file = files.with("stdin", text);
    // Through cat, because a file as standard input would not be a pipe.
    let script = format!("cat {file} | {} --local 2 kernel {words} --input -", env!("CARGO_BIN_EXE_rankpool"));
    support::run(Command::new("sh").args(["-c", &script]), LIMIT)
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

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
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
    let expected = format!("2.0\n{}3.0\n{}", message(1, 1), message(3, 2));
    assert_eq!(
        run.expect_code(3).expect_said("2 job(s) failed; the first was job 1: panic: sqrt of -1").out(),
        expected
    );
    assert_eq!((&json(&summary)["jobs"], &json(&summary)["failed"]), (&4.into(), &2.into()));
    let file = files.path("out.jsonl");
    kernel(&format!("sqrt --input {jobs} --retries 2 -q --output {}", file.display())).expect_code(3);
    assert_eq!(fs::read_to_string(file).expect("a whole file"), expected, "the file is whole");
}

#[test]
fn bad_records_in_a_file_are_found_before_anything_starts() {
    let files = Files::new();
    let output = files.path("out.jsonl").display().to_string();
    for (name, text, words, message) in [
        ("a.csv", "x\n1\nfoo\n", "square", "a.csv:3: column 'x': 'foo' is not an integer"),
        ("b.csv", "x,y\n1,2\n1\n", "square", "b.csv:3: 1 column, but the header has 2"),
        ("c.jsonl", "1\n{bad\n", "square", "c.jsonl:2:2: key must be a string"),
        ("d.jsonl", "1.5\n", "cube", "d.jsonl:1: 1.5 is not an integer"),
        ("e.csv", "a,b\n1,2\n", "sum", "e.csv:2: no column 'param1' (there is: a, b)"),
        ("f.csv", "p1,p3\n1,2\n", "slow-fn", "f.csv:2: no column 'p2'"),
        ("g.jsonl", "[1]\n", "power --each-y", "g.jsonl:1: expected two values"),
        ("h.jsonl", "-1\n", "nop", "h.jsonl:1: -1 is negative"),
        ("i.csv", "1\n2\n", "square", "i.csv:1: the first line is '1'; a CSV file of jobs begins with the names"),
    ] {
        let file = files.with(name, text);
        let run = kernel(&format!("{words} --input {file} --output {output}"));
        assert_eq!(run.expect_code(2).expect_said(message).out(), "");
        fs::remove_file(file).expect("it was there");
        assert_eq!(files.names(), [""; 0], "nothing was written");
    }
}

#[test]
fn a_bad_record_in_a_pipe_ends_the_run_behind_the_results_before_it() {
    let run = piped("square", "1\n2\n{bad\n4\n");
    assert_eq!(run.expect_code(2).expect_said("standard input:3:2: key must be a string").out(), "1\n4\n");
    let files = Files::new();
    let output = files.path("out.jsonl").display().to_string();
    piped(&format!("square --output {output}"), "1\n2\n{bad\n4\n").expect_code(2).expect_said("was not written");
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn files_that_cannot_be_used_are_said_before_anything_starts() {
    let files = Files::new();
    for (words, message) in [
        ("square --input no/such.csv", "cannot read no/such.csv: No such file or directory"),
        ("square --input .", "cannot read .: Is a directory"),
        ("square --output /nonexistent/x", "cannot write /nonexistent/x: No such file or directory"),
        ("square --output .", "cannot write .: Is a directory"),
        ("square --summary /nonexistent/x", "cannot write /nonexistent/x: No such file or directory"),
        ("parzen --samples no/such.csv", "cannot read no/such.csv: No such file or directory"),
    ] {
        let run = kernel(words);
        assert_eq!(run.expect_code(2).expect_said(&format!("rankpool: {message}")).out(), "");
    }
    let empty = files.with("empty.csv", "");
    kernel(&format!("parzen --samples {empty}")).expect_code(2).expect_said("empty.csv: the point has no coordinates");
}

#[test]
fn wrong_usage_has_exit_code_2() {
    for (words, message) in [
        ("", "Usage: rankpool kernel"),
        ("square --threads 0", "invalid value '0' for '--threads <N>': not a number from 1"),
        ("square --local 0", "invalid value '0' for '--local <N>'"),
        ("square --chunk 0", "neither `auto` nor a number from 1"),
        ("square --no-such-option", "unexpected argument '--no-such-option'"),
        ("slow-fn --n 0", "invalid value '0' for '--n <N>': not a number from 1"),
        ("sleep --seconds -1", "negative, or too long"),
        ("parzen --samples f --widths 1:2", "not of the form START:END:COUNT"),
        ("parzen", "--samples <FILE>"),
    ] {
        assert_eq!(kernel(words).expect_code(2).expect_said(message).out(), "", "{words}");
    }
    let mut environment = command(&["kernel", "square"]);
    support::run(environment.env("RANKPOOL_THREADS", "many"), LIMIT)
        .expect_code(2)
        .expect_said("RANKPOOL_THREADS=many in the environment is not a number from 1");
}

#[test]
fn an_unknown_function_is_answered_with_near_names_and_all_names() {
    let run = kernel("sqare");
    run.expect_code(2)
        .expect_said("there is no built-in function 'sqare'. Did you mean square")
        .expect_said("rand-string");
}

#[test]
fn the_reader_may_go_away() {
    let script = format!("{} --local 2 kernel nop --jobs 100000000000 | head -n 2", env!("CARGO_BIN_EXE_rankpool"));
    let run = support::run(Command::new("bash").args(["-c", &format!("{script}; exit ${{PIPESTATUS[0]}}")]), LIMIT);
    assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("0\n1\n", ""));
}

#[test]
fn a_full_disk_is_exit_code_1() {
    kernel("nop --jobs 100000 --output /dev/full")
        .expect_code(1)
        .expect_said("cannot write /dev/full: No space left on device");
    let full = File::options().write(true).open("/dev/full").expect("it is there on Linux");
    // The last results are as important as the first.
    let mut child = command(&["kernel", "square", "-q"]).stdout(full).stderr(Stdio::null()).spawn().expect("it starts");
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(1));
}

#[test]
fn a_summary_that_cannot_be_written_is_exit_code_1() {
    kernel("square --summary /dev/full").expect_code(1).expect_said("cannot write /dev/full: No space left on device");
}

/// Starts jobs of a tenth of a second, and signals the process when it has printed its first result.
fn stopped(signal: Signal, options: &[&str]) -> Finished {
    let words = ["kernel", "sleep", "--seconds", "0.1", "--jobs", "100000", "--threads", "1"];
    let mut command = command(&words);
    let mut child = command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut stdout = String::new();
    out.read_line(&mut stdout).expect("the first result");
    support::signal(child, signal);
    let status = support::wait(child, LIMIT).expect("it ends soon after the signal");
    out.read_to_string(&mut stdout).expect("text");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    Finished { code: status.code(), stdout: stdout.into_bytes(), stderr }
}

#[test]
fn a_signal_stops_the_run_and_leaves_the_results_so_far() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = stopped(signal, &[]);
        let lines = floats(&run.expect_code(75).out());
        assert!(!lines.is_empty() && lines.iter().copied().eq((0..).take(lines.len()).map(f64::from)), "{lines:?}");
        run.expect_said(&format!("stopped early by a signal, after {} job(s)", lines.len()));
    }
}

#[test]
fn a_signal_stops_an_unordered_run() {
    let run = stopped(Signal::SIGINT, &["--unordered"]);
    let lines = run.expect_code(75).out().lines().count();
    run.expect_said(&format!("stopped early by a signal, after {lines} job(s)"));
}

#[test]
fn a_signal_leaves_no_unfinished_file() {
    let files = Files::new();
    let output = files.path("out.jsonl");
    let mut child =
        support::start(command(&["kernel", "sleep", "--seconds", "0.1", "--jobs", "100000", "-o"]).arg(&output));
    // The unfinished file appears when everything is ready for the first job.
    while files.names().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    support::signal(&child, Signal::SIGTERM);
    let status = support::wait(&mut child, LIMIT).expect("it ends soon after the signal");
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    assert_eq!(status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("out.jsonl was not written"), "{stderr}");
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn a_signal_stops_a_run_that_waits_for_its_input() {
    let mut command = command(&["kernel", "square", "--input", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(b"1\n2\n3\n").expect("it reads");
    // Enough for the program to block in the middle; a signal that comes earlier must do the same.
    std::thread::sleep(Duration::from_millis(300));
    support::signal(&child, Signal::SIGINT);
    let status = support::wait(&mut child, Duration::from_secs(5)).expect("it ends without more input");
    assert_eq!(status.code(), Some(75));
    let mut stdout = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut stdout).expect("text");
    assert!("1\n4\n9\n".starts_with(&stdout), "{stdout}");
}

#[test]
fn a_summary_is_one_json_object() {
    let files = Files::new();
    let (output, summary) = (files.path("out.jsonl"), files.path("summary.json"));
    let words = format!("nop --jobs 500 --threads 1 -o {} --summary {}", output.display(), summary.display());
    assert_eq!(kernel(&words).expect_code(0).expect_said("nop: 500 jobs in").out(), "");
    assert_eq!(fs::read_to_string(output).expect("the results").lines().count(), 500);
    let summary = json(&summary);
    assert_eq!((&summary["name"], &summary["jobs"]), (&"nop".into(), &500.into()), "{summary}");
    assert_eq!((&summary["ranks"], &summary["threads"]), (&2.into(), &2.into()), "{summary}");
    assert_eq!(kernel("square -q --summary - -o /dev/null").expect_code(0).out().lines().count(), 1);
}

#[test]
fn quiet_says_nothing_and_verbose_says_where_the_ranks_are() {
    assert_eq!(kernel("square -q").expect_code(0).stderr, "");
    kernel("square -v --threads 1")
        .expect_code(0)
        .expect_said("2 rank(s) on 1 host(s), 2 thread(s)")
        .expect_said("rank 1 on ")
        .expect_said("square: 10 jobs in");
}

#[test]
fn info_tells_ranks_and_threads() {
    let text = support::run(&mut command(&["info", "--threads", "3"]), LIMIT).expect_code(0).out();
    assert!(text.starts_with("rankpool ") && text.contains("2 rank(s) on 1 host(s), 6 thread(s)"), "{text}");
    let mut info = command(&["info", "--json", "--threads", "3"]);
    let out = support::run(info.env("SLURM_JOB_ID", "17"), LIMIT).expect_code(0).out();
    let info: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&info["threads"], &info["mpi"]), (&6.into(), &serde_json::Value::Null), "{info}");
    assert_eq!((&info["ranks"][1]["threads"], &info["allocation"]), (&3.into(), &"Slurm 17".into()), "{info}");
}

#[test]
fn help_version_completions_and_manual_go_to_standard_output() {
    for (words, expected) in [
        (&["--help"][..], "Exit codes:"),
        (&["kernel", "--help"], "rand-string"),
        (&["kernel", "parzen", "--help"], "--widths <START:END:COUNT>"),
        (&["--version"], "rankpool 0."),
        (&["completions", "bash"], "_rankpool()"),
        (&["completions", "zsh"], "#compdef rankpool"),
        (&["completions", "fish"], "complete -c rankpool"),
        (&["man"], ".TH rankpool 1"),
        (&["man", "kernel", "nop"], ".TH rankpool-kernel-nop 1"),
    ] {
        let run = support::run(&mut command(words), LIMIT);
        assert!(run.expect_code(0).out().contains(expected), "{words:?}: {}", run.out());
        assert_eq!(run.stderr, "", "{words:?}");
    }
    support::run(&mut command(&["man", "nothing"]), LIMIT)
        .expect_code(2)
        .expect_said("no subcommand `rankpool nothing`");
    let nothing = support::run(&mut Command::new(env!("CARGO_BIN_EXE_rankpool")), LIMIT);
    nothing.expect_code(2).expect_said("Usage: rankpool");
}

#[test]
fn of_many_processes_only_rank_0_speaks() {
    for (words, code) in
        [(&["--help"][..], 0), (&["kernel", "sqare"], 2), (&["man"], 0), (&["-o", "a", "--summary", "a", "info"], 2)]
    {
        for rank in ["0", "1"] {
            let mut command = command(words);
            let run = support::run(command.env("PMI_RANK", rank).env("PMI_SIZE", "2"), LIMIT);
            if rank == "0" {
                assert!(!run.expect_code(code).out().is_empty() || !run.stderr.is_empty());
            } else {
                assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("", ""), "{words:?}");
            }
        }
    }
    let mut local = command(&["kernel", "square"]);
    let run = support::run(local.env("PMI_RANK", "0").env("PMI_SIZE", "2"), LIMIT);
    run.expect_code(2).expect_said("local ranks are threads of one process, but 2 processes were started");
}
