//! What is called done is on disk: whatever ends a run, each record that says `ok` has its output, and the same command with
//! `--only-failed` completes it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::disk;
use crate::support::{self, Finished};
use crate::{Files, LIMIT, batch, command, records, run_batch, statuses, until};

/// Whole records of a file whose last line may be torn.
fn whole_records(files: &Files, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(files.path(name)).unwrap_or_default();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| serde_json::from_str(line).expect("a record on each line")).collect()
}

#[track_caller]
fn all_that_is_ok_is_there(files: &Files, records: &str, output: &str, expected: impl Fn(u64) -> String) -> usize {
    disk::what_is_ok_is_on_disk(files.0.path(), records, output, expected)
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

fn text(files: &Files, name: &str) -> String {
    fs::read_to_string(files.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Waits for the end of a program, and gives what it said.
#[track_caller]
fn end_of(child: &mut std::process::Child) -> Finished {
    let status = support::wait(child, LIMIT).expect("it ends");
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    child.stdout.take().expect("it is piped").read_to_end(&mut stdout).expect("it can be read");
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("text");
    Finished { code: status.code(), stdout, stderr }
}

/// A run of 60 jobs, of which the first hangs until `go` is there. It is signalled when all others are done.
fn blocked(files: &Files, more: &[&str], signal: Signal) -> Finished {
    let script = "test {} = 1 && until test -e go; do sleep 0.05; done; touch done{}; echo {}";
    let words = [&["--range", "1:60"], more, &["--", "sh", "-c", script]].concat();
    let mut child = support::start(&mut batch(files, &words));
    until("the others are done", || files.names().iter().filter(|name| name.starts_with("done")).count() == 59);
    if signal == Signal::SIGKILL {
        until("their results are saved", || whole_records(files, "r").len() == 59);
    }
    support::signal(&child, signal);
    end_of(&mut child)
}

#[test]
fn what_waits_behind_a_slow_job_survives_a_kill_and_the_rest_is_put_in_its_place() {
    for more in [&[][..], &["--unordered"]] {
        let files = Files::new();
        let options = [&["-o", "o", "--records", "r"], more].concat();
        blocked(&files, &options, Signal::SIGKILL);
        let line = |number| format!("{number}\n");
        assert_eq!(all_that_is_ok_is_there(&files, "r", "o", line), 59);
        let rest = [&["--range", "1:60", "--only-failed", "r"], &options[..], &["--", "echo", "{}"]].concat();
        run_batch(&files, &rest).expect_code(0).expect_said("run: 1 jobs in");
        if more.is_empty() {
            assert_eq!(text(&files, "o"), numbers(1..=60));
        } else {
            assert_eq!(text(&files, "o").lines().count(), 60);
        }
        assert_eq!((all_that_is_ok_is_there(&files, "r", "o", line), records(&files, "r").len()), (60, 60));
        assert!(!files.names().iter().any(|name| name.contains("partial")), "{:?}", files.names());
    }
}

#[test]
fn every_signal_that_asks_for_the_end_keeps_what_is_finished() {
    let signals = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGQUIT,
        Signal::SIGXCPU,
    ];
    for signal in signals {
        let files = Files::new();
        let options = ["-o", "o", "--records", "r", "--kill-after", "8s", "--grace", "0.5s"];
        let run = blocked(&files, &options, signal);
        run.expect_code(75)
            .expect_said("stopped early by a signal, after 59 job(s); the output so far is in o.partial");
        assert_eq!(text(&files, "o.partial"), numbers(2..=60), "{signal}");
        assert_eq!(all_that_is_ok_is_there(&files, "r", "o", |number| format!("{number}\n")), 59);
    }
}

#[test]
fn what_is_finished_is_saved_at_once_after_a_signal_and_not_when_the_time_of_grace_is_over() {
    for (options, gap) in [(&["--records", "r", "-o", "o"][..], false), (&["-o", "o"], false), (&[], false)] {
        let files = Files::new();
        let script = "test {} = 1 && touch up && exec sleep 60; echo {}; touch done{}";
        let words = [&["--range", "1:20", "--kill-after", "0s"], options, &["--", "sh", "-c", script]].concat();
        let mut child = support::start(batch(&files, &words).stdout(Stdio::piped()));
        until("the others are done", || files.names().iter().filter(|name| name.starts_with("done")).count() == 19);
        support::signal(&child, Signal::SIGTERM);
        if options.is_empty() {
            let mut out = child.stdout.take().expect("it is piped");
            let mut saved = vec![0; numbers(2..=20).len()];
            out.read_exact(&mut saved).expect("the results come while the first job runs");
            assert_eq!(String::from_utf8_lossy(&saved), numbers(2..=20));
        } else {
            let length = numbers(2..=20).len() as u64;
            let there = || files.path("o.partial").metadata().is_ok_and(|metadata| metadata.len() == length);
            until("the results are saved", there);
        }
        // As Open MPI's mpiexec does a second later.
        assert!(child.try_wait().expect("it can be asked").is_none() || gap, "the first job still runs");
        support::signal(&child, Signal::SIGKILL);
        support::wait(&mut child, LIMIT);
    }
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    let files = Files::new();
    let script = format!(
        "trap '' HUP INT; exec {} -q --local 1 --threads 1 run --range 1:2 -- sh -c 'touch up{{}}; until test -e go{{}}; do sleep 0.02; done'",
        env!("CARGO_BIN_EXE_rankpool")
    );
    let mut child = support::start(Command::new("sh").args(["-c", &script]).current_dir(files.0.path()));
    until("the first job runs", || files.path("up1").exists());
    support::signal(&child, Signal::SIGHUP);
    support::signal(&child, Signal::SIGINT);
    files.with("go1", "");
    until("the second job runs", || files.path("up2").exists());
    files.with("go2", "");
    end_of(&mut child).expect_code(0);
    let script = format!(
        "trap '' HUP; exec {} -q --local 1 run --args 1 -- sh -c 'kill -HUP $$; echo lives'",
        env!("CARGO_BIN_EXE_rankpool")
    );
    let run = support::run(Command::new("sh").args(["-c", &script]).current_dir(files.0.path()), LIMIT);
    assert_eq!(run.expect_code(0).out(), "lives\n", "the commands ignore it, too");
}

#[test]
fn the_loop_until_it_succeeds_ends_with_all_results_in_order() {
    let files = Files::new();
    let script = "sleep 0.0$(({} % 4)); test -e all || test $(({} % 7)) -gt 0 || exit 1; echo a{}; echo b{}";
    let first = ["--range", "1:300", "--records", "r", "-o", "o", "--stderr", "e", "--threads", "2"];
    let go_on = [&first[..], &["--only-failed", "r"]].concat();
    let job = ["--", "sh", "-c", script];
    let both = |number: u64| format!("a{number}\nb{number}\n");
    let signals = [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL, Signal::SIGINT, Signal::SIGKILL];
    for (turn, signal) in signals.into_iter().enumerate() {
        let options = if turn == 0 { &first[..] } else { &go_on };
        let before = whole_records(&files, "r").len();
        let mut child = support::start(&mut batch(&files, &[options, &job].concat()));
        until("some jobs are recorded", || whole_records(&files, "r").len() >= before + 15);
        support::signal(&child, signal);
        end_of(&mut child);
        all_that_is_ok_is_there(&files, "r", "o", both);
    }
    run_batch(&files, &[&go_on[..], &job].concat()).expect_code(3);
    assert!(files.path("o").exists() && !files.path("o.partial").exists());
    all_that_is_ok_is_there(&files, "r", "o", both);
    // Ended, with failures; and stopped once more.
    let mut child =
        support::start(&mut batch(&files, &[&go_on[..], &["--", "sh", "-c", "touch up; exec sleep 60"]].concat()));
    until("a job runs", || files.path("up").exists());
    support::signal(&child, Signal::SIGKILL);
    end_of(&mut child);
    assert!(files.path("o").exists(), "the output of the run that ended stays until there is a better one");
    files.with("all", "");
    run_batch(&files, &[&go_on[..], &job].concat()).expect_code(0);
    assert_eq!(text(&files, "o"), (1..=300).map(both).collect::<String>());
    assert_eq!(all_that_is_ok_is_there(&files, "r", "o", both), 300);
    assert!(!files.names().iter().any(|name| name.contains("partial")), "{:?}", files.names());
    // All is done.
    run_batch(&files, &[&go_on[..], &["--", "false"]].concat()).expect_code(0).expect_said("run: 0 jobs");
    assert_eq!(text(&files, "o"), (1..=300).map(both).collect::<String>());
}

#[test]
fn results_that_are_no_longer_there_are_made_again() {
    let files = Files::new();
    let words = ["--range", "1:9", "--records", "r", "-o", "o", "--", "sh", "-c", "test {} != 5 && echo {}"];
    run_batch(&files, &words).expect_code(3);
    let again = ["--range", "1:9", "--records", "r", "-o", "o", "--only-failed", "r", "--", "echo", "{}"];
    // Somebody has changed two of them, and cut off the last one.
    files.with("o", "1\nx\n3\n4\ny\n7\n8\n");
    let run = run_batch(&files, &again);
    run.expect_code(0).expect_said("result(s) with the status ok are no longer in o: these jobs are run again");
    assert_eq!(text(&files, "o"), numbers(1..=9));
    fs::remove_file(files.path("o")).expect("it was there");
    run_batch(&files, &again).expect_code(0).expect_said("9 result(s) with the status ok are no longer in o");
    assert_eq!(text(&files, "o"), numbers(1..=9));
}

#[test]
fn another_output_gets_the_rest_and_one_with_other_results_is_refused() {
    let files = Files::new();
    run_batch(&files, &["--range", "1:4", "--records", "r", "-o", "o", "--", "sh", "-c", "test {} = 2 || echo {}"])
        .expect_code(0);
    run_batch(&files, &["--range", "1:4", "--records", "r", "-o", "o", "--", "sh", "-c", "test {} != 2 && echo {}"])
        .expect_code(3);
    let rest = |output: &'static str| ["--range", "1:4", "--only-failed", "r", "-o", output, "--", "echo", "{}"];
    run_batch(&files, &rest("p")).expect_code(0);
    assert_eq!(text(&files, "p"), "2\n");
    files.with("q", "something\n");
    run_batch(&files, &rest("q")).expect_code(2).expect_said("q has the results of another run");
    assert_eq!(text(&files, "q"), "something\n");
}

#[test]
fn a_second_run_on_the_same_records_or_output_is_refused() {
    let files = Files::new();
    let script = "touch up; until test -e go; do sleep 0.02; done; echo {}";
    let words = ["--range", "1:3", "--records", "r", "-o", "o", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    until("a job runs", || files.path("up").exists());
    for other in [
        &["--records", "r"][..],
        &["--records", "r", "--only-failed", "r"],
        &["-o", "o"],
        &["-o", "o", "--records", "s"],
    ] {
        let run = run_batch(&files, &[&["--range", "1:3"], other, &["--", "touch", "ran"]].concat());
        run.expect_code(2).expect_said(": another run is writing it; ");
    }
    assert!(!files.path("ran").exists());
    files.with("go", "");
    end_of(&mut child).expect_code(0);
    assert_eq!((text(&files, "o"), statuses(&files, "r").len()), (numbers(1..=3), 3));
}

#[test]
fn an_output_that_cannot_appear_is_left_under_a_name_that_is_said() {
    for task in ["run", "map", "kernel"] {
        let files = Files::new();
        files.with("worker.sh", "while read -r x; do test -e d/o || sleep 0.01; echo $x; done");
        fs::create_dir(files.path("d")).expect("a folder");
        let script = "until test -e d/o; do sleep 0.02; done; echo {}";
        let words: &[&str] = match task {
            "run" => &["run", "--range", "1:60", "-o", "d/o", "--records", "r", "--", "sh", "-c", script],
            "map" => &["map", "--range", "1:600", "-o", "d/o", "--records", "r", "--", "sh", "worker.sh"],
            _ => &["kernel", "sleep-square", "--range", "1:600", "--seconds", "0.01", "-o", "d/o"],
        };
        let mut child = support::start(command(words).current_dir(files.0.path()));
        until("the output is open", || files.path("d/o.partial").exists());
        fs::create_dir(files.path("d/o")).expect("a folder in its place");
        let run = end_of(&mut child);
        run.expect_code(1).expect_said("cannot write d/o: Is a directory; the output so far is in d/o.partial");
        let lines = text(&files, "d/o.partial").lines().count();
        assert_eq!(lines, if task == "run" { 60 } else { 600 }, "{task}");
        if task != "kernel" {
            fs::remove_dir(files.path("d/o")).expect("it is empty");
            let again: Vec<_> = words[..words.len()].to_vec();
            let again = [&again[..7], &["--only-failed", "r"], &again[7..]].concat();
            support::run(command(&again).current_dir(files.0.path()), LIMIT).expect_code(0);
            assert_eq!(text(&files, "d/o").lines().count(), lines, "{task}");
            assert!(!files.path("d/o.partial").exists());
        }
    }
}

/// Runs `rankpool` in a shell that lets no file grow beyond so many blocks of 1024 bytes.
fn limited(files: &Files, blocks: u32, words: &[&str]) -> Finished {
    let quoted: Vec<String> =
        words.iter().map(|word| shlex::try_quote(word).expect("no zero bytes").into_owned()).collect();
    let script =
        format!("ulimit -f {blocks}; exec {} --local 2 -q {}", env!("CARGO_BIN_EXE_rankpool"), quoted.join(" "));
    support::run(
        Command::new("bash").args(["-c", &script]).current_dir(files.0.path()).env("TMPDIR", files.0.path()),
        LIMIT,
    )
}

#[test]
fn a_file_that_may_grow_no_further_ends_the_run_and_nothing_finished_is_lost() {
    // Each job puts out 500 bytes; `ulimit -f` is for all files.
    let row = |number: u64| format!("{number:0>499}\n");
    for (blocked, rows) in [("--output", true), ("--stderr", false), ("--records", false)] {
        let files = Files::new();
        let script = if rows { "printf '%0499d\\n' {}" } else { "echo {}; printf '%0499d\\n' {} >&2" };
        let words: &[&str] =
            &["run", "--range", "1:300", "-o", "o", "--records", "r", "--stderr", "e", "--", "sh", "-c"];
        let stopped =
            limited(&files, 32, &[words, &[if blocked == "--records" { "echo {}" } else { script }]].concat());
        let name = match blocked {
            "--output" => "o",
            "--stderr" => "e",
            _ => "r",
        };
        stopped
            .expect_code(1)
            .expect_said(&format!("cannot write {name}: File too large; the output so far is in o.partial"));
        let expected = |number: u64| if rows { row(number) } else { format!("{number}\n") };
        let kept = all_that_is_ok_is_there(&files, "r", "o", expected);
        assert!(kept > 20, "{blocked}: {kept} kept");
        let go_on = [&words[..words.len() - 3], &["--only-failed", "r", "--", "sh", "-c", script]].concat();
        let words: Vec<_> = [&["-q"], &go_on[..]].concat();
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(0);
        assert_eq!(text(&files, "o"), (1..=300).map(expected).collect::<String>(), "{blocked}");
    }
    let files = Files::new();
    let stopped = limited(&files, 1, &["kernel", "square", "--range", "1:100000", "-o", "o"]);
    stopped.expect_code(1).expect_said("cannot write o: File too large; the output so far is in o.partial");
    assert_eq!(fs::metadata(files.path("o.partial")).expect("it is there").len(), 1024);
}

/// A file system of so many KiB, where this is allowed.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, kib: u32) -> Option<SmallDisk> {
        let options = format!("size={kib}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "rankpool-test"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_under_any_file_loses_nothing_that_was_finished() {
    for full in ["-o", "--records", "--stderr", "TMPDIR"] {
        let files = Files::new();
        fs::create_dir(files.path("disk")).expect("a folder");
        let Some(_disk) = SmallDisk::mount(&files.path("disk"), 64) else {
            println!("skipped: no file systems can be mounted here");
            return;
        };
        let place = |option: &str, name: &str| if option == full { format!("disk/{name}") } else { name.to_string() };
        let (out, records_name, err) = (place("-o", "o"), place("--records", "r"), place("--stderr", "e"));
        // Pieces of more than 256 KiB go through TMPDIR.
        let script = match full {
            "TMPDIR" => "if test {} = 150; then head -c 2000000 /dev/zero; else echo {}; fi",
            _ => "printf '%0500d\\n' {} >&2; printf '%0500d\\n' {}",
        };
        let words =
            ["--range", "1:400", "-o", &out, "--records", &records_name, "--stderr", &err, "--", "sh", "-c", script];
        let mut command = batch(&files, &words);
        if full == "TMPDIR" {
            command.env("TMPDIR", files.path("disk"));
        }
        let run = support::run(&mut command, LIMIT);
        run.expect_code(1)
            .expect_said("No space left on device")
            .expect_said(&format!("the output so far is in {out}.partial"));
        let expected = |number: u64| if full == "TMPDIR" { format!("{number}\n") } else { format!("{number:0>500}\n") };
        assert!(all_that_is_ok_is_there(&files, &records_name, &out, expected) > 5, "{full}");
        let grown = Command::new("mount").args(["-o", "remount,size=4m"]).arg(files.path("disk")).status();
        assert!(grown.is_ok_and(|status| status.success()));
        let go_on = [&["--only-failed", &records_name], &words[..]].concat();
        run_batch(&files, &go_on).expect_code(0);
        let all = text(&files, &out);
        assert_eq!(all.lines().count(), if full == "TMPDIR" { 399 } else { 400 }, "{full}");
        assert!(!files.path(&format!("{out}.partial")).exists());
    }
}

#[test]
fn the_mode_of_the_old_output_is_kept_also_when_it_is_put_into_order() {
    let files = Files::new();
    files.with("o", "old");
    fs::set_permissions(files.path("o"), fs::Permissions::from_mode(0o640)).expect("it is ours");
    let script =
        "test {} = 1 && until test -e done9; do sleep 0.02; done; test {} = 1 && sleep 0.5; echo {}; touch done{}";
    run_batch(&files, &["--range", "1:9", "-o", "o", "--records", "r", "--", "sh", "-c", script]).expect_code(0);
    assert_eq!(text(&files, "o"), numbers(1..=9));
    assert_eq!(fs::metadata(files.path("o")).expect("it is there").permissions().mode() & 0o777, 0o640);
    assert_eq!(all_that_is_ok_is_there(&files, "r", "o", |number| format!("{number}\n")), 9);
}

#[test]
fn a_kernel_that_is_stopped_keeps_what_is_finished_behind_a_slow_job() {
    let files = Files::new();
    // The first job takes minutes.
    let long = format!("[{}]\n", vec!["0.5"; 2_000_000].join(","));
    files.with("jobs.jsonl", long + &"[0.5]\n".repeat(200));
    let words = ["kernel", "slow-fn", "--n", "1000", "--input", "jobs.jsonl", "--threads", "1", "--chunk", "1"];
    let options = ["-o", "o", "--progress", "line", "--grace", "10m"];
    let mut command = command(&[&words[..], &options].concat());
    // This launcher kills its ranks a second after the signal, so that a result cannot wait for the job before it.
    command.env("OMPI_COMM_WORLD_RANK", "0").env("OMPI_COMM_WORLD_SIZE", "1");
    let mut child = support::start(command.current_dir(files.0.path()));
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("200 of 201 jobs") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it has ended");
    }
    support::signal(&child, Signal::SIGTERM);
    let stopped = "{\"error\":{\"job\":1,\"kind\":\"stopped\",\"message\":\"the run was stopped before its end\"}}";
    until("the results are saved", || text(&files, "o.partial").lines().count() == 201);
    assert_eq!(text(&files, "o.partial").lines().next(), Some(stopped));
    assert!(child.try_wait().expect("it can be asked").is_none(), "the first job still runs");
    support::signal(&child, Signal::SIGKILL);
    support::wait(&mut child, LIMIT);
}

/// Kills runs at moments that are spread over their whole duration. RANKPOOL_KILLS=300 is the long version.
#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_called_ok() {
    let line = |number: u64| format!("{number}\n");
    for turn in 0..disk::kills(12) {
        let files = Files::new();
        let unordered = if turn % 4 < 2 { &["--unordered"][..] } else { &[] };
        let (range, job): (&str, &[&str]) = match turn % 2 {
            0 => ("1:300", &["run", "--progress", "off", "--", "echo", "{}"]),
            _ => ("1:20000", &["map", "--progress", "off", "--", "cat"]),
        };
        let options = ["--range", range, "-o", "o", "--records", "r"];
        let (task, worker) = job.split_at(3);
        let words = [task, &options, unordered, worker].concat();
        let mut child = support::start(command(&words).current_dir(files.0.path()));
        let since = Instant::now();
        let wait = Duration::from_millis(u64::from(turn) * 37 % 700);
        while since.elapsed() < wait && child.try_wait().expect("it can be asked").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        support::signal(&child, Signal::SIGKILL);
        support::wait(&mut child, LIMIT);
        all_that_is_ok_is_there(&files, "r", "o", line);
        let go_on = if files.path("r").exists() { &["--only-failed", "r"][..] } else { &[] };
        let words = [task, &options, unordered, go_on, worker].concat();
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(0);
        let mut lines: Vec<u64> = text(&files, "o").lines().map(|line| line.parse().expect("a number")).collect();
        if !unordered.is_empty() {
            lines.sort_unstable();
        }
        let last: u64 = range[2..].parse().expect("a number");
        assert!(lines.iter().copied().eq(1..=last), "turn {turn}: {} lines", lines.len());
        all_that_is_ok_is_there(&files, "r", "o", line);
    }
}

#[test]
fn a_killed_kernel_leaves_its_results_and_goes_on_behind_them() {
    for turn in 0..4 {
        let files = Files::new();
        let words = ["kernel", "square", "--range", "1:200000", "-o", "o"];
        let mut child = support::start(command(&words).current_dir(files.0.path()));
        let length = || fs::metadata(files.path("o.partial")).map_or(0, |metadata| metadata.len());
        until("some results are written", || length() > turn * 200_000 || files.path("o").exists());
        support::signal(&child, Signal::SIGKILL);
        support::wait(&mut child, LIMIT);
        let mut first = if files.path("o").exists() { text(&files, "o") } else { text(&files, "o.partial") };
        // The system ends a write where it is when its process is killed.
        let torn = first.split_off(first.rfind('\n').map_or(0, |last| last + 1));
        let next = (first.lines().count() as u64 + 1).pow(2).to_string();
        assert!(next.starts_with(&torn), "{torn:?} is a part of {next:?}");
        let skip = first.lines().count().to_string();
        let words = ["kernel", "square", "--range", "1:200000", "--skip", &skip, "-o", "p"];
        support::run(command(&words).current_dir(files.0.path()), LIMIT).expect_code(0);
        assert!((first + &text(&files, "p")).lines().eq((1..=200_000_u64).map(|x| (x * x).to_string())));
    }
}

#[test]
fn the_large_output_of_a_job_that_lost_its_turn_is_whole_or_not_called_ok() {
    let files = Files::new();
    // The first job writes a lot, before and after the signal; the others are finished behind it.
    let script = "test {} = 1 || { echo {}; exit; }; head -c 600000 /dev/zero | tr '\\0' x; touch up; \
        until test -e go; do sleep 0.02; done; head -c 600000 /dev/zero | tr '\\0' y; echo";
    let words = ["--range", "1:20", "--records", "r", "--kill-after", "0s", "--", "sh", "-c", script];
    let mut child = support::start(&mut batch(&files, &words));
    let mut out = child.stdout.take().expect("it is piped");
    until("the first job has written", || files.path("up").exists());
    support::signal(&child, Signal::SIGTERM);
    let mut rest = vec![0; 1];
    out.read_exact(&mut rest).expect("the others are saved");
    files.with("go", "");
    out.read_to_end(&mut rest).expect("text");
    support::wait(&mut child, LIMIT).expect("it ends");
    let is_ok = records(&files, "r").iter().any(|record| record["number"] == 1 && record["status"] == "ok");
    let count = |byte| rest.iter().filter(|at| **at == byte).count();
    let expected = if is_ok { (600_000, 600_000) } else { (0, 0) };
    assert_eq!((count(b'x'), count(b'y')), expected, "job 1 is ok: {is_ok}");
}
