//! A batch without ranks, sources and outputs, for the benches: its attempts go through the ledger alone.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::batch::ledger::{Event, Ledger, Next, Order, Planned};
use crate::batch::{AttemptResult, Cause, RetryPolicy, Run, StopPolicy};
use crate::journal::Status;

/// The work of an attempt: the values that are filled into a command.
type Work = Vec<String>;

/// The jobs of a batch.
pub struct Jobs(Vec<Planned<Work>>);

/// A batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// The number of jobs.
    pub jobs: u64,
    /// The number of jobs that are under way at the same time.
    pub window: u64,
    /// The number of jobs whose results come together.
    pub chunk: u64,
    /// Whether there is a job log: the ledger then keeps the record of each job, and each job is settled by itself.
    pub is_logged: bool,
    /// The first attempt at one of this number of jobs fails, and the job is run again; 0 if none fails.
    pub fails: u64,
}

impl Batch {
    /// Returns its jobs as they are read from a source.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs((1..=self.jobs).map(|number| self.planned(number)).collect())
    }

    /// Runs these jobs, and returns the number of jobs that have succeeded and the number of retries.
    ///
    /// # Panics
    /// If the ledger leaves jobs unsettled.
    #[must_use]
    pub fn run(&self, jobs: Jobs) -> (u64, u64) {
        let retries = u32::from(self.fails > 0);
        let retry = RetryPolicy { retries, on: vec![Status::Failed], pause: Duration::ZERO };
        let mut ledger = Ledger::new(retry, StopPolicy::default(), 1, Some(self.jobs));
        let (mut handed_out, mut ended, mut source) = (Vec::new(), 0, jobs.0.into_iter());
        let (mut settled, mut orders) = (0, Vec::new());
        loop {
            while ((handed_out.len() - ended) as u64) < self.window {
                let attempt = match ledger.next(Duration::ZERO) {
                    Next::Attempt(attempt) => attempt,
                    Next::Read => match source.next() {
                        Some(planned) => ledger.read(planned),
                        None => {
                            ledger.end_of_source();
                            continue;
                        }
                    },
                    Next::Wait | Next::End => break,
                };
                handed_out.push((attempt.number, attempt.attempt));
            }
            let end = handed_out.len().min(ended + self.chunk as usize);
            if end == ended {
                return (settled, ledger.counts().retried);
            }
            self.end(&mut ledger, ended as u64, &handed_out[ended..end], &mut orders);
            ended = end;
            settled += orders.drain(..).map(|order| count(&order)).sum::<u64>();
        }
    }

    /// Plans a job as a batch of commands does: with the values of its record.
    fn planned(&self, number: u64) -> Planned<Work> {
        let values = vec![format!("input-{number:06}.dat"), number.to_string()];
        let record = self.is_logged.then(|| {
            RawValue::from_string(format!(r#"{{"file":"input-{number:06}.dat","n":{number}}}"#)).expect("a record")
        });
        Planned::new(number, values, record, 0)
    }

    /// Whether this attempt fails.
    fn is_failure(&self, number: u64, attempt: u32) -> bool {
        attempt == 1 && number.checked_rem(self.fails) == Some(0)
    }

    /// Ends these attempts, of which the first has this index.
    fn end(
        &self,
        ledger: &mut Ledger<Work, AttemptResult>,
        first: u64,
        attempts: &[(u64, u32)],
        orders: &mut Vec<Order<AttemptResult>>,
    ) {
        let event = |index: u64, &(number, attempt): &(u64, u32)| {
            let run = Some(Run { rank: 1, slot: 1, start_us: 1, seconds: 0.01, usage: None });
            let result = match self.is_failure(number, attempt) {
                true => AttemptResult::without_output(Status::Failed, Cause::new("exit", "exit code 1"), run),
                false => AttemptResult::ok(Vec::new(), run),
            };
            Event::Ended { index, result }
        };
        if self.is_logged {
            let events = (first..).zip(attempts).map(|(index, attempt)| event(index, attempt));
            events.for_each(|event| ledger.on(event, Duration::ZERO, orders));
            return;
        }
        // Those between two failures come together.
        let mut begin = first;
        for part in attempts.split_inclusive(|(number, attempt)| self.is_failure(*number, *attempt)) {
            let end = begin + part.len() as u64;
            let failed = part.last().filter(|(number, attempt)| self.is_failure(*number, *attempt));
            let succeeded = end - begin - u64::from(failed.is_some());
            if succeeded > 0 {
                ledger.on(Event::Succeeded { first: begin, count: succeeded }, Duration::ZERO, orders);
            }
            if let Some(failed) = failed {
                ledger.on(event(end - 1, failed), Duration::ZERO, orders);
            }
            begin = end;
        }
    }
}

/// Returns the number of jobs that an order settles.
fn count(order: &Order<AttemptResult>) -> u64 {
    match order {
        Order::Settle { .. } => 1,
        Order::SettleRun(run) => run.count,
        Order::Forget { .. } => 0,
        Order::Cancel { .. } | Order::Leave { .. } | Order::GiveUp | Order::EndAll => panic!("no job is cancelled"),
    }
}
