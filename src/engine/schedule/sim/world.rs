//! The description of a simulated world: everything that a run depends on.

use crate::engine::schedule::{MapId, Policy};

/// A microsecond in nanoseconds.
pub const MICRO: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLI: u64 = 1_000_000;

/// The distribution of the durations of jobs.
#[derive(Clone, Copy, Debug)]
pub enum Mix {
    /// All the same (ns).
    Constant(u64),
    /// Exponentially distributed around this mean (ns).
    Exponential(u64),
    /// Short ones, and a percentage of long ones (ns).
    Bimodal {
        /// Duration of most jobs.
        short: u64,
        /// Duration of the others.
        long: u64,
        /// The percentage of long ones.
        percent: u64,
    },
}

/// Whether and how a rank fails.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It lives to the end.
    Stays,
    /// It dies; the master learns of that later.
    Dies {
        /// The time at which it dies.
        at: u64,
        /// The time at which it is reported as lost.
        reported: u64,
    },
    /// Its messages from `at` on are delayed until `until`; it is reported as lost before or after that.
    Stalls {
        /// The start of the delay.
        at: u64,
        /// The end of the delay.
        until: u64,
        /// The time at which it is reported as lost.
        reported: u64,
    },
}

/// A rank of a world.
#[derive(Clone, Debug)]
pub struct RankPlan {
    /// Its number of threads.
    pub threads: u32,
    /// The time at which it joins.
    pub joins: u64,
    /// The duration of its jobs, in percent of the normal one.
    pub slowness: u64,
    /// The start and the end of the time in which all jobs fail there at once.
    pub broken: (u64, u64),
    /// The time that an idle thread takes to begin a chunk that arrives (ns).
    pub waking: u64,
    /// Whether and how it fails.
    pub fate: Fate,
}

/// A map of a world.
#[derive(Clone, Debug)]
pub struct MapPlan {
    /// The time at which it is opened, or, if maps run in a row, the pause after the map before it.
    pub opens: u64,
    /// Its options.
    pub policy: Policy,
    /// The number of its function.
    pub function: i64,
    /// The number of its jobs.
    pub jobs: u64,
    /// The largest number of its jobs that are submitted and not settled.
    pub window: u64,
    /// The durations of its jobs.
    pub mix: Mix,
    /// The percentage of attempts that fail.
    pub failing: u64,
    /// A job that kills its rank.
    pub poison: Option<u64>,
    /// The time at which the driver abandons it.
    pub abandoned: Option<u64>,
    /// Requests to cancel a job: the time and the job.
    pub cancels: Vec<(u64, u64)>,
}

/// A simulated world: everything that a run depends on.
#[derive(Clone, Debug)]
pub struct World {
    /// The seed of the durations, failures and latencies.
    pub seed: u64,
    /// The ranks, by id.
    pub ranks: Vec<RankPlan>,
    /// The maps, by id.
    pub maps: Vec<MapPlan>,
    /// Whether each map begins when the one before it is released.
    pub in_a_row: bool,
    /// The shortest and the longest latency of a message (ns).
    pub latency: (u64, u64),
    /// The time that the master takes for a message, in or out (ns).
    pub service: u64,
    /// The time at which the run is asked to end early.
    pub drains: Option<u64>,
    /// Whether every step is checked; false for measurements.
    pub judged: bool,
}

/// Returns a pseudo-random number that depends on `numbers` only.
pub(super) fn draw_from(numbers: &[u64]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for number in numbers {
        state = mix(state ^ *number).wrapping_add(0x9E37_79B9_7F4A_7C15);
    }
    mix(state)
}

/// The output function of splitmix64 (Steele, Lea, Flood 2014).
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl World {
    /// Returns the duration of a job on a rank of normal speed (ns).
    #[must_use]
    pub fn duration(&self, map: MapId, job: u64) -> u64 {
        let draw = draw_from(&[self.seed, 1, map.0, job]);
        match self.plan(map).mix {
            Mix::Constant(time) => time,
            Mix::Exponential(mean) => exponential(mean, draw),
            Mix::Bimodal { short, long, percent } => {
                if draw % 100 < percent {
                    long
                } else {
                    short
                }
            }
        }
    }

    /// Returns whether an attempt at a job fails.
    pub(super) fn fails(&self, map: MapId, job: u64, attempt: u32) -> bool {
        draw_from(&[self.seed, 2, map.0, job, u64::from(attempt)]) % 100 < self.plan(map).failing
    }

    pub(super) fn plan(&self, map: MapId) -> &MapPlan {
        &self.maps[usize::try_from(map.0).expect("a map of this world")]
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random draw"
)]
fn exponential(mean: u64, draw: u64) -> u64 {
    let uniform = ((draw >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    (-uniform.ln() * mean as f64) as u64
}
