//! `rankpool bench`: figures of the ranks, the same work with more threads, why it is not faster, and what is refused.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{self, Finished};
use crate::{Files, LIMIT, command, json, until};

fn bench(files: &Files, words: &[&str]) -> Finished {
    let mut command = command(&["--threads", "1", "bench"]);
    support::run(command.args(words).current_dir(files.0.path()), LIMIT)
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_ranks_are_measured_and_all_figures_are_in_the_file() {
    let files = Files::new();
    let said = bench(&files, &["--each", "0.002", "--json", "figures.json"]);
    let out = said.expect_code(0).out();
    for word in ["start-up", "rank 1:", "sent one by one", "METG(90 %)", "GB/s", "a rank that waits"] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
    said.expect_said("measuring large values");
    let figures = json(&files.path("figures.json"));
    assert_eq!((figures["version"].as_u64(), figures["ranks"].as_u64()), (Some(1), Some(2)));
    let trips = figures["round_trips"].as_array().expect("an array");
    assert_eq!(trips.iter().map(|trip| trip["rank"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    for chunking in ["one_by_one", "automatic"] {
        let points = figures["efficiency"][chunking].as_array().expect("an array");
        assert_eq!(points.len(), 19);
        assert!(points.iter().all(|point| (0.0..=1.001).contains(&number(&point["efficiency"]))), "{points:?}");
        assert!(number(&points[0]["efficiency"]) < number(&points[18]["efficiency"]));
        assert!(number(&figures["job_seconds"][chunking]) > 0.0);
    }
    let large = figures["large"].as_array().expect("an array");
    assert!(large.iter().all(|large| number(&large["result_seconds"]) > 1e-6), "another rank has answered: {large:?}");
}

#[test]
fn work_is_run_with_more_and_more_threads_and_the_diagnosis_has_its_figures() {
    let files = Files::new();
    let work = ["kernel", "sleep", "--seconds", "0.02", "--jobs", "20"];
    let said = bench(
        &files,
        &[&["--counts", "4,2", "--runs", "2", "--each", "0.001", "--json", "f.json"][..], &work].concat(),
    );
    let out = said.expect_code(0).out();
    assert!(out.contains("kernel sleep --seconds 0.02 --jobs 20"), "{out}");
    assert!(out.contains("waiting: of the "), "{out}");
    let figures = json(&files.path("f.json"));
    let rows = figures["rows"].as_array().expect("an array");
    assert_eq!(rows.iter().map(|row| row["count"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(4)]);
    let run = |row: usize| number(&rows[row]["runs"][0]["run_seconds"]);
    assert!(number(&rows[0]["runs"][0]["other_cpus"]) >= 0.0);
    assert!(run(0) >= 0.4 && run(2) < run(0), "4 threads sleep at the same time: {} {}", run(0), run(2));
    let limits: Vec<_> =
        figures["findings"].as_array().expect("an array").iter().map(|it| it["limit"].clone()).collect();
    assert!(limits.contains(&"waiting".into()), "{limits:?}");
    assert_eq!(files.names(), ["f.json"], "nothing else is left");
}

#[test]
fn the_job_that_ends_last_is_named() {
    let files = Files::new();
    let seconds: String = (0..11).map(|job| if job == 10 { "0.5\n" } else { "0.01\n" }).collect();
    files.with("seconds", seconds);
    let work = ["run", "--input", "seconds", "--", "sleep", "{}"];
    let said = bench(&files, &[&["--counts", "2", "--runs", "1", "--each", "0.001"][..], &work].concat());
    let out = said.expect_code(0).out();
    assert!(out.contains("stragglers:") && out.contains("job 11 ("), "{out}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_to_do() {
    let files = Files::new();
    let refused = |words: &[&str], said: &str| {
        bench(&files, words).expect_code(2).expect_said(said);
    };
    refused(&["python", "script.py"], "begins with kernel, run or map");
    refused(&["kernel", "slow-fm"], "slow-fn");
    refused(&["kernel", "nop", "--output", "there"], "--output cannot be given with the work");
    refused(&["run", "--range", "1:3", "--records", "log", "--", "true"], "--records cannot be given");
    refused(&["--launcher", "mpiexec -n 2", "kernel", "nop"], "'mpiexec -n {}'");
    refused(&["--counts", "1,2"], "are for work");
    refused(&["--each", "0"], "from 0.001 to 3600");
    let launched = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "3")];
    let mut command = command(&["bench", "kernel", "nop"]);
    support::run(command.envs(launched).current_dir(files.0.path()), LIMIT)
        .expect_code(2)
        .expect_said("start it once, without mpiexec or srun");
    bench(&files, &["run", "--range", "1:3", "--", "no-such-program"]).expect_code(1).expect_said("exit code 2");
    let failing = bench(&files, &["--runs", "1", "--each", "0.001", "run", "--range", "1:3", "--", "false"]);
    assert!(failing.expect_code(0).out().contains("3 of 3 jobs failed"), "{failing:?}");
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let files = Files::new();
    let work = ["--counts", "1", "run", "--range", "1:2", "--", "touch", "{}"];
    for words in [&["--each", "0.001"][..], &work] {
        for option in ["--json", "--svg"] {
            let said = bench(&files, &[&[option, "no-folder/figures"][..], words].concat());
            said.expect_code(1).expect_said("cannot write no-folder/figures").expect_said(option);
            assert_eq!(said.out(), "", "nothing was measured");
            assert!(!said.stderr.contains("measuring") && !said.stderr.contains("run 1 of"), "{said:?}");
        }
    }
    let said = bench(&files, &[&["--json", "one", "--svg", "./one"][..], &work].concat());
    said.expect_code(2).expect_said("--json and --svg are both");
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn a_file_that_fails_in_the_end_does_not_lose_the_figures() {
    let files = Files::new();
    for words in [&["--each", "0.001"][..], &["--counts", "1", "--runs", "1", "--each", "0.001", "kernel", "nop"]] {
        for (option, other) in [("--json", "--svg"), ("--svg", "--json")] {
            let said = bench(&files, &[&[option, "/dev/full", other, "other"][..], words].concat());
            said.expect_code(1).expect_said("/dev/full");
            assert!(said.out().contains("METG") || said.out().contains("speed-up"), "{said:?}");
            assert_eq!(files.names(), ["other"], "one does not keep the other from being written");
            std::fs::remove_file(files.path("other")).expect("it is there");
        }
        let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
        let status = command(&["bench", "-q"]).args(words).stdout(full).stderr(std::process::Stdio::null()).status();
        assert_eq!(status.expect("it ends").code(), Some(1), "the table was not written");
    }
}

#[test]
fn the_cpu_time_of_commands_is_theirs() {
    let files = Files::new();
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    for (words, least, most) in [("sleep 0.3", 0.0, 0.1), (busy, 0.2, 1.5)] {
        let work = ["run", "--range", "1:2", "--", "sh", "-c", words];
        let measured = ["--counts", "1", "--runs", "1", "--warmup", "0", "--each", "0.001", "--json", "figures"];
        bench(&files, &[&measured[..], &work].concat()).expect_code(0);
        let run = &json(&files.path("figures"))["rows"][0]["runs"][0];
        let cpu = number(&run["user_seconds"]) + number(&run["system_seconds"]);
        let share = cpu / number(&run["busy_seconds"]);
        assert!((least..most).contains(&share), "the CPU works {share} of the time of `{words}`: {run}");
    }
}

#[test]
fn an_interrupt_ends_it_and_leaves_files_of_earlier_measurements_as_they_were() {
    let files = Files::new();
    files.with("figures", "of an earlier measurement");
    let work = ["--counts", "1", "run", "--range", "1:4", "--", "sh", "-c", "touch begun; sleep 100"];
    for (words, begun) in [(&["--each", "100"][..], "picture.partial"), (&work, "begun")] {
        let mut command = command(&["bench", "--json", "figures", "--svg", "picture"]);
        let mut child = support::start(command.args(words).current_dir(files.0.path()));
        until("it measures", || files.path(begun).exists());
        support::signal(&child, Signal::SIGINT);
        let end = support::wait(&mut child, LIMIT.min(Duration::from_secs(60))).expect("it ends");
        assert_eq!(end.code(), Some(75), "{words:?}");
        let figures = std::fs::read_to_string(files.path("figures")).expect("it is there");
        assert_eq!(figures, "of an earlier measurement");
        let _ = std::fs::remove_file(files.path("begun"));
        assert_eq!(files.names(), ["figures"]);
    }
}

#[test]
fn the_commands_of_the_page_on_tuning_do_what_it_says() {
    let files = Files::new();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tuning.md");
    let page = std::fs::read_to_string(page).expect("there is a page");
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_rankpool")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    for words in commands {
        let mut shell = std::process::Command::new("sh");
        support::run(shell.args(["-c", words]).env("PATH", &path).current_dir(files.0.path()), LIMIT).expect_code(0);
    }
    assert_eq!(files.names(), ["allocation.json", "allocation.svg", "work.json", "work.svg"]);
    let picture = std::fs::read_to_string(files.path("work.svg")).expect("a picture");
    for word in ["kernel slow-fn --jobs 200", "2 threads", "1.00×", "ideal", "serial", "CPUs"] {
        assert!(picture.contains(word), "{word} is missing in\n{picture}");
    }
}
