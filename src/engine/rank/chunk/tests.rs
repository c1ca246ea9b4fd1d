//! How jobs are taken from a chunk, and when the loop is woken.

use std::sync::{Barrier, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use super::*;
use crate::engine::func::JobFunction;
use crate::engine::rank::results::FromThread;
use crate::engine::schedule::{MapId, RankId};
use crate::engine::transport::Doorbell;
use crate::engine::wire::FunctionId;

/// Longer than any machine takes.
const LIMIT: Duration = Duration::from_secs(60);

struct Job<F>(F);

impl<F: Fn() + Send + Sync> JobFunction for Job<F> {
    fn call(&self, _: &[u8], _: &mut Vec<u8>, _: &mut Stopwatch) -> Result<Option<List>, Failure> {
        (self.0)();
        Ok(None)
    }
}

/// A executor whose doorbell wakes the calling thread. It has sent something a moment ago, however long that takes.
fn executor(waiting: usize) -> Arc<Executor> {
    let doorbell = Doorbell::default();
    doorbell.install();
    let executor = Executor::new(RankId(0), doorbell);
    executor.waiting.store(waiting, Ordering::SeqCst);
    executor.sent.store(u64::MAX, Ordering::SeqCst);
    Arc::new(executor)
}

/// What the threads have sent.
fn sent(executor: &Executor) -> Vec<FromThread> {
    let mut sent = Vec::new();
    executor.take(&mut sent);
    sent
}

/// Runs a chunk as a compute thread does.
fn run(chunk: Chunk, executor: &Executor) {
    executor.waiting.fetch_sub(1, Ordering::SeqCst);
    executor.wake_if_out_of_work();
    assert!(Arc::new(chunk).run(executor, 0), "there is no time limit");
}

/// A chunk of one job.
fn chunk(id: u64, job: impl Fn() + Send + Sync + 'static) -> Chunk {
    chunk_of(id, 0, Function::OfJobs(Box::new(Job(job))))
}

/// A chunk of one job of a map of this function.
fn chunk_of(id: u64, map: u64, of: Function) -> Chunk {
    let function = FunctionId::of(|_| Err(Failure::new(JobErrorKind::Decode, "not called")), 0).unwrap();
    let map = MapFunction {
        id: MapId(map),
        function,
        context: Bytes::new(),
        executable: 0,
        made: OnceLock::new(),
        cancellation: Mutex::default(),
        _released: None,
        limit: None,
    };
    assert!(map.made.set(Ok(of)).is_ok());
    let mut inputs = Vec::new();
    wire::push_value(&mut inputs, |_| Ok::<_, Failure>(())).unwrap();
    Chunk {
        id: ChunkId(id),
        first: id,
        attempt: 1,
        cursor: Cursor::new(1),
        inputs: inputs.into(),
        map: Arc::new(map),
        limited: None,
        progress: Progress::default(),
    }
}

/// Whether the doorbell was rung, or is within the limit.
fn rung(limit: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        thread::park_timeout(limit);
        if begin.elapsed() < limit {
            return true;
        }
    }
    false
}

/// The wall time and the useful time of a chunk of one job of a new map, in ns.
fn times_of(map: u64, function: Function) -> (u64, u64) {
    let executor = executor(1);
    run(chunk_of(0, map, function), &executor);
    match &sent(&executor)[..] {
        [FromThread::Results(results)] => (results.wall_ns, results.useful_ns),
        _ => panic!("results, and nothing is sent ahead"),
    }
}

#[test]
fn useful_is_what_was_timed_of_a_function_of_jobs_and_all_the_time_of_a_function_of_chunks() {
    struct Half;
    impl JobFunction for Half {
        fn call(&self, _: &[u8], _: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
            thread::sleep(Duration::from_millis(20));
            stopwatch.time(|| thread::sleep(Duration::from_millis(5)));
            Ok(None)
        }
    }
    struct Panics;
    impl JobFunction for Panics {
        fn call(&self, _: &[u8], _: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
            stopwatch.time(|| {
                thread::sleep(Duration::from_millis(5));
                panic!("after 5 ms")
            })
        }
    }
    struct Together;
    impl ChunkFunction for Together {
        fn serve<'c>(&self, jobs: &mut dyn Jobs<'c>) {
            while jobs.pull().is_some() {
                thread::sleep(Duration::from_millis(5));
                jobs.answer(&mut |_| Ok(()));
            }
        }
    }
    let (wall, useful) = times_of(1, Function::OfJobs(Box::new(Half)));
    assert!((5_000_000..=wall - 20_000_000).contains(&useful), "{useful} ns of {wall} ns");
    let (wall, useful) = times_of(2, Function::OfJobs(Box::new(Panics)));
    assert!((5_000_000..=wall).contains(&useful), "{useful} ns of {wall} ns");
    let (wall, useful) = times_of(3, Function::OfChunks(Box::new(Together)));
    assert!(useful == wall && wall >= 5_000_000, "{useful} ns of {wall} ns");
}

#[test]
fn a_thread_keeps_the_stopwatch_of_a_map_from_chunk_to_chunk() {
    struct IsNew(Arc<Mutex<Vec<bool>>>);
    impl JobFunction for IsNew {
        fn call(&self, _: &[u8], _: &mut Vec<u8>, stopwatch: &mut Stopwatch) -> Result<Option<List>, Failure> {
            self.0.lock().unwrap().push(stopwatch.is_new());
            stopwatch.time(|| ());
            Ok(None)
        }
    }
    let executor = executor(4);
    let seen = Arc::default();
    for (chunk, map) in [(0, 7), (1, 7), (2, 8), (3, 8)] {
        run(chunk_of(chunk, map, Function::OfJobs(Box::new(IsNew(Arc::clone(&seen))))), &executor);
    }
    assert_eq!(*seen.lock().unwrap(), [true, false, true, false]);
}

#[test]
fn a_chunk_that_was_given_back_leaves_no_results_lying_about() {
    let executor = executor(2);
    run(chunk(0, || ()), &executor);
    assert!(!rung(Duration::from_millis(1)), "another chunk waits: results leave together");
    let given_back = chunk(1, || ());
    assert_eq!(given_back.cut(), 0);
    run(given_back, &executor);
    assert!(rung(LIMIT));
    assert_eq!(sent(&executor).len(), 1);
}

#[test]
fn results_do_not_lie_about_while_the_last_chunk_runs() {
    let executor = executor(2);
    run(chunk(0, || ()), &executor);
    let heard = Arc::new(Barrier::new(2));
    let long = chunk(1, {
        let heard = heard.clone();
        move || {
            heard.wait();
        }
    });
    let runner = thread::spawn({
        let executor = executor.clone();
        move || run(long, &executor)
    });
    // The job does not end before the doorbell was heard.
    let was_rung = rung(LIMIT);
    heard.wait();
    runner.join().unwrap();
    assert!(was_rung);
}

#[test]
fn jobs_are_taken_one_by_one_until_there_are_no_more() {
    let cursor = Cursor::new(2);
    assert_eq!((cursor.take(), cursor.taken()), (Some(0), 1));
    assert_eq!((cursor.take(), cursor.take(), cursor.take()), (Some(1), None, None));
    assert_eq!((cursor.taken(), cursor.cut()), (2, 2), "looking past the end takes nothing");
    assert_eq!(Cursor::new(0).take(), None);
}

#[test]
fn a_chunk_that_is_cut_keeps_what_was_taken_and_gives_up_the_rest() {
    for taken in 0..=5 {
        let cursor = Cursor::new(5);
        (0..taken).for_each(|job| assert_eq!(cursor.take(), Some(job)));
        assert_eq!((cursor.cut(), cursor.take(), cursor.cut()), (taken, None, taken));
    }
    let cursor = Cursor::new(u32::MAX);
    assert_eq!((cursor.take(), cursor.cut(), cursor.take()), (Some(0), 1, None));
}

#[test]
fn jobs_that_are_put_back_are_taken_again_or_given_up() {
    let cursor = Cursor::new(4);
    (0..3).for_each(|job| assert_eq!(cursor.take(), Some(job)));
    cursor.put_back(1);
    assert_eq!((cursor.taken(), cursor.take()), (1, Some(1)));
    assert_eq!(cursor.cut(), 2);
    // They were kept; what is put back now can be given up all the same.
    cursor.put_back(1);
    assert_eq!((cursor.cut(), cursor.take()), (1, None));
    // The cursor has run past the end.
    let cursor = Cursor::new(2);
    assert_eq!((0..5).filter_map(|_| cursor.take()).count(), 2);
    cursor.put_back(1);
    assert_eq!((cursor.take(), cursor.take()), (Some(1), None));
}

#[test]
fn jobs_that_a_function_gives_back_are_pulled_again_with_their_inputs() {
    struct GivesBack;
    impl ChunkFunction for GivesBack {
        fn serve<'c>(&self, jobs: &mut dyn Jobs<'c>) {
            let pulled = |jobs: &mut dyn Jobs<'c>, count: usize| -> Vec<u8> {
                (0..count).map(|_| jobs.pull().expect("a job")[0]).collect()
            };
            assert_eq!(pulled(jobs, 3), [0, 1, 2]);
            jobs.refuse(Failure::new(JobErrorKind::Decode, "not now"));
            assert_eq!(pulled(jobs, 1), [3]);
            jobs.give_back(0);
            jobs.give_back(2);
            jobs.answer(&mut |_| Ok(()));
            assert_eq!(pulled(jobs, 4), [1, 2, 3, 4]);
            assert!(jobs.pull().is_none());
            jobs.give_back(1);
            (1..4).for_each(|_| jobs.answer(&mut |_| Ok(())));
            assert_eq!(pulled(jobs, 1), [4]);
            jobs.answer(&mut |_| Ok(()));
        }
    }
    let executor = executor(1);
    let one = chunk_of(5, 0, Function::OfChunks(Box::new(GivesBack)));
    let mut inputs = Vec::new();
    for job in 0..5 {
        let push = |out: &mut Vec<u8>| {
            out.push(job);
            Ok::<_, Failure>(())
        };
        wire::push_value(&mut inputs, push).unwrap();
    }
    run(Chunk { inputs: inputs.into(), cursor: Cursor::new(5), ..one }, &executor);
    let sent = sent(&executor);
    assert!(matches!(sent[..2], [FromThread::Delayed(ChunkId(5)), FromThread::Delayed(ChunkId(5))]));
    let FromThread::Results(results) = &sent[2] else { panic!("the end of the chunk") };
    assert_eq!((results.count, results.rare.as_ref().map_or(0, |rare| rare.failed.len()), sent.len()), (5, 0, 3));
}

#[test]
fn threads_that_take_and_cut_at_the_same_time_agree_on_every_job() {
    for _ in 0..200 {
        let cursor = Cursor::new(1_000);
        let (taken, kept) = thread::scope(|scope| {
            let take = || (0..400).filter_map(|_| cursor.take()).count();
            let takers = [scope.spawn(take), scope.spawn(take)];
            let kept = cursor.cut();
            (takers.map(|taker| taker.join().unwrap()).iter().sum::<usize>(), kept)
        });
        assert_eq!(taken, kept as usize);
    }
}

#[test]
fn a_thread_that_puts_back_while_another_one_cuts_runs_what_was_kept() {
    for _ in 0..200 {
        let cursor = Cursor::new(1_000);
        let (ran, kept) = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut ran = 0;
                while let Some(first) = cursor.take() {
                    let _ = (0..7).filter_map(|_| cursor.take()).count();
                    cursor.put_back(first + 1);
                    ran += 1;
                }
                ran
            });
            let cuts: Vec<_> = (0..20).map(|_| cursor.cut()).collect();
            (thread.join().unwrap(), *cuts.iter().min().unwrap())
        });
        assert_eq!(ran, kept);
    }
}

#[test]
fn results_are_sent_ahead_once_and_come_again_at_the_end() {
    struct AnswersLate;
    impl ChunkFunction for AnswersLate {
        fn serve<'c>(&self, jobs: &mut dyn Jobs<'c>) {
            let answer = |jobs: &mut dyn Jobs<'c>, value: u8| {
                jobs.answer(&mut |out| {
                    out.push(value);
                    Ok(())
                });
            };
            assert!((0..3).all(|_| jobs.pull().is_some()));
            // There is nothing to send, then one result, which is sent once, then another.
            jobs.send_ahead();
            answer(jobs, 7);
            jobs.send_ahead();
            jobs.send_ahead();
            answer(jobs, 8);
            jobs.send_ahead();
            answer(jobs, 9);
            // The end of the chunk is near.
            jobs.send_ahead();
        }
    }
    let executor = executor(1);
    let one = chunk_of(5, 0, Function::OfChunks(Box::new(AnswersLate)));
    let inputs: Bytes = one.inputs.repeat(3).into();
    run(Chunk { inputs, cursor: Cursor::new(3), ..one }, &executor);
    let sent = sent(&executor);
    let early = |message: &FromThread| match message {
        FromThread::Early(Early { chunk: ChunkId(5), first, count, frames }) => Some((*first, *count, frames.clone())),
        _ => None,
    };
    assert_eq!(early(&sent[0]), Some((0, 1, vec![1, 7])));
    assert_eq!(early(&sent[1]), Some((1, 1, vec![1, 8])));
    let FromThread::Results(results) = &sent[2] else { panic!("the end of the chunk") };
    assert_eq!((results.count, results.frames.bytes(), sent.len()), (3, &[1, 7, 1, 8, 1, 9][..], 3));
}
