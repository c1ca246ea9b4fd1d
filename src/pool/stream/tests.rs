//! Streams of jobs on a pool of local ranks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};

use bytes::Bytes;

use super::*;
use crate::engine::exchange::OutputStream;
use crate::engine::func::Value;
use crate::engine::func::{self, ChunkJobs, ChunkServer};
use crate::engine::rank;
use crate::launch::{DriverResult, ExitCode, Launch};
use crate::pool::{DEFAULT_POLICY, Pool, Reports};

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

/// Pushes inputs, closes the stream and takes the result of every job, by its index.
fn run_all<I: Value>(
    stream: Result<JobStream<I, u64>, Failure>,
    inputs: impl IntoIterator<Item = I>,
) -> Result<Vec<Result<u64, JobErrorKind>>, Failure> {
    let mut stream = stream?;
    for (index, input) in (0..).zip(inputs) {
        assert_eq!(stream.push(&input, None)?, index);
    }
    stream.close()?;
    take_all(&mut stream)
}

/// Returns the results of all jobs whose end was not reported yet, by their indexes.
fn take_all<I>(stream: &mut JobStream<I, u64>) -> Result<Vec<Result<u64, JobErrorKind>>, Failure> {
    let mut ends = BTreeMap::new();
    let mut put = |job, result: Result<u64, JobError>| {
        assert!(ends.insert(job, result.map_err(|error| error.kind)).is_none(), "job {job} has ended twice");
    };
    loop {
        match stream.next(None, NO_WAKE)? {
            Event::Done(results) => {
                let first = results.job();
                (first..).zip(results).for_each(|(job, result)| put(job, result));
            }
            Event::Failed(error) => put(error.job, Err(*error)),
            Event::Unrun(errors) => errors.for_each(|error| put(error.job, Err(error))),
            Event::Early(_) | Event::Part(_) | Event::Started { .. } => {}
            Event::Idle | Event::Wake => panic!("there was nothing else to wait for"),
            Event::Ended => break,
        }
    }
    assert_eq!((stream.unsettled(), stream.input_bytes()), (0, 0));
    Ok(ends.into_values().collect())
}

/// A failure as an error of a driver.
fn driver(failure: Failure) -> JobError {
    JobError::of(0, failure)
}

#[test]
fn every_job_of_a_stream_ends_once_and_then_the_stream() {
    let job = |(): &(), input: Unlucky| {
        assert_ne!(input.0, 700, "seven hundred");
        2 * input.0
    };
    for ranks in [1, 3] {
        let code = local(ranks, |pool| {
            // More than a block holds.
            let results = run_all(pool.stream_with(&(), job, 0), (0..10_000).map(Unlucky)).map_err(driver)?;
            assert_eq!(results.len(), 10_000);
            for (number, result) in (0..).zip(results) {
                let expected = match number {
                    13 => Err(JobErrorKind::Encode),
                    700 => Err(JobErrorKind::Panic),
                    _ => Ok(2 * number),
                };
                assert_eq!(result, expected, "job {number}");
            }
            Ok(())
        });
        assert_eq!(code, ExitCode::Success);
    }
}

#[test]
fn jobs_are_sent_with_a_full_block_or_when_they_are_waited_for() {
    let code = local(1, |pool| {
        let mut stream = pool.stream_with(&(), |(): &(), x: u64| x, 0).map_err(driver)?;
        for job in 0..BLOCK_JOBS as u64 {
            assert!(!stream.is_full() && stream.input_bytes() == 0, "before job {job}");
            stream.push(&job, None).map_err(driver)?;
        }
        assert!(stream.is_full());
        stream.push(&0, None).map_err(driver)?;
        assert!(!stream.is_full() && stream.input_bytes() > 0, "the block was sent");
        let mut large = pool.stream_with(&(), |(): &(), text: String| text.len() as u64, 0).map_err(driver)?;
        large.push(&"x".repeat(BLOCK_BYTES), None).map_err(driver)?;
        assert!(large.is_full());
        // Only `next` sends the last ones.
        while stream.unsettled() > 0 || large.unsettled() > 0 {
            let timely = Some(Instant::now() + Duration::from_millis(1));
            stream.next(timely, NO_WAKE).map_err(driver)?;
            large.next(timely, NO_WAKE).map_err(driver)?;
        }
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_stream_in_which_nothing_happens_is_idle_at_the_deadline_or_woken() {
    let code = local(1, |pool| {
        let mut stream = pool.stream_with(&(), |(): &(), x: u64| x, 0).map_err(driver)?;
        let (sender, other) = unbounded();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(matches!(stream.next(Some(deadline), Some(&other)), Ok(Event::Idle)));
        assert!(Instant::now() >= deadline);
        sender.send(1)?;
        for _ in 0..2 {
            assert!(matches!(stream.next(None, Some(&other)), Ok(Event::Wake)), "what wakes is left there");
        }
        assert_eq!(other.try_recv(), Ok(1));
        drop(sender);
        assert!(matches!(stream.next(None, Some(&other)), Ok(Event::Wake)), "a channel that is disconnected wakes");
        assert!(stream.target() > 0);
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_closed_stream_takes_no_more_jobs() {
    let code = local(1, |pool| {
        let mut stream = pool.stream_with(&(), |(): &(), x: u64| x, 0).map_err(driver)?;
        stream.push(&1, None).map_err(driver)?;
        stream.close().map_err(driver)?;
        assert!(stream.is_closed());
        assert_eq!(stream.push(&2, None).map_err(|failure| failure.kind), Err(JobErrorKind::Closed));
        assert_eq!(take_all(&mut stream).map_err(driver)?, [Ok(1)]);
        assert!(matches!(stream.next(None, NO_WAKE), Ok(Event::Ended)), "and it stays so");
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn giving_up_leaves_running_jobs_their_end_and_cancels_the_others() {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    static GO: AtomicBool = AtomicBool::new(false);
    let job = |(): &(), x: u64| {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        while !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        x
    };
    let code = local(1, |pool| {
        let mut stream = pool.stream_with(&(), job, 1).map_err(driver)?;
        for input in 0..1000 {
            stream.push(&input, None).map_err(driver)?;
        }
        stream.flush().map_err(driver)?;
        while BEGUN.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        for _ in 0..2 {
            stream.give_up().map_err(driver)?;
        }
        GO.store(true, Ordering::SeqCst);
        let results = take_all(&mut stream).map_err(driver)?;
        assert_eq!(results.len(), 1000);
        let cancelled = results.iter().filter(|result| **result == Err(JobErrorKind::Cancelled)).count();
        assert!(cancelled > 900, "{cancelled} were cancelled");
        let done: Vec<_> = results.iter().flatten().collect();
        assert!(done.len() >= 2 && done.len() + cancelled == 1000, "{done:?}");
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_single_job_is_cancelled_unless_a_rank_has_it() {
    static GO: AtomicBool = AtomicBool::new(false);
    let job = |(): &(), x: u64| {
        while !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        x
    };
    let code = local(1, |pool| {
        let mut stream = pool.open::<u64, u64>(
            func::with_context(job),
            Bytes::new(),
            DEFAULT_POLICY,
            None,
            Reports { starts: true, settled: None },
        );
        let stream = stream.as_mut().map_err(|failure| driver(failure.clone()))?;
        for input in 0..1000 {
            stream.push(&input, None).map_err(driver)?;
        }
        let Event::Started { first, count } = stream.next(None, NO_WAKE).map_err(driver)? else {
            panic!("a job starts first")
        };
        assert_eq!((first, count > 0), (0, true));
        assert!(!stream.cancel(0), "a rank has it");
        assert!(stream.cancel(999) && !stream.cancel(999), "a job is cancelled once");
        GO.store(true, Ordering::SeqCst);
        stream.close().map_err(driver)?;
        let results = take_all(stream).map_err(driver)?;
        assert_eq!(results[999], Err(JobErrorKind::Cancelled));
        assert!((0..999).all(|job| results[job as usize] == Ok(job)));
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_job_goes_to_another_rank_than_the_one_to_avoid() {
    let job = |(): &(), _: u64| rank::current_job().map_or(u64::MAX, |job| job.rank.into());
    let code = local(3, |pool| {
        for avoid in [0, 1, 2].into_iter().cycle().take(30) {
            let mut stream = pool.stream_with(&(), job, 1).map_err(driver)?;
            stream.push(&0, Some(RankId(avoid))).map_err(driver)?;
            stream.close().map_err(driver)?;
            let results = take_all(&mut stream).map_err(driver)?;
            assert!(results[0].is_ok_and(|rank| rank < 3 && rank != u64::from(avoid)), "{results:?}, not {avoid}");
        }
        Ok(())
    });
    assert_eq!(code, ExitCode::Success);
}

#[test]
fn a_stream_reports_that_the_pool_has_ended() {
    let job = |(): &(), x: u64| {
        rank::abort_run("no interpreter on this host".into());
        x
    };
    let code = local(1, |pool| {
        let mut stream = pool.stream_with(&(), job, 1).map_err(driver)?;
        stream.push(&0, None).map_err(driver)?;
        let failure = loop {
            match stream.next(None, NO_WAKE) {
                Ok(Event::Ended) => panic!("the stream is open"),
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.kind, JobErrorKind::Closed);
        Ok(())
    });
    assert_eq!(code, ExitCode::Failure);
}

/// Pieces are written to both streams in turn.
fn stream_of(piece: u8) -> OutputStream {
    if piece % 2 == 0 { OutputStream::Stdout } else { OutputStream::Stderr }
}

#[test]
fn pieces_of_output_come_in_order_and_before_their_result() {
    let job = |(): &(), x: u64| {
        for piece in 0..20u8 {
            rank::send_part(x, stream_of(piece), vec![piece; 1000]).expect("it is wanted");
        }
        x
    };
    for ranks in [1, 3] {
        let code = local(ranks, |pool| {
            let mut pieces = vec![Vec::new(); 30];
            let mut stream = pool.stream_with(&(), job, 0).map_err(driver)?;
            for input in 0..30 {
                stream.push(&input, None).map_err(driver)?;
            }
            stream.close().map_err(driver)?;
            loop {
                match stream.next(None, NO_WAKE).map_err(driver)? {
                    Event::Part(part) => pieces[part.job as usize].push((part.stream, part.bytes[0], part.bytes.len())),
                    Event::Done(results) => {
                        for result in results {
                            let expected: Vec<_> = (0..20).map(|piece| (stream_of(piece), piece, 1000)).collect();
                            assert_eq!(pieces[result? as usize], expected);
                        }
                    }
                    Event::Ended => return Ok(()),
                    _ => panic!("nothing else happens"),
                }
            }
        });
        assert_eq!(code, ExitCode::Success);
    }
}

#[test]
fn a_thread_has_at_most_two_pieces_on_their_way() {
    static SENT: AtomicU32 = AtomicU32::new(0);
    let job = |(): &(), _: u64| {
        while rank::send_part(0, OutputStream::Stdout, vec![0]).is_ok() && SENT.fetch_add(1, Ordering::SeqCst) < 50 {}
        0u64
    };
    let code = local(2, |pool| {
        let mut taken = 0;
        let mut stream = pool.stream_with(&(), job, 0).map_err(driver)?;
        stream.push(&0, None).map_err(driver)?;
        stream.close().map_err(driver)?;
        loop {
            match stream.next(None, NO_WAKE).map_err(driver)? {
                Event::Part(_) => {
                    taken += 1;
                    let ahead = SENT.load(Ordering::SeqCst).saturating_sub(taken);
                    assert!(ahead <= 2, "{ahead} pieces are ahead");
                }
                Event::Ended => return Ok(()),
                _ => {}
            }
        }
    });
    assert_eq!(code, ExitCode::Success);
    assert!(SENT.load(Ordering::SeqCst) > 50);
}

#[test]
fn a_job_that_sends_pieces_learns_that_its_stream_was_dropped() {
    static UNWANTED: AtomicU32 = AtomicU32::new(0);
    let job = |(): &(), x: u64| {
        let mut sent = 0u64;
        while rank::send_part(x, OutputStream::Stdout, vec![1; 1000]).is_ok() {
            sent += 1;
        }
        UNWANTED.fetch_add(1, Ordering::SeqCst);
        sent
    };
    local(2, |pool| {
        let mut stream = pool.stream_with(&(), job, 1).map_err(driver)?;
        stream.push(&1, None).map_err(driver)?;
        stream.close().map_err(driver)?;
        while !matches!(stream.next(None, NO_WAKE).map_err(driver)?, Event::Part(_)) {}
        Ok(())
    });
    assert_eq!(UNWANTED.load(Ordering::SeqCst), 1, "or the run would not have ended");
}

/// Pulls up to four jobs, then answers them; panics while it holds a multiple of 100.
struct Fours(u64);

impl ChunkServer for Fours {
    type Context = u64;
    type Input = Unlucky;
    type Output = u64;

    fn new(add: u64) -> Fours {
        Fours(add)
    }

    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, Unlucky, u64>) {
        loop {
            let held: Vec<Unlucky> = std::iter::from_fn(|| jobs.pull()).take(4).collect();
            assert!(held.iter().all(|input| input.0 == 0 || input.0 % 100 > 0), "a hundred");
            if held.is_empty() {
                return;
            }
            held.iter().for_each(|input| jobs.answer(&(input.0 + self.0)));
        }
    }
}

#[test]
fn a_function_of_chunks_may_hold_many_jobs_and_fails_only_those_that_it_held() {
    for (ranks, chunk) in [(1, 1), (2, 7), (3, 0)] {
        let code = local(ranks, |pool| {
            let stream = pool.stream_of_chunks::<Fours>(&5, chunk);
            let results = run_all(stream, (0..1000).map(Unlucky)).map_err(driver)?;
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

/// Leaves jobs behind: answers one, and pulls another one that it never answers.
struct Forgetful;

impl ChunkServer for Forgetful {
    type Context = ();
    type Input = u64;
    type Output = u64;

    fn new((): ()) -> Forgetful {
        Forgetful
    }

    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, u64, u64>) {
        if let Some(input) = jobs.pull() {
            jobs.answer(&input);
        }
        let _ = jobs.pull();
    }
}

#[test]
fn jobs_that_a_function_of_chunks_leaves_behind_fail() {
    let code = local(1, |pool| {
        let results = run_all(pool.stream_of_chunks::<Forgetful>(&(), 3), 0..900).map_err(driver)?;
        assert_eq!(results.len(), 900);
        // Chunks have three jobs, and fewer if the inputs did not come in time.
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

static MADE: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// Counts how many times it is made and dropped.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

impl ChunkServer for Counted {
    type Context = ();
    type Input = u64;
    type Output = u64;

    fn new((): ()) -> Counted {
        MADE.fetch_add(1, Ordering::SeqCst);
        Counted
    }

    fn serve(&self, jobs: &mut ChunkJobs<'_, '_, u64, u64>) {
        while let Some(input) = jobs.pull() {
            jobs.answer(&input);
        }
    }
}

#[test]
fn the_state_of_a_chunk_function_is_made_once_for_each_rank_and_dropped_with_the_map() {
    local(1, |pool| {
        assert_eq!(run_all(pool.stream_of_chunks::<Counted>(&(), 1), 0..500).map_err(driver)?.len(), 500);
        Ok(())
    });
    assert_eq!((MADE.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst)), (1, 1), "also at the end of the run");
}
