//! Tests that need a process of their own: threads and memory that a pool leaves behind. Each test starts this program
//! again with its own name.

#[path = "support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rankpool::{ExitCode, Launch, Pool, as_completed, wait_all};

/// Counts the bytes that are allocated and not freed.
struct Counting;

static LIVING: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all calls are passed to the system's allocator unchanged.
#[expect(unsafe_code, reason = "an allocator is unsafe by its signature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVING.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller guarantees the conditions of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVING.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The environment variable with the name of the test, in the process that is started for it.
const ALONE: &str = "RANKPOOL_TEST_ALONE";
const LIMIT: Duration = Duration::from_secs(60);
const MEGABYTE: usize = 1 << 20;

/// Runs the calling test, which has this name, in a process of its own.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let program = std::env::current_exe().expect("a program knows its own file");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ALONE, name);
    support::run(&mut command, LIMIT).expect_code(0);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("this is Linux").count()
}

fn run(ranks: u32, threads: u32, driver: impl FnOnce(&Pool) + Send) {
    let code = Launch::new().local(ranks).threads(threads).run(|pool| {
        driver(pool);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[track_caller]
fn until(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Calls every kind of method of the pool.
fn use_pool(pool: &Pool) {
    let table = pool.broadcast(vec![1u64; 10_000]).expect("it is sent");
    let sum: u64 =
        pool.map_with(table, 0..2000, |table, i: usize| table[i]).map(|one| one.expect("no job fails")).sum();
    assert_eq!(sum, 2000);
    assert_eq!(pool.map(|x: u64| x, 0..).take(10).count(), 10);
    assert_eq!(pool.map_init(|| vec![0u8; 1000], 0..100, |bytes, i: usize| bytes[i]).count(), 100);
    let handles: Vec<_> =
        (0..100).map(|x: u64| pool.submit(|x: u64| if x % 9 == 0 { panic!() } else { x }, x)).collect();
    handles[1].on_done(|handle| drop(handle.wait()));
    assert_eq!(wait_all(&handles, None).done.len(), 100);
    let _running = pool.submit(|x: u8| x, 1);
}

#[test]
fn pools_one_after_another_leave_no_thread_behind() {
    alone("pools_one_after_another_leave_no_thread_behind", || {
        run(2, 2, use_pool);
        until("the first pool's threads are gone", || threads() <= 2);
        let before = threads();
        for round in 0..40 {
            run(1 + round % 4, 1 + round % 3, use_pool);
            // Compute threads end a moment later; their number must not grow from run to run.
            until("the threads of the pools are gone", || threads() <= before);
        }
    });
}

#[test]
fn pools_one_after_another_leave_no_memory_behind() {
    alone("pools_one_after_another_leave_no_memory_behind", || {
        let settle = || until("all threads are gone", || threads() <= 2);
        for _ in 0..5 {
            run(2, 2, use_pool);
        }
        settle();
        let before = LIVING.load(Relaxed);
        for _ in 0..100 {
            run(2, 2, use_pool);
            settle();
        }
        let after = LIVING.load(Relaxed);
        assert!(after < before + 100 * 1000, "{} bytes more after 100 pools", after - before);
    });
}

#[test]
fn maps_one_after_another_leave_no_memory_behind() {
    alone("maps_one_after_another_leave_no_memory_behind", || {
        run(2, 1, |pool| {
            let round = || {
                let context = vec![3u8; MEGABYTE];
                assert_eq!(pool.map_with(context, 0..100, |context, i: usize| context[i]).count(), 100);
                let big = pool.map(|x: usize| vec![0u8; x], (0..50).map(|_| 20_000)).unordered();
                assert_eq!(big.filter(Result::is_ok).count(), 50);
                assert!(pool.map(|x: Vec<u8>| x.len(), std::iter::repeat(vec![7; 10_000])).next().is_some());
            };
            for _ in 0..5 {
                round();
            }
            let before = LIVING.load(Relaxed);
            for _ in 0..100 {
                round();
            }
            // The ranks forget a map a moment after it has ended.
            until("all is given back", || LIVING.load(Relaxed) < before + 2 * MEGABYTE);
        });
    });
}

#[test]
fn an_endless_map_runs_in_constant_memory() {
    alone("an_endless_map_runs_in_constant_memory", || {
        run(2, 1, |pool| {
            let before = LIVING.load(Relaxed);
            let map = pool.map(|x: Vec<u8>| x, (0u32..).map(|x| vec![x as u8; 10_000])).window(100);
            for result in map.take(10_000) {
                assert_eq!(result.expect("no job fails").len(), 10_000);
            }
            let peak = PEAK.load(Relaxed) - before;
            assert!(peak < 10 * MEGABYTE, "100 MB went through a window of 1 MB, and {peak} bytes were in use");
        });
    });
}

#[test]
fn results_that_were_yielded_are_released() {
    alone("results_that_were_yielded_are_released", || {
        run(2, 1, |pool| {
            let handles: Vec<_> = (0..50).map(|_| pool.submit(|n: usize| vec![1u8; n], MEGABYTE)).collect();
            wait_all(&handles, None);
            let held = LIVING.load(Relaxed);
            assert!(held > 50 * MEGABYTE);
            let mut completed = as_completed(handles);
            for done in completed.by_ref().take(49) {
                assert_eq!(done.wait().expect("no job fails").len(), MEGABYTE);
            }
            let left = LIVING.load(Relaxed);
            assert!(left + 45 * MEGABYTE < held, "{left} of {held} bytes are still held");
            assert!(completed.next().is_some());
        });
    });
}

#[test]
fn the_handle_of_a_small_result_does_not_hold_its_neighbours() {
    alone("the_handle_of_a_small_result_does_not_hold_its_neighbours", || {
        run(2, 1, |pool| {
            let before = LIVING.load(Relaxed);
            // Many at once, so that they share chunks: twenty large ones among small ones.
            let job = |n: usize| vec![1u8; n];
            let handles = (0..10_000).map(|x| pool.submit(job, if x % 500 == 250 { MEGABYTE } else { 1 }));
            let mut handles: Vec<_> = handles.collect();
            wait_all(&handles, None);
            assert!(LIVING.load(Relaxed) > before + 20 * MEGABYTE);
            let mut number = 0..;
            handles.retain(|_| number.next().is_some_and(|x| x % 500 != 250));
            until("the large ones are given back", || LIVING.load(Relaxed) < before + 10 * MEGABYTE);
            assert!(handles.iter().all(|handle| handle.wait().is_ok()));
        });
    });
}

#[test]
fn inputs_and_broadcast_values_are_held_once_however_many_jobs_there_are() {
    alone("inputs_and_broadcast_values_are_held_once_however_many_jobs_there_are", || {
        run(2, 1, |pool| {
            let before = LIVING.load(Relaxed);
            let table = pool.broadcast(vec![1u8; MEGABYTE]).expect("it is sent");
            for _ in 0..20 {
                let map = pool.map_with(table.clone(), 0..100, |table, i: usize| table[i]);
                assert_eq!(map.filter(Result::is_ok).count(), 100);
            }
            let held = LIVING.load(Relaxed) - before;
            // The driver's value, its encoding, and the decoded value of each rank.
            assert!(held < 7 * MEGABYTE, "{held} bytes for one value of a megabyte on two ranks");
        });
    });
}

#[test]
fn a_driver_s_error_is_printed_with_all_its_causes() {
    const NAME: &str = "a_driver_s_error_is_printed_with_all_its_causes";
    #[derive(Debug, thiserror::Error)]
    #[error("reading the sky")]
    struct Context(#[source] Box<dyn std::error::Error + Send + Sync>);
    if std::env::var_os(ALONE).is_some() {
        let code = Launch::new().local(2).threads(1).run(|pool| {
            let failed = pool.apply(|_: u8| -> u8 { panic!("clouds") }, 1);
            let context = failed.map_err(|error| Context(Box::new(std::io::Error::other(error))));
            context.map_err(|error| Context(Box::new(error)))?;
            Ok(())
        });
        std::process::exit(code as i32);
    }
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(ALONE, NAME);
    let finished = support::run(&mut command, LIMIT);
    finished.expect_code(3).expect_said("rankpool: reading the sky: job 0: panic: clouds, at tests/alone.rs:");
}

#[test]
fn jobs_that_never_end_are_named_and_the_process_ends_without_them() {
    const NAME: &str = "jobs_that_never_end_are_named_and_the_process_ends_without_them";
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    fn sleep_on(x: u32) {
        if x == 1 {
            BEGUN.fetch_add(1, Relaxed);
            thread::sleep(LIMIT * 10);
        }
    }
    if std::env::var_os(ALONE).is_some() {
        let launch = Launch::new().local(2).threads(2).grace(Duration::from_millis(100));
        let code = launch.run(|pool| {
            let failed =
                pool.map(sleep_on, 0..8).job_timeout(Duration::from_millis(200)).filter(Result::is_err).count();
            assert_eq!(failed, 1);
            let mut map = pool.map(sleep_on, 0..8).chunk_size(1);
            assert!(map.next().is_some_and(|result| result.is_ok()));
            until("the job runs", || BEGUN.load(Relaxed) == 2);
            Err("enough".into())
        });
        std::process::exit(code as i32);
    }
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(ALONE, NAME);
    let finished = support::run(&mut command, LIMIT);
    finished.expect_code(1).expect_said("rankpool: enough");
    for words in [
        "the job with index 1 has not ended within its time limit of 0.2 s: its thread (rank ",
        "job 1 of a map that was dropped (rank ",
    ] {
        assert_eq!(finished.stderr.matches(words).count(), 1, "{words}: {}", finished.stderr);
    }
}

#[test]
fn a_signal_after_a_run_has_its_usual_effect() {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::{Signal, kill};

    if std::env::var_os(ALONE).is_some() {
        run(1, 1, use_pool);
        kill(nix::unistd::Pid::this(), Signal::SIGTERM).expect("a process can signal itself");
        thread::sleep(LIMIT);
    }
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
    command.args(["--exact", "a_signal_after_a_run_has_its_usual_effect", "--test-threads=1"]).env(ALONE, "signal");
    let mut child = support::start(&mut command);
    let status = support::wait(&mut child, LIMIT).expect("it does not hang");
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status:?}");
}

#[test]
fn a_run_whose_job_goes_on_after_a_signal_is_ended_when_its_time_is_over() {
    use nix::sys::signal::{Signal, kill};

    const NAME: &str = "a_run_whose_job_goes_on_after_a_signal_is_ended_when_its_time_is_over";
    if std::env::var_os(ALONE).is_some() {
        let launch = Launch::new().local(1).threads(1).stop_grace(Duration::from_millis(100));
        let code = launch.run(|pool| {
            static BEGUN: AtomicBool = AtomicBool::new(false);
            let job = |()| {
                BEGUN.store(true, Relaxed);
                thread::sleep(Duration::from_secs(5));
            };
            let job = pool.submit(job, ());
            until("the job has begun", || BEGUN.load(Relaxed));
            kill(nix::unistd::Pid::this(), Signal::SIGTERM)?;
            Ok(job.wait()?)
        });
        std::process::exit(code as i32);
    }
    let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(ALONE, NAME);
    support::run(&mut command, LIMIT).expect_code(75).expect_said("did not end within the grace time");
}
