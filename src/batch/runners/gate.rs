//! The gate in front of the processes of jobs: how many of them run at once on this rank.
//!
//! Mostly it is open. A job that was killed for lack of memory enters with a narrower [`Room`], and while it runs, fewer others
//! do; `--job-mem SIZE` limits them always. Who comes first enters first, so a job that waits until it is alone is not passed by
//! others. All ranks of a process share one gate, because they share the memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::batch::job::Room;
use crate::engine::environment::environment;
use crate::engine::placement::ranks_on_host;
use crate::process::memory;

/// A thread that waits looks this often whether its run was cancelled.
const STEP: Duration = Duration::from_millis(100);

/// The gate of this process.
static GATE: Gate = Gate::new();

/// Enters the gate of this process, see [`Gate::enter`]. `job_mem`: the memory that a job may use, in bytes.
pub(super) fn enter(room: Room, job_mem: Option<u64>, is_cancelled: impl Fn() -> bool) -> Option<Pass<'static>> {
    GATE.enter(room, job_mem.map_or(usize::MAX, most_at_once), is_cancelled)
}

/// Returns how many jobs that use `job_mem` bytes fit into the part of the memory that belongs to this process.
fn most_at_once(job_mem: u64) -> usize {
    static SHARE: OnceLock<u64> = OnceLock::new();
    let share = *SHARE.get_or_init(|| match memory::of_process() {
        Some(bytes) => bytes / u64::from(ranks_on_host(environment).unwrap_or(1)),
        None => u64::MAX,
    });
    usize::try_from(share / job_mem.max(1)).unwrap_or(usize::MAX).max(1)
}

struct Gate(Mutex<State>);

struct State {
    /// The number of jobs that run, by their rooms.
    running: [usize; 3],
    /// The most that ever ran at once.
    most: usize,
    /// The threads that wait, each with its ticket.
    line: VecDeque<(u64, Thread)>,
    next: u64,
}

/// A job that runs. Dropping it lets the next one enter.
#[must_use]
pub(super) struct Pass<'g> {
    gate: &'g Gate,
    room: Room,
}

impl Gate {
    const fn new() -> Self {
        Gate(Mutex::new(State { running: [0; 3], most: 0, line: VecDeque::new(), next: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a job may run in this room, while at most `limit` run at once. `None` if it was cancelled meanwhile.
    fn enter(&self, room: Room, limit: usize, is_cancelled: impl Fn() -> bool) -> Option<Pass<'_>> {
        let mut state = self.lock();
        if !state.line.is_empty() || !state.admits(room, limit) {
            let ticket = state.next;
            state.next += 1;
            state.line.push_back((ticket, thread::current()));
            let has_turn = |state: &State| state.line.front().is_some_and(|(first, _)| *first == ticket);
            while !has_turn(&state) || !state.admits(room, limit) {
                drop(state);
                thread::park_timeout(STEP);
                state = self.lock();
                if is_cancelled() {
                    state.line.retain(|(other, _)| *other != ticket);
                    state.wake_next();
                    return None;
                }
            }
            state.line.pop_front();
        }
        state.running[room as usize] += 1;
        state.most = state.most.max(state.running());
        state.wake_next();
        Some(Pass { gate: self, room })
    }
}

impl State {
    fn running(&self) -> usize {
        self.running.iter().sum()
    }

    /// Wakes the thread that has waited longest: it may be admitted now.
    fn wake_next(&self) {
        if let Some((_, thread)) = self.line.front() {
            thread.unpark();
        }
    }

    /// Whether one more job may run, in this room.
    fn admits(&self, room: Room, limit: usize) -> bool {
        let is_there = |other: Room| room == other || self.running[other as usize] > 0;
        let most = if is_there(Room::Alone) {
            1
        } else if is_there(Room::Half) {
            (self.most / 2).clamp(1, limit)
        } else {
            limit
        };
        self.running() < most
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.running[self.room as usize] -= 1;
        state.wake_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const ANY: usize = usize::MAX;

    fn never() -> bool {
        false
    }

    fn shared(gate: &Gate) -> Pass<'_> {
        gate.enter(Room::Shared, ANY, never).expect("it enters")
    }

    /// Whether a thread that asks now enters before it is cancelled.
    fn may_enter(gate: &Gate, room: Room, limit: usize) -> bool {
        gate.enter(room, limit, || true).is_some()
    }

    #[test]
    fn shared_jobs_enter_as_long_as_no_narrower_one_runs() {
        let gate = Gate::new();
        let passes: Vec<_> = (0..5).map(|_| shared(&gate)).collect();
        assert!(!may_enter(&gate, Room::Alone, ANY), "others run");
        assert!(may_enter(&gate, Room::Shared, ANY), "a thread that has given up waiting is in no other's way");
        drop(passes);
        let alone = gate.enter(Room::Alone, ANY, never);
        for room in [Room::Shared, Room::Half, Room::Alone] {
            assert!(!may_enter(&gate, room, ANY), "{room:?}");
        }
        drop(alone);
        assert!(may_enter(&gate, Room::Shared, ANY));
    }

    #[test]
    fn beside_a_job_with_half_of_the_room_half_of_the_most_that_ever_ran_are_allowed() {
        let gate = Gate::new();
        let mut passes: Vec<_> = (0..6).map(|_| shared(&gate)).collect();
        assert!(!may_enter(&gate, Room::Half, ANY));
        passes.truncate(3);
        assert!(!may_enter(&gate, Room::Half, ANY), "it would be the fourth of six");
        passes.truncate(2);
        let half = gate.enter(Room::Half, ANY, never).expect("it is the third of six");
        assert!(!may_enter(&gate, Room::Shared, ANY) && !may_enter(&gate, Room::Half, ANY));
        passes.truncate(1);
        assert!(may_enter(&gate, Room::Shared, ANY) && !may_enter(&gate, Room::Alone, ANY));
        drop(half);
        let more: Vec<_> = (0..5).map(|_| shared(&gate)).collect();
        assert_eq!((gate.lock().running(), more.len()), (6, 5));
    }

    #[test]
    fn a_single_thread_has_half_of_its_room() {
        let gate = Gate::new();
        drop(shared(&gate));
        assert!(may_enter(&gate, Room::Half, ANY));
    }

    #[test]
    fn no_more_run_at_once_than_the_memory_allows() {
        let gate = Gate::new();
        let passes = [gate.enter(Room::Shared, 2, never), gate.enter(Room::Shared, 2, never)];
        assert!(!may_enter(&gate, Room::Shared, 2));
        drop(passes);
        assert!(may_enter(&gate, Room::Shared, 2));
        assert_eq!((most_at_once(u64::MAX), most_at_once(1) > 1000), (1, true));
    }

    #[test]
    fn who_waits_to_be_alone_is_not_passed_by_others() {
        let gate = Gate::new();
        let first = shared(&gate);
        let (order, alone_was) = (AtomicUsize::new(0), AtomicUsize::new(9));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _pass = gate.enter(Room::Alone, ANY, never);
                assert_eq!(gate.lock().running(), 1);
                alone_was.store(order.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            });
            wait_for(&gate, 1);
            scope.spawn(|| {
                let _pass = shared(&gate);
                order.fetch_add(1, Ordering::SeqCst);
            });
            wait_for(&gate, 2);
            assert_eq!(order.load(Ordering::SeqCst), 0, "the second one waits, too");
            drop(first);
        });
        assert_eq!((alone_was.into_inner(), order.into_inner()), (0, 2));
    }

    #[test]
    fn a_cancelled_wait_ends_and_lets_the_next_one_enter() {
        let gate = Gate::new();
        let first = shared(&gate);
        let cancelled = AtomicBool::new(false);
        thread::scope(|scope| {
            let alone = scope.spawn(|| gate.enter(Room::Alone, ANY, || cancelled.load(Ordering::SeqCst)).is_none());
            wait_for(&gate, 1);
            let second = scope.spawn(|| drop(shared(&gate)));
            wait_for(&gate, 2);
            cancelled.store(true, Ordering::SeqCst);
            assert!(alone.join().expect("it does not panic"));
            second.join().expect("it enters while the first one runs");
        });
        drop(first);
        assert!(gate.lock().line.is_empty());
    }

    #[test]
    fn threads_that_go_on_in_a_narrower_room_at_once_do_not_wait_for_each_other() {
        let gate = Gate::new();
        let begun = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let pass = shared(&gate);
                    begun.wait();
                    drop(pass);
                    for room in [Room::Alone, Room::Half, Room::Alone, Room::Shared] {
                        let _pass = gate.enter(room, ANY, never);
                        assert!(room != Room::Alone || gate.lock().running() == 1);
                    }
                });
            }
        });
        let state = gate.lock();
        assert_eq!((state.running(), state.most), (0, 4));
    }

    /// Waits until this number of threads wait.
    fn wait_for(gate: &Gate, threads: usize) {
        while gate.lock().line.len() < threads {
            thread::yield_now();
        }
    }
}
