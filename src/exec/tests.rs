//! External processes, with a real spawn helper: this test program, started again.

use std::process::Command;
use std::time::{Duration, Instant};

use super::command::{CommandEnd, How, Limits, Stream, run};
use super::helper;
use super::process::{Launch, Process};

/// Makes this test program a spawn helper.
const HELPER: &str = "RANKPOOL_TEST_HELPER";

#[test]
fn the_spawn_helper_itself() {
    if std::env::var_os(HELPER).is_some() {
        std::process::exit(i32::from(helper::serve().is_err()));
    }
}

fn start_helper() {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "exec::tests::the_spawn_helper_itself", "--nocapture"]).env(HELPER, "1");
    helper::start_as(command).expect("the helper starts");
}

const LIMITS: Limits = Limits { timeout: Some(Duration::from_secs(60)), kill_after: Duration::from_secs(5) };

fn launch(words: &[&str]) -> Launch {
    let mut words = words.iter().map(ToString::to_string);
    Launch { program: words.next().expect("a program"), args: words.collect(), ..Launch::default() }
}

fn shell(script: &str) -> Launch {
    launch(&["sh", "-c", script])
}

/// What a command does that nobody disturbs.
#[track_caller]
fn finish(launch: &Launch, stdin: Option<&[u8]>) -> (CommandEnd, Vec<u8>, Vec<u8>) {
    start_helper();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = run(launch, stdin, &LIMITS, None, &mut |stream, bytes| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    });
    (end.expect("the helper is there"), stdout, stderr)
}

#[test]
fn a_command_s_outputs_and_exit_code_are_told() {
    let (end, stdout, stderr) = finish(&shell("echo out; echo err >&2; exit 7"), None);
    assert_eq!((end.how, &*stdout, &*stderr), (How::Exited(7), &b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn the_helper_is_started_once() {
    start_helper();
    helper::start().expect("it is there already");
    let mut process = Process::start(&launch(&["true"]), [None; 3]).expect("it starts");
    let ended = process.wait(Instant::now() + Duration::from_secs(20)).expect("the helper is there");
    assert!(ended.is_some_and(|ended| ended.status.success()));
}
