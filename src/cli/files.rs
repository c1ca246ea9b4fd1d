//! Checks that no output of a run overwrites a file that the run reads. It runs before anything is opened for writing.
//!
//! Files are compared by device and inode if they exist, and by their folder and name if they do not.

use std::path::Path;
use std::{env, io};

use super::args::KernelArgs;
use super::config::{Config, Task};
use crate::batch::written::{LOG_OPTION, Written, written_files};
use crate::input::{Inputs, Source};
use crate::output::{Identity, Target};

/// Refuses an output in a file that is read. (The batch refuses two outputs in one file.)
///
/// # Errors
/// A sentence with the option and the file.
pub(super) fn refuse_conflicts(config: &Config) -> Result<(), String> {
    let has_stderr = !matches!(config.task, Task::Kernel(_));
    let (written, read) = (written_files(config.batch(), has_stderr), read_files(config));
    for one in &written {
        let option = one.option;
        if let Some(other) = read.iter().find(|other| one.is(Some(&other.file)) && !other.may_be_written_by(one)) {
            let name = match &one.target {
                Target::File(path) => path.display().to_string(),
                Target::Stdout | Target::Stderr => other.name.clone(),
            };
            return Err(format!("{option} would overwrite {} {name}", other.noun));
        }
        let Some((partial, name)) = &one.partial else { continue };
        if let Some(other) = read.iter().find(|other| other.file.is_same(partial) && !other.may_be_written_by(one)) {
            let name = name.display();
            return Err(format!(
                "{option} is called {name} until it is complete, which would overwrite {} {}: give another name",
                other.noun, other.name
            ));
        }
    }
    Ok(())
}

/// A file that the run reads.
struct ReadFile {
    noun: &'static str,
    name: String,
    file: Identity,
}

impl ReadFile {
    fn new(noun: &'static str, path: &Path) -> ReadFile {
        ReadFile { noun, name: path.display().to_string(), file: Identity::of(path) }
    }

    /// Whether `written` may be this file: a run may append to the job log that it reads.
    fn may_be_written_by(&self, written: &Written) -> bool {
        self.noun == OLD_LOG && written.option == LOG_OPTION
    }
}

const OLD_LOG: &str = "the job log";

/// Returns all files that are read, as far as they are known.
fn read_files(config: &Config) -> Vec<ReadFile> {
    let mut read = Vec::new();
    let mut source = |noun, source: &Source| match source {
        Source::File(path) => read.push(ReadFile::new(noun, path)),
        Source::Stdin => {
            let name = source.name().to_string();
            read.extend(Identity::of_stream(io::stdin()).map(|file| ReadFile { noun, name, file }));
        }
    };
    inputs_of(config).into_iter().flat_map(Inputs::sources).for_each(|input| source("the input", input));
    if let Task::Kernel(task) = &config.task {
        if let KernelArgs::Parzen(args) = &task.function {
            source("the samples", &args.source());
        }
    }
    if let Some(before) = config.batch().only_failed.as_deref() {
        read.push(ReadFile::new(OLD_LOG, before));
    }
    read.extend(config.job_files.paths().map(|(noun, path)| ReadFile::new(noun, &path)));
    read.extend(env::current_exe().ok().map(|program| ReadFile::new("the program", &program)));
    read
}

fn inputs_of(config: &Config) -> Option<&Inputs> {
    match &config.task {
        Task::Run(task) => Some(&task.inputs),
        Task::Map(task) => Some(&task.inputs),
        Task::Kernel(task) => task.input.as_ref(),
        Task::Python(_)
        | Task::Serve(_)
        | Task::Bench(_)
        | Task::Info { .. }
        | Task::Top(_)
        | Task::Journal(_)
        | Task::Report(_)
        | Task::Completions(_)
        | Task::Man(_) => None,
    }
}
