//! What `rankpool run` does about jobs that fail: retries, limits of time and number, and the first success.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Files, LIMIT, batch, records, run_batch, statuses, support, until};

/// How many processes have this word in their command line.
fn processes(word: &str) -> usize {
    let ids = fs::read_dir("/proc").expect("it is there on Linux").filter_map(|entry| entry.ok());
    let lines = ids.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn failed_jobs_are_run_again_after_growing_pauses() {
    let files = Files::new();
    // The last line that each attempt writes is when it was, in ns.
    let script = "echo {}.$RANKPOOL_ATTEMPT; date +%s%N >> times{}; test $RANKPOOL_ATTEMPT -ge {}";
    let options = ["-q", "--range", "1:4", "--retries", "2", "--retry-pause", "200ms", "--records", "r"];
    let run = run_batch(&files, &[&options[..], &["--", "sh", "-c", script]].concat());
    run.expect_code(3).expect_said("1 of 4 job(s) failed:\n  job 4: exit code 1\n");
    assert_eq!(run.out(), "1.1\n2.2\n3.3\n4.3\n", "the output of attempts that count for nothing is not shown");
    let attempts: Vec<_> = records(&files, "r").iter().map(|record| record["attempts"].as_u64()).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3), Some(3)]);
    let times = fs::read_to_string(files.path("times4")).expect("text");
    let times: Vec<u64> = times.lines().map(|line| line.parse().expect("ns")).collect();
    let pauses: Vec<_> = times.windows(2).map(|pair| Duration::from_nanos(pair[1] - pair[0])).collect();
    assert!(pauses[0] >= Duration::from_millis(190) && pauses[1] >= Duration::from_millis(390), "{pauses:?}");
}

#[test]
fn only_the_ends_that_are_asked_for_are_run_again() {
    let files = Files::new();
    let script = "echo x >> runs{#}; case {} in exit) exit 1;; kill) kill -KILL $$;; sleep) exec sleep 30;; esac";
    // Only what is to take too long has little time.
    let attempts = |timeout: &str, args: &[&str], retry_on: &str| {
        let options = ["-q", "--timeout", timeout, "--retries", "1", "--retry-pause", "0s", "--records", "r", "--args"];
        let words = ["--retry-on", retry_on, "--", "sh", "-c", script];
        run_batch(&files, &[&options[..], args, &words].concat()).expect_code(3);
        records(&files, "r").iter().map(|record| record["attempts"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    let ends = |retry_on: &str| attempts("200s", &["exit", "kill", "ok"], retry_on);
    assert_eq!(ends("failed"), [2, 1, 1]);
    assert_eq!(ends("signal,timeout"), [1, 2, 1]);
    assert_eq!(ends("lost"), [1, 1, 1]);
    assert_eq!(attempts("300ms", &["sleep"], "signal,timeout"), [2]);
    assert_eq!(attempts("300ms", &["sleep"], "failed,signal,lost"), [1]);
    assert_eq!(
        fs::read_to_string(files.path("runs2")).expect("text").lines().count(),
        4,
        "attempts are told as they were"
    );
    let words = ["-q", "--args", "no-such", "--retries", "2", "--retry-pause", "0s", "--retry-on", "spawn"];
    run_batch(&files, &[&words[..], &["--records", "r", "--", "{}"]].concat()).expect_code(3);
    assert_eq!(records(&files, "r")[0]["attempts"], 3);
}

#[test]
fn large_output_of_failed_attempts_is_not_shown() {
    let files = Files::new();
    let script = "yes $RANKPOOL_ATTEMPT | head -c 5000001; yes e$RANKPOOL_ATTEMPT | head -c 1000000 >&2; test $RANKPOOL_ATTEMPT = {}";
    for order in ["--skip=0", "--unordered"] {
        let options =
            ["--args", "2", "1", "3", "--retries", "2", "--retry-pause", "0s", "--stderr", "err", order, "-q"];
        let run = run_batch(&files, &[&options[..], &["--records", "r", "--", "sh", "-c", script]].concat());
        assert_eq!(run.expect_code(0).stderr, "");
        let expected = |mark: &str| mark.repeat(2_500_001)[..5_000_001].to_string();
        let mut parts: Vec<_> =
            run.out().as_bytes().chunks(5_000_001).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        if order == "--unordered" {
            parts.sort();
            assert!(parts == [expected("1\n"), expected("2\n"), expected("3\n")], "each output is whole");
        } else {
            assert!(parts == [expected("2\n"), expected("1\n"), expected("3\n")], "each output is whole");
        }
        let err = fs::read_to_string(files.path("err")).expect("text");
        let wrong = err
            .as_bytes()
            .chunks(1_000_000)
            .position(|part| part.chunks(3).any(|line| line.len() == 3 && line != &part[..3]));
        assert_eq!((err.len(), wrong), (3_000_000, None));
        assert!(records(&files, "r").iter().all(|record| record["output_bytes"] == 6_000_001), "of the last attempt");
    }
}

#[test]
fn too_many_failures_end_the_batch() {
    let files = Files::new();
    let limited = |most: &str, words: &[&str]| {
        let options = ["--local", "1", "--threads", "1", "--max-failures", most, "--records", "r", "--chunk", "1"];
        run_batch(&files, &[&options[..], words].concat())
    };
    let run = limited("2", &["--range", "1:100", "--", "false"]);
    run.expect_code(3)
        .expect_said("  job 3: exit code 1")
        .expect_said("job(s) were cancelled: more jobs have failed than --max-failures allows");
    let found = statuses(&files, "r");
    let failed = found.iter().filter(|status| *status == "failed").count();
    assert!(found.len() == 100 && (3..20).contains(&failed), "{failed} were run");
    assert_eq!(found.iter().filter(|status| *status == "cancelled").count(), 100 - failed, "all others have a record");
    // Exactly so many are not too many.
    let run = limited("2", &["--range", "1:30", "--", "test", "{}", "-gt", "2"]);
    run.expect_code(3).expect_said("2 of 30 job(s) failed");
    assert!(!run.stderr.contains("cancelled"), "{}", run.stderr);
    let run = limited("10%", &["--range", "1:30", "--", "test", "{}", "-gt", "3"]);
    run.expect_code(3).expect_said("3 of 30 job(s) failed");
    assert!(!run.stderr.contains("cancelled"), "{}", run.stderr);
    limited("10%", &["--range", "1:100", "--", "false"]).expect_code(3).expect_said("were cancelled");
    limited("0", &["--range", "1:100", "--", "false"]).expect_code(3).expect_said("were cancelled");
    // What was cancelled is run when the failed ones are run again.
    let words = ["--range", "1:100", "--only-failed", "r", "--", "echo", "{}"];
    assert_eq!(run_batch(&files, &words).expect_code(0).out().lines().count(), 100);
}

#[test]
fn the_first_success_ends_the_others_quickly() {
    let files = Files::new();
    let script = "case {} in 1) exit 1;; 3) until grep -q failed r; do sleep 0.01; done; echo found;; *) echo no; exec sleep 3.21e2;; esac";
    let words = ["--threads", "2", "--range", "1:50", "--stop-on-success", "--records", "r", "--", "sh", "-c", script];
    let began = Instant::now();
    let run = run_batch(&files, &words);
    run.expect_code(0).expect_said("cancelled: a job has succeeded");
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
    assert!(run.out().lines().any(|line| line == "found"), "{}", run.out());
    until("the others are ended", || processes("sleep\x003.21e2") == 0);
    let found = statuses(&files, "r");
    assert_eq!(
        (found.len(), found[0].as_str(), found[1].as_str(), found[2].as_str()),
        (50, "failed", "cancelled", "ok")
    );
    assert!(found[3..].iter().all(|status| status == "cancelled"), "{found:?}");
    // If none succeeds, that is a failure like any other.
    let run = run_batch(&files, &["--range", "1:5", "--stop-on-success", "--", "false"]);
    run.expect_code(3).expect_said("5 of 5 job(s) failed");
}

#[test]
fn a_timeout_ends_the_whole_group_whatever_it_ignores() {
    let files = Files::new();
    // The leader and its grandchildren ignore TERM; the marks are in their command lines.
    let stubborn =
        "trap '' TERM; (trap '' TERM; sh -c 'sleep 4.321e2; sleep 4.321e2') & echo up; sleep 4.321e2; sleep 4.321e2";
    let options = ["-q", "--timeout", "2s", "--kill-after", "300ms", "--records", "r", "--args", "1"];
    let began = Instant::now();
    let run = run_batch(&files, &[&options[..], &["--", "sh", "-c", stubborn]].concat());
    run.expect_code(3).expect_said("rankpool: job 1: not done after 2 s\n");
    assert_eq!(run.out(), "up\n", "what it wrote until then is shown");
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
    until("the grandchildren are gone", || processes("4.321e2") == 0);
    let record = &records(&files, "r")[0];
    let seconds = record["seconds"].as_f64().expect("a number");
    assert!(record["status"] == "timeout" && (2.3..200.0).contains(&seconds), "{record}");
    // One that ends itself in time is not killed, and its word is heard; it is late all the same.
    let polite = "trap 'echo bye; exit 0' TERM; sleep 4.322e2 & wait";
    let run =
        run_batch(&files, &[&options[..1], &["--timeout", "2s", "--args", "1", "--", "sh", "-c", polite]].concat());
    assert_eq!(run.expect_code(3).out(), "bye\n");
    until("its child is gone", || processes("4.322e2") == 0);
}

#[test]
fn a_job_that_leaves_a_process_behind_does_not_hold_up_the_batch() {
    let files = Files::new();
    let words = [
        "--range",
        "1:4",
        "--",
        "sh",
        "-c",
        "i=0; until test -e over || test $((i += 1)) -gt 10000; do sleep 0.02; done & echo {}",
    ];
    let mut command = batch(&files, &words);
    assert_eq!(support::run(&mut command, LIMIT).expect_code(0).out(), "1\n2\n3\n4\n");
    files.with("over", "");
}

#[test]
fn billions_of_jobs_are_given_up_at_once() {
    let files = Files::new();
    let run = run_batch(&files, &["--range", "1:100000000000", "--max-failures", "1", "--", "false"]);
    run.expect_code(3).expect_said("job(s) were cancelled: more jobs have failed than --max-failures allows");
    // So many have no records of their own.
    let words = ["--range", "1:100000000000", "--max-failures", "1", "--records", "r", "--", "false"];
    run_batch(&files, &words).expect_code(3);
    assert!(fs::metadata(files.path("r")).expect("it is there").len() < 1 << 20);
    // A record of each of a million takes its time, in which a signal is heard.
    let words = ["--range", "1:1000000", "--max-failures", "1", "--records", "r", "--", "false"];
    let mut child = support::start(&mut batch(&files, &words));
    until("jobs are cancelled", || fs::metadata(files.path("r")).is_ok_and(|metadata| metadata.len() > 1 << 20));
    support::signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(75));
}

#[test]
fn what_cancelled_jobs_have_written_is_not_shown() {
    let files = Files::new();
    let script = "case {} in 1) echo x; yes | head -c 3000000; touch up; exec sleep 4.44e1;; *) until test -e up; do sleep 0.01; done; echo {};; esac";
    for order in ["--skip=0", "--unordered"] {
        let words = ["--threads", "1", "--range", "1:2", "--stop-on-success", "-q", order, "--", "sh", "-c", script];
        assert_eq!(run_batch(&files, &words).expect_code(0).out(), "2\n");
        fs::remove_file(files.path("up")).expect("the first job made it");
    }
}

#[test]
fn pauses_that_no_clock_reaches_are_long_ones() {
    let files = Files::new();
    let words =
        ["--range", "1:2", "--retries", "3", "--retry-pause", "290000000000y", "--", "sh", "-c", "touch up{}; false"];
    let mut child = support::start(&mut batch(&files, &words));
    until("the jobs have run", || files.names().len() == 2);
    support::signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(support::wait(&mut child, LIMIT).and_then(|status| status.code()), Some(75));
}

/// Kills the spawn helper, a command's parent, in the first attempt of these jobs.
const HELPER_KILLER: &str =
    "case $RANKPOOL_JOB.$RANKPOOL_ATTEMPT in 7.1|31.1) kill -9 $PPID; sleep 7.31e2;; esac; echo {}";

#[test]
fn a_killed_spawn_helper_costs_its_own_jobs_and_nothing_else() {
    let files = Files::new();
    let words = ["--range", "1:60", "--threads", "2", "--records", "r", "--", "sh", "-c", HELPER_KILLER];
    let run = run_batch(&files, &[&["-q"][..], &words].concat());
    run.expect_code(3).expect_said("rankpool: job 7: ended together with the spawn helper of its rank");
    let statuses = statuses(&files, "r");
    assert_eq!((statuses.len(), &*statuses[6], &*statuses[30]), (60, "lost", "lost"));
    // Two ranks of two threads share a helper.
    let lost = statuses.iter().filter(|status| *status == "lost").count();
    assert!(lost <= 8 && statuses.iter().filter(|status| *status == "ok").count() == 60 - lost, "{statuses:?}");
    assert_eq!(processes("7.31e2"), 0, "what it had started is gone when the jobs are told of");
    let run = run_batch(&files, &[&["-q", "--retries", "2", "--retry-pause", "0s"][..], &words].concat());
    let expected: String = (1..=60).map(|number| format!("{number}\n")).collect();
    assert_eq!(run.expect_code(0).out(), expected);
    assert_eq!(processes("7.31e2"), 0);
}

#[test]
fn a_rank_on_which_everything_fails_gets_few_jobs_is_named_and_costs_none_of_those_that_are_run_again() {
    let files = Files::new();
    let script = "test $RANKPOOL_RANK = 1 && exit 3; sleep 0.01; echo {}";
    let on = |retries: &str| {
        let options =
            ["-q", "--local", "3", "--threads", "1", "--range", "1:300", "--retry-pause", "0s", "--records", "r"];
        run_batch(&files, &[&options[..], &["--retries", retries, "--", "sh", "-c", script]].concat())
    };
    let once = on("0");
    once.expect_code(3);
    let failed = statuses(&files, "r").iter().filter(|status| *status != "ok").count();
    // Ten before others have done any, and hardly more afterwards.
    assert!((3..=30).contains(&failed), "{failed} jobs failed");
    once.expect_said("rank 1 on ").expect_said(&format!(": {failed} of {failed} jobs failed there"));
    let again = on("1");
    again.expect_code(0).expect_said(" jobs failed there");
    assert_eq!(again.out().lines().count(), 300);
}

#[test]
fn a_low_limit_of_open_files_means_fewer_at_once_and_fails_no_job() {
    let files = Files::new();
    files.with("worker", "while read x; do sleep 0.01; echo $x; done");
    let expected: String = (1..=300).map(|number| format!("{number}\n")).collect();
    for words in
        ["run --threads 40 --range 1:300 -- sh -c 'sleep 0.01; echo {}'", "map --threads 40 --range 1:300 -- sh worker"]
    {
        let script = format!("ulimit -n 64; exec {} --local 1 -q {words}", env!("CARGO_BIN_EXE_rankpool"));
        let run = support::run(Command::new("sh").args(["-c", &script]).current_dir(files.0.path()), LIMIT);
        assert_eq!((run.expect_code(0).out(), &*run.stderr), (expected.clone(), ""), "{words}");
    }
}

#[test]
fn a_job_is_run_again_on_another_rank() {
    let files = Files::new();
    // So few that no rank is suspected.
    let script = "echo $RANKPOOL_RANK >> ranks{}; test $RANKPOOL_ATTEMPT = 2";
    let options = ["-q", "--local", "2", "--threads", "1", "--range", "1:3", "--retries", "1", "--retry-pause", "0s"];
    for _ in 0..5 {
        run_batch(&files, &[&options[..], &["--", "sh", "-c", script]].concat()).expect_code(0);
        for job in 1..=3 {
            let path = files.path(&format!("ranks{job}"));
            let ranks = fs::read_to_string(&path).expect("it was written");
            assert!(["0\n1\n", "1\n0\n"].contains(&&*ranks), "job {job} ran on {ranks}");
            fs::remove_file(path).expect("it is there");
        }
    }
}
