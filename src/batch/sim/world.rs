//! The settings of a simulated world: its jobs, and how each of their attempts ends.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::batch::job::{AttemptEnd, Room};
use crate::batch::policy::{MaxFailures, RetryPolicy, StopPolicy};
use crate::journal::Status;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The result of an attempt: which job and attempt it is of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Result {
    pub(super) number: u64,
    pub(super) attempt: u32,
    pub(super) status: Status,
    pub(super) out_of_memory: bool,
    pub(super) has_output: bool,
}

impl AttemptEnd for Result {
    fn status(&self) -> Status {
        self.status
    }

    fn rank(&self) -> Option<u32> {
        Some(self.attempt)
    }

    fn ran_out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    fn drop_output(&mut self) {
        self.has_output = false;
    }
}

/// The settings of a world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) jobs: u64,
    pub(super) retry: RetryPolicy,
    pub(super) stop: StopPolicy,
    pub(super) knows_total: bool,
    pub(super) recorded: bool,
    /// There is a journal: each run reads all records, and takes over the jobs that are in it.
    pub(super) journaled: bool,
    /// Attempts that the pool takes at once.
    pub(super) window: usize,
    /// For each job by its number, how many attempts fail, and how.
    pub(super) failures: BTreeMap<u64, (u32, Status)>,
    /// The jobs that run out of memory in all rooms but the last ones, and in how many.
    pub(super) needs: BTreeMap<u64, u32>,
    /// Whether they are run again with more room.
    pub(super) gives_room: bool,
    /// The number of the record that cannot be read.
    pub(super) bad_record: Option<u64>,
    /// The source has nothing at the moment, this often in a hundred reads.
    pub(super) pauses: u32,
    /// The steps after which a signal comes, the process is killed, or a sink fails.
    pub(super) signal: Option<u32>,
    pub(super) kill: Option<u32>,
    pub(super) sink_fails: Option<u32>,
}

/// An attempt in the pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnderWay {
    pub(super) index: u64,
    pub(super) number: u64,
    pub(super) attempt: u32,
    pub(super) room: Room,
    /// The number of attempts before it that ran out of memory and were followed by one with more room.
    pub(super) uncounted: u32,
}

impl World {
    pub(super) fn draw(random: &mut ChaCha8Rng) -> World {
        let jobs = random.random_range(0..40);
        let statuses = [Status::Failed, Status::Signal, Status::Timeout, Status::Spawn, Status::Lost];
        let failures = (1..=jobs).filter_map(|number| {
            let fails = random.random_bool(0.4);
            let failure = (random.random_range(1..5), *statuses.choose(random)?);
            fails.then_some((number, failure))
        });
        let failures = failures.collect();
        let needs = (1..=jobs).filter_map(|number| {
            let needs = random.random_bool(0.2);
            needs.then(|| (number, random.random_range(1..4)))
        });
        let needs = needs.collect();
        let on = statuses.into_iter().filter(|_| random.random_bool(0.7)).collect();
        let mut rarely = |chance: f64, most: u32| random.random_bool(chance).then(|| random.random_range(0..most));
        let (signal, kill, sink_fails) = (rarely(0.3, 120), rarely(0.3, 120), rarely(0.1, 60));
        let max_failures = match random.random_range(0..6) {
            0 => Some(MaxFailures::Jobs(random.random_range(0..5))),
            1 => Some(MaxFailures::Share(0.2)),
            _ => None,
        };
        World {
            jobs,
            retry: RetryPolicy { retries: random.random_range(0..4), on, pause: SECOND * random.random_range(0..3) },
            stop: StopPolicy { max_failures, on_success: random.random_bool(0.1) },
            knows_total: random.random(),
            recorded: random.random(),
            journaled: random.random(),
            window: random.random_range(1..9),
            failures,
            needs,
            gives_room: random.random_bool(0.7),
            bad_record: random.random_bool(0.1).then(|| random.random_range(1..=jobs + 1)),
            pauses: random.random_range(0..50),
            signal,
            kill,
            sink_fails,
        }
    }

    pub(super) fn result(&self, of: UnderWay) -> Result {
        let UnderWay { number, attempt, room, uncounted, .. } = of;
        let out_of_memory = self.needs.get(&number).is_some_and(|rooms| (room as u32) < *rooms);
        let status = match self.failures.get(&number) {
            _ if out_of_memory => Status::Signal,
            Some((times, status)) if attempt - uncounted <= *times => *status,
            _ => Status::Ok,
        };
        Result { number, attempt, status, out_of_memory, has_output: true }
    }

    /// Whether a job always runs out of memory.
    pub(super) fn is_too_large(&self, number: u64) -> bool {
        self.needs.get(&number).is_some_and(|rooms| !self.gives_room || *rooms > Room::Alone as u32)
    }
}
