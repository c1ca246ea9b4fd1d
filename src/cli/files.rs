//! Checks that no output of a run overwrites a file that the run reads, or another output. It runs before anything is opened for
//! writing.
//!
//! Files are compared by device and inode if they exist, and by their folder and name if they do not.

use std::path::{Path, PathBuf};
use std::{env, io};

use super::args::KernelArgs;
use super::config::{Config, Task};
use crate::input::{Inputs, Source};
use crate::output::{Identity, Kind, Target, partial_path, real_path};

/// Refuses two outputs in one file, and an output in a file that is read.
///
/// # Errors
/// A sentence with the options and the file.
pub(super) fn refuse_conflicts(config: &Config) -> Result<(), String> {
    let (written, read) = (written_files(config), read_files(config));
    for (at, one) in written.iter().enumerate() {
        for other in &written[at + 1..] {
            if one.conflicts_with(other) {
                let (one, name, other) = (one.option, one.name_with(&other.target), other.option);
                return Err(format!("{one} and {other} cannot both be written to {name}"));
            }
        }
        for other in &read {
            if one.would_overwrite(other) {
                let name = match &one.target {
                    Target::File(path) => path.display().to_string(),
                    Target::Stdout | Target::Stderr => other.name.clone(),
                };
                return Err(format!("{} would overwrite {} {name}", one.option, other.noun));
            }
        }
    }
    for one in &written {
        let Some((partial, name)) = &one.partial else { continue };
        let clash = format!("{} is called {} until it is complete", one.option, name.display());
        for other in written.iter().filter(|other| other.option != one.option) {
            if other.file.as_ref().is_some_and(|file| file.is_same(partial))
                || other.partial.as_ref().is_some_and(|(file, _)| file.is_same(partial))
            {
                return Err(format!("{clash}, and {} uses that name, too: give another name", other.option));
            }
        }
        if let Some(other) = read.iter().find(|other| other.file.is_same(partial) && !other.may_be_written_by(one)) {
            return Err(format!("{clash}, which would overwrite {} {}: give another name", other.noun, other.name));
        }
    }
    Ok(())
}

/// An output of the run.
struct Written {
    option: &'static str,
    target: Target,
    /// `None`: a closed stream.
    file: Option<Identity>,
    /// The file's name until it is complete.
    partial: Option<(Identity, PathBuf)>,
}

impl Written {
    fn new(option: &'static str, target: Target) -> Written {
        let file = match &target {
            Target::Stdout => Identity::of_stream(io::stdout()),
            Target::Stderr => Identity::of_stream(io::stderr()),
            Target::File(path) => Some(Identity::of(path)),
        };
        let partial = match (&target, &file) {
            // The job log has its final name from the start.
            (Target::File(path), Some(file)) if file.is_file() && option != LOG_OPTION => {
                Some((Identity::of(&partial_path(&real_path(path))), partial_path(path)))
            }
            _ => None,
        };
        Written { option, target, file, partial }
    }

    fn conflicts_with(&self, other: &Written) -> bool {
        match (&self.target, &other.target) {
            // If both are one file, the shell was asked for that.
            (Target::Stdout, Target::Stderr) | (Target::Stderr, Target::Stdout) => false,
            (Target::Stdout, Target::Stdout) => true,
            // Messages share standard error with any output.
            (Target::Stderr, Target::Stderr) => self.option != MESSAGES && other.option != MESSAGES,
            (Target::File(_), Target::File(_)) => self.is(other.file.as_ref()),
            // A file may be what a standard stream goes to. Devices can be shared.
            (Target::File(_), _) | (_, Target::File(_)) => match (&self.file, &other.file) {
                (Some(one @ Identity::There { kind, .. }), Some(other)) => *kind != Kind::Device && one == other,
                _ => false,
            },
        }
    }

    fn would_overwrite(&self, other: &ReadFile) -> bool {
        self.is(Some(&other.file)) && !other.may_be_written_by(self)
    }

    fn is(&self, other: Option<&Identity>) -> bool {
        self.file.as_ref().zip(other).is_some_and(|(one, other)| one.is_same(other))
    }

    /// Returns the name of the file that this and another target share: the path, if one of them has one.
    fn name_with(&self, other: &Target) -> String {
        match (&self.target, other) {
            (Target::Stdout | Target::Stderr, other @ Target::File(_)) => other.name().to_string(),
            (target, _) => target.name().to_string(),
        }
    }
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

const LOG_OPTION: &str = "--records";
const MESSAGES: &str = "standard error";
const OLD_LOG: &str = "the job log";

/// Returns all outputs, in the order in which messages name them.
fn written_files(config: &Config) -> Vec<Written> {
    let batch = config.batch();
    let targets = [
        ("--output", Some(batch.output.clone())),
        // Built-in functions have no standard error.
        ("--stderr", Some(batch.stderr.clone()).filter(|_| !matches!(config.task, Task::Kernel(_)))),
        (LOG_OPTION, batch.job_log.clone().map(Target::new)),
        ("--summary", batch.summary.clone()),
    ];
    let mut written: Vec<Written> =
        targets.into_iter().filter_map(|(option, target)| Some(Written::new(option, target?))).collect();
    if !written.iter().any(|written| written.target == Target::Stderr) {
        written.push(Written::new(MESSAGES, Target::Stderr));
    }
    written
}

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
        Task::Info { .. } | Task::Completions(_) | Task::Man(_) => None,
    }
}
