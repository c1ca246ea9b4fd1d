//! Runs built-in functions. The rank makes a line of JSON from each result.

use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Runner;
use crate::batch::job::{Attempt, AttemptResult, Cause, Run};
use crate::batch::sinks::Lines;
use crate::engine::catch::catch;
use crate::engine::error::{Failure, JobError, JobErrorKind};
use crate::engine::func::{self, Builder, Value};
use crate::engine::rank;
use crate::journal::Status;
use crate::pool::{JobStream, Pool};

/// The most characters of the parameters in a journal.
const LONGEST_PARAMETERS: usize = 200;

/// A built-in function with its context. `T` is its input.
pub(crate) struct KernelRunner<C, T> {
    context: C,
    /// The function whose results are lines.
    plain: Builder,
    /// The function whose results are encoded [`AttemptResult`]s, for a job log.
    logged: Builder,
    /// The time limit of a job.
    timeout: Option<Duration>,
    input: PhantomData<fn(T)>,
}

impl<T: Value> KernelRunner<(), T> {
    /// Makes a runner of a function of an input.
    pub(crate) fn plain<F, O>(function: F, timeout: Option<Duration>) -> Self
    where
        F: Fn(T) -> O + Copy + Send + Sync + 'static,
        O: Serialize + 'static,
    {
        KernelRunner::with_context((), move |&(), input| function(input), timeout)
    }
}

impl<C: Value + Send + Sync, T: Value> KernelRunner<C, T> {
    /// Makes a runner of a function of a context, which is sent once to each rank, and an input.
    pub(crate) fn with_context<F, O>(context: C, function: F, timeout: Option<Duration>) -> Self
    where
        F: Fn(&C, T) -> O + Copy + Send + Sync + 'static,
        O: Serialize + 'static,
    {
        KernelRunner {
            context,
            plain: func::json_lines(function),
            logged: func::with_context(move |context: &C, input| run_attempt(|| function(context, input))),
            timeout,
            input: PhantomData,
        }
    }
}

/// Runs one attempt on the calling compute thread, and measures it.
fn run_attempt<O: Serialize>(function: impl FnOnce() -> O) -> AttemptResult {
    let (rank, slot) = rank::current_job().map_or((0, 0), |job| (job.rank, job.slot + 1));
    let (start, began) = (SystemTime::now(), Instant::now());
    let value = catch(function);
    let run = Some(Run::new(rank, slot, start, began.elapsed()));
    let cause = match value {
        Ok(value) => match func::json_line(&value) {
            Ok(line) => return AttemptResult::ok(line, run),
            Err(failure) => Cause::new(&failure.kind.to_string(), failure.message),
        },
        Err(panic) => Cause::new("panic", panic.message),
    };
    rank::mark_failed();
    AttemptResult::without_output(Status::Failed, cause, run)
}

impl<C, T> Runner for KernelRunner<C, T>
where
    C: Value + Send + Sync,
    T: Value + Clone + Send,
{
    type Work = T;
    type Input = T;
    type Output = ();

    fn lines(&self) -> Lines {
        Lines::OneForEach { echo_errors: false }
    }

    fn open(&self, pool: &Pool, chunk: u32, logged: bool) -> Result<JobStream<T, ()>, Failure> {
        let builder = if logged { self.logged } else { self.plain };
        pool.stream_of(builder, &self.context, chunk, self.timeout)
    }

    fn input(&self, attempt: Attempt<T>) -> T {
        attempt.work
    }

    fn has_plain_results(&self) -> bool {
        true
    }

    fn result(&self, index: u64, value: &[u8], logged: bool) -> Result<AttemptResult, JobError> {
        if logged { super::decode_result(index, value) } else { Ok(AttemptResult::ok(value.to_vec(), None)) }
    }

    fn status(&self, kind: JobErrorKind) -> (Status, String) {
        let status = match kind {
            JobErrorKind::Cancelled => Status::Cancelled,
            JobErrorKind::Lost => Status::Lost,
            JobErrorKind::TimedOut => Status::Timeout,
            _ => Status::Failed,
        };
        (status, kind.to_string())
    }

    /// Returns the context of the function as JSON; its hash, if it is long.
    fn parameters(&self) -> Option<String> {
        let json = serde_json::to_string(&self.context).ok()?;
        let is_long = json.len() > LONGEST_PARAMETERS;
        Some(if is_long { format!("hash {:016x}", xxh3_64(json.as_bytes())) } else { json })
    }

    /// Returns the input of the function as JSON.
    fn show(&self, _: u64, work: &T) -> Vec<u8> {
        func::json_line(work).unwrap_or_else(|failure| failure.message.into_bytes())
    }
}
