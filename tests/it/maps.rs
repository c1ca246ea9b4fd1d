//! Maps, compared with the results of a serial map.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rankpool::{JobError, JobErrorKind, Launch, Map, Pool, current_job};

use crate::support::{Gate, launched, local, until};

fn mix(x: u64) -> u64 {
    (x ^ 0x9e37_79b9).wrapping_mul(x | 1)
}

fn values<T>(results: impl IntoIterator<Item = Result<T, JobError>>) -> Vec<T> {
    results.into_iter().collect::<Result<_, _>>().expect("no job fails")
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values
}

fn every_shape_is_like_the_serial_map(pool: &Pool) {
    for inputs in [0, 1, 5, 40] {
        let serial: Vec<_> = (0..inputs).map(mix).collect();
        let n = u32::try_from(inputs).unwrap();
        // 0 is the automatic chunk size and window.
        for chunk in [0, 1, 5, 6, n.max(1), n + 7] {
            for window in [0, 1, 2, 3, 4, 5] {
                let map = || pool.map(mix, 0..inputs).chunk_size(chunk).window(window);
                let shape = format!("{inputs} inputs, chunks of {chunk}, window of {window}");
                assert_eq!(values(map()), serial, "ordered: {shape}");
                assert_eq!(sorted(values(map().unordered())), sorted(serial.clone()), "unordered: {shape}");
            }
        }
    }
}

#[test]
fn a_map_is_like_the_serial_map_for_all_chunk_sizes_windows_and_orders() {
    local(2, 2, every_shape_is_like_the_serial_map);
}

#[test]
fn a_map_is_like_the_serial_map_on_one_thread_and_on_three_ranks_too() {
    local(1, 1, every_shape_is_like_the_serial_map);
    local(3, 1, every_shape_is_like_the_serial_map);
}

#[test]
fn a_million_inputs_come_back_in_order() {
    local(2, 1, |pool| {
        let mut next = 0;
        for value in pool.map(mix, 0..1_000_000) {
            assert_eq!(value, Ok(mix(next)));
            next += 1;
        }
        assert_eq!(next, 1_000_000);
    });
}

#[test]
fn a_million_inputs_come_back_once_each_without_order() {
    local(3, 1, |pool| {
        let mut seen = vec![false; 1_000_000];
        for value in pool.map(|x: usize| x, 0..1_000_000).unordered().window(10_000).chunk_size(100) {
            assert!(!std::mem::replace(&mut seen[value.unwrap()], true), "a job was yielded twice");
        }
        assert!(seen.into_iter().all(|seen| seen));
    });
}

#[test]
fn ordered_results_are_in_order_when_jobs_end_in_another() {
    static GATES: [Gate; 4] = [const { Gate::new() }; 4];
    local(2, 2, |pool| {
        let job = |x: usize| {
            GATES[x].pass();
            if x > 0 {
                GATES[x - 1].open();
            }
            x
        };
        // All four run at once, and the last input is the first to end.
        GATES[3].open();
        assert_eq!(values(pool.map(job, 0..4).chunk_size(1)), [0, 1, 2, 3]);
    });
}

#[test]
fn unordered_results_come_as_jobs_end_with_a_window_and_without() {
    static GATES: [Gate; 8] = [const { Gate::new() }; 8];
    local(2, 2, |pool| {
        let job = |x: usize| {
            GATES[x].pass();
            x
        };
        for (window, base) in [(0, 0), (4, 4)] {
            let mut map = pool.map(job, base..base + 4).unordered().chunk_size(1).window(window);
            for x in [2, 0, 3, 1] {
                GATES[base + x].open();
                assert_eq!(map.next(), Some(Ok(base + x)));
            }
            assert_eq!(map.next(), None);
        }
    });
}

#[test]
fn the_first_results_come_before_the_inputs_are_exhausted() {
    local(2, 1, |pool| {
        // The inputs end only when the driver has seen results, so a map that reads them all first would hang.
        let seen = Arc::new(AtomicU64::new(0));
        let watched = seen.clone();
        let inputs = (0..).take_while(move |x| *x < 200_000 || watched.load(SeqCst) == 0);
        for (x, value) in (0..).zip(pool.map(mix, inputs)) {
            assert_eq!(value, Ok(mix(x)));
            seen.fetch_add(1, SeqCst);
        }
        assert!(seen.load(SeqCst) >= 200_000);
    });
}

#[test]
fn slow_inputs_do_not_hold_back_results() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let gate = &GATE;
        let inputs = (0..6u64).inspect(|x| {
            // Input 5 comes when the driver has the result of input 0.
            if *x == 5 {
                gate.pass();
            }
            thread::sleep(Duration::from_millis(20));
        });
        let mut results = Vec::new();
        for value in pool.map(mix, inputs) {
            gate.open();
            results.push(value.unwrap());
        }
        assert_eq!(results, (0..6).map(mix).collect::<Vec<_>>());
    });
}

#[test]
fn an_endless_iterator_with_take_ends() {
    local(2, 1, |pool| {
        for window in [0, 1, 3, 100] {
            for chunk in [0, 1, 7] {
                let map = || pool.map(mix, 0..).window(window).chunk_size(chunk);
                assert_eq!(values(map().take(10)), (0..10).map(mix).collect::<Vec<_>>());
                assert_eq!(map().unordered().take(10).filter(Result::is_ok).count(), 10);
            }
        }
    });
}

#[test]
fn inputs_are_pulled_no_further_than_the_window() {
    local(2, 1, |pool| {
        for window in [1, 2, 5, 17, 1000] {
            for chunk in [0, 1, 6] {
                for unordered in [false, true] {
                    let pulled = AtomicUsize::new(0);
                    let inputs = (0..400u64).inspect(|_| {
                        pulled.fetch_add(1, SeqCst);
                    });
                    let mut map = pool.map(mix, inputs).window(window).chunk_size(chunk);
                    if unordered {
                        map = map.unordered();
                    }
                    assert_eq!(pulled.load(SeqCst), 0, "a map that is not iterated does nothing");
                    let mut yielded = 0;
                    while map.next().is_some() {
                        yielded += 1;
                        assert!(pulled.load(SeqCst) <= yielded + window, "window {window}, yielded {yielded}");
                    }
                    assert_eq!((yielded, pulled.load(SeqCst)), (400, 400));
                }
            }
        }
    });
}

#[test]
fn without_a_window_inputs_are_pulled_within_bounds_too() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        let pulled = AtomicUsize::new(0);
        let job = |x: u64| {
            GATE.pass();
            x
        };
        let mut map = pool
            .map(
                job,
                (0..).inspect(|_| {
                    pulled.fetch_add(1, SeqCst);
                }),
            )
            .timeout(Duration::ZERO);
        assert_eq!(map.next().unwrap().unwrap_err().kind, JobErrorKind::Timeout);
        let before = pulled.load(SeqCst);
        assert!((1..100_000).contains(&before), "{before} inputs for two threads");
        GATE.open();
    });
}

#[test]
fn one_failed_job_leaves_the_others_intact() {
    local(2, 2, |pool| {
        for chunk in [0, 1, 5, 100] {
            let job = |x: u32| if x == 3 { panic!("no threes") } else { x };
            let results: Vec<_> = pool.map(job, 0..20).chunk_size(chunk).collect();
            for (x, result) in (0..).zip(&results) {
                match result {
                    Ok(value) => assert_eq!((*value, x == 3), (x, false)),
                    Err(error) => assert_eq!((x, error.job, error.message.as_str()), (3, 3, "no threes")),
                }
            }
            assert_eq!(results.len(), 20);
            let failed: Vec<_> = pool.map(job, 0..20).chunk_size(chunk).unordered().filter_map(Result::err).collect();
            assert_eq!(failed.iter().map(|error| error.job).collect::<Vec<_>>(), [3]);
        }
    });
}

#[test]
fn every_job_may_fail() {
    local(2, 1, |pool| {
        let errors: Vec<_> = pool.map(|x: u64| -> u64 { panic!("{x}") }, 0..500).map(Result::unwrap_err).collect();
        for (job, error) in (0..).zip(&errors) {
            assert_eq!((error.job, &error.message), (job, &job.to_string()));
        }
        assert_eq!(errors.len(), 500);
    });
}

#[test]
fn an_error_says_what_was_wrong_and_where() {
    local(2, 1, |pool| {
        let line = line!() + 1;
        let job = |x: u32| if x == 7 { panic!("seven {}", x) } else { x };
        let error = pool.map(job, 0..10).nth(7).unwrap().unwrap_err();
        assert_eq!((error.kind, error.job, error.attempt), (JobErrorKind::Panic, 7, 1));
        assert_eq!(error.message, "seven 7");
        let location = error.location.as_deref().unwrap();
        assert!(location.contains("maps.rs") && location.contains(&format!(":{line}:")), "{location}");
        let rank = &pool.ranks()[error.rank.unwrap() as usize];
        assert_eq!(error.host.as_ref(), Some(&rank.facts.host));
        let text = error.to_string();
        assert!(text.starts_with("job 7: panic: seven 7, at ") && text.contains(&rank.facts.host), "{text}");
    });
}

#[test]
fn a_panic_may_carry_anything() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("and its drop panics, too");
            }
        }
    }
    local(1, 1, |pool| {
        let job = |x: u32| -> u32 {
            match x {
                0 => std::panic::panic_any(x),
                1 => std::panic::panic_any(Bomb),
                2 => x.checked_sub(3).unwrap(),
                _ => x,
            }
        };
        let results: Vec<_> = pool.map(job, 0..4).collect();
        assert_eq!(results[0].as_ref().unwrap_err().message, "a panic without a message");
        assert_eq!(results[1].as_ref().unwrap_err().kind, JobErrorKind::Panic);
        assert!(results[2].as_ref().unwrap_err().message.contains("None"));
        assert_eq!(results[3], Ok(3));
    });
}

#[test]
fn an_iterator_of_inputs_that_panics_fails_the_map_and_the_pool_lives() {
    local(2, 1, |pool| {
        for unordered in [false, true] {
            let inputs = (0..10u64).inspect(|x| assert!(*x < 6, "no more"));
            let mut map = pool.map(mix, inputs);
            if unordered {
                map = map.unordered();
            }
            let mut results: Vec<_> = map.collect();
            let error = results.pop().unwrap().unwrap_err();
            assert_eq!((error.kind, error.job), (JobErrorKind::Input, 6));
            assert!(error.message.contains("no more") && error.location.unwrap().contains("maps.rs"));
            assert_eq!(sorted(values(results)), sorted((0..6).map(mix).collect()), "what was pulled has results");
            assert_eq!(values(pool.map(mix, 0..6)), (0..6).map(mix).collect::<Vec<_>>());
        }
        let nothing = (0..3u64).map(|_| -> u64 { panic!("not one") });
        assert_eq!(pool.map(mix, nothing).map(|end| end.unwrap_err().kind).collect::<Vec<_>>(), [JobErrorKind::Input]);
    });
}

#[test]
fn a_dropped_map_stops_dealing() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    static GATE: Gate = Gate::new();
    local(1, 2, |pool| {
        let job = |x: u32| {
            RAN.fetch_add(1, SeqCst);
            if x > 0 {
                GATE.pass();
            }
            x
        };
        let mut map = pool.map(job, 0..1000).window(1000);
        assert_eq!(map.next(), Some(Ok(0)));
        drop(map);
        // The master handles commands in order, so it has handled the end of the map before it answers this.
        pool.submit(mix, 0).cancel();
        GATE.open();
        assert_eq!(pool.apply(mix, 1), Ok(mix(1)));
    });
    let ran = RAN.load(SeqCst);
    // The chunks that a rank holds may run before the recall arrives: at most four chunks of eight, this early in a map.
    assert!(ran <= 1 + 4 * 8, "two threads hold four small chunks at most, but {ran} jobs have run");
}

#[test]
fn a_map_that_was_never_iterated_costs_nothing() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    local(2, 1, |pool| {
        let map = pool.map(|_: u32| _ = RAN.fetch_add(1, SeqCst), 0..100);
        assert_eq!(map.size_hint(), (100, Some(100)));
        drop(map);
        assert_eq!(pool.stats().unwrap().jobs, 0);
    });
    assert_eq!(RAN.load(SeqCst), 0);
}

#[test]
fn a_map_that_has_ended_stays_ended() {
    local(1, 1, |pool| {
        let mut map = pool.map(mix, 0..3);
        assert_eq!(map.by_ref().count(), 3);
        assert_eq!((map.next(), map.next(), map.size_hint()), (None, None, (0, Some(0))));
    });
}

#[test]
fn two_maps_at_once_share_the_ranks() {
    local(2, 1, |pool| {
        let slow = |x: u64| {
            thread::sleep(Duration::from_millis(1));
            x
        };
        // An endless map, whose results are read as fast as possible, does not keep another one from ending.
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let endless = scope.spawn(|| pool.map(slow, 0..).take_while(|_| !over.load(SeqCst)).count());
            for chunk in [0, 1, 5] {
                assert_eq!(values(pool.map(slow, 0..50).chunk_size(chunk)), (0..50).collect::<Vec<_>>());
            }
            over.store(true, SeqCst);
            assert!(endless.join().unwrap() > 0);
        });
    });
}

#[test]
fn two_maps_can_be_iterated_in_turns_by_one_thread() {
    local(2, 1, |pool| {
        let pairs = pool.map(mix, 0..500).zip(pool.map(|x: u64| x + 1, 0..500).window(3));
        for (x, (a, b)) in (0..).zip(pairs) {
            assert_eq!((a, b), (Ok(mix(x)), Ok(x + 1)));
        }
    });
}

#[test]
fn a_map_can_be_the_input_of_another() {
    local(2, 1, |pool| {
        let first = pool.map(mix, 0..300).map(|value| value.expect("no job fails"));
        assert_eq!(values(pool.map(mix, first)), (0..300).map(mix).map(mix).collect::<Vec<_>>());
    });
}

#[test]
fn sixteen_maps_from_sixteen_threads_all_finish() {
    local(3, 2, |pool| {
        thread::scope(|scope| {
            for number in 0..16u64 {
                scope.spawn(move || {
                    let inputs = number * 1000..number * 1000 + 300;
                    let map = pool.map_with(number, inputs.clone(), |number, x: u64| x + number);
                    let map =
                        map.chunk_size(u32::try_from(number % 4).unwrap()).window(8 * usize::from(number % 2 == 0));
                    let expected: Vec<_> = inputs.map(|x| x + number).collect();
                    if number % 3 == 0 {
                        assert_eq!(sorted(values(map.unordered())), expected);
                    } else {
                        assert_eq!(values(map), expected);
                    }
                });
            }
        });
    });
}

#[test]
fn maps_and_submitted_jobs_do_not_disturb_each_other() {
    local(2, 2, |pool| {
        let handles: Vec<_> = (0..200).map(|x| pool.submit(mix, x)).collect();
        assert_eq!(values(pool.map(mix, 0..2000)), (0..2000).map(mix).collect::<Vec<_>>());
        for (x, handle) in (0..).zip(handles) {
            assert_eq!(handle.wait(), Ok(mix(x)));
        }
    });
}

/// Returns the error of using a pool inside a job.
fn refused(error: &JobError) -> String {
    assert_eq!(error.kind, JobErrorKind::Refused);
    error.message.clone()
}

#[test]
fn a_map_inside_a_job_is_refused() {
    static POOL: OnceLock<Pool> = OnceLock::new();
    local(1, 1, |pool| {
        assert!(POOL.set(pool.clone()).is_ok());
        let nested = |n: u64| {
            let pool = POOL.get().expect("set before");
            let results: Vec<_> = pool.map(mix, 0..n).collect();
            assert_eq!(results.len(), 1, "one error, and the end");
            [
                refused(results[0].as_ref().unwrap_err()),
                refused(&pool.submit(mix, n).wait().unwrap_err()),
                refused(&pool.apply(mix, n).unwrap_err()),
                refused(&pool.broadcast(n).unwrap_err()),
            ]
        };
        let messages = pool.apply(nested, 3).expect("the job itself succeeds");
        assert!(messages.iter().all(|message| message.contains("inside a job")), "{messages:?}");
        assert_eq!(pool.apply(mix, 2), Ok(mix(2)));
    });
}

#[test]
fn waiting_for_a_handle_or_launching_inside_a_job_is_refused() {
    static HANDLE: Mutex<Option<rankpool::JobHandle<u64>>> = Mutex::new(None);
    static THERE: Gate = Gate::new();
    local(1, 1, |pool| {
        let first = pool.submit(
            |_: u8| {
                THERE.pass();
                let handle = HANDLE.lock().unwrap().take().unwrap();
                let launched = Launch::new().local(1).threads(1).run(|_| Ok(()));
                (handle.wait().unwrap_err().message, launched as u8)
            },
            0,
        );
        // It runs after the first one on the only thread, where it would wait forever.
        let second = pool.submit(mix, 5);
        *HANDLE.lock().unwrap() = Some(second.clone());
        THERE.open();
        let (message, launched) = first.wait().unwrap();
        assert!(message.contains("inside a job"), "{message}");
        assert_ne!(launched, 0);
        assert_eq!(second.wait(), Ok(mix(5)));
    });
}

#[test]
fn a_time_out_yields_an_error_and_keeps_the_rest() {
    static GATE: Gate = Gate::new();
    local(2, 1, |pool| {
        for unordered in [false, true] {
            let job = |x: u64| {
                if x == 2 {
                    GATE.pass();
                }
                x
            };
            let mut map = pool.map(job, 0..5).chunk_size(1).timeout(Duration::from_millis(30));
            if unordered {
                map = map.unordered();
            }
            let mut results = Vec::new();
            let mut timeouts = 0;
            for result in map {
                match result {
                    Ok(value) => results.push(value),
                    Err(error) => {
                        assert_eq!(error.kind, JobErrorKind::Timeout);
                        timeouts += 1;
                        if timeouts == 3 {
                            GATE.open();
                        }
                    }
                }
            }
            assert!(unordered || (timeouts >= 3 && results == [0, 1, 2, 3, 4]), "{timeouts}: {results:?}");
            assert_eq!(sorted(results), [0, 1, 2, 3, 4]);
        }
    });
}

#[test]
fn the_longest_time_out_of_a_map_is_as_good_as_none() {
    local(1, 1, |pool| assert_eq!(values(pool.map(mix, 0..3).timeout(Duration::MAX)), [mix(0), mix(1), mix(2)]));
}

#[test]
fn a_job_is_tried_again_as_often_as_was_asked_for() {
    static TRIES: [AtomicU32; 10] = [const { AtomicU32::new(0) }; 10];
    local(2, 1, |pool| {
        // Job x fails x times.
        let job = |x: u32| {
            TRIES[x as usize].fetch_add(1, SeqCst);
            let attempt = current_job().unwrap().attempt;
            assert!(attempt > x, "attempt {attempt} of job {x}");
            attempt
        };
        let results: Vec<_> = pool.map(job, 0..10).retries(5).chunk_size(4).collect();
        for (x, result) in (0..).zip(&results) {
            let tries = TRIES[x as usize].load(SeqCst);
            match result {
                Ok(attempt) => assert!(x <= 5 && (*attempt, tries) == (x + 1, x + 1), "job {x}: {attempt}, {tries}"),
                Err(error) => {
                    assert!(x > 5 && (error.attempt, tries) == (6, 6), "job {x}: {error}");
                    assert_eq!(error.message, format!("attempt 6 of job {x}"));
                }
            }
        }
        assert_eq!(results.len(), 10);
    });
}

#[test]
fn no_job_is_tried_again_unasked() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    local(2, 1, |pool| {
        let job = |_: u32| -> u32 {
            TRIES.fetch_add(1, SeqCst);
            panic!()
        };
        assert_eq!(pool.map(job, 0..50).filter(Result::is_err).count(), 50);
    });
    assert_eq!(TRIES.load(SeqCst), 50);
}

#[test]
fn starmap_spreads_tuples_over_arguments() {
    local(2, 1, |pool| {
        let inputs = (0..100u64).map(|x| (x, 2 * x, x.to_string()));
        let job = |a: u64, b: u64, c: String| format!("{a} {b} {c}");
        assert_eq!(
            values(pool.starmap(job, inputs)),
            (0..100).map(|x| format!("{x} {} {x}", 2 * x)).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_map_with_a_context_reads_it_in_every_job() {
    local(3, 1, |pool| {
        let table: Vec<u64> = (0..1000).map(mix).collect();
        let results = values(pool.map_with(table.clone(), 0..1000, |table, i: usize| table[i]).chunk_size(7));
        assert_eq!(results, table);
    });
}

#[test]
fn functions_of_one_type_but_many_contexts_do_not_mix() {
    local(2, 1, |pool| {
        let maps: Vec<Map<'_, Range<u64>, u64>> =
            (0..20u64).map(|context| pool.map_with(context, 0..30, |context, x: u64| 100 * context + x)).collect();
        for (context, map) in (0..).zip(maps) {
            assert_eq!(values(map), (0..30).map(|x| 100 * context + x).collect::<Vec<_>>());
        }
    });
}

#[test]
fn progress_and_statistics_count_every_job_once() {
    local(2, 2, |pool| {
        let job = |x: u32| if x % 10 == 0 { panic!() } else { x };
        assert_eq!(pool.map(job, 0..1000).retries(2).filter(Result::is_err).count(), 100);
        until("all are counted", || pool.stats().unwrap().jobs == 1000);
        let stats = pool.stats().unwrap();
        assert_eq!((stats.failed, stats.ranks.len()), (100, 2));
        let runs: u64 = stats.ranks.iter().map(|rank| rank.jobs).sum();
        assert_eq!(runs, 900 + 3 * 100);
    });
}

#[test]
fn a_panic_of_the_driver_in_the_middle_of_a_map_ends_the_map() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        launched(Launch::new().local(2).threads(1), |pool| {
            let job = |x: u64| {
                RAN.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(1));
                x
            };
            for value in pool.map(job, 0..) {
                assert!(value.unwrap() < 5, "enough");
            }
        });
    }));
    assert!(ended.is_err());
    let ran = RAN.load(SeqCst);
    assert!(ran < 4096, "{ran} jobs of a map that was dropped");
}

#[test]
fn short_jobs_do_not_wait_behind_one_that_waits_for_them() {
    static RUN: AtomicU64 = AtomicU64::new(0);
    const JOBS: u64 = 8;
    for (ranks, threads) in [(1, 2), (2, 1), (3, 1)] {
        local(ranks, threads, move |pool| {
            // In the first map all jobs are short; in each later one `blocking` jobs wait for all others.
            let job = |(x, blocking): (u64, u64)| {
                if x < blocking {
                    until("the others have run", || RUN.load(SeqCst) == JOBS - blocking);
                } else {
                    RUN.fetch_add(u64::from(blocking > 0), SeqCst);
                }
            };
            for blocking in 0..u64::from(ranks * threads) {
                RUN.store(0, SeqCst);
                let inputs = (0..JOBS).map(move |x| (x, blocking));
                assert!(pool.map(job, inputs).all(|result| result.is_ok()), "with {blocking} that wait");
            }
        });
    }
}

#[test]
fn jobs_that_take_longer_than_those_of_earlier_maps_are_shared_all_the_same() {
    let job = |milliseconds: u64| {
        thread::sleep(Duration::from_millis(milliseconds));
        current_job().expect("it is a job").rank
    };
    local(2, 1, move |pool| {
        for _ in 0..3 {
            assert_eq!(pool.map(job, std::iter::repeat_n(0, 100)).count(), 100);
        }
        let ranks = pool.map(job, std::iter::repeat_n(30, 12)).collect::<Vec<_>>();
        let ranks = values(ranks);
        for rank in 0..2 {
            let jobs = ranks.iter().filter(|of| **of == rank).count();
            assert!(jobs >= 3, "rank {rank} had {jobs} of 12 jobs: {ranks:?}");
        }
    });
}

#[test]
fn results_travel_together_although_chunks_come_one_by_one() {
    const JOBS: u64 = 20_000;
    let job = |x: u64| {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(10) {}
        x
    };
    local(1, 2, move |pool| {
        let messages = || pool.stats().unwrap().ranks[0].messages_from;
        let (before, begin) = (messages(), Instant::now());
        assert_eq!(pool.map(job, 0..JOBS).chunk_size(1).filter(Result::is_ok).count() as u64, JOBS);
        // Those that come because the rank has half of its work left, and those that come because 2 ms are over.
        let (sent, most) = (messages() - before, 250 + begin.elapsed().as_millis() as u64);
        assert!(sent < most, "{sent} messages for {JOBS} results");
    });
}
