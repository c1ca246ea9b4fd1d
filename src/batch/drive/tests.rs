use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::batch::deadline::Deadline;
use crate::batch::earlier::Earlier;
use crate::batch::runners::kernel::KernelRunner;
use crate::batch::{Batch, Jobs, Options};
use crate::launch::{ExitCode, Launch};
use crate::output::Target;
use crate::pool::Pool;

const HOUR: Duration = Duration::from_secs(3600);

/// The run of a pool, with a made-up duration of jobs and a made-up signal.
struct FakeRun<'p> {
    pool: &'p Pool,
    /// When it was stopped, and with which grace time.
    stopped: OnceLock<(Instant, Duration)>,
    mean: fn() -> Option<Duration>,
    is_signalled: fn() -> bool,
}

impl Limited for FakeRun<'_> {
    fn stop(&self, grace: Duration) {
        self.stopped.set((Instant::now(), grace)).unwrap();
        self.pool.stop();
    }

    fn is_signalled(&self) -> bool {
        (self.is_signalled)()
    }

    fn mean_job(&self) -> Option<Duration> {
        (self.mean)()
    }
}

/// Runs a function for the numbers from 1 under a time limit of an hour. `at_end` is called when the
/// driver has ended. Returns the end, and the grace time with which the run was stopped.
fn run_for_an_hour<F: Fn(u64) -> u64 + Copy + Send + Sync + 'static>(
    function: F,
    jobs: u64,
    mean: fn() -> Option<Duration>,
    is_signalled: fn() -> bool,
    at_end: fn(),
) -> (Driven, Option<Duration>) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { output: Target::new(folder.path().join("out")), ..Options::new("test") };
    let (handover, _) = Earlier::read(&options).unwrap().open_outputs(&options, None, false).unwrap();
    let mut ended = None;
    Launch::new().local(1).threads(2).run(|pool| {
        let run = FakeRun { pool, stopped: OnceLock::new(), mean, is_signalled };
        let runner = KernelRunner::plain(function, None);
        let mut sinks = Sinks::new(runner.lines(), false, None, handover, vec!["host".into()]);
        let source = (1..=jobs).map(|number| Ok(Planned::new(number, number, None, 0)));
        let stop_requested = || run.stopped.get().map(|(since, _)| *since);
        let settled = Settled::default();
        let driver = Driver::new(Parts {
            runner: &runner,
            source: Source::ready(source),
            ledger: Ledger::new(options.retry.clone(), options.stop, 0, Some(10)),
            sinks: &mut sinks,
            stop_requested: &stop_requested,
            settled: &settled,
            grace: options.grace,
            deadly_launcher: true,
            names: None,
            traced: None,
            time_limit: Some(TimeLimit {
                deadline: Deadline::new(HOUR, Duration::from_secs(20), Duration::ZERO),
                source: "an hour",
                grace: Duration::from_millis(200),
                of: &run,
            }),
            most_behind: u64::MAX,
        });
        let driven = driver.run(runner.open(pool, 1, false), Pacer::new(4, pool.threads()));
        ended = Some((driven, run.stopped.get().map(|(_, grace)| *grace)));
        sinks.finish(None).unwrap();
        at_end();
        Ok(())
    });
    ended.unwrap()
}

#[test]
fn when_jobs_take_longer_than_is_left_no_more_are_started_and_those_that_run_have_all_the_time() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    fn function(number: u64) -> u64 {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        number
    }
    let mean = || (BEGUN.load(Ordering::SeqCst) > 4).then_some(HOUR);
    let (driven, grace) = run_for_an_hour(function, 1_000_000, mean, || false, || ());
    assert!(matches!(driven.end, End::Stopped), "{:?}", driven.end);
    assert_eq!(driven.out_of_time, Some("an hour"));
    let grace = grace.unwrap();
    assert!(grace < HOUR && grace > HOUR - Duration::from_secs(120), "all but the last writes: {grace:?}");
    assert_eq!(driven.counts.done, BEGUN.load(Ordering::SeqCst), "what was begun is done");
}

#[test]
fn a_signal_shortens_the_time_that_the_time_limit_has_left_to_running_jobs() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static RELEASED: AtomicBool = AtomicBool::new(false);
    fn function(number: u64) -> u64 {
        BEGUN.store(true, Ordering::SeqCst);
        while number == 2 && !RELEASED.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        number
    }
    let begun = || BEGUN.load(Ordering::SeqCst);
    let mean = || BEGUN.load(Ordering::SeqCst).then_some(HOUR);
    let (driven, grace) = run_for_an_hour(function, 2, mean, begun, || RELEASED.store(true, Ordering::SeqCst));
    assert!(matches!(driven.end, End::Stopped) && grace > Some(HOUR / 2), "{:?} {grace:?}", driven.end);
    assert_eq!((driven.counts.done, driven.left), (1, Some(9)));
}

#[test]
fn without_any_hurry_a_time_limit_changes_nothing() {
    let (driven, grace) = run_for_an_hour(|x| x, 10, || Some(Duration::from_secs(60)), || true, || ());
    assert!(matches!(driven.end, End::Complete) && driven.out_of_time.is_none() && grace.is_none());
}

#[test]
fn a_batch_has_its_grace_time_although_the_launch_gives_none() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let options = Options { output: Target::new(folder.path().join("out")), ..Options::new("test") };
    let function = |number: u64| {
        BEGUN.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(500));
        number
    };
    let batch =
        Batch { options, jobs: Jobs::made(|| 1..=1, 1), runner: KernelRunner::plain(function, None), client: None };
    Launch::new().local(1).threads(1).stop_grace(Duration::ZERO).run(|pool| {
        thread::scope(|scope| {
            scope.spawn(|| {
                while !BEGUN.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                pool.stop();
            });
            let report = batch.run(pool).unwrap();
            assert_eq!((report.counts.succeeded, report.code()), (1, ExitCode::Success));
        });
        Ok(())
    });
}
