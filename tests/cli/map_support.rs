//! A Python file, and `rankpool map` on it.

use std::process::Command;

use serde_json::Value;

use crate::support::{self, Finished};
use crate::{Files, LIMIT};

/// A Python file in a folder of its own, in which everything runs.
pub struct Module {
    pub files: Files,
}

impl Module {
    pub fn new(text: &str) -> Module {
        let files = Files::new();
        files.with("m.py", text);
        Module { files }
    }

    /// `rankpool map --python m.py:FUNCTION -q` on so many ranks.
    pub fn command(&self, ranks: u32, function: &str, words: &[&str]) -> Command {
        let python = format!("m.py:{function}");
        let mut all = vec!["map", "--python", &python, "-q"];
        all.extend(words);
        self.program(ranks, &all)
    }

    /// The program on so many ranks.
    pub fn program(&self, ranks: u32, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rankpool"));
        command.env_remove("RANKPOOL_THREADS").env_remove("RANKPOOL_LOCAL").env_remove("OMP_NUM_THREADS");
        command.args(["--local", &ranks.to_string()]).args(words).current_dir(self.files.0.path());
        command
    }

    #[track_caller]
    pub fn map_on(&self, ranks: u32, function: &str, words: &[&str]) -> Finished {
        support::run(&mut self.command(ranks, function, words), LIMIT)
    }

    #[track_caller]
    pub fn map(&self, function: &str, words: &[&str]) -> Finished {
        self.map_on(2, function, words)
    }

    /// `rankpool map` with a worker in sh.
    #[track_caller]
    pub fn shell(&self, words: &[&str], script: &str) -> Finished {
        let mut all = vec!["map", "-q"];
        all.extend(words);
        all.extend(["--", "sh", "-c", script]);
        support::run(&mut self.program(2, &all), LIMIT)
    }

    /// A file of JSON lines, by the `number` in each.
    pub fn records(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.files.path(name)).expect("the records");
        let mut records: Vec<Value> = text.lines().map(parse).collect();
        records.sort_by_key(|record| record["number"].as_u64());
        records
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The output, each line of which is JSON.
#[track_caller]
pub fn lines(run: &Finished) -> Vec<Value> {
    run.out().lines().map(parse).collect()
}

/// The kind of failure of a line; its JSON, if it is none.
pub fn kinds(lines: &[Value]) -> Vec<String> {
    lines
        .iter()
        .map(|line| line["error"]["kind"].as_str().map_or(line.to_string(), |kind| format!("!{kind}")))
        .collect()
}
