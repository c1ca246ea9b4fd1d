//! What all jobs of a run have in common, for the journal: a journal of other jobs is refused.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use super::args::{MapArgs, RunCommandArgs, TaskArgs};
use super::job_files::JobFiles;
use crate::journal::Spec;

/// Returns the words of the command line on which the results of jobs depend, without those about ranks, retries and files.
pub(super) fn of(task: &TaskArgs) -> Spec {
    match task {
        TaskArgs::Run(args) => of_run(args),
        TaskArgs::Map(args) => of_map(args),
        _ => Spec::new(),
    }
}

fn of_run(args: &RunCommandArgs) -> Spec {
    let RunCommandArgs { process, failures, shell, stdin, tag, command, .. } = args;
    let mut spec = SpecBuilder::default();
    spec.add("command", Some(words(command)));
    spec.add("--shell", shell.then(|| "yes".into()));
    spec.add("--stdin", stdin.clone());
    spec.add("--tag", tag.clone());
    spec.add("--cwd", process.cwd.clone());
    spec.add("--env", Some(words(&process.env)).filter(|env| !env.is_empty()));
    spec.add("--timeout", failures.timeout.map(|limit| format!("{limit:?}")));
    spec.0
}

fn of_map(args: &MapArgs) -> Spec {
    let MapArgs { process, failures, python, setup, star, text, worker, worker_ids, .. } = args;
    let mut spec = SpecBuilder::default();
    spec.add("--python", python.clone());
    spec.add("worker", Some(words(worker)).filter(|worker| !worker.is_empty()));
    spec.add("--setup", setup.clone());
    spec.add("--star", star.then(|| "yes".into()));
    spec.add("--text", text.then(|| "yes".into()));
    spec.add("--worker-ids", worker_ids.then(|| "yes".into()));
    spec.add("--cwd", process.cwd.clone());
    spec.add("--env", Some(words(&process.env)).filter(|env| !env.is_empty()));
    spec.add("--timeout", failures.timeout.map(|limit| format!("{limit:?}")));
    spec.0
}

/// A longer command line is not kept.
const LONGEST_COMMAND: usize = 64 << 10;

/// Returns what the journal has of this run for reports: the command line, the folder, and the time.
pub(super) fn about() -> Spec {
    let mut about = SpecBuilder::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    about.add("began", Some(now.to_string()));
    let typed: Option<Vec<String>> = std::env::args_os().map(|word| word.into_string().ok()).collect();
    let command = typed.map(|mut typed| {
        if let Some(program) = typed.first_mut() {
            *program = "rankpool".into();
        }
        words(&typed)
    });
    about.add("command", command.filter(|command| command.len() <= LONGEST_COMMAND));
    about.add("folder", std::env::current_dir().ok().and_then(|folder| folder.into_os_string().into_string().ok()));
    about.0
}

#[derive(Default)]
struct SpecBuilder(Spec);

impl SpecBuilder {
    fn add(&mut self, name: &str, value: Option<String>) {
        self.0.extend(value.map(|value| (name.to_string(), value)));
    }
}

/// Joins words so that a shell would split them again.
fn words(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// Returns the hashes of the files with the functions of the jobs: their contents belong to the spec.
pub(super) fn of_files(files: &JobFiles) -> Spec {
    let paths: Vec<PathBuf> = files.function_files();
    paths.into_iter().filter_map(|path| Some((path.display().to_string(), hash_of(&path)?))).collect()
}

fn hash_of(path: &std::path::Path) -> Option<String> {
    let contents = std::fs::read(path).ok()?;
    Some(format!("a file with the hash {:016x}", xxh3_64(&contents)))
}
