//! The program: the same bytes for every number of ranks and threads.

use std::process::Command;

use crate::{mpiexec, rankpool, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("every_kernel_answers_the_same_for_every_number_of_ranks", every_kernel_answers_the_same),
    ("chunks_windows_and_a_dedicated_master_change_no_result", options_change_no_result),
    ("ranks_with_different_thread_counts_work_together", ranks_with_different_thread_counts),
    ("info_names_every_rank", info_names_every_rank),
    ("help_is_printed_once", help_is_printed_once),
    ("a_usage_error_is_said_once_with_exit_code_2", a_usage_error_is_printed_once),
    ("a_missing_input_ends_all_ranks_with_exit_code_2", a_missing_input_ends_all_ranks),
    ("failed_jobs_give_exit_code_3_and_a_line_each", failed_jobs_give_exit_code_3),
    ("a_closed_stdout_ends_all_ranks_quietly", a_closed_stdout_ends_all_ranks),
    ("a_summary_counts_messages_and_jobs_of_every_rank", a_summary_counts_every_rank),
    ("a_waiting_rank_uses_next_to_no_cpu", a_waiting_rank_uses_next_to_no_cpu),
];

const RANKS: [u32; 4] = [1, 2, 3, 5];

const KERNELS: &[&[&str]] = &[
    &["square"],
    &["cube"],
    &["sqrt"],
    &["power"],
    &["power", "--each-y"],
    &["sum"],
    &["rand-string", "--seed", "7"],
    &["sleep-square", "--seconds", "0.01"],
    &["slow-fn", "--input", "tests/data/slow_fn_512.csv", "--n", "100"],
    &["slow-fn-malloc", "--jobs", "16", "--n", "1000"],
    &["parzen", "--samples", "tests/data/gaussian_2d.csv", "--point", "0,0", "--widths", "0.1:1.2:12"],
    &["nop", "--jobs", "5000"],
    &["spin", "--jobs", "500", "--micros", "20"],
    &["sleep", "--jobs", "5", "--seconds", "0.01"],
];

fn every_kernel_answers_the_same() {
    for kernel in KERNELS {
        let arguments = [&["-q", "kernel"], *kernel].concat();
        let expected =
            run(Command::new(rankpool()).args(["--local", "1"]).args(&arguments)).expect_code(0).stdout.clone();
        assert!(!expected.is_empty(), "{kernel:?} answers nothing");
        for ranks in RANKS {
            let threads = if ranks % 2 == 0 { "2" } else { "1" };
            let answered = run(mpiexec(ranks, &rankpool()).args(&arguments).args(["--threads", threads]));
            assert!(answered.expect_code(0).stdout == expected, "{kernel:?} with {ranks} ranks answers otherwise");
        }
    }
}

fn options_change_no_result() {
    let base = ["-q", "kernel", "nop", "--jobs", "20000"];
    let expected = run(Command::new(rankpool()).args(["--local", "1"]).args(base)).expect_code(0).stdout.clone();
    for options in [
        &["--chunk", "1"][..],
        &["--chunk", "7", "--window", "50"],
        &["--dedicated-master", "--threads", "2"],
        &["--chunk", "100000"],
    ] {
        let answered = run(mpiexec(3, &rankpool()).args(base).args(options));
        assert!(answered.expect_code(0).stdout == expected, "{options:?} change the result");
    }
    let unordered = run(mpiexec(3, &rankpool()).args(base).arg("--unordered"));
    let mut lines: Vec<u64> =
        unordered.expect_code(0).out().lines().map(|line| line.parse().expect("a number")).collect();
    lines.sort_unstable();
    assert!(lines.into_iter().eq(0..20_000), "unordered results are the same set");
}

fn ranks_with_different_thread_counts() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let file = directory.path().join("summary.json");
    let kernel = ["-q", "kernel", "spin", "--micros", "200", "--jobs", "2000", "-o", "/dev/null"];
    let mut command = mpiexec(1, &rankpool());
    command.args(kernel).args(["--threads", "1", "--summary"]).arg(&file);
    command.args([":", "-n", "1"]).arg(rankpool()).args(kernel).args(["--threads", "3"]);
    run(&mut command).expect_code(0);
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the summary")).expect("it is JSON");
    let threads: Vec<_> = summary["per_rank"].as_array().expect("a list").iter().map(|rank| &rank["threads"]).collect();
    assert_eq!(threads, [&serde_json::json!(1), &serde_json::json!(3)]);
    assert_eq!(summary["jobs"], 2000);
}

fn info_names_every_rank() {
    let info = run(mpiexec(3, &rankpool()).arg("info"));
    let out = info.expect_code(0).out();
    for words in ["rank 0", "rank 1", "rank 2", "MPI_THREAD_"] {
        assert!(out.contains(words), "'{words}' is missing in:\n{out}");
    }
}

fn help_is_printed_once() {
    let help = run(mpiexec(3, &rankpool()).arg("--help"));
    assert_eq!(help.expect_code(0).out().matches("Usage:").count(), 1, "{}", help.out());
}

fn a_usage_error_is_printed_once() {
    let usage = run(mpiexec(3, &rankpool()).args(["kernel", "square", "--no-such-option"]));
    usage.expect_code(2);
    assert_eq!(usage.stderr.matches("--no-such-option").count(), 1, "{}", usage.stderr);
}

fn a_missing_input_ends_all_ranks() {
    run(mpiexec(3, &rankpool()).args(["kernel", "square", "--input", "no/such/file.csv"]))
        .expect_code(2)
        .expect_said("no/such/file.csv");
}

fn failed_jobs_give_exit_code_3() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let input = directory.path().join("jobs.jsonl");
    std::fs::write(&input, "4\n-1\n9\n").expect("a file for the test");
    let finished = run(mpiexec(2, &rankpool()).args(["kernel", "sqrt", "--input"]).arg(&input));
    let out = finished.expect_code(3).out();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with('2') && lines[2].starts_with('3'), "{out}");
    assert!(lines[1].starts_with(r#"{"error":{"job":2,"kind":"panic""#), "{out}");
}

fn a_closed_stdout_ends_all_ranks() {
    // The launcher reads the ranks' output itself, so the broken pipe has to be made on rank 0.
    let script = r#""$0" -q kernel nop --jobs 100000000 | head -n 2"#;
    let shell = "/bin/sh".into();
    let finished = run(mpiexec(1, &shell).args(["-c", script]).arg(rankpool()));
    assert_eq!(finished.expect_code(0).out(), "0\n1\n", "{}", finished.stderr);
}

fn a_summary_counts_every_rank() {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let file = directory.path().join("summary.json");
    let arguments = ["kernel", "spin", "--micros", "200", "--jobs", "2000", "--threads", "1", "--summary"];
    run(mpiexec(3, &rankpool()).args(arguments).arg(&file)).expect_code(0);
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the summary")).expect("it is JSON");
    assert_eq!((&summary["jobs"], &summary["failed"]), (&2000.into(), &0.into()), "{summary}");
    assert_eq!((&summary["ranks"], &summary["threads"]), (&3.into(), &3.into()), "{summary}");
    let ranks = summary["per_rank"].as_array().expect("a list");
    assert_eq!(ranks.iter().map(|rank| rank["jobs"].as_u64().unwrap_or(0)).sum::<u64>(), 2000, "{summary}");
    for rank in ranks {
        assert!(rank["jobs"].as_u64() > Some(0) && rank["messages_from"].as_u64() > Some(0), "{summary}");
    }
    let (wall, efficiency) = (summary["wall_seconds"].as_f64(), summary["efficiency"].as_f64());
    assert!(wall > Some(0.1) && efficiency > Some(0.0) && efficiency <= Some(1.01), "{summary}");
}

fn a_waiting_rank_uses_next_to_no_cpu() {
    // A loop that polls without sleeping uses a whole core, one that sleeps a few percent: the limit lies far from both.
    let finished = run(&mut crate::program(3, "wait-and-tell-cpu"));
    let out = finished.expect_code(0).out();
    let fractions: Vec<f64> = out.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(fractions.len() == 3 && fractions.iter().all(|&fraction| fraction < 0.25), "{fractions:?}");
}
