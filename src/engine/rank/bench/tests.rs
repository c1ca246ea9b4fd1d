//! When the loop is woken.

use std::sync::Barrier;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::engine::func::JobFunction;

/// Longer than any machine takes.
const LIMIT: Duration = Duration::from_secs(60);

struct Job<F>(F);

impl<F: Fn() + Send + Sync> JobFunction for Job<F> {
    fn call(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), Failure> {
        (self.0)();
        Ok(())
    }
}

/// A bench whose doorbell wakes the calling thread. It has sent something a moment ago, however long that takes.
fn bench(waiting: usize) -> (Arc<Bench>, Receiver<Upward>) {
    let (results, finished) = unbounded();
    let bench = Bench {
        rank: RankId(0),
        slots_before: AtomicU32::new(0),
        results,
        doorbell: Doorbell::default(),
        started: Instant::now(),
        waiting: AtomicUsize::new(waiting),
        unsent: AtomicUsize::new(0),
        sent: AtomicU64::new(u64::MAX),
        kept: Kept::default(),
        broken: OnceLock::new(),
    };
    bench.doorbell.install();
    (Arc::new(bench), finished)
}

/// A chunk of one job.
fn chunk(id: u64, job: impl Fn() + Send + Sync + 'static) -> Chunk {
    let function = FunctionId::of(|_| Err(Failure::new(JobErrorKind::Decode, "not called")), 0).unwrap();
    let map = MapFunction {
        id: MapId(0),
        function,
        context: Bytes::new(),
        executable: 0,
        made: OnceLock::new(),
        cancellation: Mutex::default(),
        limit: None,
    };
    assert!(map.made.set(Ok(Function::OfJobs(Box::new(Job(job))))).is_ok());
    let mut inputs = Vec::new();
    wire::push_value(&mut inputs, |_| Ok::<_, Failure>(())).unwrap();
    Chunk {
        id: ChunkId(id),
        first: id,
        attempt: 1,
        taken: AtomicU64::new(1),
        inputs: inputs.into(),
        map: Arc::new(map),
        limited: None,
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

#[test]
fn a_chunk_that_was_given_back_leaves_no_results_lying_about() {
    let (bench, finished) = bench(2);
    bench.run(&chunk(0, || ()), 0);
    assert!(!rung(Duration::from_millis(1)), "another chunk waits: results leave together");
    let given_back = chunk(1, || ());
    assert_eq!(given_back.cut(), 0);
    bench.run(&given_back, 0);
    assert!(rung(LIMIT));
    assert_eq!(finished.len(), 1);
}

#[test]
fn results_do_not_lie_about_while_the_last_chunk_runs() {
    let (bench, _finished) = bench(2);
    bench.run(&chunk(0, || ()), 0);
    let heard = Arc::new(Barrier::new(2));
    let long = chunk(1, {
        let heard = heard.clone();
        move || {
            heard.wait();
        }
    });
    let runner = thread::spawn({
        let bench = bench.clone();
        move || bench.run(&long, 0)
    });
    // The job does not end before the doorbell was heard.
    let was_rung = rung(LIMIT);
    heard.wait();
    runner.join().unwrap();
    assert!(was_rung);
}
