//! Programs for the tests: drivers as a user might write them.

use std::time::{Duration, Instant};

use rankpool::{DriverResult, ExitCode, JobError, JobErrorKind, Launch, Listener, Notice, Pool, current_job};

pub fn run(name: &str) -> ExitCode {
    if name == "bug-in-the-master" {
        return Launch::new().threads(1).listener(PanicsWhenStopped).run(endless_with_signal);
    }
    match name {
        "launch-after-launch" => return launch_after_launch(),
        "never-ending-job" => return Launch::new().threads(1).grace(Duration::from_secs(1)).run(never_ending_job),
        "loses-a-rank" => return from_environment().run(loses_a_rank),
        "loses-a-rank-and-fails" => return from_environment().run(loses_a_rank_and_fails),
        "poison" => return from_environment().dedicated_master(true).run(poison),
        "value-after-a-loss" => return value_after_a_loss(),
        "long-job" => return from_environment().run(long_job),
        "two-launches-at-once" => return two_launches_at_once(),
        "value" => return value(),
        "no-value" => return no_value(),
        _ => {}
    }
    let driver: fn(&Pool) -> DriverResult = match name {
        "panicking-job" => panicking_job,
        "exit-0-in-job" => |pool| exit_in_job(pool, 0),
        "exit-7-in-job" => |pool| exit_in_job(pool, 7),
        "exit-in-driver" => |_| std::process::exit(0),
        "kill-a-rank" => kill_a_rank,
        "panic-in-driver" => |_| panic!("the driver has had enough"),
        "leave-early" => leave_early,
        "launch-in-driver" => launch_in_driver,
        "job-timeout" => job_timeout,
        "wrapped-error" => wrapped_error,
        "driver-error" => |_| Err("the driver found nothing to do".into()),
        "panicking-inputs" => panicking_inputs,
        "dropped-map" => dropped_map,
        "many-maps" => many_maps,
        "large-values" => large_values,
        "slow-rank" => slow_rank,
        "broadcast" => broadcast,
        "retries" => retries,
        "wait-and-tell-cpu" => wait_and_tell_cpu,
        "endless" => endless,
        _ => |_| Err("there is no such program".into()),
    };
    Launch::new().threads(1).run(driver)
}

fn squares(pool: &Pool) -> DriverResult {
    assert_eq!(pool.map(|x: u64| x * x, 0..100).filter(Result::is_ok).count(), 100);
    Ok(())
}

/// Prints the driver's value after the run, which only rank 0 reaches.
fn value() -> ExitCode {
    let before = rankpool::is_driver();
    let sum = Launch::new().threads(1).run_value(|pool| Ok(pool.map(|x: u64| x * x, 0..10).sum::<Result<u64, _>>()?));
    println!("{sum} {before} {}", rankpool::is_driver());
    ExitCode::Success
}

fn no_value() -> ExitCode {
    Launch::new().threads(1).run_value(|pool| Ok(pool.apply(|(): ()| -> () { panic!("no value") }, ())?));
    println!("it came back");
    ExitCode::Success
}

/// Prints the exit codes of both launches on rank 0, and nothing on the other ranks.
fn launch_after_launch() -> ExitCode {
    let codes = [0, 1].map(|_| Launch::new().threads(1).run(squares));
    if codes[1] == ExitCode::Usage {
        println!("{codes:?}");
    }
    codes[0]
}

fn two_launches_at_once() -> ExitCode {
    let launch = || Launch::new().threads(1).run(squares);
    let mut codes =
        std::thread::scope(|scope| [scope.spawn(launch), scope.spawn(launch)].map(|run| run.join().unwrap()));
    codes.sort_by_key(|code| *code as u8);
    if codes[1] == ExitCode::Usage {
        println!("{codes:?}");
    }
    codes[0]
}

fn launch_in_driver(pool: &Pool) -> DriverResult {
    let inner = Launch::new().threads(1).run(squares);
    println!("{inner:?}");
    squares(pool)
}

/// A job's error in a transparent enum, in a box with a context.
fn wrapped_error(pool: &Pool) -> DriverResult {
    #[derive(Debug, thiserror::Error)]
    enum Wrapped {
        #[error(transparent)]
        Job(#[from] JobError),
        #[error("reading the sky")]
        Context(#[source] Box<Wrapped>),
    }
    let read = || -> Result<u8, Wrapped> { Ok(pool.apply(|_: u8| -> u8 { panic!("clouds") }, 1)?) };
    read().map_err(|error| Wrapped::Context(Box::new(error)))?;
    Ok(())
}

fn last_rank(pool: &Pool) -> u32 {
    pool.ranks().len() as u32 - 1
}

fn own_rank() -> u32 {
    current_job().map_or(u32::MAX, |job| job.rank)
}

fn panicking_job(pool: &Pool) -> DriverResult {
    let squares = pool.map(|x: u64| if x == 3 { panic!("no threes please") } else { x * x }, 0..6).retries(1);
    let (good, bad): (Vec<_>, Vec<_>) = squares.partition(Result::is_ok);
    assert_eq!(good.len(), 5, "the others go on");
    let error: JobError = bad.into_iter().next().and_then(Result::err).ok_or("no failure")?;
    let JobError { kind, message, location, job, rank, host, attempt, .. } = error;
    let known_rank = rank.is_some_and(|rank| rank <= last_rank(pool));
    let here = location.is_some_and(|location| location.contains("programs.rs:"));
    println!("{kind}|{message}|{here}|{job}|{known_rank}|{}|{attempt}", host.is_some());
    Ok(())
}

fn exit_in_job(pool: &Pool, code: i32) -> DriverResult {
    let jobs = (0..1000).map(|_| (last_rank(pool), code));
    let exits = pool.map(
        |(victim, code): (u32, i32)| {
            if own_rank() == victim {
                std::process::exit(code);
            }
            std::thread::sleep(Duration::from_millis(20));
        },
        jobs,
    );
    exits.chunk_size(1).collect::<Result<Vec<()>, _>>()?;
    Ok(())
}

fn kill_a_rank(pool: &Pool) -> DriverResult {
    let jobs = (0..1000).map(|_| last_rank(pool));
    let kills = pool.map(
        |victim: u32| {
            if own_rank() == victim {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        },
        jobs,
    );
    kills.chunk_size(1).collect::<Result<Vec<()>, _>>()?;
    Ok(())
}

fn leave_early(pool: &Pool) -> DriverResult {
    for number in 0..50_u64 {
        let handle = pool.submit(
            |x: u64| {
                std::thread::sleep(Duration::from_millis(5));
                x
            },
            number,
        );
        handle.on_done(|done| println!("{:?}", done.wait().map_err(|error| error.kind)));
    }
    Ok(())
}

fn panicking_inputs(pool: &Pool) -> DriverResult {
    let inputs = (0..).inspect(|x| assert!(*x < 100, "the inputs are spoilt"));
    let results: Vec<Result<u64, JobError>> = pool.map(|x: u64| x, inputs).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    let last = results.last().and_then(|result| result.as_ref().err()).ok_or("no failure")?;
    assert_eq!(last.kind, JobErrorKind::Input);
    assert_eq!(pool.apply(|x: u64| x + 1, 1)?, 2, "the pool lives");
    Ok(())
}

fn dropped_map(pool: &Pool) -> DriverResult {
    let first: Vec<u64> = pool.map(|x: u64| x, 0..).take(10).collect::<Result<_, _>>()?;
    assert!(first.into_iter().eq(0..10));
    assert_eq!(pool.map(|x: u64| x, 0..100).count(), 100, "the pool lives");
    Ok(())
}

fn many_maps(pool: &Pool) -> DriverResult {
    std::thread::scope(|scope| {
        let map = |start: u64| move || pool.map(|x: u64| x * 3, start..start + 2000).sum::<Result<u64, _>>();
        let threads: Vec<_> = (0..16).map(|start| (start, scope.spawn(map(start)))).collect();
        for (start, thread) in threads {
            let sum = thread.join().expect("it does not panic").expect("no job fails");
            assert_eq!(sum, (start..start + 2000).map(|x| x * 3).sum::<u64>());
        }
    });
    Ok(())
}

/// Long messages both ways at the same time, more of them than a transport's buffers hold.
fn large_values(pool: &Pool) -> DriverResult {
    let lengths = [1, 70_000, 3_000_000, 20_000_000, 9, 5_000_000, 0, 1_000_000];
    let inputs = lengths.iter().map(|&length: &usize| vec![7_u8; length]);
    let doubled = pool.map(|bytes: Vec<u8>| bytes.iter().map(|byte| byte * 2).collect::<Vec<u8>>(), inputs);
    for (result, length) in doubled.zip(lengths) {
        let result = result?;
        assert!(result.len() == length && result.iter().all(|&byte| byte == 14));
    }
    // Lists of other numbers, several in a message, among small results.
    let lists = pool.map(|x: u32| vec![f64::from(x); if x % 3 == 0 { 100_000 } else { 5 }], 0..60).chunk_size(7);
    for (x, list) in (0..60).zip(lists) {
        assert!(list? == vec![f64::from(x); if x % 3 == 0 { 100_000 } else { 5 }]);
    }
    let texts = pool.map(|x: usize| "ä".repeat(x), [1_000_000, 3, 2_000_000]).map(|text| Ok(text?.len()));
    assert_eq!(texts.collect::<Result<Vec<_>, JobError>>()?, [2_000_000, 6, 4_000_000]);
    Ok(())
}

fn slow_rank(pool: &Pool) -> DriverResult {
    let victim = last_rank(pool);
    let ranks: Vec<u32> = pool
        .map(
            |victim: u32| {
                std::thread::sleep(Duration::from_millis(if own_rank() == victim { 40 } else { 2 }));
                own_rank()
            },
            std::iter::repeat_n(victim, 200),
        )
        .collect::<Result<_, _>>()?;
    let slow = ranks.iter().filter(|&&rank| rank == victim).count();
    assert!(victim == 0 || slow * (victim as usize + 1) < 150, "{slow} of 200 jobs went to the slow one");
    Ok(())
}

fn broadcast(pool: &Pool) -> DriverResult {
    let table = pool.broadcast((0..1000_u64).collect::<Vec<_>>())?;
    for _ in 0..2 {
        let sum: u64 = pool.map_with(table.clone(), 0..1000, |table, i: usize| table[i]).sum::<Result<_, _>>()?;
        assert_eq!(sum, 999 * 500);
    }
    Ok(())
}

fn retries(pool: &Pool) -> DriverResult {
    let flaky = |x: u64| {
        assert!(current_job().is_some_and(|job| job.attempt == 3), "not yet");
        x
    };
    let all: Vec<u64> = pool.map(flaky, 0..100).retries(2).collect::<Result<_, _>>()?;
    assert!(all.into_iter().eq(0..100));
    assert_eq!(pool.map(flaky, 0..10).retries(1).filter(Result::is_err).count(), 10);
    Ok(())
}

/// The CPU time of this process so far.
fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it is always there");
    let seconds = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Runs one job on each rank that sleeps and measures the CPU time of its process meanwhile, as a fraction of a core.
fn wait_and_tell_cpu(pool: &Pool) -> DriverResult {
    let nap = |_: usize| {
        let (start, before) = (Instant::now(), cpu_time());
        std::thread::sleep(Duration::from_secs(1));
        (cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64()
    };
    for fraction in pool.map(nap, 0..pool.ranks().len()).chunk_size(1) {
        println!("{}", fraction?);
    }
    Ok(())
}

fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Drops a map while jobs of it run that never end.
fn never_ending_job(pool: &Pool) -> DriverResult {
    let job = |x: usize| {
        if x > 0 {
            sleep_for_ever();
        }
    };
    let mut map = pool.map(job, 0..).chunk_size(1);
    map.next().ok_or("no result")??;
    Ok(())
}

/// The rank that runs job 1 goes on with the others.
fn job_timeout(pool: &Pool) -> DriverResult {
    let job = |x: u64| {
        if x % 50 == 1 {
            sleep_for_ever();
        }
        x
    };
    let results = pool.map(job, 0..200).job_timeout(Duration::from_secs(1));
    let failed: Vec<_> = results.filter_map(Result::err).map(|error| (error.job, error.kind)).collect();
    assert_eq!(failed, [1, 51, 101, 151].map(|job| (job, JobErrorKind::TimedOut)));
    Ok(())
}

/// Prints the ranks' processes, then computes until it is ended.
fn endless(pool: &Pool) -> DriverResult {
    let pids: Vec<String> = pool.ranks().iter().map(|rank| rank.facts.pid.to_string()).collect();
    println!("{}", pids.join(" "));
    for result in pool.map(|_: u64| std::thread::sleep(Duration::from_millis(10)), 0..) {
        result?;
    }
    Ok(())
}

fn from_environment() -> Launch<'static> {
    Launch::from_env().expect("the test sets numbers").threads(1)
}

/// Prints the ranks' processes, then computes for some seconds while a rank is killed or stopped, and checks every result.
fn loses_a_rank(pool: &Pool) -> DriverResult {
    let pids: Vec<String> = pool.ranks().iter().map(|rank| rank.facts.pid.to_string()).collect();
    println!("{}", pids.join(" "));
    let job = |x: u64| {
        std::thread::sleep(Duration::from_millis(10));
        x * x
    };
    let jobs = 800;
    // Long messages to a rank that is dead by now, and may not be known to be dead.
    std::thread::sleep(Duration::from_millis(300));
    let table = pool.broadcast(vec![7_u8; 20 << 20])?;
    for (x, square) in (0..jobs).zip(pool.map(job, 0..jobs)) {
        assert_eq!(square?, x * x);
    }
    assert_eq!(table.len(), 20 << 20);
    let stats = pool.stats().ok_or("no statistics")?;
    assert_eq!((stats.jobs, stats.failed), (jobs, 0));
    for rank in stats.ranks {
        eprintln!("rank {}: {}", rank.rank, if rank.lost.is_some() { "lost" } else { "there" });
    }
    Ok(())
}

fn loses_a_rank_and_fails(pool: &Pool) -> DriverResult {
    loses_a_rank(pool)?;
    pool.apply(|_: u8| -> u8 { panic!("all is lost") }, 1)?;
    Ok(())
}

/// A job that kills every rank that runs it, among others.
fn poison(pool: &Pool) -> DriverResult {
    let job = |x: u64| {
        if x == 77 {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
        x
    };
    let results: Vec<_> = pool.map(job, 0..400).collect();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(answer) => assert!(x != 77 && answer == x),
            Err(error) => eprintln!("job {x}: {}", error.kind),
        }
    }
    let lost = pool.stats().ok_or("no statistics")?.ranks.iter().filter(|rank| rank.lost.is_some()).count();
    eprintln!("{lost} ranks were lost");
    Ok(())
}

/// Goes on after the run, on rank 0 only.
fn value_after_a_loss() -> ExitCode {
    from_environment().run_value(loses_a_rank);
    std::thread::sleep(Duration::from_millis(500));
    println!("went on");
    ExitCode::Success
}

/// A job that computes for longer than a rank may be silent, on each rank.
fn long_job(pool: &Pool) -> DriverResult {
    let job = |x: u64| {
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        x
    };
    let ranks = pool.ranks().len() as u64;
    assert!(pool.map(job, 0..ranks).chunk_size(1).collect::<Result<Vec<_>, _>>()?.into_iter().eq(0..ranks));
    assert!(pool.stats().ok_or("no statistics")?.ranks.iter().all(|rank| rank.lost.is_none()));
    Ok(())
}

/// A panic in rank 0's loop, which calls this, as a bug there would cause.
struct PanicsWhenStopped;

impl Listener for PanicsWhenStopped {
    fn notice(&mut self, notice: Notice<'_>) {
        assert!(!matches!(notice, Notice::Stopping), "something that cannot happen");
    }
}

fn endless_with_signal(pool: &Pool) -> DriverResult {
    nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGTERM)?;
    endless(pool)
}
