//! Jobs for which there is not enough memory, in a control group with little of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Files, LIMIT, json, records, support};

/// A control group that is removed at the end of its test.
struct Group(PathBuf);

impl Group {
    /// Makes a control group with so much memory.
    ///
    /// # Errors
    /// Why that is not possible here.
    fn with_memory(mib: u64) -> Result<Group, String> {
        let name = format!("rankpool-test-{}-{mib}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (folder, limit, events) = if first.is_dir() {
            (first.join(name), "memory.limit_in_bytes", "memory.oom_control")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", "memory.events")
        };
        let failed = |what: &str, error| format!("{what} {}: {error}", folder.display());
        fs::create_dir(&folder).map_err(|error| failed("cannot make", error))?;
        let group = Group(folder.clone());
        fs::write(folder.join(limit), (mib << 20).to_string()).map_err(|error| failed("no limit for", error))?;
        // Otherwise memory is not exhausted, but swapped out.
        for swap in ["memory.swap.max", "memory.swappiness"] {
            let _ = fs::write(folder.join(swap), "0");
        }
        let counted = fs::read_to_string(folder.join(events)).unwrap_or_default();
        if counted.lines().any(|line| line.starts_with("oom_kill ")) {
            Ok(group)
        } else {
            Err("kills are not counted".into())
        }
    }

    /// `rankpool` with these words, in this group and in the folder of the test.
    fn command(&self, files: &Files, words: &[&str]) -> Command {
        let script = "echo $$ > \"$1\" || exit 99; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(self.0.join("cgroup.procs")).arg(env!("CARGO_BIN_EXE_rankpool"));
        command.args(["--local", "1", "--progress", "off"]).args(words).current_dir(files.0.path());
        command.env_remove("RANKPOOL_THREADS").env_remove("RANKPOOL_LOCAL");
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The processes that were in it may be gone only in a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} is left", self.0.display());
    }
}

/// Makes a group, or says why there is none.
fn group(mib: u64) -> Option<Group> {
    Group::with_memory(mib).map_err(|why| eprintln!("skipped: no control group with little memory: {why}")).ok()
}

/// Uses memory until the other jobs have, too: so two of them do not fit.
const JOB: &str = "import sys, time\nx = bytearray(b'1') * (70 << 20)\ntime.sleep(0.4)\nprint(sys.argv[1])\n";

#[test]
fn commands_for_which_memory_is_exhausted_are_run_again_with_more_room() {
    let Some(group) = group(140) else { return };
    let files = Files::new();
    let job = files.with("job.py", JOB);
    let words = [
        "--threads",
        "4",
        "--summary",
        "s.json",
        "run",
        "--records",
        "r",
        "--range",
        "1:6",
        "--",
        "python3",
        &job,
        "{}",
    ];
    let finished = support::run(&mut group.command(&files, &words), LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.out(), "1\n2\n3\n4\n5\n6\n");
    let attempts = records(&files, "r").iter().map(|entry| entry["attempts"].as_u64().unwrap()).max();
    assert!((2..=3).contains(&attempts.unwrap()), "{attempts:?}");
    let memory = &json(&files.path("s.json"))["job_memory"];
    assert_eq!(
        (&memory["jobs"], &memory["node_bytes"], &memory["fit_on_node"]),
        (&6.into(), &(140 << 20).into(), &1.into())
    );
    assert!(memory["out_of_memory"].as_u64() > Some(0) && memory["most_bytes"].as_u64() > Some(70 << 20), "{memory}");
    assert!(finished.stderr.contains("killed for lack of memory; these jobs were run again"), "{}", finished.stderr);
}

#[test]
fn a_command_that_needs_more_memory_than_there_is_fails_after_it_was_alone() {
    let Some(group) = group(60) else { return };
    let files = Files::new();
    let job = files.with("job.py", JOB);
    let words = ["--threads", "2", "run", "--records", "r", "--args", "1", "--", "python3", &job, "{}"];
    let finished = support::run(&mut group.command(&files, &words), LIMIT);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    let entry = &records(&files, "r")[0];
    assert_eq!((&entry["status"], &entry["attempts"], &entry["signal"]), (&"signal".into(), &3.into(), &9.into()));
    assert!(finished.stderr.contains("job 1: killed for lack of memory (it had "), "{}", finished.stderr);
    let words = ["run", "--job-mem", "none", "--records", "r2", "--args", "1", "--", "python3", &job, "{}"];
    assert_eq!(support::run(&mut group.command(&files, &words), LIMIT).code, Some(3));
    assert_eq!(records(&files, "r2")[0]["attempts"], 1);
}

#[test]
fn no_memory_is_exhausted_if_the_memory_of_a_job_is_given() {
    let Some(group) = group(161) else { return };
    let files = Files::new();
    let job = files.with("job.py", JOB);
    let words = [
        "--threads",
        "4",
        "--summary",
        "s.json",
        "run",
        "--job-mem",
        "90M",
        "--range",
        "1:4",
        "--",
        "python3",
        &job,
        "{}",
    ];
    let finished = support::run(&mut group.command(&files, &words), LIMIT);
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "1\n2\n3\n4\n"), "{}", finished.stderr);
    assert_eq!(json(&files.path("s.json"))["job_memory"]["out_of_memory"], 0);
}

#[test]
fn records_for_which_memory_is_exhausted_are_sent_again_with_more_room() {
    let Some(group) = group(162) else { return };
    let files = Files::new();
    let text = "import time\ndef f(x):\n    memory = bytearray(b'1') * (70 << 20)\n    time.sleep(0.4)\n    return x\n";
    files.with("m.py", text);
    let words = ["--threads", "4", "map", "--python", "m.py:f", "--records", "r", "--range", "1:6"];
    let finished = support::run(&mut group.command(&files, &words), LIMIT);
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "1\n2\n3\n4\n5\n6\n"), "{}", finished.stderr);
    let attempts = records(&files, "r").iter().map(|entry| entry["attempts"].as_u64().unwrap()).max();
    assert!((2..=3).contains(&attempts.unwrap()), "{attempts:?}");
}

#[test]
fn workers_that_are_idle_are_closed_where_their_memory_is_needed() {
    let Some(group) = group(250) else { return };
    let files = Files::new();
    // Four workers hold 40 MiB each; with all of them there is too little for the record that needs 140 MiB more.
    let text = "import time\nheld = None\ndef load():\n    global held\n    held = bytearray(b'1') * (40 << 20)\n\
        def f(x):\n    memory = bytearray(b'1') * ((140 if x == 6 else 1) << 20)\n    time.sleep(0.3)\n    return x\n";
    files.with("m.py", text);
    let words = ["--threads", "4", "--chunk", "1", "map", "--python", "m.py:f", "--setup", "load", "--range", "1:8"];
    let finished = support::run(&mut group.command(&files, &words), LIMIT);
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "1\n2\n3\n4\n5\n6\n7\n8\n"), "{}", finished.stderr);
    assert!(finished.stderr.contains("killed for lack of memory; these jobs were run again"), "{}", finished.stderr);
}
