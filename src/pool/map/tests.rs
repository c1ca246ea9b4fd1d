use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32};

use crossbeam_channel::{Sender, bounded, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};

use super::*;
use crate::engine::func::ChunkJobs;
use crate::engine::rank;
use crate::launch::{DriverResult, ExitCode, Launch};

fn local(ranks: u32, driver: impl FnOnce(&Pool) -> DriverResult + Send) -> ExitCode {
    Launch::new().local(ranks).threads(2).run(driver)
}

/// An input that cannot be encoded if it is 13.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Unlucky(u64);

impl Serialize for Unlucky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 { Err(S::Error::custom("thirteen")) } else { serializer.serialize_u64(self.0) }
    }
}

/// What came of each job: its value, or the kind of its failure.
fn kinds(results: impl Iterator<Item = Result<u64, JobError>>) -> Vec<Result<u64, JobErrorKind>> {
    results.map(|result| result.map_err(|error| error.kind)).collect()
}

#[test]
fn a_function_of_chunks_may_hold_many_jobs_and_fails_only_those_that_it_held() {
    // Pulls up to four jobs, then answers them; panics while it holds a multiple of 100.
    let serve = |add: &u64, jobs: &mut ChunkJobs<'_, '_, Unlucky, u64>| {
        loop {
            let held: Vec<Unlucky> = std::iter::from_fn(|| jobs.pull()).take(4).collect();
            assert!(held.iter().all(|input| input.0 == 0 || input.0 % 100 > 0), "a hundred");
            if held.is_empty() {
                return;
            }
            held.iter().for_each(|input| jobs.answer(&(input.0 + add)));
        }
    };
    for (ranks, chunk) in [(1, 1), (2, 7), (3, 0)] {
        let code = local(ranks, |pool| {
            let inputs = (0..1000).map(Unlucky);
            let results = kinds(pool.map_chunks(5u64, |add: u64| add, inputs, serve).chunk_size(chunk));
            assert_eq!(results.len(), 1000);
            for (number, result) in results.iter().enumerate() {
                match (number as u64, result) {
                    (13, result) => assert_eq!(*result, Err(JobErrorKind::Encode)),
                    (number, Ok(value)) => assert_eq!(*value, number + 5),
                    (number, Err(kind)) => {
                        assert_eq!(*kind, JobErrorKind::Panic);
                        assert!(number % 100 < 4 || number % 100 > 96, "job {number} was not near a hundred");
                    }
                }
            }
            assert_eq!(results[200], Err(JobErrorKind::Panic));
            Ok(())
        });
        assert_eq!(code, ExitCode::Success);
    }
}

#[test]
fn jobs_that_a_function_of_chunks_leaves_behind_fail() {
    let serve = |_: &(), jobs: &mut ChunkJobs<'_, '_, u64, u64>| {
        if let Some(input) = jobs.pull() {
            jobs.answer(&input);
        }
        // Pulled and never answered.
        let _ = jobs.pull();
    };
    let code = local(1, |pool| {
        let results = kinds(pool.map_chunks((), |_: ()| (), 0..900u64, serve).chunk_size(3));
        assert_eq!(results.len(), 900);
        // Chunks have three jobs, and fewer where the inputs were not there in time.
        let count = |expected| results.iter().filter(|result| **result == Err(expected)).count();
        let (unanswered, not_taken) = (count(JobErrorKind::Encode), count(JobErrorKind::Cancelled));
        assert!(unanswered >= not_taken && not_taken > 250, "{unanswered} {not_taken}");
        for (number, result) in results.iter().enumerate().filter(|(_, result)| result.is_ok()) {
            assert_eq!(*result, Ok(number as u64));
        }
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn what_a_function_of_chunks_keeps_is_made_once_for_each_rank_and_dropped_when_the_map_is_over() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    struct Kept;
    impl Drop for Kept {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    let make = |_: ()| {
        MADE.fetch_add(1, Ordering::SeqCst);
        Kept
    };
    let serve = |_: &Kept, jobs: &mut ChunkJobs<'_, '_, u64, u64>| {
        while let Some(input) = jobs.pull() {
            jobs.answer(&input);
        }
    };
    local(1, |pool| {
        assert_eq!(pool.map_chunks((), make, 0..500u64, serve).chunk_size(1).count(), 500);
        Ok(())
    });
    assert_eq!((MADE.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst)), (1, 1), "also at the end of the run");
}

/// Inputs that come when somebody sends them, and end when all senders are gone.
fn sent(inputs: Receiver<u64>, paused: Arc<AtomicBool>) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || match inputs.try_recv() {
        Ok(input) => Some(input),
        Err(error) => {
            paused.store(error.is_empty(), Ordering::Relaxed);
            None
        }
    })
}

#[test]
fn results_come_while_the_inputs_pause() {
    let code = local(2, |pool| {
        let (sender, inputs) = unbounded();
        let (waker, wake) = bounded(1);
        let paused = Arc::new(AtomicBool::new(false));
        let mut map = pool.map(|x: u64| x * x, sent(inputs, paused.clone())).pausing(Pause { paused, wake });
        // Each input is sent when the result before has come.
        for input in 0..100 {
            sender.send(input)?;
            let _ = waker.try_send(());
            assert_eq!(map.next(), Some(Ok(input * input)));
        }
        drop((sender, waker));
        assert_eq!(map.next(), None);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn inputs_that_pause_and_whose_waker_is_gone_are_asked_again_when_results_come() {
    let code = local(1, |pool| {
        let asked = Rc::new(Cell::new(0));
        let paused = Arc::new(AtomicBool::new(false));
        let (counter, pauses) = (asked.clone(), paused.clone());
        let inputs = std::iter::from_fn(move || {
            counter.set(counter.get() + 1);
            match counter.get() {
                1 | 3 => Some(counter.get()),
                2 => {
                    pauses.store(true, Ordering::Relaxed);
                    None
                }
                _ => None,
            }
        });
        let wake = bounded(0).1;
        let results: Vec<u64> = pool.map(|x: u64| x, inputs).pausing(Pause { paused, wake }).flatten().collect();
        assert_eq!(results, [1, 3]);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn pieces_of_output_come_in_order_and_before_their_result() {
    let job = |x: u64| {
        for piece in 0..20u8 {
            rank::send_part(x, piece % 2, vec![piece; 1000]).expect("it is wanted");
        }
        x
    };
    for ranks in [1, 3] {
        let code = local(ranks, |pool| {
            let pieces = Mutex::new(vec![Vec::new(); 30]);
            let map = pool.map(job, 0..30u64).unordered().on_part(|job, stream, bytes| {
                pieces.lock().expect("nobody panics")[job as usize].push((stream, bytes[0], bytes.len()));
            });
            for result in map {
                let came = &pieces.lock().expect("nobody panics")[result? as usize];
                assert_eq!(*came, (0..20).map(|piece| (piece % 2, piece, 1000)).collect::<Vec<_>>());
            }
            Ok(())
        });
        assert_eq!(code, ExitCode::Success);
    }
}

#[test]
fn a_thread_has_at_most_two_pieces_on_their_way() {
    static SENT: AtomicU32 = AtomicU32::new(0);
    let job = |_: u64| {
        while rank::send_part(0, 0, vec![0]).is_ok() && SENT.fetch_add(1, Ordering::SeqCst) < 50 {}
    };
    let code = local(2, |pool| {
        let taken = Cell::new(0);
        let taken = Mutex::new(taken);
        let map = pool.map(job, 0..1u64).on_part(|_, _, _| {
            let taken = taken.lock().expect("nobody panics");
            taken.set(taken.get() + 1);
            let ahead = SENT.load(Ordering::SeqCst).saturating_sub(taken.get());
            assert!(ahead <= 2, "{ahead} pieces are ahead");
        });
        assert_eq!(map.count(), 1);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
    assert!(SENT.load(Ordering::SeqCst) > 50);
}

/// Runs until the map is given up; says that it has begun, and that it was told.
fn until_cancelled(told: &AtomicU32) {
    let cancellation = rank::cancellation().expect("there are file descriptors");
    let mut watched = [PollFd::from_borrowed_fd(cancellation.watched().as_fd(), PollFlags::IN)];
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    if poll(&mut watched, Some(&limit)).is_ok_and(|ready| ready > 0) {
        told.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn jobs_that_run_are_told_when_their_map_is_dropped() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let job = |x: u64| {
        if x > 0 {
            until_cancelled(&TOLD);
        }
        x
    };
    local(2, |pool| {
        let mut map = pool.map(job, 0..3u64).chunk_size(1);
        assert_eq!(map.next(), Some(Ok(0)));
        drop(map);
        Ok(())
    });
    assert!(TOLD.load(Ordering::SeqCst) <= 2, "those that had begun; the others never ran");
}

#[test]
fn a_job_that_sends_pieces_learns_that_nobody_wants_them() {
    static UNWANTED: AtomicU32 = AtomicU32::new(0);
    let job = |x: u64| {
        let mut sent = 0u64;
        while x > 0 && rank::send_part(x, 0, vec![1; 1000]).is_ok() {
            sent += 1;
        }
        UNWANTED.fetch_add(u32::from(x > 0), Ordering::SeqCst);
        sent
    };
    local(2, |pool| {
        let (begun, first) = bounded::<()>(1);
        let begun: Sender<()> = begun;
        let mut map = pool.map(job, 0..2u64).chunk_size(1).unordered().on_part(move |_, _, _| {
            let _ = begun.try_send(());
        });
        assert_eq!(map.next(), Some(Ok(0)));
        let mut map = map.timeout(Duration::from_millis(10));
        while first.try_recv().is_err() {
            assert_eq!(map.next().map(|result| result.map_err(|error| error.kind)), Some(Err(JobErrorKind::Timeout)));
        }
        drop(map);
        Ok(())
    });
    assert_eq!(UNWANTED.load(Ordering::SeqCst), 1, "or the run would not have ended");
}

#[test]
fn dealing_no_more_leaves_running_jobs_their_end_and_cancels_the_others() {
    let job = |x: u64| {
        std::thread::sleep(Duration::from_millis(20));
        x
    };
    let code = local(1, |pool| {
        let mut map = pool.map(job, 0..1000u64).chunk_size(1).window(1000).unordered();
        assert!(map.next().is_some_and(|result| result.is_ok()));
        map.deal_no_more();
        let rest = kinds(map);
        assert_eq!(rest.len(), 999);
        let cancelled = rest.iter().filter(|result| **result == Err(JobErrorKind::Cancelled)).count();
        assert!(cancelled > 900, "{cancelled} were cancelled");
        assert!(rest.iter().all(|result| matches!(result, Ok(_) | Err(JobErrorKind::Cancelled))));
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_rank_that_gives_up_ends_the_run() {
    let job = |x: u64| {
        if x == 40 {
            rank::give_up("no interpreter on this host".into());
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
fn a_map_that_waits_no_longer_hands_on_what_is_there_and_drops_what_comes_later() {
    static GO: AtomicBool = AtomicBool::new(false);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let wait = |job: u64| {
        while job % 10 == 0 && !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        DONE.fetch_add(1, Ordering::SeqCst);
        job
    };
    let code = local(2, |pool| {
        let mut map = pool.map(wait, 0..21).chunk_size(1).timeout(Duration::from_millis(10));
        let mut results = Vec::new();
        while results.len() < 20 {
            let Some(result) = map.next() else { break };
            match result.map_err(|error| (error.kind, error.job)) {
                Err((JobErrorKind::Timeout, _)) if DONE.load(Ordering::SeqCst) == 18 => map.wait_no_longer(),
                Err((JobErrorKind::Timeout, _)) => {}
                result => results.push(result),
            }
        }
        let passed = |job| if job % 10 == 0 { Err((JobErrorKind::Stopped, job)) } else { Ok(job) };
        assert!(results.iter().copied().eq((0..20).map(passed)), "{results:?}");
        GO.store(true, Ordering::SeqCst);
        // The last one is nobody's gap: it is waited for.
        let rest: Vec<_> = map.filter_map(Result::ok).collect();
        assert_eq!(rest, [20], "jobs 0 and 10 were passed by");
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}
