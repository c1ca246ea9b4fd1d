use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// Runs until the map is abandoned; records that it was notified.
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
