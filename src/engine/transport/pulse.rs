//! Detection of dead ends of a connection.
//!
//! Not every launcher reports or ends the other processes when one dies, and MPI then waits forever. So each end
//! sends a message every few seconds, a pulse if there is nothing else, and an end that is silent for too long is taken for dead.
//! Time in which this end itself did nothing (a suspended machine, a stopped process) does not count: it received no messages.
//!
//! There is no clock here; the owner passes the time.

use std::time::{Duration, Instant};

use crate::engine::limits::{PULSE_STEP, PULSES};

/// The number of turns of a busy loop without a look at the clock.
const TURNS: u32 = 64;

/// The times of the last messages from and to the other ends.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// An end that is silent for this long is taken for dead.
    limit: Duration,
    last_turn: Instant,
    /// The time for which this end has been running, without pauses.
    active_time: Duration,
    looked: Duration,
    /// Turns of the loop since the last look at the clock.
    turns: u32,
    /// By end: the times (as `active_time`) of the last message from it and to it; `None` if it is not watched.
    ends: Vec<Option<LastMessages>>,
}

#[derive(Debug, Clone, Copy)]
struct LastMessages {
    from: Duration,
    to: Duration,
}

impl Pulse {
    /// Watches `ends` ends.
    pub(crate) fn new(ends: usize, limit: Duration, now: Instant) -> Self {
        let messages = LastMessages { from: Duration::ZERO, to: Duration::ZERO };
        Pulse {
            limit,
            last_turn: now,
            active_time: Duration::ZERO,
            looked: Duration::ZERO,
            turns: 0,
            ends: vec![Some(messages); ends],
        }
    }

    fn interval(&self) -> Duration {
        self.limit / PULSES
    }

    /// Counts a turn of the owner's loop, in which it was `active` or not. Returns true when it is time to call
    /// [`ends_to_pulse`](Self::ends_to_pulse) and [`silent_end`](Self::silent_end). Most turns of an active loop do not read the clock.
    pub(crate) fn count_turn(&mut self, active: bool, now: impl FnOnce() -> Instant) -> bool {
        self.turns += 1;
        if active && self.turns < TURNS {
            return false;
        }
        self.turns = 0;
        self.turn(now())
    }

    /// Advances the time. Returns true when it is time to call [`ends_to_pulse`](Self::ends_to_pulse) and [`silent_end`](Self::silent_end).
    fn turn(&mut self, now: Instant) -> bool {
        self.active_time += now.saturating_duration_since(self.last_turn).min(PULSE_STEP.min(self.interval()));
        self.last_turn = now;
        let look = self.active_time >= self.looked + self.interval() / 2;
        if look {
            self.looked = self.active_time;
        }
        look
    }

    /// Records a message from an end.
    pub(crate) fn received(&mut self, end: usize) {
        if let Some(Some(messages)) = self.ends.get_mut(end) {
            messages.from = self.active_time;
        }
    }

    /// Records a message to an end.
    pub(crate) fn sent(&mut self, end: usize) {
        if let Some(Some(messages)) = self.ends.get_mut(end) {
            messages.to = self.active_time;
        }
    }

    /// Stops watching an end.
    pub(crate) fn ignore(&mut self, end: usize) {
        if let Some(messages) = self.ends.get_mut(end) {
            *messages = None;
        }
    }

    fn ends(&self) -> impl Iterator<Item = (usize, LastMessages)> + '_ {
        self.ends.iter().enumerate().filter_map(|(end, messages)| Some((end, (*messages)?)))
    }

    /// Returns the ends to which a pulse must be sent.
    pub(crate) fn ends_to_pulse(&self) -> Vec<usize> {
        let late = |messages: &LastMessages| self.active_time >= messages.to + self.interval() / 2;
        self.ends().filter(|(_, messages)| late(messages)).map(|(end, _)| end).collect()
    }

    /// Returns the end that has been silent for longest, and the time, if that has reached the limit.
    pub(crate) fn silent_end(&self) -> Option<(usize, Duration)> {
        let (end, messages) = self.ends().min_by_key(|(_, messages)| messages.from)?;
        let silence = self.active_time - messages.from;
        (silence >= self.limit).then_some((end, silence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(40);
    const TURN: Duration = Duration::from_millis(10);

    /// Advances the time by `seconds`, turn by turn, and calls `each` after each turn.
    fn live(pulse: &mut Pulse, now: &mut Instant, seconds: u64, mut each: impl FnMut(&mut Pulse)) {
        for _ in 0..seconds * 100 {
            *now += TURN;
            pulse.turn(*now);
            each(pulse);
        }
    }

    #[test]
    fn an_end_that_is_silent_for_too_long_is_found_and_one_that_speaks_is_not() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(3, LIMIT, now);
        live(&mut pulse, &mut now, 30, |_| {});
        pulse.received(0);
        pulse.received(2);
        live(&mut pulse, &mut now, 9, |_| {});
        assert_eq!(pulse.silent_end(), None);
        live(&mut pulse, &mut now, 1, |_| {});
        assert_eq!(pulse.silent_end(), Some((1, LIMIT)));
        pulse.ignore(1);
        assert_eq!(pulse.silent_end(), None);
        live(&mut pulse, &mut now, 30, |pulse| pulse.received(2));
        assert_eq!(pulse.silent_end(), Some((0, LIMIT)));
        pulse.received(0);
        assert_eq!(pulse.silent_end(), None);
    }

    #[test]
    fn time_in_which_this_end_was_stopped_does_not_count() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(1, LIMIT, now);
        live(&mut pulse, &mut now, 10, |_| {});
        for _ in 0..20 {
            now += Duration::from_secs(3600);
            pulse.turn(now);
            assert_eq!(pulse.silent_end(), None);
        }
        live(&mut pulse, &mut now, 9, |_| {});
        assert_eq!(pulse.silent_end(), None, "a second of each pause counts, so that a slow loop comes to an end, too");
        live(&mut pulse, &mut now, 1, |_| {});
        assert_eq!(pulse.silent_end().map(|(end, _)| end), Some(0));
    }

    #[test]
    fn a_pause_of_this_end_is_no_silence_of_another_however_short_the_limit_is() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(1, Duration::from_secs(1), now);
        live(&mut pulse, &mut now, 5, |pulse| pulse.received(0));
        now += Duration::from_secs(3600);
        pulse.turn(now);
        assert_eq!(pulse.silent_end(), None, "its messages of that time are read only now");
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut pulse = Pulse::new(1, LIMIT, now);
        assert!(!pulse.turn(now - Duration::from_secs(50)));
        assert_eq!(pulse.silent_end(), None);
    }

    #[test]
    fn an_end_that_got_no_message_for_a_while_gets_a_pulse_well_before_the_limit() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(2, LIMIT, now);
        let mut pulses = 0;
        for _ in 0..100 * 40 {
            now += TURN;
            if pulse.turn(now) {
                pulse.sent(1);
                for end in pulse.ends_to_pulse() {
                    assert_eq!(end, 0, "the other one gets messages all the time");
                    pulse.sent(end);
                    pulses += 1;
                }
            }
        }
        assert!((8..=20).contains(&pulses), "{pulses} pulses in {LIMIT:?}");
    }
}
