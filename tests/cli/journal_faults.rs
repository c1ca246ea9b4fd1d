//! `--journal` on paths and disks that fail: nothing foreign is overwritten, nothing waits for ever, and what was finished is found
//! again.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::journal::{journal, text};
use crate::support::{self, Finished};
use crate::{Files, LIMIT, batch, run_batch, until};

/// Runs a shell script in the directory of the test, in which `$R` is the program with two ranks.
#[track_caller]
fn shell(files: &Files, script: &str) -> Finished {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(files.0.path()).env("LC_ALL", "C");
    command.env("R", format!("{} --local 2", env!("CARGO_BIN_EXE_rankpool")));
    support::run(&mut command, LIMIT)
}

/// Runs a script that mounts file systems of its own, and ends with 77 if it cannot; `None` if that is so here.
#[track_caller]
pub fn with_mounts(files: &Files, script: &str) -> Option<Finished> {
    files.with("script", script);
    let finished = shell(files, "unshare --mount sh script || unshare --mount --map-root-user sh script");
    if finished.code == Some(77) || !files.path("mounted").exists() {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    Some(finished)
}

fn numbers(last: u64) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

/// The number of settled jobs.
fn settled(files: &Files, name: &str) -> u64 {
    let shown = journal(files, &["show", name]).out();
    shown.split("settled: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_journal_that_is_moved_or_removed_while_the_run_goes_on_is_noticed_and_its_entries_are_kept() {
    type Fault = fn(&Files);
    let faults: [(&str, Fault, &str, &str); 4] = [
        ("removed", |of| fs::remove_file(of.path("d/j")).expect("it is there"), "are in d/j.rescued", "d/j.rescued"),
        (
            "replaced",
            |of| {
                of.with("other", "of somebody else\n");
                fs::rename(of.path("other"), of.path("d/j")).expect("both are there");
            },
            "are in d/j.rescued",
            "d/j.rescued",
        ),
        ("moved", |of| fs::rename(of.path("d/j"), of.path("k")).expect("it is there"), "it was moved", "k"),
        ("with its folder", |of| fs::rename(of.path("d"), of.path("e")).expect("it is there"), "it was moved", "e/j"),
    ];
    for (what, fault, said, kept) in faults {
        let files = Files::new();
        fs::create_dir(files.path("d")).expect("a folder");
        let script = "test {} -lt 20 || until test -e go; do sleep 0.02; done; echo {}";
        let of = |journal| {
            ["--journal", journal, "--resume", "--sync", "0s", "-o", "o", "--range", "1:40", "--", "sh", "-c", script]
        };
        let child = support::start(&mut batch(&files, &of("d/j")));
        until("half of the jobs are saved", || settled(&files, "d/j") == 19);
        fault(&files);
        files.with("go", "");
        let finished = support::finish(child, LIMIT);
        finished.expect_code(1).expect_said("cannot write d/j: it was ").expect_said(said).expect_said(" in o");
        assert!(!finished.stderr.contains("d/j has all finished jobs"), "{what}: {}", finished.stderr);
        if what == "replaced" {
            assert_eq!(text(&files, "d/j"), "of somebody else\n");
        }
        assert!(settled(&files, kept) >= 19, "{what}");
        run_batch(&files, &of(kept)).expect_code(0);
        assert_eq!(text(&files, "o"), numbers(40), "{what}");
    }
}

#[test]
fn a_journal_that_is_gone_at_the_end_is_noticed_and_the_message_says_where_the_whole_output_is() {
    let files = Files::new();
    let script = "touch up; until test -e go; do sleep 0.02; done; echo {}";
    let words = ["--journal", "j", "--sync", "1h", "-o", "o", "--range", "1:4", "--", "sh", "-c", script];
    let child = support::start(&mut batch(&files, &words));
    until("a job runs", || files.path("up").exists());
    fs::remove_file(files.path("j")).expect("it is there");
    files.with("go", "");
    support::finish(child, LIMIT)
        .expect_code(1)
        .expect_said("rename that file to continue with --resume; the output is complete in o");
    assert_eq!((text(&files, "o"), settled(&files, "j.rescued")), (numbers(4), 4));
}

#[test]
fn what_is_no_journal_is_refused_at_once_and_left_as_it_was() {
    let files = Files::new();
    fs::create_dir(files.path("folder")).expect("a folder");
    mkfifo(&files.path("pipe"), Mode::S_IRWXU).expect("a pipe");
    files.with("letter", "to a friend\n");
    for (name, said) in [
        ("folder", "Is a directory"),
        ("pipe", "pipe is not a journal"),
        ("letter", "letter is not a journal"),
        ("/dev/null", "/dev/null is not a journal"),
        ("/dev/full", "/dev/full is not a journal"),
        ("nowhere/j", "cannot read or write the journal nowhere/j: No such file or directory"),
        // Also root cannot make a file there.
        ("/sys/j", "cannot read or write the journal /sys/j: "),
        ("letter/j", "cannot read or write the journal letter/j: Not a directory"),
    ] {
        for more in [&[][..], &["--resume"], &["--resume", "--break-lock", "--accept-changed"]] {
            let words = [&["--journal", name], more, &["-o", "o", "--range", "1:3", "--", "touch", "ran"]].concat();
            run_batch(&files, &words).expect_code(2).expect_said(said);
        }
        for task in ["show", "check", "export", "compact"] {
            let finished = journal(&files, &[task, name]);
            assert!(matches!(finished.code, Some(1 | 2)), "{task} {name}: {finished:?}");
            finished.expect_said(name);
        }
    }
    assert_eq!(
        (text(&files, "letter").as_str(), files.names()),
        ("to a friend\n", ["folder", "letter", "pipe"].map(String::from).to_vec())
    );
}

#[test]
fn a_link_to_a_journal_stays_a_link_when_the_journal_is_written_anew() {
    let files = Files::new();
    fs::create_dir(files.path("d")).expect("a folder");
    symlink("d/j", files.path("link")).expect("a link");
    let words = ["--journal", "link", "--resume", "-o", "o", "--range", "1:50", "--", "echo", "{}"];
    run_batch(&files, &words).expect_code(0);
    assert!(files.path("d/j").exists());
    journal(&files, &["compact", "link"]).expect_code(0);
    let mut bytes = fs::read(files.path("d/j")).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 200].fill(0);
    files.with("d/j", &bytes);
    run_batch(&files, &words).expect_code(0).expect_said("The damaged file is kept as").expect_said("d/j.broken");
    assert!(files.path("link").symlink_metadata().expect("it is there").is_symlink());
    assert_eq!(fs::read(files.path("d/j.broken")).expect("it is kept"), bytes);
    journal(&files, &["check", "link"]).expect_code(0);
    assert_eq!(text(&files, "o"), numbers(50));
}

#[test]
fn a_file_with_the_name_of_the_new_journal_is_never_overwritten() {
    let files = Files::new();
    let words = ["--journal", "j", "--resume", "-o", "o", "--range", "1:9", "--", "echo", "{}"];
    run_batch(&files, &words).expect_code(0);
    files.with("j.new", "to a friend\n");
    journal(&files, &["compact", "j"]).expect_code(1).expect_said("j.new is in the way: remove or rename it");
    assert_eq!(text(&files, "j.new"), "to a friend\n");
    fs::remove_file(files.path("j.new")).expect("it is there");
    journal(&files, &["compact", "j"]).expect_code(0);
    assert_eq!(settled(&files, "j"), 9);
}

#[test]
fn a_write_error_in_the_middle_ends_the_run_and_the_next_one_continues() {
    let files = Files::new();
    let words =
        "run --progress off --journal j --resume -o o --range 1:200 -- sh -c 'echo {} >>ran; printf \"%01000d\\n\" {}'";
    // The size is in units of 512 bytes; the journal reaches it first.
    let first = shell(&files, &format!("(trap '' XFSZ; ulimit -f 64; exec $R {words})"));
    first.expect_code(1).expect_said("cannot write j: File too large");
    let saved = settled(&files, "j");
    assert!((1..200).contains(&saved), "{saved} jobs are saved");
    // Without the trap the signal must not end the program either.
    shell(&files, &format!("(ulimit -f 64; exec $R {words})"))
        .expect_code(1)
        .expect_said("cannot write j: File too large");
    shell(&files, &format!("exec $R {words}")).expect_code(0);
    assert_eq!(text(&files, "o"), (1..=200).map(|number| format!("{number:01000}\n")).collect::<String>());
}

#[test]
fn a_full_disk_under_the_journal_ends_the_run_and_the_next_one_continues_when_there_is_room() {
    let files = Files::new();
    fs::create_dir(files.path("small")).expect("a folder");
    let words = "$R run --progress off --journal small/j --resume -o o --range 1:200 -- printf '%01000d\\n' {}";
    let script = format!(
        "mount -t tmpfs -o size=64k none small 2>mounted || exit 77; {words}; echo first $?; cat o.partial o >>kept 2>/dev/null
         {words}; echo again $?; mount -o remount,size=8m small; {words}; echo last $?
         cat /dev/zero >small/rest 2>/dev/null; $R journal compact small/j; echo compact $?; ls small; $R journal check small/j"
    );
    let Some(finished) = with_mounts(&files, &script) else { return };
    finished.expect_code(0).expect_said("cannot write small/j: No space left on device");
    let out = finished.out();
    let lines = ["first 1\n", "again 1\n", "last 0\n", "compact 1\nj\nrest\n", "200 job(s) kept", "not damaged"];
    assert!(lines.iter().all(|line| out.contains(line)), "{out}\n{}", finished.stderr);
    assert_eq!(text(&files, "o"), (1..=200).map(|number| format!("{number:01000}\n")).collect::<String>());
}

#[test]
fn a_journal_in_a_read_only_file_system_can_be_looked_at_and_nothing_else() {
    let files = Files::new();
    fs::create_dir(files.path("d")).expect("a folder");
    let words = "run -q --progress off --resume -o o --range 1:9 -- echo {} --journal";
    let words = |journal: &str| words.replace("-- echo {} --journal", &format!("--journal {journal} -- echo {{}}"));
    let script = format!(
        "mount -t tmpfs none d 2>mounted || exit 77; $R {}; mount -o remount,ro d; for task in show check export; do $R journal $task d/j >/dev/null || exit 3; done
         $R journal compact d/j; echo compact $?; $R {}; echo resume $?; $R {}; echo new $?",
        words("d/j"),
        words("d/j"),
        words("d/k")
    );
    let Some(finished) = with_mounts(&files, &script) else { return };
    assert_eq!(finished.expect_code(0).out(), "compact 1\nresume 2\nnew 2\n", "{}", finished.stderr);
    finished.expect_said("cannot read or write the journal d/j: Read-only file system");
}

#[test]
fn a_kill_at_any_moment_of_compact_leaves_a_whole_journal() {
    let files = Files::new();
    let run = ["--journal", "j", "--resume", "-o", "o", "--range", "1:300", "--", "printf", "%02000d\n", "{}"];
    run_batch(&files, &run).expect_code(0);
    let output = text(&files, "o");
    for turn in 0..20 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
        command.args(["journal", "compact", "j"]).current_dir(files.0.path());
        let mut child = support::start(&mut command);
        std::thread::sleep(std::time::Duration::from_micros(turn * 500));
        support::signal(&child, Signal::SIGKILL);
        support::wait(&mut child, LIMIT);
        journal(&files, &["check", "j"]).expect_code(0);
        assert_eq!(settled(&files, "j"), 300, "turn {turn}");
    }
    fs::remove_file(files.path("o")).expect("it is there");
    run_batch(&files, &run).expect_code(0).expect_said("300 of 300 job(s) were settled already");
    assert_eq!(text(&files, "o"), output);
    journal(&files, &["compact", "j"]).expect_code(0);
    assert!(!files.path("j.new").exists(), "{:?}", files.names());
}

#[test]
fn a_resume_that_is_stopped_is_resumed() {
    let files = Files::new();
    let script = "test {} -lt 15 || until test -e go; do sleep 0.02; done; echo {} >>ran; echo {}";
    let words = ["--journal", "j", "--resume", "-o", "o", "--range", "1:20", "--", "sh", "-c", script];
    let child = support::start(&mut batch(&files, &words));
    until("some jobs are saved", || settled(&files, "j") == 14);
    support::signal(&child, Signal::SIGKILL);
    drop(support::finish(child, LIMIT));
    for _ in 0..2 {
        let before = fs::metadata(files.path("j")).expect("it is there").len();
        let child = support::start(&mut batch(&files, &[&["--grace", "0s"], &words[..]].concat()));
        until("the run has begun", || fs::metadata(files.path("j")).expect("it is there").len() > before);
        support::signal(&child, Signal::SIGINT);
        support::finish(child, LIMIT).expect_code(75).expect_said("--resume continues");
    }
    files.with("go", "");
    run_batch(&files, &words).expect_code(0);
    assert_eq!(text(&files, "o"), numbers(20));
    assert_eq!(text(&files, "ran").lines().filter(|line| line.len() == 1).count(), 9, "nothing saved is run again");
}

#[test]
fn records_from_standard_input_resume_and_an_empty_input_has_an_empty_output() {
    let files = Files::new();
    let run = "| $R run --progress off --journal j --resume -o o --input - -- sh -c 'echo {} >>ran; echo {}'";
    shell(&files, &format!("seq 1 20 {run}")).expect_code(0);
    shell(&files, &format!("seq 1 30 {run}")).expect_code(0).expect_said("20 of 30 job(s) were settled already");
    assert_eq!((text(&files, "o"), text(&files, "ran").lines().count()), (numbers(30), 30));
    shell(&files, &format!(": {run}")).expect_code(0);
    assert_eq!(text(&files, "o"), "");
    shell(&files, &format!("seq 1 30 {run}")).expect_code(0).expect_said("30 of 30 job(s) were settled already");
    assert_eq!((text(&files, "o"), text(&files, "ran").lines().count()), (numbers(30), 30));
}

#[test]
fn a_reader_that_leaves_early_ends_the_run_and_the_next_one_has_everything() {
    let files = Files::new();
    let run = "$R run -q --progress off --journal j --resume --range 1:600 -- printf '%0200d\\n' {}";
    let expected: String = (1..=600).map(|number| format!("{number:0200}\n")).collect();
    for _ in 0..2 {
        let finished = shell(&files, &format!("{run} | head -n 1"));
        assert_eq!(finished.expect_code(0).out(), format!("{:0200}\n", 1));
        assert!(journal(&files, &["show", "j"]).out().contains("complete: no"));
    }
    let finished = shell(&files, run);
    assert!(finished.expect_code(0).out() == expected);
}

#[test]
fn two_runs_that_break_the_lock_leave_a_journal_by_which_the_output_is_right() {
    let files = Files::new();
    let script = "sleep 0.01; echo {}";
    let words = ["--journal", "j", "--resume", "--break-lock", "--sync", "0s", "--range", "1:60", "--threads", "2"];
    let job = ["--", "sh", "-c", script];
    let runs: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|output| {
            let mut command = batch(&files, &[&words[..], &["-o", output], &job].concat());
            command.stdin(Stdio::null());
            support::start(&mut command)
        })
        .collect();
    for run in runs {
        support::finish(run, LIMIT);
    }
    run_batch(&files, &[&words[..], &["-o", "o"], &job].concat()).expect_code(0);
    assert_eq!(text(&files, "o"), numbers(60));
}
