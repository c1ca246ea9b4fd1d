use std::time::Duration;

use super::*;
use crate::batch::job::{AttemptResult, Cause};

fn ledger() -> Ledger<u64, AttemptResult> {
    let retry = RetryPolicy { retries: 1, on: vec![Status::Failed], pause: Duration::ZERO };
    Ledger::new(retry, StopPolicy::default(), 0, None)
}

fn read(ledger: &mut Ledger<u64, AttemptResult>, number: u64) {
    assert!(matches!(ledger.next(Duration::ZERO), Next::Read));
    ledger.read(Planned { number, work: number, input: None, content: 0 });
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
