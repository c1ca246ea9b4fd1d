//! Draws small worlds from seeds, in which every kind of event happens.

use std::num::NonZeroU32;

use super::{Fate, MICRO, MILLI, MapPlan, Mix, RankPlan, World, mix};
use crate::engine::schedule::{ChunkSize, Policy};

/// The splitmix64 generator.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(0x5EED)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Draws a number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// Returns true with a probability of `percent` / 100.
    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// Draws a number from `least` to `most`; small orders of magnitude are as likely as large ones.
    fn magnitude(&mut self, least: u64, most: u64) -> u64 {
        let mut top = least;
        while top < most && self.percent(75) {
            top = (top * 4).min(most);
        }
        self.between(least, top)
    }

    fn threads(&mut self) -> u32 {
        u32::try_from(self.between(1, 8)).unwrap_or(1)
    }
}

impl World {
    /// Draws a small world in which any failure may happen.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Half of the worlds are kind: no rank is lost, and no map, job or run is cancelled.
        let kind = random.percent(50);
        let horizon = random.magnitude(MILLI, 4_000 * MILLI);
        let ranks = (0..random.magnitude(1, 12)).map(|_| rank(&mut random, horizon, kind)).collect();
        let maps = (0..random.magnitude(1, 6)).map(|_| map(&mut random, horizon, kind)).collect();
        let least = random.magnitude(MICRO, MILLI);
        let latency = (least, random.magnitude(least, 10 * least));
        let service = random.between(0, 3) * MICRO;
        let drains = (!kind && random.percent(20)).then(|| random.between(0, horizon));
        Self { seed, ranks, maps, in_a_row: false, latency, service, drains, judged: true }
    }

    /// Draws a world of many small maps one after the other, on ranks whose threads take some time to begin a chunk.
    #[must_use]
    pub fn small_maps(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let time = random.magnitude(50, MILLI);
        let ranks = (0..random.between(1, 3)).map(|_| RankPlan {
            threads: u32::try_from(random.between(1, 3)).unwrap_or(1),
            joins: 0,
            slowness: if random.percent(15) { random.between(100, 2_000) } else { 100 },
            broken: (0, 0),
            waking: random.magnitude(MICRO, MILLI),
            fate: Fate::Stays,
        });
        let ranks = ranks.collect();
        let maps = (0..random.between(10, 40)).map(|_| MapPlan {
            opens: random.between(0, 10 * MICRO),
            policy: Policy { chunk: ChunkSize::Auto, retries: 0 },
            function: 0,
            jobs: random.magnitude(1, 1_000),
            window: if random.percent(50) { u64::MAX } else { random.between(1, 10) },
            mix: if random.percent(50) { Mix::Constant(time) } else { Mix::Exponential(time) },
            failing: 0,
            poison: None,
            abandoned: None,
            cancels: Vec::new(),
        });
        let maps = maps.collect();
        let least = random.magnitude(MICRO, 100 * MICRO);
        let latency = (least, random.magnitude(least, 2 * least));
        Self { seed, ranks, maps, in_a_row: true, latency, service: MICRO, drains: None, judged: true }
    }

    /// Returns a world with the same maps on other ranks, none of which fails, with other latencies.
    #[must_use]
    pub fn moved(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let ranks = (0..random.between(1, 12)).map(|_| rank(&mut random, 100 * MILLI, true)).collect();
        Self { ranks, latency: (MICRO, random.magnitude(MICRO, 10 * MILLI)), drains: None, ..self.clone() }
    }
}

fn rank(random: &mut Random, horizon: u64, kind: bool) -> RankPlan {
    let joins = if random.percent(80) { random.between(0, MILLI) } else { random.between(0, horizon) };
    let slowness = if random.percent(15) { random.between(100, 2_000) } else { 100 };
    let at = joins + random.between(0, horizon);
    let reported = at + random.between(0, horizon / 4);
    let fate = match random.between(0, 9) {
        0 | 1 if !kind => Fate::Dies { at, reported },
        2 if !kind => Fate::Stalls { at, until: at + random.between(0, horizon / 2), reported },
        _ => Fate::Stays,
    };
    let waking = if random.percent(50) { random.magnitude(MICRO, MILLI) } else { 0 };
    let from = random.between(0, horizon);
    let broken = if !kind && random.percent(20) { (from, from + random.between(0, 4 * horizon)) } else { (0, 0) };
    RankPlan { threads: random.threads(), joins, slowness, broken, waking, fate }
}

fn map(random: &mut Random, horizon: u64, kind: bool) -> MapPlan {
    let chunk = match random.between(0, 2) {
        0 => ChunkSize::Fixed(
            NonZeroU32::new(u32::try_from(random.magnitude(1, 60)).unwrap_or(1)).unwrap_or(NonZeroU32::MIN),
        ),
        _ => ChunkSize::Auto,
    };
    let retries = if random.percent(50) { u32::try_from(random.between(0, 4)).unwrap_or(0) } else { 0 };
    let jobs = random.magnitude(1, 1_000) - 1;
    let time = random.magnitude(50, 50 * MILLI);
    let mix = match random.between(0, 2) {
        0 => Mix::Constant(time),
        1 => Mix::Exponential(time),
        _ => Mix::Bimodal { short: time, long: random.magnitude(time, 100 * time), percent: random.between(0, 30) },
    };
    let opens = if random.percent(60) { 0 } else { random.between(0, horizon) };
    let abandoned = (!kind && random.percent(20)).then(|| opens + random.between(0, horizon));
    let cancels = if kind || random.percent(70) { 0 } else { random.between(1, 10) };
    MapPlan {
        opens,
        policy: Policy { chunk, retries },
        function: if random.percent(50) { 0 } else { 1 },
        jobs,
        window: if random.percent(50) { u64::MAX } else { random.magnitude(1, 500) },
        mix,
        failing: if random.percent(30) { random.between(1, 60) } else { 0 },
        poison: (!kind && random.percent(5)).then(|| random.between(0, jobs)),
        abandoned,
        cancels: (0..cancels).map(|_| (random.between(opens, opens + horizon), random.between(0, jobs))).collect(),
    }
}
