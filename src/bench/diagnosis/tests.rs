//! Tests of the diagnosis: figures with a known cause.

use super::*;
use crate::bench::scaling::{Once, Summary};

/// Figures of a run: wall and run time, seconds in jobs, CPU seconds, of which in the kernel.
fn row(count: u32, wall: f64, run: f64, busy: f64, (user, system): (f64, f64)) -> Row {
    let efficiency = Some(busy / run / f64::from(count));
    let summary: Summary = serde_json::from_value(serde_json::json!({
        "jobs": 1000, "failed": 0, "wall_seconds": run, "efficiency": efficiency, "busy_seconds": busy,
    }))
    .expect("a summary");
    let once = Once { wall_seconds: wall, user_seconds: user, system_seconds: system, other_cpus: Some(0.1), summary };
    Row { count, runs: vec![once; 3] }
}

fn evidence(rows: &[Row]) -> Evidence<'_> {
    Evidence {
        rows,
        what: "threads",
        subcommand: "kernel",
        metg_90: Some(1e-5),
        arithmetic: 1.02,
        tail: None,
        cpus: (4, 4),
    }
}

fn limits(evidence: &Evidence<'_>) -> Vec<Limit> {
    findings(evidence).iter().map(|finding| finding.limit).collect()
}

#[test]
fn work_that_scales_is_not_limited() {
    let rows = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(4, 1.1, 1.0, 3.96, (4.0, 0.0))];
    assert_eq!(limits(&evidence(&rows)), [Limit::Nothing]);
}

#[test]
fn jobs_shorter_than_metg_are_limited_by_dispatch_unless_they_fill_the_time() {
    let rows = [row(1, 0.5, 0.4, 0.001, (0.4, 0.0)), row(4, 0.5, 0.4, 0.001, (0.6, 0.0))];
    assert!(limits(&evidence(&rows)).contains(&Limit::Dispatch));
    let full = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(4, 1.1, 1.0, 3.96, (4.0, 0.0))];
    assert_eq!(limits(&Evidence { metg_90: Some(1.0), ..evidence(&full) }), [Limit::Nothing]);
}

#[test]
fn jobs_that_take_longer_with_more_threads_wait_for_memory_unless_arithmetic_does_too() {
    let rows = [row(1, 4.1, 4.0, 4.0, (3.0, 1.0)), row(4, 2.1, 2.0, 7.9, (5.0, 2.9))];
    let found = findings(&evidence(&rows));
    assert_eq!(found[0].limit, Limit::Memory);
    assert!(found[0].text.contains("in the kernel"), "{}", found[0].text);
    assert_eq!(limits(&Evidence { arithmetic: 2.0, ..evidence(&rows) }), [Limit::SharedCpus]);
}

#[test]
fn a_small_growth_that_explains_what_is_lost_is_that_of_memory() {
    let rows = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(2, 2.4, 2.3, 4.5, (4.5, 0.0))];
    assert_eq!(limits(&evidence(&rows)), [Limit::Memory]);
    let as_long = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(2, 2.4, 2.3, 4.02, (4.02, 0.0))];
    assert_eq!(limits(&evidence(&as_long)), [Limit::SerialPart]);
}

#[test]
fn jobs_that_use_little_of_their_time_wait() {
    let rows = [row(1, 4.1, 4.0, 4.0, (0.1, 0.0)), row(4, 1.1, 1.0, 3.96, (0.1, 0.0))];
    assert_eq!(limits(&evidence(&rows)), [Limit::Waiting]);
}

#[test]
fn a_long_last_job_is_named() {
    let rows = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(4, 2.1, 2.0, 4.0, (4.0, 0.0))];
    let tail = Tail { seconds: 1.2, run_seconds: 2.0, mean_seconds: 0.004, last: vec![(977, 1.25)] };
    let found = findings(&Evidence { tail: Some(&tail), ..evidence(&rows) });
    assert_eq!(found[0].limit, Limit::Stragglers);
    assert!(found[0].text.contains("job 977 (1.25 s)"), "{}", found[0].text);
}

#[test]
fn what_nothing_else_explains_is_a_serial_part() {
    let rows = [row(1, 4.1, 4.0, 4.0, (4.0, 0.0)), row(4, 2.1, 2.0, 4.0, (4.0, 0.0))];
    let found = findings(&evidence(&rows));
    assert_eq!(found[0].limit, Limit::SerialPart);
    // Karp and Flatt: a speed-up of 2 with 4 threads is a serial part of a third.
    assert!(found[0].text.contains("33 %"), "{}", found[0].text);
}

#[test]
fn start_up_failed_jobs_and_few_cpus_are_found() {
    let rows = [row(1, 1.4, 1.0, 1.0, (1.0, 0.0)), row(8, 1.2, 0.3, 0.98, (1.0, 0.0))];
    let found = limits(&Evidence { cpus: (2, 8), ..evidence(&rows) });
    assert_eq!(found, [Limit::BoundCpus, Limit::Startup]);
    let mut failing = rows.to_vec();
    failing[1].runs[0].summary.failed = 7;
    assert_eq!(limits(&evidence(&failing))[0], Limit::FailedJobs);
}

#[test]
fn noise_and_a_slow_first_run_are_warned_of_with_the_option_that_helps() {
    let mut noisy = row(2, 1.0, 1.0, 1.0, (1.0, 0.0));
    noisy.runs[1].wall_seconds = 1.5;
    let mut cold = row(1, 1.0, 1.0, 1.0, (1.0, 0.0));
    cold.runs[0].wall_seconds = 1.5;
    let warnings = warnings(&[cold, noisy], "threads", 2);
    assert!(warnings[0].contains("--warmup"), "{warnings:?}");
    assert!(warnings[1].contains("--runs"), "{warnings:?}");
    assert!(super::warnings(&[row(1, 1.0, 1.0, 1.0, (1.0, 0.0))], "threads", 2).is_empty());
}

#[test]
fn jobs_that_compute_do_not_wait_because_other_work_delays_the_start() {
    let found = |others| {
        let mut rows = [row(1, 0.8, 0.3, 0.1, (0.09, 0.0)), row(2, 0.27, 0.12, 0.11, (0.09, 0.0))];
        rows.iter_mut().flat_map(|row| &mut row.runs).for_each(|run| run.other_cpus = others);
        limits(&evidence(&rows)).contains(&Limit::Waiting)
    };
    assert!(found(Some(0.0)) && found(None) && !found(Some(1.8)));
}

#[test]
fn other_work_is_warned_of_if_it_needs_the_same_cpus() {
    let busy = |count, wall: f64, others| {
        let mut row = row(count, wall, wall, wall, (wall, 0.0));
        row.runs.iter_mut().for_each(|run| run.other_cpus = others);
        row
    };
    let found = warnings(&[busy(1, 1.0, Some(0.9)), busy(2, 1.0, Some(0.7))], "threads", 2);
    assert!(found[0].contains("with 2 threads, other work kept 0.7 of the 2 CPUs"), "{found:?}");
    assert!(warnings(&[busy(2, 1.0, Some(0.7))], "threads", 8).is_empty(), "there are CPUs for both");
    assert!(warnings(&[busy(2, 1.0, None)], "ranks", 2).is_empty(), "it is not known");
    assert!(warnings(&[busy(2, 0.12, Some(0.7))], "threads", 2).is_empty(), "it is too short to be known");
}
