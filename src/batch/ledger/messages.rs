//! The messages between the ledger and the driver: jobs, events, orders.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::batch::job::Attempt;

/// Time since the beginning of the batch.
pub(crate) type Time = Duration;

/// A job that was read from the source.
#[derive(Debug)]
pub(crate) struct Planned<W> {
    /// The place of its record in the input, from 1.
    pub number: u64,
    pub work: W,
    /// Its record as JSON, if entries about jobs contain it.
    pub input: Option<Box<RawValue>>,
    /// The hash of its record, if there is a journal.
    pub content: u128,
    /// How often it is run again if it fails, if that is more than for all jobs.
    pub retries: u32,
    /// When its record was read, in µs since 1970; 0 if nothing describes the job.
    pub read_us: u64,
}

impl<W> Planned<W> {
    /// Makes a job that is run again as often as all jobs.
    pub(crate) fn new(number: u64, work: W, input: Option<Box<RawValue>>, content: u128) -> Self {
        Planned { number, work, input, content, retries: 0, read_us: 0 }
    }

    /// Notes when its record was read, in µs since 1970.
    pub(crate) fn read_at(self, read_us: u64) -> Self {
        Planned { read_us, ..self }
    }
}

/// A job without its work, for the sinks.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Its place in the output, from 0.
    pub place: u64,
    /// The place of its record in the input, from 1.
    pub number: u64,
    /// The number of attempts, with the one under way.
    pub attempt: u32,
    /// Its record as JSON, if entries about jobs contain it.
    pub input: Option<Box<RawValue>>,
    /// When its record was read, in µs since 1970; 0 if that is not known.
    pub read_us: u64,
}

/// An event of a batch.
#[derive(Debug)]
pub(crate) enum Event<R> {
    /// Consecutive attempts, from index `first` on, succeeded; the driver has their results.
    Succeeded { first: u64, count: u64 },
    /// The attempt with this index ended.
    Ended { index: u64, result: R },
    /// The attempt with this index was not started, or was ended from outside, because the run is being stopped.
    NotStarted { index: u64 },
    /// A signal asks for the end of the run.
    Stop,
    /// Finished output does not wait any longer for the jobs before this place.
    SkipBefore { place: u64 },
}

/// An order to the driver.
#[derive(Debug)]
pub(crate) enum Order<R> {
    /// Hand the job's result to the sinks: it is final.
    Settle { job: Job, result: R },
    /// Hand the results of consecutive attempts that succeeded to the sinks: they are final.
    SettleRun(Run),
    /// Drop the output of the job at this place, because it will be run again.
    Forget { place: u64 },
    /// Log the job as cancelled, because the stop policy has ended the batch.
    Cancel { job: Job },
    /// The job is not settled in this run.
    Leave { job: Job },
    /// Start no more attempts; those that run may end.
    GiveUp,
    /// End the batch now, with all running attempts.
    EndAll,
}

/// Consecutive attempts at jobs with consecutive places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The index of the first attempt.
    pub index: u64,
    /// The place of its job.
    pub first: u64,
    pub count: u64,
}

impl Run {
    pub(super) fn is_followed_by(&self, index: u64, place: u64) -> bool {
        index == self.index + self.count && place == self.first + self.count
    }
}

/// The answer to a request for the next attempt.
#[derive(Debug)]
pub(crate) enum Next<W> {
    Attempt(Attempt<W>),
    /// Read the next job of the source, and call [`Ledger::read`] or [`Ledger::end_of_source`].
    Read,
    /// There is none at the moment: ask again after the next event, or when [`Ledger::next_due`] is reached.
    Wait,
    /// There are no more attempts.
    End,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All jobs are settled, or the batch was stopped by its own stop policy.
    Complete,
    /// By a signal, or because the pool or a sink failed.
    Interrupted,
}
