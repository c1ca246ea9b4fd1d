//! `rankpool python`: a script as it is started, as it ends, and what the options of all runs mean for its jobs. What its executor
//! does is tested in Python (`tests/python`).

use std::fs;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{self, Finished};
use crate::{Files, LIMIT, command, until};

/// `rankpool python` with these words, in the folder of the files.
fn python(files: &Files, words: &[&str]) -> Command {
    let mut command = command(&["--threads", "1", "python"]);
    command.args(words).current_dir(files.path("."));
    command
}

fn text(files: &Files, name: &str) -> String {
    fs::read_to_string(files.path(name)).expect("it is there")
}

#[track_caller]
fn run(files: &Files, words: &[&str]) -> Finished {
    support::run(&mut python(files, words), LIMIT)
}

/// Whether a process has this word in its environment.
fn is_running(word: &str) -> bool {
    let ids = fs::read_dir("/proc").expect("it is there on Linux").filter_map(|entry| entry.ok());
    ids.filter_map(|entry| fs::read(entry.path().join("environ")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn a_script_has_its_arguments_its_streams_and_its_exit_code() {
    let files = Files::new();
    files.with("script.py", "import sys\nprint(__name__, sys.argv, sys.stdin.read())\nsys.exit(len(sys.argv))\n");
    let mut piped = python(&files, &["script.py", "-v", "--threads", "two words"]);
    piped.stdin(fs::File::open(files.with("input", "typed")).expect("it is there"));
    let run = piped.output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "__main__ ['script.py', '-v', '--threads', 'two words'] typed\n");
    assert_eq!(run.status.code(), Some(4), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_module_or_code_is_run_as_python_runs_it() {
    let files = Files::new();
    files.with("package.py", "import sys; print(__name__, sys.argv[1:])\n");
    assert_eq!(run(&files, &["-m", "package", "-c", "x"]).expect_code(0).out(), "__main__ ['-c', 'x']\n");
    let code = run(&files, &["-c", "import sys; print(sys.argv)", "-m", "--help"]);
    assert_eq!(code.expect_code(0).out(), "['-c', '-m', '--help']\n");
    run(&files, &[]).expect_code(2).expect_said("Usage: rankpool python");
    run(&files, &["--no-such-option", "x.py"]).expect_code(2).expect_said("has no such option (see --help)");
    assert_eq!(run(&files, &["-O", "-c", "print(__debug__)"]).expect_code(0).out(), "False\n");
    run(&files, &["--python-exe", "no-such-python", "x.py"]).expect_code(2).expect_said("--python-exe");
}

/// A script that notes which jobs have run.
const SQUARES: &str = "
from rankpool import Executor

def square(x):
    with open('ran', 'a') as log:
        log.write(f'{x}\\n')
    return x * x

if __name__ == '__main__':
    with Executor() as executor:
        print(list(executor.map(square, range(20))))
";

#[test]
fn the_executor_of_a_script_has_the_ranks_as_its_workers() {
    let files = Files::new();
    files.with("script.py", SQUARES);
    let expected = format!("{:?}\n", (0..20).map(|x| x * x).collect::<Vec<u32>>());
    assert_eq!(run(&files, &["script.py"]).expect_code(0).out(), expected);
    assert_eq!(text(&files, "ran").lines().count(), 20);
}

#[test]
fn a_journal_keeps_the_results_of_jobs_for_the_next_run_of_the_script() {
    let files = Files::new();
    files.with("script.py", SQUARES);
    let words = ["--journal", "j", "--resume", "script.py"];
    let first = run(&files, &words).expect_code(0).out();
    assert_eq!(text(&files, "ran").lines().count(), 20);
    // More jobs than before: only the new ones are run.
    files.with("script.py", SQUARES.replace("range(20)", "range(25)"));
    let second = run(&files, &words).expect_code(0).out();
    assert!(second.starts_with(first.trim_end().trim_end_matches(']')), "{first}{second}");
    let ran: Vec<_> = text(&files, "ran").lines().map(str::to_string).collect();
    assert_eq!(ran.len(), 25, "{ran:?}");
    // Results are found by the arguments of their jobs, in whatever order these come.
    files.with("script.py", SQUARES.replace("range(20)", "reversed(range(20))"));
    let reversed = format!("{:?}\n", (0..20).rev().map(|x| x * x).collect::<Vec<u32>>());
    assert_eq!(run(&files, &words).expect_code(0).out(), reversed);
    assert_eq!(text(&files, "ran").lines().count(), 25);
    // Another function has no results yet.
    files.with("script.py", SQUARES.replace("x * x", "x * x * x"));
    run(&files, &words).expect_code(0);
    assert_eq!(text(&files, "ran").lines().count(), 45);
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let files = Files::new();
    files.with("script.py", SQUARES.replace("    return", "    import time; time.sleep(0.02)\n    return"));
    let words = ["--journal", "j", "--resume", "--sync", "0s", "script.py"];
    let mut child = support::start(&mut python(&files, &words));
    until("some jobs have run", || files.names().contains(&"ran".into()) && text(&files, "ran").lines().count() > 5);
    child.kill().expect("it runs");
    child.wait().expect("it was started");
    let output = run(&files, &words).expect_code(0).out();
    assert_eq!(output, format!("{:?}\n", (0..20).map(|x| x * x).collect::<Vec<u32>>()));
    let ran = text(&files, "ran").lines().count();
    // Those on their way at the kill run again: two for each worker, and what was not in the journal yet.
    assert!((20..30).contains(&ran), "{ran} jobs have run");
}

#[test]
fn what_a_script_has_seen_is_in_the_journal_when_rank_0_is_killed() {
    let files = Files::new();
    let script = SQUARES.replace("    return", "    import time; time.sleep(0.01)\n    return").replace(
        "print(list(executor.map(square, range(20))))",
        "
        for y in executor.map(square, range(100)):
            with open('seen', 'a') as seen:
                seen.write(f'{int(y ** 0.5)}\\n')",
    );
    files.with("script.py", script);
    let words = ["--journal", "j", "--resume", "--sync", "1h", "script.py"];
    let mut child = support::start(&mut python(&files, &words));
    until("results were seen", || files.names().contains(&"seen".into()) && text(&files, "seen").lines().count() > 20);
    child.kill().expect("it runs");
    child.wait().expect("it was started");
    let seen = text(&files, "seen");
    run(&files, &words).expect_code(0);
    let ran = text(&files, "ran");
    for job in seen.lines() {
        assert_eq!(ran.lines().filter(|line| *line == job).count(), 1, "job {job} was seen, and has run again");
    }
}

#[test]
fn a_run_that_is_refused_or_fails_ends_its_script() {
    let files = Files::new();
    files.with("script.py", SQUARES);
    run(&files, &["--journal", "j", "script.py"]).expect_code(0);
    // The journal is there, and nothing was said of --resume.
    let refused = run(&files, &["--journal", "j", "script.py"]);
    refused.expect_code(2).expect_said("--resume");
    // The same while the script waits, and does not mind that its pool has ended.
    files.with("script.py", WAITS.replace("futures[0].result()", "time.sleep(1000)"));
    run(&files, &["--kill-after", "100ms", "--journal", "j", "script.py"]).expect_code(2);
}

#[test]
fn jobs_from_the_journal_are_in_the_job_log_too() {
    let files = Files::new();
    files.with("script.py", SQUARES);
    let words = ["--journal", "j", "--resume", "--records", "log", "script.py"];
    for _ in 0..2 {
        run(&files, &words).expect_code(0);
        assert_eq!(text(&files, "log").lines().count(), 20);
    }
}

#[test]
fn a_job_log_has_an_entry_for_each_call() {
    let files = Files::new();
    files.with("script.py", SQUARES.replace("range(20)", "range(20), chunksize=5"));
    run(&files, &["--records", "log", "script.py"]).expect_code(0);
    let log = text(&files, "log");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    assert!(lines.iter().all(|line| line.contains(r#""jobs":5"#) && line.contains("square")), "{log}");
}

#[test]
fn a_call_that_raises_has_the_time_that_it_took() {
    let files = Files::new();
    let script = "
import time
from rankpool import Executor
def fails(seconds, *, more=0):
    time.sleep(seconds)
    raise ValueError(seconds)
with Executor() as executor:
    for future in [executor.submit(fails, 0.03), executor.submit(fails, 0.03, more=1)]:
        assert isinstance(future.exception(), ValueError)
";
    files.with("script.py", script);
    run(&files, &["--records", "log", "script.py"]).expect_code(0);
    for record in crate::records(&files, "log") {
        let seconds = record["seconds"].as_f64().expect("it was measured");
        assert!(seconds >= 0.03 && (seconds - 1.0).abs() > 1e-4, "{record}");
    }
}

#[test]
fn retries_and_the_time_limit_of_the_command_line_are_those_of_jobs() {
    let files = Files::new();
    let script = "
import os, time
from rankpool import Executor

def third_time(path):
    with open(path, 'a') as log:
        log.write('x')
    if os.path.getsize(path) < 3:
        raise ValueError('too early')
    return 'at last'

with Executor() as executor:
    print(executor.submit(third_time, 'tries').result())
    try:
        executor.submit(time.sleep, 1000).result()
    except TimeoutError as error:
        print(type(error).__name__)
";
    files.with("script.py", script);
    let run = run(&files, &["--retries", "2", "--retry-pause", "0s", "--timeout", "500ms", "script.py"]);
    assert_eq!(run.expect_code(0).out(), "at last\nJobTimeout\n");
}

#[test]
fn a_script_can_act_on_a_result_before_the_other_jobs_of_its_chunk_have_ended() {
    let files = Files::new();
    // One worker and chunks of eight jobs. The last job of each round is in a chunk with others, unless it begins one, which it
    // does not do in all rounds: they have different numbers of jobs.
    let script = "
import os, time
from rankpool import Executor

def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline, path
        time.sleep(0.005)

with Executor() as executor:
    for number in range(5):
        first = executor.submit(wait_for, f'all-there-{number}')
        short = [executor.submit(abs, i) for i in range(20 + number)]
        last = executor.submit(wait_for, f'results-seen-{number}')
        open(f'all-there-{number}', 'x').close()
        assert [future.result(30) for future in short] == list(range(20 + number))
        assert not last.done()
        open(f'results-seen-{number}', 'x').close()
        last.result(60)
    print('seen')
";
    files.with("script.py", script);
    let mut alone = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    alone.args(["--local", "1", "--threads", "1", "--chunk", "8", "python", "script.py"]).current_dir(files.path("."));
    assert_eq!(support::run(&mut alone, LIMIT).expect_code(0).out(), "seen\n");
}

#[test]
fn a_job_may_wait_for_the_jobs_behind_it_if_there_is_another_worker() {
    let files = Files::new();
    let script = "
import os, sys, time
from rankpool import Executor

def note(path, line):
    with open(path, 'a') as log:
        log.write(f'{line}\\n')
    return line

def wait_for_lines(path, count):
    deadline = time.monotonic() + 60
    while not os.path.exists(path) or len(open(path).readlines()) < count:
        assert time.monotonic() < deadline, path
        time.sleep(0.005)

with Executor() as executor:
    before = [executor.submit(note, sys.argv[1], i) for i in range(400)]
    long = executor.submit(wait_for_lines, sys.argv[1], 800)
    behind = [executor.submit(note, sys.argv[1], i) for i in range(400, 800)]
    long.result()
    assert [future.result() for future in before + behind] == list(range(800))
    assert sorted(int(line) for line in open(sys.argv[1])) == list(range(800))
    print('done')
";
    files.with("script.py", script);
    for (ranks, threads, chunk) in [("1", "2", "auto"), ("2", "1", "auto"), ("2", "1", "64")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
        command.args(["--local", ranks, "--threads", threads, "--chunk", chunk, "python", "script.py"]);
        command.arg(format!("log-{ranks}-{chunk}")).current_dir(files.path("."));
        assert_eq!(support::run(&mut command, LIMIT).expect_code(0).out(), "done\n");
    }
}

/// A script that waits for jobs that never end.
const WAITS: &str = "
import sys, time
from rankpool import Executor

executor = Executor()
futures = [executor.submit(time.sleep, 1000) for _ in range(10)]
print('ready', flush=True)
futures[0].result()
";

#[test]
fn a_signal_ends_the_script_and_its_workers() {
    for (signal, quick) in [(Signal::SIGTERM, true), (Signal::SIGUSR1, false)] {
        let files = Files::new();
        files.with("script.py", WAITS);
        let mark = format!("RANKPOOL_TEST_MARK={}-{signal}", std::process::id());
        let (name, value) = mark.split_once('=').expect("it is there");
        let mut waiting = python(&files, &["--grace", if quick { "10m" } else { "100ms" }, "script.py"]);
        let out = fs::File::create(files.path("out")).expect("it can be made");
        let mut child = waiting.env(name, value).stdout(out).spawn().expect("it runs");
        until("the script waits", || text(&files, "out").contains("ready"));
        assert!(is_running(&mark));
        support::signal(&child, signal);
        let began = Instant::now();
        let status = support::wait(&mut child, LIMIT).expect("it ends");
        assert!(began.elapsed() < LIMIT / 10, "it does not wait for the jobs");
        assert!(!status.success());
        until("all its processes have ended", || !is_running(&mark));
    }
}

#[test]
fn when_rank_0_is_killed_nothing_is_left() {
    let files = Files::new();
    files.with("script.py", WAITS);
    let mark = format!("RANKPOOL_TEST_MARK={}-killed", std::process::id());
    let (name, value) = mark.split_once('=').expect("it is there");
    let out = fs::File::create(files.path("out")).expect("it can be made");
    let mut child = python(&files, &["script.py"]).env(name, value).stdout(out).spawn().expect("it runs");
    until("the script waits", || text(&files, "out").contains("ready"));
    child.kill().expect("it runs");
    child.wait().expect("it was started");
    until("all its processes have ended", || !is_running(&mark));
}

#[test]
fn a_script_that_is_killed_ends_the_run() {
    let files = Files::new();
    files.with("script.py", WAITS.replace("futures[0]", "import os; os.kill(os.getpid(), 9); futures[0]"));
    run(&files, &["script.py"]).expect_code(137);
}

#[test]
fn the_script_of_an_mpi_run_is_no_rank_itself() {
    let files = Files::new();
    let code = "import os; print(sorted(k for k in os.environ if k.startswith(('PMI_', 'OMPI_COMM'))))";
    let mut command = python(&files, &["-c", code]);
    command.env("PMI_RANK", "0").env("PMI_SIZE", "1").env("OMPI_COMM_WORLD_RANK", "0");
    assert_eq!(support::run(&mut command, LIMIT).expect_code(0).out(), "[]\n");
}

#[test]
fn requests_that_are_no_frames_end_the_run_with_a_sentence() {
    let files = Files::new();
    let code = "import os, socket, time\n\
                s = socket.socket(fileno=int(os.environ['RANKPOOL_FD'])); s.sendall(b'x' * 100)\n\
                while s.recv(1000): pass";
    run(&files, &["-c", code]).expect_said("another version");
}
