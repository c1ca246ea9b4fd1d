//! The processes of a run: they have a mark in their environment.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Without a launcher that is the whole program.
    FirstRank,
    OtherRank,
    Launcher,
    Command,
    Worker,
    Helper,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Target::FirstRank => "rank 0",
            Target::OtherRank => "another rank",
            Target::Launcher => "the launcher",
            Target::Command => "a command",
            Target::Worker => "a worker",
            Target::Helper => "a spawn helper",
        }
    }
}

/// The name of the environment variable with the mark.
pub const MARK: &str = "RANKPOOL_ABUSE_RUN";

/// A process of a run.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    parent: i32,
    is_program: bool,
    is_helper: bool,
    rank: Option<u32>,
}

/// The processes with this mark; those that have ended and were not waited for have none.
pub fn of_run(program: &Path, mark: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let entries = fs::read_dir("/proc").expect("there is /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let process = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
        if !variables.contains(&&wanted[..]) {
            return None;
        }
        let is_program = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_helper = is_program && words.split(|byte| *byte == 0).nth(1) == Some(b"__spawn-helper");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let number = |variable: &&[u8]| {
            let text = std::str::from_utf8(variable).ok()?;
            let value = text.strip_prefix("OMPI_COMM_WORLD_RANK=").or_else(|| text.strip_prefix("PMI_RANK="))?;
            value.parse().ok()
        };
        let rank = variables.iter().find_map(number);
        Some(Process { pid, parent, is_program, is_helper, rank })
    };
    pids.filter_map(process).collect()
}

/// Those of these processes that are of this kind. `launcher` is the process that was started.
pub fn targets(processes: &[Process], target: Target, launcher: i32) -> Vec<i32> {
    let is_rank = |process: &&Process| process.is_program && !process.is_helper;
    let of = |process: &&Process| match target {
        Target::FirstRank => is_rank(process) && process.rank.unwrap_or(0) == 0,
        Target::OtherRank => is_rank(process) && process.rank.unwrap_or(0) > 0,
        Target::Launcher => process.pid == launcher && !process.is_program,
        Target::Helper => process.is_helper,
        Target::Command | Target::Worker => {
            let is_started = processes.iter().any(|other| other.is_helper && other.pid == process.parent);
            is_started && !process.is_program
        }
    };
    processes.iter().filter(of).map(|process| process.pid).collect()
}

pub fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Seconds since the machine was started. The jobs read the same clock.
pub fn now() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("there is /proc");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}
