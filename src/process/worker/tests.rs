//! Workers with real processes: shells and Pythons.

mod conversions;
mod ends;
mod fuzz;
mod measure;
mod plain;
mod python;
mod surplus;

use std::collections::VecDeque;
use std::fs;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    Answer, AnswerCheck, AnswerEnd, JobHead, Options, Protocol, StartFailure, Worker, WorkerEnd, WorkerFailure,
    WorkerFeed,
};
use crate::process::program::Program;
use crate::process::python::PythonCall;
use crate::process::tests::start_helper;

/// Records from a list, and their answers.
#[derive(Default)]
struct List {
    records: VecDeque<String>,
    given: u64,
    answers: Vec<(u64, Result<String, WorkerFailure>)>,
    durations: Vec<Duration>,
    /// Called with each answer.
    on_answer: Option<Box<dyn FnMut(usize) + Send>>,
    /// The most records that were taken and not answered.
    most_ahead: u64,
}

impl WorkerFeed for List {
    fn next(&mut self, json: &mut Vec<u8>) -> Option<JobHead> {
        let record = self.records.pop_front()?;
        json.extend_from_slice(record.as_bytes());
        self.given += 1;
        self.most_ahead = self.most_ahead.max(self.given - self.answers.len() as u64);
        Some(JobHead { number: self.given - 1, attempt: 1, seed: 1000 + self.given - 1 })
    }

    fn done(&mut self, answer: Answer<'_>) {
        assert!(answer.start.elapsed().is_ok_and(|since| since < Duration::from_secs(600)));
        let number = self.answers.len() as u64;
        self.answers.push((number, answer.result.map(str::to_string)));
        self.durations.push(answer.duration);
        if let Some(on_answer) = &mut self.on_answer {
            on_answer(self.answers.len());
        }
    }
}

fn list<T: ToString>(records: impl IntoIterator<Item = T>) -> List {
    List { records: records.into_iter().map(|record| record.to_string()).collect(), ..List::default() }
}

impl List {
    /// Returns each answer in short: the JSON, or the kind of the failure after `!`.
    fn short(&self) -> Vec<String> {
        let short = |result: &Result<String, WorkerFailure>| match result {
            Ok(json) => json.clone(),
            Err(failure) => format!("!{}", failure.kind),
        };
        self.answers.iter().map(|(_, result)| short(result)).collect()
    }

    #[track_caller]
    fn failure(&self, at: usize) -> &WorkerFailure {
        self.answers[at].1.as_ref().expect_err("it fails")
    }
}

/// The warnings of a worker.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no thread panics with it").clone()
    }
}

fn options(protocol: Protocol) -> (Options, Warnings) {
    let warnings = Warnings::default();
    let mut options = Options::new("the worker", protocol);
    options.warn = {
        let warnings = warnings.clone();
        Arc::new(move |warning| warnings.0.lock().expect("no thread panics with it").push(warning.to_string()))
    };
    (options, warnings)
}

/// A worker in shell with changed options.
fn shell_with(script: &str, change: impl FnOnce(&mut Options)) -> (Worker, Warnings) {
    start_helper();
    let (mut options, warnings) = options(Protocol::Lines);
    change(&mut options);
    let args = vec!["-c".to_string(), script.to_string()];
    let program = Program { name: "sh".to_string(), args, ..Program::default() };
    (Worker::new(program, options, None), warnings)
}

fn shell(script: &str) -> Worker {
    shell_with(script, |_| {}).0
}

/// A Python file in a folder of its own.
struct Module {
    folder: tempfile::TempDir,
}

fn module(text: &str) -> Module {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("model.py"), text).expect("a file");
    Module { folder }
}

impl Module {
    fn call(&self, function: &str) -> PythonCall {
        let file = self.folder.path().join("model.py");
        PythonCall { target: format!("{}:{function}", file.display()), ..PythonCall::default() }
    }

    fn worker(&self, function: &str) -> Worker {
        worker(&self.call(function), |_| {})
    }

    /// Returns the answers of the function to these records.
    #[track_caller]
    fn map<T: ToString>(&self, function: &str, records: impl IntoIterator<Item = T>) -> List {
        answered(&mut self.worker(function), list(records))
    }

    fn batches(&self, function: &str, size: usize) -> Worker {
        worker(&PythonCall { batch: NonZeroUsize::new(size), ..self.call(function) }, |_| {})
    }
}

fn worker(call: &PythonCall, change: impl FnOnce(&mut Options)) -> Worker {
    start_helper();
    let (mut options, _) = options(call.protocol());
    options.preamble = call.preamble();
    options.assignment = call.assignment(0, 1);
    change(&mut options);
    Worker::new(call.program(), options, None)
}

/// Has all records answered.
#[track_caller]
fn answered(worker: &mut Worker, mut list: List) -> List {
    let outcome = worker.answer(&mut list).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(outcome, AnswerEnd::AllAnswered);
    assert_eq!(list.answers.len() as u64, list.given);
    assert!(list.records.is_empty());
    list
}

/// Returns the failure to start a worker.
#[track_caller]
fn no_start<T: ToString>(worker: &mut Worker, records: impl IntoIterator<Item = T>) -> (StartFailure, List) {
    let mut list = list(records);
    match worker.answer(&mut list) {
        Err(failure) => (failure, list),
        Ok(outcome) => panic!("{outcome:?}: {:?}", list.answers),
    }
}

/// Returns the installed Pythons: the usual one, and other supported ones.
fn pythons() -> Vec<String> {
    let mut found = vec!["python3".to_string()];
    let versions = std::env::var("HOME").map(|home| format!("{home}/.pyenv/versions")).unwrap_or_default();
    for entry in fs::read_dir(versions).into_iter().flatten().flatten() {
        let is_tested =
            ["3.9.", "3.11.", "3.13."].iter().any(|version| entry.file_name().to_string_lossy().starts_with(version));
        let exe = entry.path().join("bin/python3");
        if is_tested && exe.exists() {
            found.push(exe.display().to_string());
        }
    }
    found
}
