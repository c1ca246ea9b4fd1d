//! Where the time of the slots went, and how long jobs waited before and after they ran.

use std::collections::HashMap;

use super::spread::Spread;
use crate::journal::job::Job;

/// With more slots, those that appear last are not looked at.
const MOST_SLOTS: usize = 1 << 20;

/// One slot in one run.
#[derive(Debug, Clone, Copy)]
struct Slot {
    first_us: u64,
    last_us: u64,
    ran_ns: u64,
}

/// The time of all slots, summed up, in s.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SlotTime {
    /// From the start of the run until each slot began its first job.
    pub start_up: f64,
    /// In jobs.
    pub run: f64,
    /// From the end of a job to the start of the next one.
    pub between: f64,
    /// From the end of each slot's last job to the end of the run's last job.
    pub tail: f64,
}

impl SlotTime {
    pub(crate) fn total(&self) -> f64 {
        self.start_up + self.run + self.between + self.tail
    }

    /// Returns the part of the time that was spent in jobs, from 0 to 1.
    pub(crate) fn busy(&self) -> f64 {
        if self.total() > 0.0 { self.run / self.total() } else { 0.0 }
    }
}

/// The phases of jobs.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    /// The slots of the run whose entries are read now.
    slots: HashMap<(u32, u64), Slot>,
    /// When that run began, if it is known.
    began_us: Option<u64>,
    time: SlotTime,
    /// The most slots of one run.
    most_slots: usize,
    /// The wall time of all runs, in s.
    wall: f64,
    /// How long jobs waited until they were run, in ns.
    pub queued: Spread,
    /// How long results took to rank 0, in ns.
    pub returned: Spread,
}

impl Phases {
    /// Begins with the entries of another run.
    pub(crate) fn begin_run(&mut self, began_us: Option<u64>) {
        self.end_run();
        self.began_us = began_us;
    }

    /// Takes a more precise start of the run whose entries are read now.
    pub(crate) fn set_began(&mut self, began_us: Option<u64>) {
        self.began_us = began_us.or(self.began_us);
    }

    pub(crate) fn add(&mut self, job: &Job<'_>) {
        let ns = |seconds: f64| (seconds.max(0.0) * 1e9) as u64;
        if let Some(queued) = job.fields.queued {
            self.queued.add(ns(queued));
        }
        if let Some(returned) = job.fields.returned {
            self.returned.add(ns(returned));
        }
        let (Some((start, end)), Some(ran_ns), Some(rank)) = (job.span_us(), job.ns, job.fields.rank) else { return };
        let place = (rank, job.fields.slot.unwrap_or(0));
        if self.slots.len() >= MOST_SLOTS && !self.slots.contains_key(&place) {
            return;
        }
        let slot = self.slots.entry(place).or_insert(Slot { first_us: start, last_us: end, ran_ns: 0 });
        slot.first_us = slot.first_us.min(start);
        slot.last_us = slot.last_us.max(end);
        slot.ran_ns = slot.ran_ns.saturating_add(ran_ns);
    }

    fn end_run(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        self.most_slots = self.most_slots.max(slots.len());
        let first = slots.values().map(|slot| slot.first_us).min();
        let last = slots.values().map(|slot| slot.last_us).max();
        let (Some(first), Some(last)) = (first, last) else { return };
        // Clocks of hosts differ a little.
        let began = self.began_us.map_or(first, |began| began.min(first));
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e6;
        self.wall += seconds(began, last);
        for slot in slots.values() {
            let ran = slot.ran_ns as f64 / 1e9;
            self.time.start_up += seconds(began, slot.first_us);
            self.time.run += ran;
            self.time.between += (seconds(slot.first_us, slot.last_us) - ran).max(0.0);
            self.time.tail += seconds(slot.last_us, last);
        }
    }

    /// Returns the time of all slots, the number of slots, and the wall time of all runs in s; `None` if it is not known when jobs ran.
    pub(crate) fn finish(&mut self) -> Option<(SlotTime, usize, f64)> {
        self.end_run();
        (self.most_slots > 0).then_some((self.time, self.most_slots, self.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Status;
    use crate::journal::entries::JobEntryRead;

    fn add(phases: &mut Phases, slot: u64, start_ms: u64, seconds: f64) {
        let text = format!(
            r#"{{"rank":0,"slot":{slot},"start":"1970-01-01T00:00:{:02}.{:03}Z","seconds":{seconds},"queued":{seconds}}}"#,
            start_ms / 1000,
            start_ms % 1000
        );
        let entry = JobEntryRead { number: 1, status: Status::Ok, description: Some(text.as_bytes()), stderr: &[] };
        phases.add(&Job::new(&entry));
    }

    #[test]
    fn the_time_of_slots_is_divided_without_a_rest_for_each_run_by_itself() {
        let mut phases = Phases::default();
        phases.begin_run(Some(1_000_000));
        add(&mut phases, 1, 3_000, 2.0);
        add(&mut phases, 1, 1_500, 1.0);
        add(&mut phases, 2, 2_000, 0.5);
        // Another run, a while later.
        phases.begin_run(None);
        add(&mut phases, 1, 50_000, 1.0);
        let (time, slots, wall) = phases.finish().expect("it is known");
        assert_eq!((slots, wall), (2, 5.0));
        assert_eq!(time, SlotTime { start_up: 1.5, run: 4.5, between: 0.5, tail: 2.5 });
        assert_eq!((time.total(), time.busy()), (9.0, 0.5));
        assert_eq!(phases.queued.count(), 4);
        assert_eq!(Phases::default().finish(), None);
    }
}
