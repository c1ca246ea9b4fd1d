//! Which files a run reads and writes, and that none of them is written over: neither what is read nor what is written besides.
//!
//! A file is what it is, not what it is called: device and inode where there is one, and where there is none yet, its name in the
//! folder that will have it. All commands ask here, before anything is opened for writing.

use std::path::{Path, PathBuf};
use std::{env, io};

use super::args::KernelArgs;
use super::config::{Config, Task};
use crate::input::{Inputs, Source};
use crate::output::{Identity, Kind, Target, partial_path, real_path};

/// Refuses to write two things to one file, and to write over what is read.
///
/// # Errors
/// Which options are in each other's way, and where.
pub(super) fn refuse_conflicts(config: &Config) -> Result<(), String> {
    let (written, read) = (written_files(config), read_files(config));
    for (at, one) in written.iter().enumerate() {
        for other in &written[at + 1..] {
            if one.is_in_the_way_of(other) {
                let (one, name, other) = (one.option, one.name_with(&other.target), other.option);
                return Err(format!("{one} and {other} cannot both be written to {name}"));
            }
        }
        for other in &read {
            if one.would_write_over(other) {
                let name = match &one.target {
                    Target::File(path) => path.display().to_string(),
                    Target::Stdout | Target::Stderr => other.name.clone(),
                };
                return Err(format!("{} would write over {} {name}", one.option, other.noun));
            }
        }
    }
    for one in &written {
        let Some((partial, name)) = &one.partial else { continue };
        let clash = format!("{} leaves what it has in {} when the run is stopped", one.option, name.display());
        for other in written.iter().filter(|other| other.option != one.option) {
            if other.file.as_ref().is_some_and(|file| file.is_same(partial))
                || other.partial.as_ref().is_some_and(|(file, _)| file.is_same(partial))
            {
                return Err(format!("{clash}, and {} writes there, too: give another name", other.option));
            }
        }
        if let Some(other) = read.iter().find(|other| other.file.is_same(partial) && !other.may_be_written_by(one)) {
            return Err(format!("{clash}, which would write over {} {}: give another name", other.noun, other.name));
        }
    }
    Ok(())
}

/// Something that is written.
struct Written {
    option: &'static str,
    target: Target,
    /// `None`: a closed stream.
    file: Option<Identity>,
    /// Where what is not whole is left.
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
            // Records are written where they stay.
            (Target::File(path), Some(file)) if file.is_file() && option != LOG_OPTION => {
                Some((Identity::of(&partial_path(&real_path(path))), partial_path(path)))
            }
            _ => None,
        };
        Written { option, target, file, partial }
    }

    fn is_in_the_way_of(&self, other: &Written) -> bool {
        match (&self.target, &other.target) {
            // It was the shell that was told so.
            (Target::Stdout, Target::Stderr) | (Target::Stderr, Target::Stdout) => false,
            (Target::Stdout, Target::Stdout) => true,
            // Messages go there always.
            (Target::Stderr, Target::Stderr) => self.option != MESSAGES && other.option != MESSAGES,
            (Target::File(_), Target::File(_)) => self.is(other.file.as_ref()),
            // A stream under another name is that stream, unless who writes there is in nobody's way.
            (Target::File(_), _) | (_, Target::File(_)) => match (&self.file, &other.file) {
                (Some(one @ Identity::There { kind, .. }), Some(other)) => *kind != Kind::Device && one == other,
                _ => false,
            },
        }
    }

    fn would_write_over(&self, other: &ReadFile) -> bool {
        self.is(Some(&other.file)) && !other.may_be_written_by(self)
    }

    fn is(&self, other: Option<&Identity>) -> bool {
        self.file.as_ref().zip(other).is_some_and(|(one, other)| one.is_same(other))
    }

    /// How a message calls what this and the other target are: by a path, if one of them has one.
    fn name_with(&self, other: &Target) -> String {
        match (&self.target, other) {
            (Target::Stdout | Target::Stderr, other @ Target::File(_)) => other.name().to_string(),
            (target, _) => target.name().to_string(),
        }
    }
}

/// Something that is read.
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

/// Everything that is written, in the order in which messages name it.
fn written_files(config: &Config) -> Vec<Written> {
    let batch = config.batch();
    let targets = [
        ("--output", Some(batch.output.clone())),
        // Built-in functions write nothing there.
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

/// Everything that is read, as far as it is known.
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
