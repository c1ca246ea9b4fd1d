//! The program `rankpool` as its users see it: what goes in, what comes out, exit codes and messages. Without MPI, so that
//! it runs everywhere; `tests/mpi` asks the same of the program under `mpiexec`.

mod answers;
mod bench;
#[path = "../support/disk.rs"]
mod disk;
mod durable;
mod durable_neighbours;
mod ends;
mod input_files;
mod journal;
mod journal_faults;
mod kernel_failures;
mod live;
mod map_ends;
mod map_failures;
mod map_inputs;
mod map_support;
mod map_surplus;
mod map_workers;
mod memory;
mod messages;
mod preload;
mod python;
mod report;
mod run_ends;
mod run_failures;
mod run_output;
mod run_records;
mod run_words;
mod stops;
#[path = "../support/mod.rs"]
mod support;
mod time_limits;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::Finished;

/// No run here takes longer, unless it hangs, also on a machine that is very busy.
const LIMIT: Duration = Duration::from_secs(300);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
    command.env_remove("RANKPOOL_THREADS").env_remove("RANKPOOL_LOCAL").args(["--local", "2"]).args(arguments);
    command
}

/// Runs `rankpool kernel` with these words.
#[track_caller]
fn kernel(words: &str) -> Finished {
    let words: Vec<&str> = ["kernel"].into_iter().chain(words.split_whitespace()).collect();
    support::run(&mut command(&words), LIMIT)
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A directory for the files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a directory for the test"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with this text.
    fn with(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).expect("a file for the test");
        self.path(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the directory is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn floats(out: &str) -> Vec<f64> {
    out.lines().map(|line| line.parse().expect("a number on each line")).collect()
}

/// Runs `rankpool kernel` with these words, `--input -`, and this text to read.
fn piped(words: &str, text: &str) -> Finished {
    let files = Files::new();
    let file = files.with("stdin", text);
    // Through cat, because a file as standard input would not be a pipe.
    let script = format!("cat {file} | {} --local 2 kernel {words} --input -", env!("CARGO_BIN_EXE_rankpool"));
    support::run(Command::new("sh").args(["-c", &script]), LIMIT)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

/// `rankpool run` with these words, in the directory of the test.
fn batch(files: &Files, words: &[&str]) -> Command {
    let mut command = command(&["run", "--progress", "off"]);
    command.args(words).current_dir(files.0.path()).env("LC_ALL", "C");
    command
}

/// Runs `rankpool run` with these words, in the directory of the test.
#[track_caller]
fn run_batch(files: &Files, words: &[&str]) -> Finished {
    support::run(&mut batch(files, words), LIMIT)
}

/// A file of JSON Lines, sorted by the number of the job.
#[track_caller]
fn records(files: &Files, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(files.path(name)).expect("the records are there");
    let mut records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object on each line")).collect();
    records.sort_by_key(|record| record["number"].as_u64().expect("each has a number"));
    records
}

/// The statuses in a file of records, in the order of the jobs.
#[track_caller]
fn statuses(files: &Files, name: &str) -> Vec<String> {
    records(files, name).iter().map(|record| record["status"].as_str().expect("a word").to_string()).collect()
}

/// Starts a program with its outputs piped, and `input` as its standard input. It is killed when it takes too long, so that
/// who reads from it does not wait for ever.
fn start_limited(command: &mut Command, input: Stdio) -> (Child, mpsc::Sender<()>) {
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (over, is_over) = mpsc::channel();
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
    std::thread::spawn(move || {
        if is_over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    (child, over)
}

/// Waits until this holds, but not for ever.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} has not happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}
