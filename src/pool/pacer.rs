//! The pace of pulling inputs: how far ahead of the results, and in blocks of which size.

use std::time::{Duration, Instant};

use super::stream::{BLOCK_JOBS, JobStream};
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::schedule::RankId;
use crate::pool::Input;

/// A block that took longer than this to fill is followed by a smaller one: the ranks may be waiting for inputs.
const BLOCK_TIME: Duration = Duration::from_micros(500);
/// A small block takes more inputs than planned, up to [`QUICK_JOBS`], as long as it is filled within this time: the inputs are not
/// what the ranks wait for, and one block costs less than several.
const QUICK_TIME: Duration = Duration::from_micros(5);
const QUICK_JOBS: usize = 16;
/// The longest time for which inputs are pulled while a result can be handed on.
const FEED_TIME: Duration = Duration::from_millis(1);
/// The automatic window, in jobs: at least `WINDOW`, and `WINDOW_PER_QUEUED` times the number that keeps the ranks busy.
const WINDOW: u64 = 4096;
const WINDOW_PER_QUEUED: u64 = 4;
/// When this many bytes of a stream's encoded inputs and results are kept on rank 0, no more inputs are pulled.
const WINDOW_BYTES: usize = 256 << 20;

/// The result of asking for the next input without waiting for it.
pub(crate) enum Next<T> {
    Item(T),
    /// There is no input at the moment.
    Later,
    /// There are no more inputs.
    End,
}

impl<T> Next<T> {
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Next::Item(item) => Next::Item(change(item)),
            Next::Later => Next::Later,
            Next::End => Next::End,
        }
    }
}

/// The progress of a stream's user with its results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandedOn {
    /// The number of jobs whose results were handed on.
    pub jobs: u64,
    /// The encoded size of the results that were received and not handed on.
    pub kept_bytes: usize,
    /// Whether one of these can be handed on at once.
    pub is_ready: bool,
}

/// The jobs of a stream that are pushed and not handed on.
struct Load {
    jobs: u64,
    bytes: usize,
    is_ready: bool,
}

/// Decides how many inputs are pulled at a time.
pub(crate) struct Pacer {
    /// The largest number of jobs that are pushed and not handed on, if the user has set one.
    fixed_window: Option<u64>,
    /// The current largest number of such jobs.
    window: u64,
    /// This number of jobs is pushed however large they are.
    least: u64,
    /// The number of jobs in a block is a multiple of this.
    multiple: usize,
    block_jobs: usize,
    turn: Instant,
    block: Instant,
    /// Whether the last turn ended because there was no input at the moment.
    lacks_input: bool,
    /// The panic that ended the inputs.
    panic: Option<JobError>,
}

impl Pacer {
    /// Returns the pacer for a pool with `threads` threads. `window` 0 follows the number of jobs that keeps the ranks busy.
    pub(crate) fn new(window: u64, threads: u32) -> Pacer {
        let now = Instant::now();
        Pacer {
            fixed_window: (window > 0).then_some(window),
            window: 0,
            least: u64::from(2 * threads),
            multiple: 1,
            block_jobs: 1,
            turn: now,
            block: now,
            lacks_input: false,
            panic: None,
        }
    }

    /// Makes blocks of whole chunks of `jobs` jobs. For inputs that are pulled without waiting and take no time to make.
    pub(crate) fn whole_chunks(mut self, jobs: u32) -> Pacer {
        self.multiple = (jobs as usize).max(1);
        self
    }

    /// Returns whether inputs should be pulled although a result can be handed on; `jobs` jobs are pushed and not handed on.
    pub(crate) fn is_hungry(&self, jobs: u64) -> bool {
        jobs < self.window - self.window / 4
    }

    /// Returns whether the last turn of pulling inputs ended with [`Next::Later`].
    pub(crate) fn lacks_input(&self) -> bool {
        self.lacks_input
    }

    /// Takes the panic that ended the inputs.
    pub(crate) fn take_panic(&mut self) -> Option<JobError> {
        self.panic.take()
    }

    /// Pulls inputs, each with a rank to avoid, until the window is full or [`FEED_TIME`] is over. Closes the stream at the end of
    /// the inputs.
    ///
    /// # Errors
    /// The pool has ended.
    pub(crate) fn feed<I: Input, O>(
        &mut self,
        stream: &mut JobStream<I, O>,
        handed_on: HandedOn,
        mut pull: impl FnMut() -> Next<(I, Option<RankId>)>,
    ) -> Result<(), Failure> {
        self.lacks_input = false;
        if stream.is_closed() {
            return Ok(());
        }
        self.begin(stream.target(), Instant::now());
        loop {
            let load = Load {
                jobs: stream.pushed() - handed_on.jobs,
                bytes: stream.input_bytes() + handed_on.kept_bytes,
                is_ready: handed_on.is_ready || stream.is_ready(),
            };
            let Some(size) = self.next_block(&load) else { return Ok(()) };
            match fill_block(stream, size, self.block, &mut pull) {
                Ok(Next::Item(())) => stream.flush()?,
                Ok(Next::Later) => {
                    self.lacks_input = true;
                    return stream.flush();
                }
                Ok(Next::End) => return stream.close(),
                Err(panic) => {
                    self.panic = Some(panic);
                    return stream.close();
                }
            }
            self.filled(Instant::now());
        }
    }

    /// Starts a turn of pulling inputs; `target` is the number of queued jobs that keeps the ranks busy.
    fn begin(&mut self, target: u64, now: Instant) {
        self.window =
            self.fixed_window.unwrap_or_else(|| (WINDOW_PER_QUEUED * target).clamp(WINDOW, u64::from(u32::MAX)));
        (self.turn, self.block) = (now, now);
    }

    /// Returns the size of the next block; `None` if this turn is over.
    fn next_block(&self, load: &Load) -> Option<BlockSize> {
        let room = self.window.saturating_sub(load.jobs);
        let is_heavy = load.bytes > WINDOW_BYTES && load.jobs >= self.least;
        if room == 0 || is_heavy || load.is_ready && self.turn.elapsed() > FEED_TIME {
            return None;
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let rounded = |jobs: usize| jobs.next_multiple_of(self.multiple).min(room);
        Some(BlockSize {
            jobs: rounded(self.block_jobs),
            quick: rounded(QUICK_JOBS.max(self.block_jobs)),
            multiple: self.multiple,
        })
    }

    /// Records that a block was filled and sent.
    fn filled(&mut self, now: Instant) {
        self.block_jobs = if now - self.block > BLOCK_TIME {
            (self.block_jobs / 2).max(1)
        } else {
            (self.block_jobs * 2).min(BLOCK_JOBS)
        };
        self.block = now;
    }
}

/// The number of jobs of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BlockSize {
    jobs: usize,
    /// If the block is filled within [`QUICK_TIME`].
    quick: usize,
    /// The block has a multiple of this many jobs.
    multiple: usize,
}

impl BlockSize {
    /// Whether a block of `count` jobs that was begun at `begin` is complete.
    fn is_complete(self, count: usize, begin: Instant) -> bool {
        count >= self.jobs && count % self.multiple == 0 && begin.elapsed() > QUICK_TIME
    }
}

/// Pushes inputs until the block has its size, fewer if their bytes fill it. `begin`: when the block was begun.
fn fill_block<I: Input, O>(
    stream: &mut JobStream<I, O>,
    size: BlockSize,
    begin: Instant,
    pull: &mut impl FnMut() -> Next<(I, Option<RankId>)>,
) -> Result<Next<()>, JobError> {
    let filled = catch(|| {
        for count in 0..size.quick {
            if stream.is_full() || size.is_complete(count, begin) {
                break;
            }
            match pull() {
                // The stream is open and the block is not full, so this cannot fail.
                Next::Item((input, avoid)) => drop(stream.push(&input, avoid)),
                Next::Later => return Next::Later,
                Next::End => return Next::End,
            }
        }
        Next::Item(())
    });
    filled.map_err(|panic| {
        let message = format!("the iterator of inputs panicked: {}", panic.message);
        let failure = Failure { kind: JobErrorKind::Input, message, location: panic.location };
        JobError::of(stream.pushed(), failure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(jobs: u64, bytes: usize) -> Load {
        Load { jobs, bytes, is_ready: false }
    }

    fn jobs(pacer: &Pacer, load: &Load) -> Option<usize> {
        pacer.next_block(load).map(|size| size.jobs)
    }

    #[test]
    fn a_small_block_takes_more_inputs_if_they_come_at_once_but_not_more_than_the_window() {
        let mut pacer = Pacer::new(0, 2);
        pacer.begin(0, Instant::now());
        assert_eq!(pacer.next_block(&load(0, 0)), Some(BlockSize { jobs: 1, quick: QUICK_JOBS, multiple: 1 }));
        assert_eq!(pacer.next_block(&load(WINDOW - 3, 0)), Some(BlockSize { jobs: 1, quick: 3, multiple: 1 }));
        let mut pacer = Pacer::new(0, 2).whole_chunks(10);
        pacer.begin(0, Instant::now());
        let size = BlockSize { jobs: 10, quick: 20, multiple: 10 };
        assert_eq!(pacer.next_block(&load(0, 0)), Some(size));
        let begin = Instant::now().checked_sub(2 * QUICK_TIME).expect("the clock is older");
        assert!(size.is_complete(10, begin) && !size.is_complete(15, begin) && !size.is_complete(9, begin));
        assert!(!size.is_complete(10, Instant::now() + QUICK_TIME), "there is time for more");
    }

    #[test]
    fn blocks_grow_while_inputs_come_fast_and_shrink_when_they_do_not() {
        let mut pacer = Pacer::new(0, 2);
        let mut now = Instant::now();
        pacer.begin(0, now);
        let mut sizes = Vec::new();
        for micros in [0, 0, 0, 1000, 1000, 1000, 1000, 0] {
            sizes.push(jobs(&pacer, &load(0, 0)));
            now += Duration::from_micros(micros);
            pacer.filled(now);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 4, 2, 1, 1].map(Some));
        for _ in 0..20 {
            pacer.filled(now);
        }
        assert_eq!(jobs(&pacer, &load(0, 0)), Some(BLOCK_JOBS));
    }

    #[test]
    fn the_window_follows_the_target_unless_it_is_set() {
        let mut pacer = Pacer::new(0, 2);
        assert!(!pacer.is_hungry(0), "no turn has begun");
        pacer.begin(5000, Instant::now());
        assert!(pacer.is_hungry(14_999) && !pacer.is_hungry(15_000));
        assert_eq!(jobs(&pacer, &load(19_999, 0)), Some(1));
        assert_eq!(jobs(&pacer, &load(20_000, 0)), None);
        pacer.begin(1, Instant::now());
        assert_eq!(jobs(&pacer, &load(WINDOW - 1, 0)), Some(1));
        assert_eq!(jobs(&pacer, &load(WINDOW, 0)), None);

        let mut pacer = Pacer::new(10, 2).whole_chunks(7);
        pacer.begin(5000, Instant::now());
        assert_eq!(jobs(&pacer, &load(0, 0)), Some(7));
        assert_eq!(jobs(&pacer, &load(5, 0)), Some(5), "no more than the window has room for");
        assert_eq!(jobs(&pacer, &load(10, 0)), None);
    }

    #[test]
    fn large_inputs_are_pulled_until_each_thread_has_two() {
        let mut pacer = Pacer::new(0, 3);
        pacer.begin(1, Instant::now());
        assert_eq!(jobs(&pacer, &load(5, WINDOW_BYTES + 1)), Some(1));
        assert_eq!(jobs(&pacer, &load(6, WINDOW_BYTES + 1)), None);
        assert_eq!(jobs(&pacer, &load(6, WINDOW_BYTES)), Some(1));
    }

    #[test]
    fn results_that_are_there_do_not_wait_long() {
        let mut pacer = Pacer::new(0, 2);
        let ready = Load { is_ready: true, ..load(1, 0) };
        pacer.begin(1, Instant::now());
        assert_eq!(jobs(&pacer, &load(1, 0)), Some(1));
        pacer.begin(1, Instant::now().checked_sub(2 * FEED_TIME).expect("the clock is older"));
        assert_eq!(jobs(&pacer, &ready), None);
        assert_eq!(jobs(&pacer, &load(1, 0)), Some(1));
    }
}
