//! What a job of `rankpool run` is given: the words of its command, its input, its folder and its environment.

use std::fs;
use std::process::Command;

use crate::{Files, LIMIT, batch, command, run_batch, support};

/// Runs `printf '%s|'` with these words behind `--`, and gives the output.
#[track_caller]
fn shown(files: &Files, options: &[&str], words: &[&str]) -> String {
    let words: Vec<&str> = [options, &["--", "printf", "%s|"], words].concat();
    let run = run_batch(files, &words);
    run.expect_code(0).expect_said("run: ");
    run.out()
}

#[test]
fn every_placeholder_is_replaced() {
    let files = Files::new();
    let words = ["{}", "{.}", "{/}", "{//}", "{/.}", "{#}", "{%}", "a{}b{}", "{{}}", "{{#}}", "{1}"];
    let out = shown(&files, &["--local", "1", "--threads", "1", "--args", "d.e/f.tar.gz", "x"], &words);
    let expected = "d.e/f.tar.gz|d.e/f.tar|f.tar.gz|d.e|f.tar|1|1|ad.e/f.tar.gzbd.e/f.tar.gz|{}|{#}|d.e/f.tar.gz|\
                    x|x|x|.|x|2|1|axbx|{}|{#}|x|";
    assert_eq!(out, expected);
}

#[test]
fn records_come_from_every_kind_of_input() {
    let files = Files::new();
    files.with("lines.txt", "a b\r\n\nc");
    files.with("more.txt", "d\n");
    files.with("t.csv", "name,size\n\"x, \"\"y\"\"\",1\n'z',2\n");
    files.with("t.tsv", "name\tsize\nx \"y\t1\n");
    files.with("j.jsonl", "{\"a\": {\"b\": 1}, \"c\": \"x y\"}\n");
    files.with("values.jsonl", "\"s\"\n[1,2]\n1.50\n");
    files.with("null", "a\nb\0c\0");
    files.with("headed.txt", "k\nv\n");
    for (options, words, expected) in [
        (&["--input", "lines.txt", "-i", "more.txt"][..], &["{#}", "{}"][..], "1|a b|2|c|3|d|"),
        (&["--input", "t.csv"], &["{name}", "{size}", "{2}"], "x, \"y\"|1|1|'z'|2|2|"),
        (&["--input", "t.csv", "--no-header", "--take", "1"], &["{1}{2}"], "namesize|"),
        (&["--input", "t.tsv"], &["{name}", "{size}"], "x \"y|1|"),
        (&["--input", "j.jsonl"], &["{a}", "{c}"], "{\"b\": 1}|x y|"),
        (&["--input", "values.jsonl"], &["{}"], "s|[1,2]|1.50|"),
        (&["--input", "null", "--null"], &["{}"], "a\nb|c|"),
        (&["--input", "headed.txt", "--header"], &["{k}"], "v|"),
        (&["--input", "more.txt", "--format", "csv", "--no-header"], &["{1}"], "d|"),
        (&["--args", "a", "-1", ""], &["{}"], "a|-1||"),
        (&["--range", "1:0:-0.5"], &["{}"], "1|0.5|0|"),
        (&["--range", "1:9", "--skip", "2", "--take", "2"], &["{#}", "{}"], "3|3|4|4|"),
        (&["--grid", "x=1,2", "--grid", "y=a,b"], &["{x}{y}"], "1a|1b|2a|2b|"),
        (&["--sample", "x=3:3", "--count", "2"], &["{x}"], "3|3|"),
    ] {
        assert_eq!(shown(&files, options, words), expected, "{options:?}");
    }
}

#[test]
fn arguments_arrive_as_they_are_and_no_shell_reads_them() {
    let files = Files::new();
    let odd =
        ["a b", "it's", "\"q\"", "l1\nl2", "$HOME", "`id`", "*", "-n", "--", "; touch made", "\\n", "", "ä€", "~"];
    let words: Vec<&str> = ["--null", "-i", "odd", "--", "printf", "[%s]", "{}", "$X *", "{}"].into();
    files.with("odd", odd.map(|word| if word.is_empty() { "EMPTY" } else { word }).join("\0"));
    let run = run_batch(&files, &words);
    let expected: String = odd
        .iter()
        .map(|word| if word.is_empty() { "EMPTY" } else { word })
        .map(|word| format!("[{word}][$X *][{word}]"))
        .collect();
    assert_eq!(run.expect_code(0).out(), expected);
    // The same through a shell: it quotes what is replaced, and only that.
    let script = ["--null", "-i", "odd", "--shell", "--", "printf '[%s]' {} \"<{}>\" '{}'; X=1; printf '[%s]' $X"];
    let expected: String = odd
        .iter()
        .map(|word| if word.is_empty() { "EMPTY" } else { word })
        .map(|word| format!("[{word}][<{word}>][{word}][1]"))
        .collect();
    assert_eq!(run_batch(&files, &script).expect_code(0).out(), expected);
    let empty = ["--args", "", "--shell", "--", "printf '[%s]' {} a"];
    assert_eq!(run_batch(&files, &empty).expect_code(0).out(), "[][a]");
    assert_eq!(files.names(), ["odd"], "nothing was run as a command");
}

#[test]
fn a_shell_runs_pipes_redirections_and_lists_of_command_lines() {
    let files = Files::new();
    files.with("commands.txt", "echo one | tr a-z A-Z\necho 'two  2' >&2; echo $RANKPOOL_JOB\nexit 3\n");
    let run = run_batch(&files, &["-q", "-i", "commands.txt", "--shell", "--stderr", "err", "--", "{}"]);
    assert_eq!(run.expect_code(3).expect_said("job 3: exit code 3").out(), "ONE\n2\n");
    assert_eq!(fs::read_to_string(files.path("err")).expect("text"), "two  2\n");
    run_batch(&files, &["--args", "a b", "--shell", "--", "echo {#} > {}"]).expect_code(0);
    assert_eq!(fs::read_to_string(files.path("a b")).expect("it was written"), "1\n");
    run_batch(&files, &["--args", "a", "--shell", "--", "echo \\{}"]).expect_code(2).expect_said("behind a backslash");
    run_batch(&files, &["--args", "a", "--shell", "--", "sh -c 'echo {}'"])
        .expect_code(2)
        .expect_said("{} would be read as code by the script's own `sh -c`")
        .expect_said("sh -c 'wc -l < \"$1\"' _ {}");
}

#[test]
fn input_folder_environment_and_tag_are_filled_in() {
    let files = Files::new();
    fs::create_dir(files.path("sub a")).expect("a folder");
    fs::create_dir(files.path("sub b")).expect("a folder");
    files.with("jobs.csv", "d,text\nsub a,x=1\nsub b,\n");
    let options = ["-i", "jobs.csv", "--stdin", "<{text}>", "--cwd", "{d}", "--env", "V={text}", "--env", "W=a=b"];
    let script = "cat; pwd | sed 's,.*/,,'; printf '%s/%s' \"$V\" \"$W\"; echo e >&2";
    let words = [&options[..], &["--tag={d}#{#}", "--stderr", "err", "--", "sh", "-c", script]].concat();
    let run = run_batch(&files, &words);
    let expected = "sub a#1\t<x=1>sub a\nsub a#1\tx=1/a=b\nsub b#2\t<>sub b\nsub b#2\t/a=b\n";
    assert_eq!(run.expect_code(0).out(), expected);
    assert_eq!(fs::read_to_string(files.path("err")).expect("text"), "sub a#1\te\nsub b#2\te\n");
    let run = run_batch(&files, &["--args", "x", "--tag", "--", "echo", "y"]);
    assert_eq!(run.expect_code(0).out(), "x\ty\n");
}

#[test]
fn commands_that_read_see_the_end_of_their_input() {
    let files = Files::new();
    let run = run_batch(&files, &["--range", "1:3", "--", "sh", "-c", "cat; echo {}"]);
    assert_eq!(run.expect_code(0).out(), "1\n2\n3\n");
    // More than a pipe holds, to a command that reads it, reads some of it, and none of it.
    files.with("big.txt", format!("{}\n", "y".repeat(1 << 20)));
    for (script, expected) in [("wc -c", "1048576"), ("head -c 3", "yyy"), ("echo no", "no")] {
        let run = run_batch(&files, &["-i", "big.txt", "--stdin", "{}", "--", "sh", "-c", script]);
        assert_eq!(run.expect_code(0).out().trim(), expected);
    }
    // What rankpool itself could read is not theirs.
    let script = format!("echo mine | {} --local 1 run --args 1 -- cat", env!("CARGO_BIN_EXE_rankpool"));
    assert_eq!(support::run(Command::new("sh").args(["-c", &script]), LIMIT).expect_code(0).out(), "");
}

#[test]
fn jobs_learn_who_they_are_from_their_environment() {
    let files = Files::new();
    let script = "echo $RANKPOOL_JOB $RANKPOOL_RANK $RANKPOOL_SLOT $RANKPOOL_ATTEMPT $RANKPOOL_SEED";
    let seen = |options: &[&str]| {
        let run = run_batch(&files, &[options, &["--range", "5:9", "--skip", "1", "--", "sh", "-c", script]].concat());
        run.expect_code(0);
        let lines = run.out();
        let rows =
            lines.lines().map(|line| line.split(' ').map(|word| word.parse::<u64>().expect("a number")).collect());
        rows.collect::<Vec<Vec<u64>>>()
    };
    let (one, other) = (seen(&[]), seen(&["--local", "4", "--threads", "3"]));
    for (rows, slots, ranks) in [(&one, 1..=64, 0..2), (&other, 1..=12, 0..4)] {
        for (row, number) in rows.iter().zip(2..) {
            assert!(row[0] == number && ranks.contains(&row[1]) && slots.contains(&row[2]) && row[3] == 1, "{rows:?}");
        }
    }
    let seeds = |rows: &[Vec<u64>]| rows.iter().map(|row| row[4]).collect::<Vec<_>>();
    assert_eq!(seeds(&one), seeds(&other), "seeds do not depend on ranks");
    assert_ne!(seeds(&one), seeds(&seen(&["--seed", "1"])));
    let mut distinct = seeds(&one);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "each job has its own");
}

#[test]
fn launchers_variables_are_kept_from_jobs_and_others_are_not() {
    let files = Files::new();
    let script = "env | grep -E '^(PMI|PMIX|OMPI|HYDI|SLURM|MY|OMP)_' | sort | tr '\\n' ' '";
    let mut command = batch(&files, &["--args", "1", "--job-cpus", "2", "--env", "MY_B={}", "--", "sh", "-c", script]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("PMI_X", "1").env("PMIX_Y", "1").env("OMPI_MCA_z", "1").env("HYDI_CONTROL_FD", "9");
    command.env("SLURM_STEP_ID", "0").env("SLURM_JOB_ID", "17").env("MY_A", "a b");
    let out = support::run(&mut command, LIMIT).expect_code(0).out();
    assert_eq!(out, "MY_A=a b MY_B=1 OMP_NUM_THREADS=2 SLURM_JOB_ID=17 ");
    let mut command = batch(&files, &["--args", "1", "--job-cpus", "2", "--", "sh", "-c", "echo $OMP_NUM_THREADS"]);
    assert_eq!(support::run(command.env("OMP_NUM_THREADS", "7"), LIMIT).expect_code(0).out(), "7\n");
    let words = ["--args", "1", "--env", "RANKPOOL_JOB=x", "--", "sh", "-c", "echo $RANKPOOL_JOB"];
    assert_eq!(run_batch(&files, &words).expect_code(0).out(), "x\n", "what is asked for goes before");
}

#[test]
fn no_two_running_jobs_share_a_slot() {
    let files = Files::new();
    // A job that finds its slot taken, or a slot beyond those that there are, fails.
    let script = "test {%} -le 6 && mkdir slot{%} && sleep 0.01 && rmdir slot{%} && test {%} = $RANKPOOL_SLOT";
    let words = ["--local", "2", "--threads", "3", "--range", "1:60", "--", "sh", "-c", script];
    run_batch(&files, &words).expect_code(0);
    let words = ["--local", "1", "--threads", "4", "--job-cpus", "2", "--range", "1:8", "--", "sh", "-c", script];
    run_batch(&files, &words).expect_code(0);
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn a_dry_run_shows_lines_for_a_shell_and_starts_nothing() {
    let files = Files::new();
    fs::create_dir(files.path("d")).expect("a folder");
    files.with("jobs", "a b\0it's\0$HOME *\0-n\0l1\nl2");
    let options = ["--null", "-i", "jobs", "--cwd", "d", "--env", "V={}", "--stdin", "<{}>"];
    let command_line = ["--", "sh", "-c", "printf '[%s]' \"$0\" \"$V\"; cat; touch made", "{}"];
    let run = run_batch(&files, &[&options[..], &command_line].concat());
    let expected = run.expect_code(0).out();
    fs::remove_file(files.path("d/made")).expect("a job made it");
    let mut by_hand = String::new();
    for skip in ["0", "1", "2", "3", "4"] {
        let not_run = ["--dry-run", "--records", "r", "--output", "o", "--skip", skip, "--take", "1"];
        let dry = run_batch(&files, &[&options[..], &not_run, &command_line].concat());
        dry.expect_code(0);
        assert_eq!(files.names(), ["d", "jobs"], "nothing was written");
        assert!(!files.path("d/made").exists(), "nothing was started");
        let run = support::run(Command::new("sh").args(["-c", &dry.out()]).current_dir(files.0.path()), LIMIT);
        by_hand += &run.expect_code(0).out();
        fs::remove_file(files.path("d/made")).expect("the line is the job");
    }
    assert_eq!(by_hand, expected);
    // A program that is not here may be on the nodes.
    let words = ["run", "--dry-run", "--args", "x y", "--shell", "--", "no-such {} | sort > {.}.txt"];
    let run = support::run(&mut command(&words), LIMIT);
    assert!(run.expect_code(0).out().contains("no-such"), "{}", run.out());
    assert_eq!(run.stderr, "");
}
