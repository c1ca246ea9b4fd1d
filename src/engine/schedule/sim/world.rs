//! What a world consists of: everything that a run depends on, drawn or written down beforehand.

use crate::engine::schedule::{MapId, Policy};

/// Nanoseconds in units that people read.
pub const MICRO: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MILLI: u64 = 1_000_000;

/// How long jobs take.
#[derive(Clone, Copy, Debug)]
pub enum Mix {
    /// All the same (ns).
    Constant(u64),
    /// Exponentially distributed around this mean (ns).
    Exponential(u64),
    /// Short ones, and so many percent of long ones (ns).
    Bimodal {
        /// Duration of most jobs.
        short: u64,
        /// Duration of the others.
        long: u64,
        /// How many in a hundred are long.
        percent: u64,
    },
}

/// What becomes of a rank.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It lives to the end.
    Stays,
    /// It ends at one time; the master is told at another.
    Dies {
        /// When it ends.
        at: u64,
        /// When the master is told.
        told: u64,
    },
    /// What it says from one time on arrives only from a later time on; in between or after the master gives it up.
    Stalls {
        /// When it falls silent.
        at: u64,
        /// When its words arrive.
        until: u64,
        /// When the master is told that it is lost.
        told: u64,
    },
}

/// A rank of a world.
#[derive(Clone, Debug)]
pub struct RankPlan {
    /// How many threads it has.
    pub threads: u32,
    /// When it says that it is there.
    pub joins: u64,
    /// How long its jobs take, in percent of what they should.
    pub slowness: u64,
    /// From when to when everything fails there at once.
    pub broken: (u64, u64),
    /// How long a thread that is out of work takes to begin a chunk that arrives (ns).
    pub waking: u64,
    /// What becomes of it.
    pub fate: Fate,
}

/// A map of a world.
#[derive(Clone, Debug)]
pub struct MapPlan {
    /// When it is opened, or how long after the end of the one before it.
    pub opens: u64,
    /// What it asks of the scheduler.
    pub policy: Policy,
    /// Whose jobs they are.
    pub function: i64,
    /// How many jobs it has.
    pub jobs: u64,
    /// How many of them may be unsettled at once.
    pub window: u64,
    /// How long they take.
    pub mix: Mix,
    /// How many attempts in a hundred fail.
    pub failing: u64,
    /// A job that kills its rank.
    pub poison: Option<u64>,
    /// When nobody wants it any more.
    pub abandoned: Option<u64>,
    /// When somebody asks to cancel which job.
    pub cancels: Vec<(u64, u64)>,
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct World {
    /// Of the durations, failures and latencies.
    pub seed: u64,
    /// The ranks, by id.
    pub ranks: Vec<RankPlan>,
    /// The maps, by id.
    pub maps: Vec<MapPlan>,
    /// Whether each map begins when the one before it is released.
    pub in_a_row: bool,
    /// Shortest and longest latency of a message (ns).
    pub latency: (u64, u64),
    /// How long the master takes for a message, in or out (ns).
    pub service: u64,
    /// When the run is to end early.
    pub drains: Option<u64>,
    /// Whether every step is checked; a measurement goes without.
    pub judged: bool,
}

/// Draws numbers that depend on the given ones only.
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
    /// How long a job takes on a rank of normal speed (ns).
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

    /// Whether an attempt at a job fails.
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
