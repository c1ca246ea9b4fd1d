use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_channel::{Receiver, TryRecvError, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::engine::rank;
use crate::launch::{DriverResult, ExitCode, Launch};

fn local(ranks: u32, driver: impl FnOnce(&Pool) -> DriverResult + Send) -> ExitCode {
    Launch::new().local(ranks).threads(2).run(driver)
}

/// The result of each job: its value, or the kind of its failure.
fn kinds(results: impl Iterator<Item = Result<u64, JobError>>) -> Vec<Result<u64, JobErrorKind>> {
    results.map(|result| result.map_err(|error| error.kind)).collect()
}

/// Runs a map whose inputs are pulled by `pull`, to its end.
fn results<T>(
    map: Map<'_, std::iter::Empty<u64>, u64>,
    mut pull: impl FnMut() -> Next<u64>,
    wake: Option<&Receiver<T>>,
    mut each: impl FnMut(Result<u64, JobError>),
) -> DriverResult {
    let mut map = map.open(None).map_err(|failure| JobError::of(0, failure))?;
    loop {
        match map.turn(&mut pull) {
            Turn::Item(result) => each(result),
            Turn::Wait => assert!(matches!(map.wait(None, wake), MapWaited::Done)),
            Turn::Over(panic) => return panic.map_or(Ok(()), |panic| Err(panic.into())),
            Turn::Broken(failure) => return Err(JobError::of(0, failure).into()),
        }
    }
}

#[test]
fn results_come_while_the_inputs_pause() {
    let code = local(2, |pool| {
        let (sender, inputs) = unbounded();
        let mut sender = Some(sender);
        let send =
            |sender: &Option<crossbeam_channel::Sender<u64>>, input| sender.as_ref().map(|sender| sender.send(input));
        send(&sender, 0);
        let pull = || match inputs.try_recv() {
            Ok(input) => Next::Item(input),
            Err(TryRecvError::Empty) => Next::Later,
            Err(TryRecvError::Disconnected) => Next::End,
        };
        let mut came = 0;
        // Each input is sent when the result before has come.
        results(pool.map(|x: u64| x * x, std::iter::empty()), pull, Some(&inputs), |result| {
            assert_eq!(result, Ok(came * came));
            came += 1;
            if came < 100 {
                send(&sender, came);
            } else {
                sender = None;
            }
        })?;
        assert_eq!(came, 100);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn inputs_that_come_from_elsewhere_end_the_wait_for_results() {
    static GO: AtomicBool = AtomicBool::new(false);
    // The first job waits for the second one, whose input is not there when the wait for the first result begins.
    let job = |x: u64| {
        GO.fetch_or(x == 1, Ordering::SeqCst);
        while !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        x
    };
    let code = local(1, |pool| {
        let (sender, inputs) = unbounded();
        sender.send(0)?;
        let mut late = Some(sender);
        let pull = || match inputs.try_recv() {
            Ok(input) => Next::Item(input),
            Err(TryRecvError::Disconnected) => Next::End,
            Err(TryRecvError::Empty) => {
                if let Some(sender) = late.take() {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(20));
                        sender.send(1)
                    });
                }
                Next::Later
            }
        };
        let mut came = Vec::new();
        results(pool.map(job, std::iter::empty()).chunk_size(1), pull, Some(&inputs), |result| came.extend(result))?;
        assert_eq!(came, [0, 1]);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn inputs_that_pause_and_that_nothing_announces_are_asked_again_when_results_come() {
    let code = local(1, |pool| {
        let asked = Cell::new(0);
        let pull = || {
            asked.set(asked.get() + 1);
            match asked.get() {
                asked @ (1 | 3) => Next::Item(asked),
                2 => Next::Later,
                _ => Next::End,
            }
        };
        let mut came = Vec::new();
        results(pool.map(|x: u64| x, std::iter::empty()), pull, NO_WAKE, |result| came.extend(result))?;
        assert_eq!(came, [1, 3]);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

/// Runs until the map is abandoned; records that it has begun, and that it was notified.
fn until_cancelled(notified: &AtomicU32) {
    let cancellation = rank::cancellation().expect("there are file descriptors");
    let mut watched = [PollFd::from_borrowed_fd(cancellation.watched().as_fd(), PollFlags::IN)];
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    if poll(&mut watched, Some(&limit)).is_ok_and(|ready| ready > 0) {
        notified.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn running_jobs_are_notified_when_their_map_is_dropped() {
    static NOTIFIED: AtomicU32 = AtomicU32::new(0);
    let job = |x: u64| {
        if x > 0 {
            until_cancelled(&NOTIFIED);
        }
        x
    };
    local(2, |pool| {
        let mut map = pool.map(job, 0..3u64).chunk_size(1);
        assert_eq!(map.next(), Some(Ok(0)));
        drop(map);
        Ok(())
    });
    assert!(NOTIFIED.load(Ordering::SeqCst) <= 2, "those that had begun; the others never ran");
}

#[test]
fn a_job_that_aborts_the_run_ends_it() {
    let job = |x: u64| {
        if x == 40 {
            rank::abort_run("no interpreter on this host".into());
        }
        x
    };
    let code = local(2, |pool| {
        let results = kinds(pool.map(job, 0..1_000_000u64).chunk_size(1));
        assert_eq!(results.last(), Some(&Err(JobErrorKind::Closed)));
        Ok(())
    });
    assert_eq!(code, ExitCode::Failure);
}

#[test]
fn slots_are_counted_over_the_ranks_of_a_host() {
    local(3, |pool| {
        let slot = |_: u64| {
            std::thread::sleep(Duration::from_millis(1));
            rank::current_job().map(|job| (job.rank, job.slot))
        };
        for seen in pool.map(slot, 0..200u64).chunk_size(1) {
            let (rank, slot) = seen?.expect("it is a job");
            assert!(slot / 2 == rank, "rank {rank} has slot {slot}");
        }
        Ok(())
    });
}

#[test]
fn a_map_that_waits_no_longer_yields_its_results_and_drops_later_ones() {
    static GO: AtomicBool = AtomicBool::new(false);
    let wait = |job: u64| {
        while job % 10 == 0 && !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        job
    };
    let code = local(2, |pool| {
        let mut inputs = 0..21;
        let mut pull = || inputs.next().map_or(Next::End, Next::Item);
        let map = pool.map(wait, std::iter::empty()).chunk_size(1);
        let mut map = map.open(Some(21)).map_err(|failure| JobError::of(0, failure))?;
        let mut results = Vec::new();
        while results.len() < 20 {
            match map.turn(&mut pull) {
                Turn::Item(result) => results.push(result.map_err(|error| (error.kind, error.job))),
                // Only the three that wait are left.
                Turn::Wait if map.unsettled() == 3 && map.yielded() == 0 => map.wait_no_longer(),
                Turn::Wait => drop(map.wait(None, NO_WAKE)),
                Turn::Over(_) | Turn::Broken(_) => break,
            }
        }
        let passed = |job| if job % 10 == 0 { Err((JobErrorKind::Stopped, job)) } else { Ok(job) };
        assert!(results.iter().copied().eq((0..20).map(passed)), "{results:?}");
        GO.store(true, Ordering::SeqCst);
        // No later job has a result, so the last one is waited for.
        let mut rest = Vec::new();
        loop {
            match map.turn(&mut pull) {
                Turn::Item(result) => rest.extend(result),
                Turn::Wait => drop(map.wait(None, NO_WAKE)),
                Turn::Over(_) | Turn::Broken(_) => break,
            }
        }
        assert_eq!(rest, [20], "jobs 0 and 10 were passed by");
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}
