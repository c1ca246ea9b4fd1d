//! What the program says: help, usage errors, summaries, the ranks.

use std::fs;
use std::process::Command;

use crate::{Files, LIMIT, command, json, kernel, support};

#[test]
fn wrong_usage_has_exit_code_2() {
    for (words, message) in [
        ("", "Usage: rankpool kernel"),
        ("square --threads 0", "invalid value '0' for '--threads <N>': not a number from 1"),
        ("square --local 0", "invalid value '0' for '--local <N>'"),
        ("square --chunk 0", "neither `auto` nor a number from 1"),
        ("square --no-such-option", "unexpected argument '--no-such-option'"),
        ("slow-fn --n 0", "invalid value '0' for '--n <N>': not a number from 1"),
        ("sleep --seconds -1", "negative, or too long"),
        ("parzen --samples f --widths 1:2", "not of the form START:END:COUNT"),
        ("parzen", "--samples <FILE>"),
        ("square --count 3", "--count sets the number of samples, so it needs at least one --sample"),
        ("square --range 1:3 --args a", "--args and --range cannot be combined"),
        ("nop --jobs 3 --range 1:3", "cannot be used with"),
    ] {
        assert_eq!(kernel(words).expect_code(2).expect_said(message).out(), "", "{words}");
    }
    let mut environment = command(&["kernel", "square"]);
    support::run(environment.env("RANKPOOL_THREADS", "many"), LIMIT)
        .expect_code(2)
        .expect_said("RANKPOOL_THREADS=many in the environment is not a number from 1");
}

#[test]
fn an_unknown_function_is_answered_with_near_names_and_all_names() {
    let run = kernel("sqare");
    run.expect_code(2)
        .expect_said("there is no built-in function 'sqare'. Did you mean square")
        .expect_said("rand-string");
}

#[test]
fn a_summary_is_one_json_object() {
    let files = Files::new();
    let (output, summary) = (files.path("out.jsonl"), files.path("summary.json"));
    let words = format!("nop --jobs 500 --threads 1 -o {} --summary {}", output.display(), summary.display());
    assert_eq!(kernel(&words).expect_code(0).expect_said("nop: 500 jobs in").out(), "");
    assert_eq!(fs::read_to_string(output).expect("the results").lines().count(), 500);
    let summary = json(&summary);
    assert_eq!((&summary["name"], &summary["jobs"]), (&"nop".into(), &500.into()), "{summary}");
    assert_eq!((&summary["ranks"], &summary["threads"]), (&2.into(), &2.into()), "{summary}");
    assert_eq!(kernel("square -q --summary - -o /dev/null").expect_code(0).out().lines().count(), 1);
}

#[test]
fn quiet_says_nothing_and_verbose_says_where_the_ranks_are() {
    assert_eq!(kernel("square -q").expect_code(0).stderr, "");
    kernel("square -v --threads 1")
        .expect_code(0)
        .expect_said("2 rank(s) on 1 host(s), 2 thread(s)")
        .expect_said("rank 1 on ")
        .expect_said("square: 10 jobs in");
}

#[test]
fn info_tells_ranks_and_threads() {
    let text = support::run(&mut command(&["info", "--threads", "3"]), LIMIT).expect_code(0).out();
    assert!(text.starts_with("rankpool ") && text.contains("2 rank(s) on 1 host(s), 6 thread(s)"), "{text}");
    let mut info = command(&["info", "--json", "--threads", "3"]);
    let out = support::run(info.env("SLURM_JOB_ID", "17"), LIMIT).expect_code(0).out();
    let info: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&info["threads"], &info["mpi"]), (&6.into(), &serde_json::Value::Null), "{info}");
    assert_eq!((&info["ranks"][1]["threads"], &info["allocation"]), (&3.into(), &"Slurm 17".into()), "{info}");
}

#[test]
fn help_version_completions_and_manual_go_to_standard_output() {
    for (words, expected) in [
        (&["--help"][..], "Exit codes:"),
        (&["kernel", "--help"], "rand-string"),
        (&["kernel", "parzen", "--help"], "--widths <START:END:COUNT>"),
        (&["--version"], "rankpool 0."),
        (&["completions", "bash"], "_rankpool()"),
        (&["completions", "zsh"], "#compdef rankpool"),
        (&["completions", "fish"], "complete -c rankpool"),
        (&["man"], ".TH rankpool 1"),
        (&["man", "kernel", "nop"], ".TH rankpool-kernel-nop 1"),
    ] {
        let run = support::run(&mut command(words), LIMIT);
        assert!(run.expect_code(0).out().contains(expected), "{words:?}: {}", run.out());
        assert_eq!(run.stderr, "", "{words:?}");
    }
    support::run(&mut command(&["man", "nothing"]), LIMIT)
        .expect_code(2)
        .expect_said("no subcommand `rankpool nothing`");
    let nothing = support::run(&mut Command::new(env!("CARGO_BIN_EXE_rankpool")), LIMIT);
    nothing.expect_code(2).expect_said("Usage: rankpool");
}

#[test]
fn of_many_processes_only_rank_0_speaks() {
    for (words, code) in
        [(&["--help"][..], 0), (&["kernel", "sqare"], 2), (&["man"], 0), (&["-o", "a", "--summary", "a", "info"], 2)]
    {
        for rank in ["0", "1"] {
            let mut command = command(words);
            let run = support::run(command.env("PMI_RANK", rank).env("PMI_SIZE", "2"), LIMIT);
            if rank == "0" {
                assert!(!run.expect_code(code).out().is_empty() || !run.stderr.is_empty());
            } else {
                assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("", ""), "{words:?}");
            }
        }
    }
    let mut local = command(&["kernel", "square"]);
    let run = support::run(local.env("PMI_RANK", "0").env("PMI_SIZE", "2"), LIMIT);
    run.expect_code(2).expect_said("local ranks are threads of one process, but 2 processes were started");
}
