use std::time::Duration;

use super::*;
use crate::batch::job::{AttemptResult, Cause, MEMORY};

impl<W, R> Ledger<W, R> {
    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        let open = self.attempts.iter().filter(|entry| !matches!(entry, Entry::Settled)).count();
        assert_eq!(open as u64, self.under_way);
        assert!(!matches!(self.attempts.front(), Some(Entry::Settled)), "settled attempts are forgotten");
        for ((_, place), kept) in &self.waiting {
            assert!(kept.last.is_some() && kept.work.is_some() && kept.counted() <= self.retry.retries);
            assert_eq!((kept.job.place, kept.job.place < self.next_place), (*place, true));
        }
        let Counts { done, succeeded, failed, cancelled, .. } = self.counts;
        assert_eq!(done, succeeded + failed + cancelled);
    }
}

fn ledger() -> Ledger<u64, AttemptResult> {
    let retry = RetryPolicy { retries: 1, on: vec![Status::Failed], pause: Duration::ZERO };
    Ledger::new(retry, StopPolicy::default(), 0, None)
}

fn read(ledger: &mut Ledger<u64, AttemptResult>, number: u64) {
    assert!(matches!(ledger.next(Duration::ZERO), Next::Read));
    ledger.read(Planned::new(number, number, None, 0));
}

#[test]
fn a_run_ends_where_the_attempts_of_its_jobs_do_not_follow_each_other() {
    let mut ledger = ledger();
    let mut orders = Vec::new();
    (1..=2).for_each(|number| read(&mut ledger, number));
    let result = AttemptResult::without_output(Status::Failed, Cause::new("failed", "once"), None);
    ledger.on(Event::Ended { index: 0, result }, Duration::ZERO, &mut orders);
    assert!(matches!(orders[..], [Order::Forget { place: 0 }]));
    // The retry of the first job is the attempt between those of the jobs at the places 1 and 2.
    assert!(matches!(ledger.next(Duration::ZERO), Next::Attempt(Attempt { place: 0, attempt: 2, .. })));
    read(&mut ledger, 3);
    orders.clear();
    ledger.on(Event::SkipBefore { place: 1 }, Duration::ZERO, &mut orders);
    assert!(matches!(&orders[..], [Order::Leave { job }] if job.number == 1));
    orders.clear();
    ledger.on(Event::Succeeded { first: 1, count: 3 }, Duration::ZERO, &mut orders);
    ledger.check();
    let runs: Vec<_> = orders
        .iter()
        .map(|order| match order {
            Order::SettleRun(Run { index, first, count }) => (*index, *first, *count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(runs, [(1, 1, 1), (3, 2, 1)]);
}

#[test]
fn the_pause_before_a_retry_doubles() {
    let mut ledger = ledger();
    ledger.retry = RetryPolicy { retries: 9, on: vec![Status::Failed], pause: Duration::from_secs(1) };
    read(&mut ledger, 1);
    let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
    for index in 0..9 {
        let result = AttemptResult::without_output(Status::Failed, Cause::new("failed", "again"), None);
        ledger.on(Event::Ended { index, result }, now, &mut Vec::new());
        let due = ledger.next_due().expect("it waits");
        assert!(!matches!(ledger.next(due - Duration::from_nanos(1)), Next::Attempt(_)), "not before its time");
        assert!(matches!(ledger.next(due), Next::Attempt(_)));
        pauses.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

fn out_of_memory() -> AttemptResult {
    let cause = Cause { signal: Some(9), ..Cause::new(MEMORY, "killed for lack of memory") };
    AttemptResult::without_output(Status::Signal, cause, None)
}

#[test]
fn a_job_for_which_memory_is_exhausted_gets_more_room_at_once_beside_its_retries() {
    let mut ledger = ledger().giving_room(true);
    let pause = Duration::from_secs(3);
    ledger.retry = RetryPolicy { retries: 1, on: vec![Status::Failed, Status::Signal], pause };
    read(&mut ledger, 1);
    let mut orders = Vec::new();
    let mut seen = Vec::new();
    for (index, now) in [(0, Duration::ZERO), (1, Duration::ZERO), (2, Duration::ZERO), (3, pause)] {
        orders.clear();
        ledger.on(Event::Ended { index, result: out_of_memory() }, now, &mut orders);
        ledger.check();
        let due = ledger.next_due();
        if let Next::Attempt(Attempt { attempt, room, .. }) = ledger.next(due.unwrap_or(now)) {
            assert!(matches!(orders[..], [Order::Forget { place: 0 }]));
            seen.push((attempt, room, due));
        }
    }
    let zero = Some(Duration::ZERO);
    assert_eq!(seen, [(2, Room::Half, zero), (3, Room::Alone, zero), (4, Room::Alone, Some(pause))]);
    assert!(matches!(&orders[..], [Order::Settle { job, .. }] if job.attempt == 4));
    assert_eq!((ledger.counts().retried, ledger.counts().out_of_memory, ledger.counts().failed), (3, 2, 1));
}

#[test]
fn a_job_for_which_memory_is_exhausted_has_failed_if_it_gets_no_more_room_and_no_retry() {
    let mut ledger = ledger();
    ledger.retry.retries = 0;
    read(&mut ledger, 1);
    let mut orders = Vec::new();
    ledger.on(Event::Ended { index: 0, result: out_of_memory() }, Duration::ZERO, &mut orders);
    assert!(matches!(&orders[..], [Order::Settle { .. }]));
}

#[test]
fn after_a_stop_a_job_for_which_memory_was_exhausted_is_left_to_the_next_run() {
    for is_resumable in [false, true] {
        let mut ledger = ledger().giving_room(true);
        (ledger.retry.retries, ledger.is_resumable) = (0, is_resumable);
        read(&mut ledger, 1);
        let mut orders = Vec::new();
        ledger.on(Event::Stop, Duration::ZERO, &mut orders);
        ledger.on(Event::Ended { index: 0, result: out_of_memory() }, Duration::ZERO, &mut orders);
        assert_eq!((matches!(&orders[..], [Order::Leave { .. }]), ledger.was_cut()), (is_resumable, true));
    }
}

#[test]
fn a_job_that_the_pool_gives_up_as_lost_is_not_run_again() {
    let mut ledger = ledger();
    ledger.retry = RetryPolicy { retries: 5, on: vec![Status::Lost], pause: Duration::ZERO };
    (1..=2).for_each(|number| read(&mut ledger, number));
    let mut orders = Vec::new();
    let lost = |run| AttemptResult::without_output(Status::Lost, Cause::new("lost", "gone"), run);
    ledger.on(Event::Ended { index: 0, result: lost(None) }, Duration::ZERO, &mut orders);
    assert!(matches!(&orders[..], [Order::Settle { job, .. }] if job.number == 1), "{orders:?}");
    orders.clear();
    // One whose process was lost with the spawn helper of its rank has killed no rank.
    let run = crate::batch::job::Run { rank: 1, slot: 1, start_us: 0, seconds: 0.0, usage: None };
    ledger.on(Event::Ended { index: 1, result: lost(Some(run)) }, Duration::ZERO, &mut orders);
    assert!(matches!(orders[..], [Order::Forget { place: 1 }]), "{orders:?}");
}
