//! Files that are read: what is wrong in them, what becomes of a run whose input changes, and that none is written over.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Files, LIMIT, kernel, run_batch, start_limited, support};

#[test]
fn an_unclosed_quote_is_an_error_that_names_its_line() {
    let files = Files::new();
    files.with("jobs.csv", "a,b\n1,x\n2,\"y\n3,z\n4,w\n");
    let words = ["-i", "jobs.csv", "-o", "out", "--", "echo", "{a}"];
    let run = run_batch(&files, &words);
    assert_eq!(run.expect_code(2).expect_said("jobs.csv:3:3: the quote that opens here is never closed").out(), "");
    assert_eq!(files.names(), ["jobs.csv"]);
    let run = run_batch(&files, &[&["--skip-bad"], &words[..]].concat());
    // Nobody can tell which records it has swallowed.
    run.expect_code(2).expect_said("jobs.csv:3:3: the quote that opens here").expect_said(", up to line 5,");
    files.with("jobs.csv", "a,b\n1,x\n2,\"y\"z\n4,w\n");
    let run = run_batch(&files, &[&["--skip-bad"], &words[..]].concat());
    run.expect_code(0).expect_said("1 bad record(s) left out: jobs.csv:3:3: ");
    assert_eq!(fs::read_to_string(files.path("out")).expect("the output"), "1\n4\n");
    let samples = files.with("samples.csv", "1,2\n3,\"4\n5,6\n");
    kernel(&format!("parzen --samples {samples}")).expect_code(2).expect_said("samples.csv:2:3: the quote that opens");
}

/// Runs the words in the folder of the test, which must refuse them with exit code 2, this message, and nothing changed.
#[track_caller]
fn refused(files: &Files, words: &str, message: &str) {
    println!("{words}");
    let before = contents(files);
    let run = support::run(shell(files, words).env("LC_ALL", "C"), LIMIT);
    run.expect_code(2).expect_said(message);
    assert_eq!(contents(files), before, "{words}");
}

/// A script in the folder of the test, in which `rp` is the program.
fn shell(files: &Files, script: &str) -> Command {
    let mut command = Command::new("bash");
    let binary = env!("CARGO_BIN_EXE_rankpool");
    let rp = format!("rp() {{ {binary} --local 2 -q \"$@\"; }}; {script}");
    command.args(["-c", &rp]).current_dir(files.0.path()).env_remove("RANKPOOL_LOCAL").env_remove("PYTHONPATH");
    command
}

/// Every file and what is in it.
fn contents(files: &Files) -> Vec<(String, Vec<u8>)> {
    let text = |name: String| {
        let bytes = fs::read(files.path(&name)).unwrap_or_default();
        (name, bytes)
    };
    files.names().into_iter().map(text).collect()
}

/// A folder with inputs, results of earlier runs, programs, and other names for them.
fn folder_of_files() -> Files {
    let files = Files::new();
    files.with("in", "1\n2\n");
    files.with("in.csv", "x\n1\n2\n");
    files.with("g.csv", "1,2\n3,4\n");
    files.with("old", "{\"number\":1,\"input\":1,\"status\":\"ok\"}\n");
    files.with("model.py", "def f(x):\n    return x\n");
    files.with("work", "#!/bin/sh\ncat\n");
    files.with("build", "an earlier result\n");
    files.with("a.partial", "1\n");
    for folder in ["sub", "pack"] {
        fs::create_dir(files.path(folder)).expect("a folder");
    }
    files.with("pack/__init__.py", "");
    files.with("pack/mod.py", "def f(x):\n    return x\n");
    fs::set_permissions(files.path("work"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::hard_link(files.path("in.csv"), files.path("hard")).expect("a link");
    symlink("in.csv", files.path("soft")).expect("a link");
    symlink("../in.csv", files.path("sub/soft")).expect("a link");
    symlink("k", files.path("dangling")).expect("a link");
    symlink("sub", files.path("folder")).expect("a link");
    files
}

#[test]
fn nothing_that_is_read_is_written_over_by_whatever_name() {
    let files = folder_of_files();
    for (words, message) in [
        ("rp kernel square -i in.csv -o in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel square -i in.csv -o ./in.csv", "--output would overwrite the input ./in.csv"),
        ("rp kernel square -i in.csv -o \"$PWD/in.csv\"", "--output would overwrite the input /"),
        ("rp kernel square -i in.csv -o sub/../in.csv", "--output would overwrite the input sub/../in.csv"),
        ("rp kernel square -i in.csv -o hard", "--output would overwrite the input hard"),
        ("rp kernel square -i in.csv -o soft", "--output would overwrite the input soft"),
        ("rp kernel square -i soft -o in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel square -i in.csv -o folder/soft", "--output would overwrite the input folder/soft"),
        ("rp kernel square -i in.csv -o /proc/self/fd/3 3>>hard", "--output would overwrite the input /proc/self/fd/3"),
        ("rp kernel square -i in.csv --summary in.csv", "--summary would overwrite the input in.csv"),
        ("rp kernel square -i g.csv -i in.csv -o in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel square -i in.csv >> in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel square -i in.csv 1<> soft", "--output would overwrite the input in.csv"),
        ("rp kernel square -i - --format csv -o in.csv < in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel square -i - --format csv < in.csv >> in.csv", "--output would overwrite the input standard input"),
        ("rp kernel square -i /dev/stdin --format csv -o in.csv < in.csv", "--output would overwrite the input in.csv"),
        ("rp kernel parzen --samples g.csv -o g.csv", "--output would overwrite the samples g.csv"),
        (
            "rp kernel parzen --samples g.csv --summary sub/../g.csv",
            "--summary would overwrite the samples sub/../g.csv",
        ),
        ("rp kernel parzen --samples - -o g.csv < g.csv", "--output would overwrite the samples g.csv"),
        ("rp map -i in --python model.py:f -o model.py", "--output would overwrite the Python file model.py"),
        ("rp map -i in --python ./model.py:f --records model.py", "--records would overwrite the Python file model.py"),
        ("rp map -i in --python model:f --summary model.py", "--summary would overwrite the Python file model.py"),
        ("rp map -i in --python pack.mod:f -o pack/mod.py", "--output would overwrite the Python file pack/mod.py"),
        ("rp map -i in --python pack.mod:f -o pack/__init__.py", "--output would overwrite the Python file"),
        ("rp map -i in --cwd pack --python mod.py:f -o pack/mod.py", "--output would overwrite the Python file"),
        ("rp map -i in -o in -- cat", "--output would overwrite the input in"),
        ("rp map -i in -o work -- ./work", "--output would overwrite the program work"),
        ("rp map -i in --records work -- sh work", "--records would overwrite a file of the command, work"),
        ("rp map -i in -o model.py -- python3 model.py", "--output would overwrite a file of the command, model.py"),
        ("rp run -i in -o in -- echo {}", "--output would overwrite the input in"),
        ("rp run -i in --stderr ./in -- echo {}", "--stderr would overwrite the input ./in"),
        ("rp run -i in --summary in -- echo {}", "--summary would overwrite the input in"),
        ("rp run -i in -o work -- ./work {}", "--output would overwrite the program work"),
        ("rp run -i in -o g.csv -- cat g.csv {}", "--output would overwrite a file of the command, g.csv"),
        (
            "rp run -i in -o g.csv --shell -- 'grep {} <g.csv|cat'",
            "--output would overwrite a file of the command, g.csv",
        ),
        ("PATH=$PWD:$PATH; rp run -i in -o work -- work {}", "--output would overwrite the program work"),
        ("rp run -i in --only-failed old --summary old -- true", "--summary would overwrite the job log old"),
        ("rp run -i in --only-failed old --stderr ./old -- true", "--stderr would overwrite the job log ./old"),
    ] {
        refused(&files, words, message);
    }
    fs::copy(env!("CARGO_BIN_EXE_rankpool"), files.path("me")).expect("a copy of the program");
    refused(&files, "./me -q --local 2 kernel square -o me", "--output would overwrite the program me");
}

#[test]
fn two_outputs_are_not_one_file_by_whatever_name() {
    let files = folder_of_files();
    for (words, message) in [
        ("rp kernel square -o k --summary k", "--output and --summary cannot both be written to k"),
        ("rp kernel square -o k --summary ./k", "--output and --summary cannot both be written to k"),
        ("rp kernel square --summary -", "--output and --summary cannot both be written to standard output"),
        ("rp kernel square -o /dev/stdout --summary -", "--output and --summary cannot both be written to standard"),
        (
            "rp kernel square --summary /proc/thread-self/fd/1 | cat; exit ${PIPESTATUS[0]}",
            "--output and --summary cannot both",
        ),
        ("rp kernel square --summary hard >> in.csv", "--output and --summary cannot both be written to hard"),
        ("rp run -i in -o k --records ./k -- true", "--output and --records cannot both be written to k"),
        ("rp run -i in -o k --records sub/../k -- true", "--output and --records cannot both be written to k"),
        ("rp run -i in -o sub/k --records folder/k -- true", "--output and --records cannot both be written to sub/k"),
        ("rp run -i in -o k --records dangling -- true", "--output and --records cannot both be written to k"),
        ("rp run -i in -o \"$PWD/k\" --summary dangling -- true", "--output and --summary cannot both be written to /"),
        ("rp run -i in -o build --stderr /proc/self/fd/3 -- true 3>>build", "--output and --stderr cannot both be"),
        (
            "rp map -i in --records in.csv --summary hard -- cat",
            "--records and --summary cannot both be written to in.csv",
        ),
        ("rp kernel square -i a.partial -o a", "--output is called a.partial until it is complete, which"),
        ("rp run -i in -o a -- cat a.partial", "which would overwrite a file of the command, a.partial"),
        ("rp run -i in -o x --records x.partial -- true", "and --records uses that name, too: give another name"),
        ("rp run -i in --records x --summary y --stderr y.partial -- true", "--summary is called y.partial"),
        ("rp run -i in -o dangling --records k.partial -- true", "--output is called dangling.partial"),
    ] {
        refused(&files, words, message);
    }
}

#[test]
fn messages_have_a_file_that_nothing_else_is_written_to_or_read_from() {
    let files = folder_of_files();
    for (words, name, message) in [
        ("rp run -i in -- echo {} 2>> in", "in", "--stderr would overwrite the input in"),
        ("rp kernel square -i in.csv 2>> soft", "in.csv", "standard error would overwrite the input in.csv"),
        ("rp run -i in -o build -- true 2>> build", "build", "--output and --stderr cannot both be written to build"),
        ("rp kernel square -o build 2>> build", "build", "--output and standard error cannot both be written to build"),
    ] {
        support::run(&mut shell(&files, words), LIMIT).expect_code(2);
        let text = fs::read_to_string(files.path(name)).expect("text");
        assert!(text.contains(message), "{words}: {text}");
    }
}

#[test]
fn what_is_in_nobody_s_way_is_shared() {
    let files = folder_of_files();
    for words in [
        "rp run -i in -o /dev/null --records /dev/null --stderr /dev/null --summary /dev/null -- echo {}",
        "rp run -i in -- echo {} > log 2>&1",
        "rp run -i in -o build -- echo build {}",
        "rp run -i in -o k --only-failed old --records old -- true",
        "rp map -i in -o /dev/null --records r --summary s -- cat",
        "rp map -i in --python model.py:f -o g.csv",
        "rp kernel square -i in.csv --summary /dev/stderr",
        "rp kernel square -i in.csv -i in.csv -o out",
        "rp kernel square -i in.csv > log2 2> log2",
        "rp run -i in --records x -o y --summary x.partial -- true",
        "mkfifo p; cat p > read & rp run -i in -o p --records p -- echo {}; wait",
        "rp run -i in -o in --dry-run -- echo {}",
    ] {
        println!("{words}");
        support::run(&mut shell(&files, words), LIMIT).expect_code(0);
    }
    assert_eq!(fs::read_to_string(files.path("in")).expect("text"), "1\n2\n");
}

/// Runs the words, whose inputs are `fifo` and then `jobs`, and changes `jobs` when the run has read it once and waits for the
/// pipe, which has one record.
fn change_before_the_second_reading(files: &Files, words: &str, edit: impl FnOnce(&Path)) -> support::Finished {
    nix::unistd::mkfifo(&files.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (child, over) = start_limited(&mut shell(files, words), Stdio::null());
    // Opening it waits for its reader.
    let mut pipe = OpenOptions::new().write(true).open(files.path("fifo")).expect("the run reads it");
    edit(&files.path("jobs"));
    pipe.write_all(b"7\n").expect("the run reads it");
    drop(pipe);
    let finished = child.wait_with_output().expect("it ends");
    drop(over);
    fs::remove_file(files.path("fifo")).expect("it was there");
    support::Finished {
        code: finished.status.code(),
        stdout: finished.stdout,
        stderr: String::from_utf8_lossy(&finished.stderr).into_owned(),
    }
}

#[test]
fn an_input_that_changes_while_it_is_read_ends_the_run_and_keeps_what_has_finished() {
    let files = Files::new();
    for (words, result) in [
        ("rp run -i fifo -i jobs -o out -- echo {}", "7\n"),
        ("rp run --skip-bad --records r -i fifo -i jobs -o out -- echo {}", "7\n"),
        ("rp map -i fifo -i jobs -o out -- cat", "7\n"),
        ("rp kernel square --format jsonl -i fifo -i jobs -o out", "49\n"),
        ("rp kernel square --skip-bad --unordered --format jsonl -i fifo -i jobs -o out", "49\n"),
    ] {
        let longer: String = (1..=12).map(|i| format!("{i}\n")).collect();
        for (text, fault) in
            [("1\n2\n1", "shorter"), (&longer, "longer"), ("1\n2\n30\n4\n", "its contents are not the same")]
        {
            files.with("jobs", "1\n2\n10\n4\n");
            let run =
                change_before_the_second_reading(&files, words, |jobs| fs::write(jobs, text).expect("it is ours"));
            println!("{words} {text:?}");
            run.expect_code(2).expect_said("jobs changed while it was read: ").expect_said(fault);
            run.expect_said("; the output so far is in out.partial");
            assert_eq!(fs::read_to_string(files.path("out.partial")).expect("what has finished"), result);
            fs::remove_file(files.path("out.partial")).expect("it was there");
            assert!(!files.path("out").exists());
        }
    }
}

#[test]
fn an_input_that_its_own_jobs_cut_off_gives_no_torn_job() {
    let files = Files::new();
    // Each record is a fifth of what is read at once.
    let text: String = (10..40).map(|i| format!("{i} {}\n", "x".repeat(50_000))).collect();
    let jobs = files.with("jobs", &text);
    let script = "read -r a b; [ $a = 10 ] && truncate -s 1100000 jobs; echo $a ${#b}";
    let words = format!("rp run --window 1 --threads 1 -i jobs -o out --stdin {{}} -- bash -c '{script}'");
    let run = support::run(&mut shell(&files, &words), LIMIT);
    run.expect_code(2).expect_said("jobs changed while it was read: it is shorter than before");
    let out = fs::read_to_string(files.path("out.partial")).expect("what has finished");
    assert!(out.starts_with("10 50000\n"), "{out}");
    assert!(out.lines().all(|line| line.ends_with(" 50000")), "{out}");
    assert!(out.lines().count() < 22, "{out}");
    fs::remove_file(jobs).expect("it was there");
}

#[test]
fn a_job_s_number_is_that_of_its_record_in_kernels_too() {
    let files = Files::new();
    files.with("jobs.jsonl", "1\n\"x\"\n-2\n3\n[]\n-4\n5\n-6\n");
    let run = support::run(&mut shell(&files, "rp kernel sqrt -i jobs.jsonl --skip 2 --skip-bad --take 5"), LIMIT);
    let numbers = |out: &str| -> Vec<u64> {
        let errors = out
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["error"]["job"].as_u64());
        errors.collect()
    };
    assert_eq!(numbers(&run.expect_code(3).out()), [3, 6], "{}", run.out());
    run.expect_said("2 of 4 job(s) failed:\n  job 3: sqrt of -2: ");
    let run = support::run(&mut shell(&files, "rp kernel sqrt -i jobs.jsonl --skip-bad --unordered --chunk 1"), LIMIT);
    let mut unordered = numbers(&run.expect_code(3).out());
    unordered.sort_unstable();
    assert_eq!(unordered, [3, 6, 8]);
    let run = support::run(&mut shell(&files, "rp kernel sqrt --range 5:-5:-1 --skip 4"), LIMIT);
    assert_eq!(numbers(&run.expect_code(3).out()), [7, 8, 9, 10, 11]);
    let run = support::run(&mut shell(&files, "echo -1 | rp kernel sqrt -i - --format jsonl"), LIMIT);
    assert_eq!(numbers(&run.expect_code(3).out()), [1]);
    let run = support::run(&mut shell(&files, "rp kernel power --y -1"), LIMIT);
    assert_eq!(numbers(&run.expect_code(3).out()), [1], "default jobs are counted from 1");
}
