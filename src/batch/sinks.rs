//! Where the output of a batch's jobs and the records of them go.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::attempt::{Outcome, Trouble};
use super::command::STDOUT;
use super::ledger::Job;
use crate::output::{
    DEFAULT_MEMORY, Failure, JobRecord, Order, Ordered, OutputError, Records, Status, Stream, Writer, failure_line,
};
use crate::report::Ticker;
use crate::report::escaped;

/// What a job leaves in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// What it wrote, be it much or nothing.
    AsWritten,
    /// One line, whatever becomes of it.
    OneForEach,
}

/// Where everything goes.
pub(crate) struct Sinks {
    lines: Lines,
    out: Writer,
    err: Errors,
    records: Option<(Records, PathBuf)>,
    waiting: Arc<Mutex<Waiting>>,
    hosts: Vec<String>,
    ticker: Option<Ticker>,
    /// Behind the last place that is settled.
    end: u64,
}

/// What jobs say of themselves. Results must not suffer when its reader goes away: then nobody is told any more.
struct Errors(Option<Writer>);

impl Errors {
    fn tell(&mut self, tell: impl FnOnce(&mut Writer) -> Result<(), OutputError>) -> Result<(), OutputError> {
        match self.0.as_mut().map(tell) {
            Some(Err(error)) if error.is_closed() => self.0 = None,
            Some(told) => return told,
            None => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), OutputError> {
        self.tell(Writer::flush)?;
        self.0.map_or(Ok(()), Writer::finish)
    }
}

/// Output that is not handed on, and what went wrong with it while nobody looked.
struct Waiting {
    ordered: Ordered,
    trouble: Option<OutputError>,
}

impl Waiting {
    /// Hands on what is due.
    fn drain(&mut self, out: &mut Writer, err: &mut Errors) -> Result<(), OutputError> {
        self.ordered.drain(&mut |_, stream, bytes| match stream {
            Stream::Out => out.write_all(bytes),
            Stream::Err => err.tell(|err| err.write_all(bytes)),
        })
    }
}

/// Takes the pieces of output that come ahead of results.
pub(crate) struct Parts(Arc<Mutex<Waiting>>);

impl Parts {
    pub(crate) fn take(&self, place: u64, stream: u8, bytes: &[u8]) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = if stream == STDOUT { Stream::Out } else { Stream::Err };
        if let Err(error) = waiting.ordered.part(place, stream, bytes) {
            waiting.trouble.get_or_insert(error);
        }
    }
}

impl Sinks {
    /// `hosts` are those of the ranks.
    pub(crate) fn new(
        lines: Lines,
        unordered: bool,
        out: Writer,
        err: Writer,
        records: Option<(Records, PathBuf)>,
        hosts: Vec<String>,
    ) -> Self {
        let order = if unordered { Order::Settled } else { Order::Places };
        let waiting = Waiting { ordered: Ordered::new(order, DEFAULT_MEMORY), trouble: None };
        Sinks {
            lines,
            out,
            err: Errors(Some(err)),
            records,
            waiting: Arc::new(Mutex::new(waiting)),
            hosts,
            ticker: None,
            end: 0,
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts(self.waiting.clone())
    }

    /// The file of the records, if there are any.
    pub(crate) fn records(&self) -> Option<&std::path::Path> {
        self.records.as_ref().map(|(_, path)| path.as_path())
    }

    /// Whether every job leaves something behind, whatever becomes of it.
    pub(super) fn tells_each_job(&self) -> bool {
        self.records.is_some() || self.lines == Lines::OneForEach
    }

    /// Takes what a job has come to, and hands on what is due.
    pub(super) fn settle<W>(&mut self, job: &Job<W>, mut outcome: Outcome) -> Result<(), OutputError> {
        if let Some((records, _)) = &mut self.records {
            if let Some(record) = record(job, &outcome, &self.hosts) {
                records.write(&record)?;
            }
        }
        self.end = self.end.max(job.place + 1);
        let mut out = std::mem::take(&mut outcome.out).into_vec();
        let mut err = std::mem::take(&mut outcome.err).into_vec();
        if let Some(trouble) = &outcome.trouble {
            tell(job.number, outcome.status, trouble, self.lines, &mut out, &mut err);
        }
        self.hand_over(job.place, out, &err)
    }

    /// A job will not come to its end in this run.
    pub(super) fn leave_out<W>(&mut self, job: &Job<W>) {
        if self.lines == Lines::OneForEach && job.place < self.end {
            let line = Failure { job: job.number, kind: "stopped", message: "the run was stopped before its end" };
            // What is wrong with the output shows when it is finished.
            let _ = self.hand_over(job.place, failure_line(line), &[]);
        }
    }

    fn hand_over(&mut self, place: u64, out: Vec<u8>, err: &[u8]) -> Result<(), OutputError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = waiting.trouble.take() {
            return Err(error);
        }
        waiting.ordered.settle(place, out, err)?;
        waiting.drain(&mut self.out, &mut self.err)
    }

    /// What an attempt has written so far counts for nothing: the job is run again.
    pub(super) fn forget(&mut self, place: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ordered.forget_parts(place);
    }

    /// Hands everything that is due to the system.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        if let Some((records, _)) = &mut self.records {
            records.flush()?;
        }
        if let Some(error) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).trouble.take() {
            return Err(error);
        }
        let err = &mut self.err;
        match &self.ticker {
            Some(ticker) => ticker.aside(|| err.tell(Writer::flush))?,
            None => err.tell(Writer::flush)?,
        }
        self.out.flush()
    }

    /// What shows progress on standard error meanwhile.
    pub(crate) fn show(&mut self, ticker: Option<Ticker>) {
        self.ticker = ticker;
    }

    /// Hands on what waits behind jobs that will not come to their end.
    pub(crate) fn close_gaps(&mut self) -> Result<(), OutputError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.ordered.skip_open();
        waiting.drain(&mut self.out, &mut self.err)
    }

    /// Ends all outputs. `whole`: the output is all that was asked for.
    pub(crate) fn finish(self, whole: bool) -> Result<(), OutputError> {
        let Sinks { out, err, records, .. } = self;
        if let Some((records, _)) = records {
            records.finish()?;
        }
        err.finish()?;
        if whole { out.finish() } else { out.leave_partial() }
    }
}

/// Puts into a job's output what went wrong with it.
fn tell(number: u64, status: Status, trouble: &Trouble, lines: Lines, out: &mut Vec<u8>, err: &mut Vec<u8>) {
    let Trouble { kind, message, traceback, .. } = trouble;
    match lines {
        Lines::OneForEach => {
            *out = failure_line(Failure { job: number, kind, message });
            if status != Status::Cancelled {
                let text = escaped(traceback.as_ref().unwrap_or(message));
                err.extend_from_slice(format!("rankpool: job {number}: {}\n", text.trim_end()).as_bytes());
            }
        }
        // A command that fails says itself why.
        Lines::AsWritten => match status {
            Status::Spawn | Status::Timeout | Status::Lost => {
                err.extend_from_slice(format!("rankpool: job {number}: {}\n", escaped(message)).as_bytes());
            }
            Status::Ok | Status::Failed | Status::Signal | Status::Cancelled => {}
        },
    }
}

fn record<'a, W>(job: &'a Job<W>, outcome: &'a Outcome, hosts: &'a [String]) -> Option<JobRecord<'a>> {
    let trouble = outcome.trouble.as_deref();
    let mut record = JobRecord::new(job.number, job.input.as_deref()?, outcome.status);
    // A rank that is lost had begun it.
    record.attempts = if outcome.status == Status::Lost { job.attempt } else { job.attempt - 1 };
    record.output_bytes = Some(outcome.output_bytes);
    record.signal = trouble.and_then(|trouble| trouble.signal);
    record.exit = trouble.and_then(|trouble| trouble.exit);
    record.message = trouble.map(|trouble| trouble.message.as_str());
    record.traceback = trouble.and_then(|trouble| trouble.traceback.as_deref());
    if let Some(run) = &outcome.run {
        record.attempts = job.attempt;
        record.host = hosts.get(run.rank as usize).map(String::as_str);
        record.rank = Some(run.rank);
        record.slot = Some(run.slot.into());
        record.start = Some(UNIX_EPOCH + Duration::from_micros(run.start));
        record.seconds = Duration::try_from_secs_f64(run.seconds).ok();
        if let Some(usage) = run.usage {
            record.exit = record.exit.or((outcome.status == Status::Ok).then_some(0));
            record.user = Duration::try_from_secs_f64(usage.user).ok();
            record.system = Duration::try_from_secs_f64(usage.system).ok();
            record.max_rss = Some(usage.max_rss);
        }
    }
    Some(record)
}
