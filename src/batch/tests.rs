//! Batches of built-in functions on ranks of this process: the driver, the sinks and the report together.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value as Json;
use serde_json::value::to_raw_value;

use super::drive::{Driven, End};
use super::job::{AttemptResult, Cause, MEMORY, Room, Run, Usage};
use super::ledger::{Counts, Planned};
use super::runners::kernel::KernelRunner;
use super::sinks::Sinks;
use super::*;
use crate::engine::error::{Failure, JobErrorKind};
use crate::input::InputError;
use crate::launch::{ExitCode, Launch};
use crate::pool::JobStream;

/// Options with the output `out` of a folder, without a display of progress.
fn options(folder: &Path) -> Options {
    Options {
        retry: RetryPolicy { pause: Duration::ZERO, ..Options::new("test").retry },
        kill_after: Duration::ZERO,
        output: Target::new(folder.join("out")),
        stderr: Target::new(folder.join("err")),
        ..Options::new("test")
    }
}

/// Runs a function for the numbers from 1 to `jobs`, on two ranks.
fn run_function<O: serde::Serialize + 'static>(
    options: Options,
    jobs: u64,
    function: impl Fn(u64) -> O + Copy + Send + Sync + 'static,
) -> Report {
    let batch = Batch {
        options,
        jobs: Jobs::made(move || 1..=jobs, jobs),
        runner: KernelRunner::plain(function, None),
        client: None,
    };
    run(&batch)
}

fn run<R: Runner + Send + Sync>(batch: &Batch<R>) -> Report
where
    Jobs<R::Work>: Sync,
{
    let mut report = None;
    Launch::new().local(2).threads(1).run(|pool| {
        report = Some(batch.run(pool).map_err(|error| error.to_string())?);
        Ok(())
    });
    report.expect("the batch was run")
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// The entries of the job log, by the jobs' numbers.
fn entries(folder: &Path) -> Vec<Json> {
    let text = read(folder, "records");
    let mut entries: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
    entries.sort_by_key(|entry| entry["number"].as_u64());
    entries
}

#[test]
fn results_are_written_in_the_order_of_the_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_function(options(folder.path()), 5000, |x| x * x);
    assert_eq!((report.code(), report.counts.succeeded, report.counts.done), (ExitCode::Success, 5000, 5000));
    let expected: String = (1..=5000_u64).map(|x| format!("{}\n", x * x)).collect();
    assert_eq!(read(folder.path(), "out"), expected);
    let folder = tempfile::tempdir().unwrap();
    run_function(Options { unordered: true, ..options(folder.path()) }, 5000, |x| x * x);
    let mut lines: Vec<u64> = read(folder.path(), "out").lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert!(lines.iter().copied().eq((1..=5000).map(|x| x * x)));
}

#[test]
fn a_failed_job_has_its_error_in_its_place_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_function(options(folder.path()), 3, |x| if x == 2 { panic!("no twos") } else { x });
    assert_eq!((report.code(), report.counts.failed), (ExitCode::JobsFailed, 1));
    let expected = "1\n{\"error\":{\"job\":2,\"kind\":\"panic\",\"message\":\"no twos\"}}\n3\n";
    assert_eq!((read(folder.path(), "out").as_str(), read(folder.path(), "err").as_str()), (expected, ""));
}

#[test]
fn a_job_that_fails_is_run_again_and_only_its_last_result_counts() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir().unwrap();
    let retry = RetryPolicy { retries: 2, ..options(folder.path()).retry };
    let log_file = Some(folder.path().join("records"));
    let options = Options { retry, job_log: log_file, ..options(folder.path()) };
    let report = run_function(options, 40, |x| {
        assert!(x != 7 || RUNS.fetch_add(1, Ordering::SeqCst) == 2, "not yet");
        assert!(x != 9, "never");
        x
    });
    assert_eq!((report.counts.succeeded, report.counts.failed, report.counts.retried), (39, 1, 4));
    assert_eq!(read(folder.path(), "out").lines().nth(6), Some("7"));
    let entries = entries(folder.path());
    assert_eq!(entries.len(), 40);
    assert_eq!((&entries[6]["status"], &entries[6]["attempts"]), (&"ok".into(), &3.into()));
    let failed = &entries[8];
    assert_eq!(
        (&failed["status"], &failed["attempts"], &failed["message"]),
        (&"failed".into(), &3.into(), &"never".into())
    );
    for entry in &entries {
        assert!(entry["rank"].as_u64() < Some(2) && entry["slot"].as_u64() > Some(0), "{entry}");
        assert!(entry["seconds"].is_number() && entry["start"].is_string(), "{entry}");
        assert_eq!(entry["input"], entry["number"]);
    }
}

#[test]
fn only_the_failed_jobs_of_an_earlier_run_are_run_again_and_the_output_is_whole_then() {
    static FAILS: AtomicU32 = AtomicU32::new(1);
    let function = |x: u64| {
        assert!(x % 3 != 0 || FAILS.load(Ordering::SeqCst) == 0, "divisible");
        x
    };
    let folder = tempfile::tempdir().unwrap();
    let options = Options { job_log: Some(folder.path().join("records")), ..options(folder.path()) };
    assert_eq!(run_function(options.clone(), 20, function).counts.failed, 6);
    FAILS.store(0, Ordering::SeqCst);
    let options = Options { only_failed: options.job_log.clone(), ..options };
    let report = run_function(options, 20, function);
    assert_eq!((report.counts.succeeded, report.counts.done), (6, 6));
    let expected: String = (1..=20).map(|x| format!("{x}\n")).collect();
    assert_eq!(read(folder.path(), "out"), expected);
}

#[test]
fn too_many_failures_cancel_the_jobs_that_have_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let stop = StopPolicy { max_failures: Some(MaxFailures::Jobs(3)), on_success: false };
    let options = Options { stop, window: 4, chunk: 1, ..options(folder.path()) };
    let report = run_function(options, 1000, |x: u64| -> u64 { panic!("{x}") });
    let Counts { done, failed, cancelled, .. } = report.counts;
    assert!((4..20).contains(&failed) && cancelled == 1000 - failed && done == 1000, "{:?}", report.counts);
    assert_eq!((report.code(), read(folder.path(), "out").lines().count()), (ExitCode::JobsFailed, 1000));
}

#[test]
fn the_first_success_ends_the_batch_if_the_stop_policy_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let stop = StopPolicy { max_failures: None, on_success: true };
    let options = Options { stop, window: 2, chunk: 1, ..options(folder.path()) };
    let report = run_function(options, 100, |x| if x < 5 { panic!("too small") } else { x });
    assert_eq!((report.code(), report.counts.succeeded, report.counts.done), (ExitCode::Success, 1, 100));
    assert_eq!(report.counts.failed + report.counts.cancelled, 99);
}

#[test]
fn a_job_beyond_its_time_limit_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let function = |x: u64| {
        if x == 2 {
            std::thread::sleep(Duration::from_secs(5));
        }
        x
    };
    let runner = KernelRunner::plain(function, Some(Duration::from_millis(50)));
    let batch = Batch { options: options(folder.path()), jobs: Jobs::made(|| 1..=3, 3), runner, client: None };
    let begun = Instant::now();
    let report = run(&batch);
    assert!(begun.elapsed() < Duration::from_secs(5), "the job is not waited for");
    assert_eq!((report.code(), report.counts.failed), (ExitCode::JobsFailed, 1));
    assert!(read(folder.path(), "out").starts_with("1\n{\"error\":{\"job\":2,\"kind\":\"timed out\""));
}

#[test]
fn an_output_that_cannot_be_written_ends_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_function(Options { output: Target::new("/dev/full"), ..options(folder.path()) }, 100_000, |x| x);
    assert_eq!(report.code(), ExitCode::Failure);
}

#[test]
fn after_a_signal_no_job_is_started_and_the_next_run_does_the_rest() {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir().unwrap();
    let log_file = Some(folder.path().join("records"));
    let options = Options { job_log: log_file, chunk: 1, window: 4, ..options(folder.path()) };
    let function = |x: u64| {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        x
    };
    let jobs = (1..=1000).map(|number| {
        let input = Some(to_raw_value(&number).unwrap());
        Ok(Planned::new(number, number, input, 0))
    });
    let since = OnceLock::new();
    let stop_requested = || match BEGUN.load(Ordering::SeqCst) {
        0..5 => None,
        _ => Some(*since.get_or_init(Instant::now)),
    };
    let mut done = 0;
    Launch::new().local(2).threads(1).run(|pool| {
        let runner = KernelRunner::plain(function, None);
        let driven = drive(&options, pool, &runner, Source::ready(jobs), &stop_requested);
        assert!(matches!(driven.end, End::Stopped));
        done = driven.counts.done;
        Ok(())
    });
    assert!((1..1000).contains(&done) && entries(folder.path()).len() as u64 == done, "{done} jobs");
    assert!(!folder.path().join("out").exists() && folder.path().join("out.partial").exists());
    let options = Options { only_failed: options.job_log.clone(), ..options };
    let rest = run_function(options, 1000, function);
    assert_eq!((rest.code(), rest.counts.succeeded), (ExitCode::Success, 1000 - done));
    let expected: String = (1..=1000).map(|x| format!("{x}\n")).collect();
    assert_eq!(read(folder.path(), "out"), expected);
}

/// Drives a function for the jobs of a source, and closes the sinks.
fn drive(
    options: &Options,
    pool: &Pool,
    runner: &KernelRunner<(), u64>,
    source: Source<Result<Planned<u64>, InputError>>,
    stop_requested: &dyn Fn() -> Option<Instant>,
) -> Driven {
    drive_within(options, pool, runner, source, stop_requested, u64::MAX)
}

/// As [`drive`], with at most `most_behind` settled jobs behind the first unsettled one, more or less.
fn drive_within(
    options: &Options,
    pool: &Pool,
    runner: &KernelRunner<(), u64>,
    source: Source<Result<Planned<u64>, InputError>>,
    stop_requested: &dyn Fn() -> Option<Instant>,
    most_behind: u64,
) -> Driven {
    let (handover, _) = Earlier::read(options).unwrap().open_outputs(options, None, false).unwrap();
    let mut sinks = Sinks::new(runner.lines(), false, None, handover, vec!["host".into(); 2]);
    let settled = Settled::default();
    let driver = Driver::new(Parts {
        runner,
        source,
        ledger: Ledger::new(options.retry.clone(), options.stop, 0, None),
        sinks: &mut sinks,
        stop_requested,
        settled: &settled,
        grace: options.grace,
        deadly_launcher: true,
        names: None,
        traced: None,
        time_limit: None,
        most_behind,
    });
    let stream = runner.open(pool, options.chunk, options.job_log.is_some());
    let pacer = Pacer::new(options.window as u64, pool.threads()).whole_chunks(options.chunk);
    let driven = driver.run(stream, pacer);
    sinks.finish(Some(driven.counts).filter(|_| matches!(driven.end, End::Complete))).unwrap();
    assert_eq!(settled.read().0, driven.counts.done);
    driven
}

/// Drives the identity for the jobs of a source that no signal stops.
fn drive_source(folder: &Path, pool: &Pool, source: Source<Result<Planned<u64>, InputError>>) -> Driven {
    drive(&options(folder), pool, &KernelRunner::plain(|x: u64| x, None), source, &|| None)
}

#[test]
fn results_are_written_while_the_source_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.partial");
    // Each job comes when the result before can be read.
    let jobs = (1..=20_u64).map(move |number| {
        while fs::read_to_string(&path).unwrap_or_default().lines().count() as u64 + 1 < number {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Planned::new(number, number, None, 0))
    });
    Launch::new().local(1).threads(1).run(|pool| {
        let driven = drive_source(folder.path(), pool, Source::piped(jobs)?);
        assert!(matches!(driven.end, End::Complete));
        assert_eq!(driven.counts.succeeded, 20);
        Ok(())
    });
    assert_eq!(read(folder.path(), "out").lines().count(), 20);
}

#[test]
fn a_source_that_fails_ends_the_batch_behind_the_jobs_before() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = (1..=9_u64).map(|number| {
        if number == 9 {
            let source = std::io::Error::other("gone");
            return Err(InputError::Unreadable { file: "jobs".into(), source });
        }
        Ok(Planned::new(number, number, None, 0))
    });
    Launch::new().local(1).threads(1).run(|pool| {
        let driven = drive_source(folder.path(), pool, Source::ready(jobs));
        assert_eq!((driven.counts.succeeded, driven.fault.is_some()), (8, true));
        Ok(())
    });
}

#[test]
fn a_source_that_panics_ends_the_batch_with_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = (1..=9_u64).map(|number| {
        assert!(number < 5, "no fives");
        Ok(Planned::new(number, number, None, 0))
    });
    Launch::new().local(1).threads(1).run(|pool| {
        let driven = drive_source(folder.path(), pool, Source::ready(jobs));
        assert!(matches!(driven.end, End::Broken(error) if error.message.contains("no fives")));
        Ok(())
    });
}

fn plain_jobs(numbers: std::ops::RangeInclusive<u64>) -> Source<Result<Planned<u64>, InputError>> {
    Source::ready(numbers.map(|number| Ok(Planned::new(number, number, None, 0))))
}

#[test]
fn a_retry_is_not_kept_back_by_the_jobs_that_are_settled_behind_it() {
    static FAILURES: AtomicU32 = AtomicU32::new(2);
    static LATEST: AtomicU64 = AtomicU64::new(0);
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    let function = |x: u64| {
        LATEST.fetch_max(x, Ordering::SeqCst);
        BEFORE.fetch_max(if x == 1 { LATEST.load(Ordering::SeqCst) } else { 0 }, Ordering::SeqCst);
        let fails =
            x == 1 && FAILURES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!fails, "not yet");
        x
    };
    let folder = tempfile::tempdir().unwrap();
    let retry = RetryPolicy { retries: 2, pause: Duration::from_millis(20), ..options(folder.path()).retry };
    let options = Options { retry, window: 8, ..options(folder.path()) };
    Launch::new().local(1).threads(1).run(|pool| {
        let runner = KernelRunner::plain(function, None);
        let driven = drive_within(&options, pool, &runner, plain_jobs(1..=100), &|| None, 10);
        assert_eq!((driven.counts.succeeded, driven.counts.retried), (100, 2));
        Ok(())
    });
    assert_eq!(read(folder.path(), "out").lines().count(), 100);
    let before = BEFORE.load(Ordering::SeqCst);
    assert!(before < 40, "{before} jobs were read before the first one was settled");
}

#[test]
fn the_driver_sleeps_while_a_retry_that_is_due_waits_for_room() {
    static FAILED: AtomicU32 = AtomicU32::new(0);
    let function = |x: u64| {
        assert!(x != 1 || FAILED.fetch_add(1, Ordering::SeqCst) > 0, "once");
        if x > 1 {
            std::thread::sleep(Duration::from_millis(200));
        }
        x
    };
    let folder = tempfile::tempdir().unwrap();
    let retry = RetryPolicy { retries: 1, pause: Duration::from_millis(1), ..options(folder.path()).retry };
    let options = Options { retry, window: 2, chunk: 1, ..options(folder.path()) };
    let turns = AtomicU32::new(0);
    Launch::new().local(1).threads(2).run(|pool| {
        let count = || {
            turns.fetch_add(1, Ordering::SeqCst);
            None
        };
        let driven = drive(&options, pool, &KernelRunner::plain(function, None), plain_jobs(1..=5), &count);
        assert_eq!(driven.counts.succeeded, 5);
        Ok(())
    });
    let turns = turns.load(Ordering::SeqCst);
    assert!(turns < 500, "the driver looked {turns} times");
}

#[test]
fn results_behind_a_job_that_was_passed_by_stay_those_of_their_jobs() {
    static OUTPUT: OnceLock<PathBuf> = OnceLock::new();
    static FAILED: AtomicU32 = AtomicU32::new(0);
    static GATE_REACHED: AtomicBool = AtomicBool::new(false);
    // Job 1 fails, and runs again in one chunk with the jobs 9, 10 and 11. After a signal what is finished behind it is written
    // before this chunk ends.
    let function = |x: u64| {
        assert!(x != 1 || FAILED.fetch_add(1, Ordering::SeqCst) > 0, "once");
        let is_written = || fs::read_to_string(OUTPUT.get().unwrap()).is_ok_and(|text| text.contains("8\n"));
        while x == 10 && !is_written() {
            GATE_REACHED.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        x
    };
    let folder = tempfile::tempdir().unwrap();
    OUTPUT.set(folder.path().join("out.partial")).unwrap();
    let retry = RetryPolicy { retries: 1, ..options(folder.path()).retry };
    let options = Options { retry, chunk: 4, window: 8, ..options(folder.path()) };
    let since = OnceLock::new();
    let stop_requested = || GATE_REACHED.load(Ordering::SeqCst).then(|| *since.get_or_init(Instant::now));
    Launch::new().local(1).threads(1).run(|pool| {
        let runner = KernelRunner::plain(function, None);
        let driven = drive(&options, pool, &runner, plain_jobs(1..=11), &stop_requested);
        assert_eq!((driven.counts.succeeded, driven.counts.failed), (10, 0));
        Ok(())
    });
    let lines = read(folder.path(), "out.partial");
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].contains("\"kind\":\"stopped\""), "{lines:?}");
    assert_eq!(lines[1..], ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
}

#[test]
fn two_outputs_in_one_file_are_refused_before_any_job_is_started() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("out"), "of an earlier run\n").unwrap();
    for name in ["out", "out.partial", "./out"] {
        let options = Options { job_log: Some(folder.path().join(name)), ..options(folder.path()) };
        let runner = KernelRunner::plain(|_: u64| -> u64 { panic!("a job was started") }, None);
        let batch = Batch { options, jobs: Jobs::made(|| 1..=3, 3), runner, client: None };
        let mut error = String::new();
        Launch::new().local(1).threads(1).run(|pool| {
            error = batch.run(pool).expect_err("it is refused").to_string();
            Ok(())
        });
        assert!(error.starts_with("--output ") && error.contains("--records"), "{name}: {error}");
        assert_eq!(read(folder.path(), "out"), "of an earlier run\n");
    }
}

/// Runs jobs of which one third runs out of memory beside others, and one third beside half of them.
struct Hungry;

impl Runner for Hungry {
    type Work = u64;
    type Input = Attempt<u64>;
    type Output = AttemptResult;

    fn lines(&self) -> Lines {
        Lines::AsWritten
    }

    fn open(&self, pool: &Pool, chunk: u32, _: bool) -> Result<JobStream<Attempt<u64>, AttemptResult>, Failure> {
        let run = |_: &(), attempt: Attempt<u64>| {
            let needed = [Room::Shared, Room::Half, Room::Alone][attempt.work as usize % 3];
            if attempt.room < needed {
                let usage = Usage { user: 0.0, system: 0.0, max_rss: 9 << 30 };
                let run = Run { usage: Some(usage), ..Run::new(0, 1, std::time::SystemTime::now(), Duration::ZERO) };
                return AttemptResult::without_output(Status::Signal, Cause::new(MEMORY, "killed"), Some(run));
            }
            let usage = Usage { user: 0.0, system: 0.0, max_rss: attempt.work << 20 };
            let run = Run { usage: Some(usage), ..Run::new(0, 1, std::time::SystemTime::now(), Duration::ZERO) };
            AttemptResult::ok(format!("{} {}\n", attempt.number, attempt.attempt).into_bytes(), Some(run))
        };
        pool.stream_with(&(), run, chunk)
    }

    fn input(&self, attempt: Attempt<u64>) -> Attempt<u64> {
        attempt
    }

    fn status(&self, _: JobErrorKind) -> (Status, String) {
        (Status::Failed, "failed".into())
    }

    fn show(&self, _: u64, _: &u64) -> Vec<u8> {
        Vec::new()
    }
}

#[test]
fn jobs_for_which_memory_is_exhausted_succeed_with_more_room_without_any_retry() {
    let folder = tempfile::tempdir().unwrap();
    let summary = Some(Target::new(folder.path().join("summary")));
    let options = Options { summary, ..options(folder.path()) };
    let batch = Batch { options, jobs: Jobs::made(|| 1..=12, 12), runner: Hungry, client: None };
    let report = run(&batch);
    assert_eq!((report.code(), report.counts.succeeded, report.counts.out_of_memory), (ExitCode::Success, 12, 12));
    let expected: String = (1..=12).map(|number| format!("{number} {}\n", number % 3 + 1)).collect();
    assert_eq!(read(folder.path(), "out"), expected);
    let summary: Json = serde_json::from_str(&read(folder.path(), "summary")).unwrap();
    let memory = &summary["job_memory"];
    assert_eq!((&memory["jobs"], &memory["most_bytes"]), (&12.into(), &(12 << 20).into()), "settled jobs count");
    assert_eq!(memory["out_of_memory"], 12);
}
