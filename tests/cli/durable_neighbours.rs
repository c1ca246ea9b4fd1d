//! What is called done is on disk, where names, links and files of earlier runs are not what one expects.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support;
use crate::{Files, LIMIT, batch, records, run_batch, until};

fn text(files: &Files, name: &str) -> String {
    fs::read_to_string(files.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The first of three jobs ends after the others' results are saved, so that the output has to be put into order.
const LAST_FIRST: &str = "test {} != 1 || until grep -q '\"number\":3' r*; do sleep 0.02; done; echo {}";

#[test]
fn an_output_whose_name_is_not_text_is_completed_too() {
    let files = Files::new();
    let name = OsStr::from_bytes(b"o\xff");
    let run = |more: &[&str], script| {
        let mut command = batch(&files, &[&["--range", "1:40", "--records", "r"], more].concat());
        command.arg("-o").arg(name).args(["--", "sh", "-c", script]);
        command
    };
    let script = "test {} -lt 20 || until test -e go; do sleep 0.02; done; echo {}";
    let mut child = support::start(&mut run(&[], script));
    until("half of them are recorded", || {
        fs::read_to_string(files.path("r")).unwrap_or_default().lines().count() == 19
    });
    support::signal(&child, Signal::SIGKILL);
    support::wait(&mut child, LIMIT);
    support::run(&mut run(&["--only-failed", "r"], "echo {}"), LIMIT).expect_code(0).expect_said("run: 21 jobs in");
    let all = fs::read_to_string(files.0.path().join(name)).expect("it is there");
    assert_eq!(all, (1..=40).map(|number| format!("{number}\n")).collect::<String>());
    assert_eq!(files.names().len(), 2, "{:?}", files.names());
}

#[test]
fn nothing_is_written_through_a_link_that_has_the_name_of_an_unfinished_output() {
    let files = Files::new();
    files.with("empty", "");
    let words = ["--range", "1:3", "-o", "o", "--", "echo", "{}"];
    for target in ["empty", "none"] {
        symlink(target, files.path("o.partial")).expect("a link");
        run_batch(&files, &words).expect_code(2).expect_said("o.partial exists and is not a regular file; remove it");
        fs::remove_file(files.path("o.partial")).expect("it was there");
    }
    fs::create_dir(files.path("o.partial")).expect("a folder");
    run_batch(&files, &words).expect_code(2).expect_said("o.partial exists and is not a regular file; remove it");
    assert_eq!(text(&files, "empty"), "");
    assert_eq!(files.names(), ["empty", "o.partial"]);
}

#[test]
fn the_copy_in_order_is_a_new_file_whatever_has_its_name() {
    let words = ["--range", "1:3", "--records", "r", "-o", "o", "--", "sh", "-c", LAST_FIRST];
    for kind in ["link", "fifo", "file"] {
        let files = Files::new();
        files.with("precious", "precious\n");
        let copy = files.path("o.partial.sorted");
        match kind {
            "link" => symlink("precious", &copy).expect("a link"),
            "fifo" => mkfifo(&copy, Mode::S_IRWXU).expect("a pipe"),
            _ => fs::write(&copy, "1\n2\n3\nand more of a longer copy\n").expect("a file"),
        }
        run_batch(&files, &words).expect_code(0);
        assert_eq!((text(&files, "o").as_str(), text(&files, "precious").as_str()), ("1\n2\n3\n", "precious\n"));
        assert_eq!(files.names(), ["o", "precious", "r"], "{kind}");
    }
    let files = Files::new();
    fs::create_dir(files.path("o.partial.sorted")).expect("a folder");
    let run = run_batch(&files, &words);
    run.expect_code(1).expect_said("cannot write o.partial.sorted: ").expect_said("the output so far is in o.partial");
    assert_eq!(text(&files, "o.partial").lines().count(), 3);
}

#[test]
fn an_output_of_the_same_name_in_another_folder_is_not_taken_for_the_one_of_the_records() {
    let files = Files::new();
    for folder in ["a", "b"] {
        fs::create_dir(files.path(folder)).expect("a folder");
    }
    let first = ["--range", "1:5", "--records", "r", "-o", "a/o", "--", "sh", "-c", "test {} != 3 && echo {}"];
    run_batch(&files, &first).expect_code(3);
    files.with("b/o", "precious\n");
    let rest = |output: &'static str, records: &'static str| {
        let words = ["--range", "1:5", "--records", records, "--only-failed", records, "-o", output];
        batch(&files, &[&words[..], &["--", "echo", "{}"]].concat())
    };
    support::run(&mut rest("b/o", "r"), LIMIT).expect_code(2).expect_said("b/o has the results of another run");
    assert_eq!(text(&files, "b/o"), "precious\n");
    // After a change of folders it is the same file.
    let mut there = rest("o", "../r");
    support::run(there.current_dir(files.path("a")), LIMIT).expect_code(0).expect_said("run: 1 jobs in");
    assert_eq!(text(&files, "a/o"), "1\n2\n3\n4\n5\n");
    // From there, too, it is known that its results are gone, and those of another folder are not taken for them.
    fs::remove_file(files.path("a/o")).expect("it is there");
    let gone = support::run(rest("o", "../r").current_dir(files.path("a")), LIMIT);
    gone.expect_code(0).expect_said("5 result(s) with the status ok are no longer in o: these jobs are run again");
    assert_eq!(text(&files, "a/o"), "1\n2\n3\n4\n5\n");
    support::run(rest("o", "../r").current_dir(files.path("b")), LIMIT).expect_code(2);
    assert_eq!(text(&files, "b/o"), "precious\n");
    // The folder has another name now.
    fs::rename(files.path("a"), files.path("c")).expect("it is there");
    support::run(&mut rest("c/o", "r"), LIMIT).expect_code(0).expect_said("run: 0 jobs");
    assert_eq!(text(&files, "c/o"), "1\n2\n3\n4\n5\n");
}

#[test]
fn records_that_are_renamed_while_the_run_goes_on_get_the_right_places() {
    let files = Files::new();
    let words = ["--range", "1:3", "--records", "r", "-o", "o", "--", "sh", "-c"];
    let script = "test {} != 1 || until test -e go; do sleep 0.02; done; echo {}";
    let mut child = support::start(&mut batch(&files, &[&words[..], &[script]].concat()));
    until("the others are saved", || fs::read_to_string(files.path("r")).unwrap_or_default().lines().count() == 2);
    fs::rename(files.path("r"), files.path("s")).expect("it is there");
    files.with("r", "something else\n");
    files.with("go", "");
    assert_eq!(support::wait(&mut child, LIMIT).expect("it ends").code(), Some(0));
    assert_eq!((text(&files, "o").as_str(), text(&files, "r").as_str()), ("1\n2\n3\n", "something else\n"));
    let mut places: Vec<_> = records(&files, "s").iter().map(|record| record["output"]["at"].as_u64()).collect();
    places.sort_unstable();
    assert_eq!(places, [Some(0), Some(2), Some(4)]);
    assert_eq!(files.names(), ["go", "o", "r", "s"]);
}

#[test]
fn standard_error_that_a_killed_run_had_half_copied_is_whole_in_the_end() {
    let files = Files::new();
    let words = ["--range", "1:3", "--records", "r", "-o", "o", "--stderr", "e"];
    let failing = ["--", "sh", "-c", "echo first{} >&2; test {} != 2"];
    run_batch(&files, &[&words[..], &failing].concat()).expect_code(3);
    let again = [&words[..], &["--only-failed", "r", "--", "sh", "-c", "echo again{} >&2"]].concat();
    // As after a kill in the middle of the copy.
    files.with("e.partial", "first1\nfir");
    run_batch(&files, &again).expect_code(0);
    assert_eq!(text(&files, "e"), "first1\nfirst2\nfirst3\nagain2\n");
    // What is no beginning of it is another run's, and stays in front.
    files.with("e.partial", "other\n");
    run_batch(&files, &again).expect_code(0);
    assert_eq!(text(&files, "e"), "other\n");
}

#[test]
fn an_unfinished_output_of_which_the_records_tell_no_places_is_not_left_behind_in_silence() {
    let files = Files::new();
    let line = |number| format!("{{\"number\":{number},\"input\":{number},\"status\":\"ok\"}}\n");
    files.with("r", (1..=3).map(line).collect::<String>());
    files.with("o.partial", "1\n2\n3\n");
    let words = |output| ["--range", "1:5", "--records", "r", "--only-failed", "r", "-o", output, "--", "echo", "{}"];
    run_batch(&files, &words("o"))
        .expect_code(2)
        .expect_said("the job log does not contain their places: give another --output");
    assert_eq!((text(&files, "o.partial").as_str(), files.names().len()), ("1\n2\n3\n", 2));
    run_batch(&files, &words("p")).expect_code(0);
    assert_eq!(text(&files, "p"), "4\n5\n");
}

#[test]
fn a_run_of_which_all_jobs_failed_is_completed_as_its_message_says() {
    let words = |more: &[&'static str], script| {
        [&["--range", "1:3", "--records", "r", "-o", "o"], more, &["--", "sh", "-c", script]].concat()
    };
    for partial in [false, true] {
        let files = Files::new();
        run_batch(&files, &words(&[], "echo {}; exit 1")).expect_code(3).expect_said("add: --only-failed r");
        if partial {
            fs::rename(files.path("o"), files.path("o.partial")).expect("it is there");
        }
        run_batch(&files, &words(&["--only-failed", "r"], "echo good {}")).expect_code(0);
        assert_eq!(text(&files, "o"), "good 1\ngood 2\ngood 3\n");
        assert_eq!(files.names(), ["o", "r"]);
    }
    let files = Files::new();
    fs::create_dir(files.path("d")).expect("a folder");
    let first = ["--range", "1:3", "--records", "r", "-o", "d/o", "--", "sh", "-c", "echo {}; exit 1"];
    run_batch(&files, &first).expect_code(3);
    let there = words(&["--only-failed", "../r"], "echo good {}");
    let mut there = batch(&files, &there);
    support::run(there.current_dir(files.path("d")), LIMIT).expect_code(0);
    assert_eq!(text(&files, "d/o"), "good 1\ngood 2\ngood 3\n");
}
