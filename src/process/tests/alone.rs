//! Tests that need a process of their own: as a rank that is killed, has few file descriptors, or is started by a launcher.

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::process::child::Process;
use crate::process::room;

/// Marks the process that was started for a single test.
const ALONE: &str = "RANKPOOL_TEST_ALONE";

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Returns the command that runs the test of this name in a process of its own.
fn rank(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    let name = format!("process::tests::alone::{name}");
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(ALONE, "1").stdout(Stdio::null());
    command
}

#[track_caller]
fn expect_success(command: &mut Command) {
    let mut child = command.spawn().expect("this program can be started again");
    let mut status = None;
    until("the process of the test ends", || {
        status = child.try_wait().expect("it is a child");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

/// Returns the helper of this process: the parent of a command.
fn helper_pid() -> i32 {
    pids(&output(&shell("echo $PPID"), None))[0]
}

fn open_files(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

fn children(parent: i32) -> usize {
    let processes = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == parent.to_string())).count()
}

#[test]
fn many_commands_leave_no_processes_and_no_files_behind() {
    if !is_alone() {
        return expect_success(&mut rank("many_commands_leave_no_processes_and_no_files_behind"));
    }
    let helper = helper_pid();
    let this = i32::try_from(std::process::id()).expect("process ids fit");
    let round = || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| assert_eq!(output(&program(&["echo", "x"]), Some(b"y")), b"x\n")));
            }
        });
    };
    round();
    let before = (open_files(this), open_files(helper));
    round();
    assert_eq!((open_files(this), open_files(helper)), before);
    assert_eq!(children(helper), 0);
    assert!(before.0 < 30 && before.1 < 30, "a few for each thread: {before:?}");
}

#[test]
fn two_threads_need_few_file_descriptors() {
    if !is_alone() {
        return expect_success(&mut rank("two_threads_need_few_file_descriptors"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).expect("a limit can be lowered");
    start_helper();
    let input = vec![b'x'; 200_000];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..100).for_each(|_| assert_eq!(output(&program(&["wc", "-c"]), Some(&input)), b"200000\n"));
            });
        }
    });
    let files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let why = why_not(&program(&["true"]));
    assert!(why.contains("too many open files") && why.contains("ulimit -n"), "{why}");
    drop(files);
    assert!(output(&program(&["true"]), None).is_empty());
}

#[test]
fn a_helper_without_room_says_so() {
    if !is_alone() {
        return expect_success(&mut rank("a_helper_without_room_says_so"));
    }
    start_helper();
    let helper = helper_pid();
    let limit = |soft: u32| {
        let limit = format!("--nofile={soft}:64");
        let status = Command::new("prlimit").args([&limit, &format!("--pid={helper}")]).status();
        status.is_ok_and(|status| status.success())
    };
    if !limit(64) {
        return;
    }
    // There is a channel with its thread, but no further descriptor.
    limit(4);
    let why = why_not(&program(&["true"]));
    assert!(why.contains("too many open files"), "{why}");
    limit(64);
    assert!(output(&program(&["true"]), None).is_empty());
    // Starts are repeated until there is room.
    limit(4);
    thread::scope(|scope| {
        scope.spawn(|| assert!(output(&program(&["true"]), None).is_empty()));
        until("it waits for room", room::is_wanted);
        limit(64);
    });
    let _first = Process::start(&program(&["sleep", "1000"]), [None; 3]).expect("it starts");
    limit(4);
    let why = why_not(&program(&["true"]));
    assert!(why.contains("file descriptor"), "{why}");
}

#[test]
fn many_threads_with_few_file_descriptors_take_turns() {
    if !is_alone() {
        return expect_success(&mut rank("many_threads_with_few_file_descriptors_take_turns"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).expect("a limit can be lowered");
    start_helper();
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(output(&shell("cat; sleep 0.02"), Some(b"x")), b"x");
                    // The rank itself still has descriptors.
                    drop(std::fs::File::open("/dev/null").expect("there is a descriptor"));
                }
            });
        }
    });
    assert!(!room::is_wanted());
}

#[test]
fn who_waits_for_room_can_be_cancelled() {
    if !is_alone() {
        return expect_success(&mut rank("who_waits_for_room_can_be_cancelled"));
    }
    start_helper();
    assert!(output(&program(&["true"]), None).is_empty());
    let (cancelled, keep) = pipe();
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).expect("a limit can be lowered");
    let files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    thread::scope(|scope| {
        let waits = scope.spawn(|| run(&program(&["true"]), None, &LIMITS, Some(cancelled.as_fd()), &mut |_, _| {}));
        until("it waits for room", room::is_wanted);
        drop(keep);
        assert_eq!(waits.join().expect("no panic").expect("the helper is there").reason, EndReason::Cancelled);
    });
    drop(files);
}

#[test]
fn a_flood_needs_no_memory() {
    if !is_alone() {
        return expect_success(&mut rank("a_flood_needs_no_memory"));
    }
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    assert!(output(&program(&["true"]), None).is_empty());
    let before = peak();
    let (mut length, mut longest) = (0, 0);
    let end = run(&program(&["head", "-c", "200000000", "/dev/zero"]), None, &LIMITS, None, &mut |_, bytes| {
        length += bytes.len();
        longest = longest.max(bytes.len());
    });
    assert_eq!(end.expect("the helper is there").reason, EndReason::Exited(0));
    assert_eq!(length, 200_000_000);
    assert!(longest <= 256 << 10, "{longest}");
    assert!(peak() < before + 8192, "{before} KiB have become {}", peak());
}

#[test]
fn commands_have_none_of_a_launcher_s_variables_and_files_and_are_ended_by_signals_that_were_not_ignored() {
    if !is_alone() {
        // As a launcher, which leaves a socket in every rank and names it in a variable; and as nohup, which ignores a signal.
        let rank = rank(
            "commands_have_none_of_a_launcher_s_variables_and_files_and_are_ended_by_signals_that_were_not_ignored",
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' CHLD HUP INT; exec 7</dev/null; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("it is a file"));
        command.args(rank.get_args()).env(ALONE, "1").stdout(Stdio::null());
        command.env("PMI_FD", "7").env("PMI_RANK", "1").env("OMPI_COMM_WORLD_RANK", "1").env("PMIX_RANK", "1");
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("RANKPOOL_THREADS", "2").env("HYDI_CONTROL_FD", "7");
        return expect_success(&mut command);
    }
    assert!(std::env::var_os("PMI_FD").is_some() && std::path::Path::new("/proc/self/fd/7").exists());
    let mut program = program(&["env"]);
    program.env.push(("MINE".into(), "1".into()));
    let text = String::from_utf8(output(&program, None)).expect("it is UTF-8");
    let variables: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    for gone in ["PMI_FD", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "HYDI_CONTROL_FD"] {
        assert_eq!(variables.get(gone), None, "{gone}");
    }
    for (kept, value) in [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("RANKPOOL_THREADS", "2"), ("MINE", "1")] {
        assert_eq!(variables.get(kept), Some(&value), "{kept}");
    }
    assert!(variables.contains_key("PATH"));
    let files = output(&shell("ls /proc/$$/fd"), None);
    assert_eq!(pids(&files), [0, 1, 2], "standard streams and nothing else");
    assert_eq!(finish(&shell("exit 7"), None).0.reason, EndReason::Exited(7));
    // `nohup` applies to the commands, too.
    assert_eq!(finish(&shell("kill -HUP $$"), None).0.reason, EndReason::Exited(0));
    assert_eq!(finish(&shell("kill -TERM $$"), None).0.reason, EndReason::Signalled(15));
}

/// A rank whose commands have written their process ids, and these ids.
fn rank_with_commands(name: &str) -> (Child, PathBuf, Vec<i32>) {
    let folder = tempfile::tempdir().expect("a directory for the test");
    let path = folder.keep();
    let child = rank(name).env("FOLDER", &path).process_group(0).spawn().expect("this program can be started again");
    let mut found = Vec::new();
    until("the commands run", || {
        let files = std::fs::read_dir(&path).expect("it is there").flatten();
        let complete = files.filter_map(|file| std::fs::read(file.path()).ok()).filter(|text| text.ends_with(b"\n"));
        found = complete.flat_map(|text| pids(&text)).collect();
        found.len() == 6
    });
    (child, path, found)
}

/// Runs two commands that leave their process ids, and their parent's, in files: one that ends at SIGTERM, and one that does not.
fn run_commands() {
    let folder = std::env::var("FOLDER").expect("the test says where");
    start_helper();
    let script = |trap: &str| format!("{trap} sleep 1000 & echo $PPID $$ $! > {folder}/$$; wait; sleep 1001");
    let deaf = script("trap '' TERM INT HUP;");
    thread::scope(|scope| {
        scope.spawn(|| run(&shell(&deaf), None, &LIMITS, None, &mut |_, _| {}));
        let _ = run(&shell(&script("")), None, &LIMITS, None, &mut |_, _| {});
    });
}

#[test]
fn a_rank_that_is_killed_leaves_nothing_behind() {
    if is_alone() {
        return run_commands();
    }
    let (mut child, folder, pids) = rank_with_commands("a_rank_that_is_killed_leaves_nothing_behind");
    assert!(pids.iter().all(|pid| lives(*pid)));
    let since = Instant::now();
    child.kill().expect("it is a child");
    child.wait().expect("it is a child");
    until_gone(&pids);
    assert!(since.elapsed() >= Duration::from_secs(4), "those that do not listen have a grace time");
    std::fs::remove_dir_all(folder).expect("it is the test's");
}

#[test]
fn a_signal_to_the_rank_s_group_does_not_reach_helper_and_commands() {
    if is_alone() {
        return run_commands();
    }
    let name = "a_signal_to_the_rank_s_group_does_not_reach_helper_and_commands";
    let (mut child, folder, pids) = rank_with_commands(name);
    let group = i32::try_from(child.id()).expect("process ids fit");
    for pid in &pids {
        assert_ne!(stat(*pid).expect("it runs")[2], group.to_string(), "it is in a group of its own");
    }
    // The helper survives signals to itself, too.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        kill(Pid::from_raw(pids[0]), signal).expect("it runs");
    }
    kill(Pid::from_raw(-group), Signal::SIGINT).expect("the group is there");
    assert_eq!(child.wait().expect("it is a child").signal(), Some(2));
    until_gone(&pids);
    std::fs::remove_dir_all(folder).expect("it is the test's");
}

/// Runs a shell script that writes lines, and kills the helper when it has written `lines` of them.
fn kill_helper_after(lines: usize, script: &str) -> (EndReason, Vec<i32>) {
    let helper = Pid::from_raw(helper_pid());
    let mut text = Vec::new();
    let end = run(&shell(script), None, &LIMITS, None, &mut |_, bytes| {
        text.extend_from_slice(bytes);
        if text.iter().filter(|byte| **byte == b'\n').count() >= lines {
            kill(helper, Signal::SIGKILL).expect("it runs");
        }
    });
    (end.expect("there is another helper").reason, pids(&text))
}

#[test]
fn a_killed_helper_takes_its_commands_with_it_and_another_one_serves_on() {
    if !is_alone() {
        return expect_success(&mut rank("a_killed_helper_takes_its_commands_with_it_and_another_one_serves_on"));
    }
    start_helper();
    let files = output(&shell("ulimit -n; ulimit -Hn"), None);
    for _ in 0..3 {
        let before = helper_pid();
        // One that ignores SIGTERM, one in a group of its own, as `timeout` makes it, and their children.
        let script = "trap '' TERM HUP INT; sh -c 'sleep 1000 & echo $! $$; wait' & echo $$; \
                      timeout 1000 sh -c 'sleep 1000 & echo $! $$; wait' & wait";
        let (how, pids) = kill_helper_after(3, script);
        assert!(matches!(&how, EndReason::Lost(why) if why.contains("spawn helper")), "{how:?}");
        assert_eq!(pids.len(), 5);
        assert!(!pids.iter().any(|pid| lives(*pid)), "nothing is left when the command is told of");
        assert_ne!(helper_pid(), before);
        assert_eq!(output(&shell("ulimit -n; ulimit -Hn"), None), files, "they may open as many files as before");
    }
}

#[test]
fn a_helper_that_is_killed_while_nothing_runs_harms_no_command() {
    if !is_alone() {
        return expect_success(&mut rank("a_helper_that_is_killed_while_nothing_runs_harms_no_command"));
    }
    start_helper();
    thread::scope(|scope| {
        // Four commands at once make four channels.
        for _ in 0..4 {
            scope.spawn(|| output(&shell("sleep 0.1"), None));
        }
    });
    for _ in 0..5 {
        kill(Pid::from_raw(helper_pid()), Signal::SIGKILL).expect("it runs");
        assert_eq!(output(&program(&["echo", "x"]), None), b"x\n");
    }
}

#[test]
fn only_running_commands_are_lost_when_helpers_are_killed_again_and_again() {
    if !is_alone() {
        return expect_success(&mut rank("only_running_commands_are_lost_when_helpers_are_killed_again_and_again"));
    }
    start_helper();
    let this = std::process::id().to_string();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (mut killed, mut lost) = (0, 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let ends = (0..300).map(|_| finish(&program(&["true"]), None).0.reason);
                    ends.filter(|how| match how {
                        EndReason::Exited(0) => false,
                        EndReason::Lost(_) => true,
                        other => panic!("{other:?}"),
                    })
                    .count()
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            let mut killed = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let processes = std::fs::read_dir("/proc").expect("this is Linux").flatten();
                let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
                // The helper leads a session.
                let helper = pids.find(|pid: &i32| {
                    stat(*pid).is_some_and(|fields| fields[1] == this && fields[3] == pid.to_string())
                });
                if helper.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()) {
                    killed += 1;
                }
                thread::sleep(Duration::from_millis(20));
            }
            killed
        });
        lost = threads.into_iter().map(|thread| thread.join().expect("it ends")).sum();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        killed = killer.join().expect("it ends");
    });
    assert!(killed > 0 && lost <= 3 * killed, "{lost} commands were lost with {killed} helpers");
}

#[test]
fn a_command_that_was_asked_to_end_ends_as_asked_when_the_helper_is_killed() {
    if !is_alone() {
        return expect_success(&mut rank("a_command_that_was_asked_to_end_ends_as_asked_when_the_helper_is_killed"));
    }
    let helper = Pid::from_raw(helper_pid());
    let time_limit = TimeLimit { timeout: Some(Duration::from_millis(50)), kill_after: LONG };
    let mut text = Vec::new();
    let script = "trap 'echo asked' TERM; echo $$; while :; do sleep 0.01; done";
    let end = run(&shell(script), None, &time_limit, None, &mut |_, bytes| {
        text.extend_from_slice(bytes);
        if text.ends_with(b"asked\n") {
            kill(helper, Signal::SIGKILL).expect("it runs");
        }
    });
    assert_eq!(end.expect("there is another helper").reason, EndReason::TimedOut);
}

#[test]
fn a_rank_that_gets_no_other_helper_says_so() {
    if !is_alone() {
        return expect_success(&mut rank("a_rank_that_gets_no_other_helper_says_so"));
    }
    let is_first = std::sync::atomic::AtomicBool::new(true);
    spawn::start_as(move || {
        let is_first = is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        let mut command = Command::new(if is_first { "/proc/self/exe" } else { "/no/such/program" });
        command.args(["--exact", "process::tests::the_spawn_helper_itself", "--nocapture"]).env(HELPER, "1");
        command
    })
    .expect("the first one starts");
    let helper = Pid::from_raw(helper_pid());
    let mut command = Vec::new();
    let end = run(&shell("echo $$; exec sleep 1000"), None, &LIMITS, None, &mut |_, bytes| {
        command.extend_from_slice(bytes);
        kill(helper, Signal::SIGKILL).expect("it runs");
    });
    let said = end.expect_err("there is no other").to_string();
    assert!(said.contains("no command can be started any more on this rank"), "{said}");
    until_gone(&pids(&command));
    assert!(run(&program(&["true"]), None, &LIMITS, None, &mut |_, _| {}).is_err());
}
