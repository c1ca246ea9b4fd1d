//! Which files a run reads and writes, and that none of them is written over: neither what is read nor what is written besides.
//!
//! A file is what it is, not what it is called: device and inode where there is one, and where there is none yet, its name in the
//! folder that will have it. All commands ask here, before anything is opened for writing.

use std::env;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::batch::BatchConfig;
use super::config::{Config, Function, Task};
use crate::input::{Inputs, Source};
use crate::output::{Target, partial_path, real_path};
use crate::process::program::resolve;

/// The files that the jobs themselves are made of, as far as the command line names them.
#[derive(Debug, Default)]
pub(super) struct JobFiles {
    /// Where the jobs run, if not where the program does.
    pub folder: Option<PathBuf>,
    /// The program that is started, as it was typed.
    pub program: Option<String>,
    /// Its arguments, or the words of a script: those that name a file stand for it.
    pub words: Vec<String>,
    /// The file or module of `--python`.
    pub python: Option<String>,
}

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

/// Whether both names are those of one file, however they are spelled.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    Identity::of(one).is_same(&Identity::of(other))
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    There {
        device: u64,
        inode: u64,
        kind: Kind,
    },
    /// There is none yet: its folder, as the system calls it, and its name there.
    New(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    /// A terminal, `/dev/null`: who writes there is not in anybody's way.
    Device,
    /// A pipe, a socket, a folder.
    Other,
}

impl Identity {
    fn of(path: &Path) -> Identity {
        match path.metadata() {
            Ok(metadata) => Identity::from_metadata(&metadata),
            Err(_) => Identity::New(real_path(path)),
        }
    }

    /// Of a standard stream. `None`: it is closed.
    fn of_stream(stream: impl AsFd) -> Option<Identity> {
        let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
        Some(Identity::from_metadata(&file.metadata().ok()?))
    }

    fn from_metadata(metadata: &Metadata) -> Identity {
        let file_type = metadata.file_type();
        let kind = if file_type.is_file() {
            Kind::Regular
        } else if file_type.is_char_device() || file_type.is_block_device() {
            Kind::Device
        } else {
            Kind::Other
        };
        Identity::There { device: metadata.dev(), inode: metadata.ino(), kind }
    }

    /// Whether what is written there can be read there again: a regular file, or what will be one.
    fn is_file(&self) -> bool {
        matches!(self, Identity::New(_) | Identity::There { kind: Kind::Regular, .. })
    }

    /// Whether both are one file.
    fn is_same(&self, other: &Identity) -> bool {
        self.is_file() && self == other
    }
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
            (Target::File(path), Some(file)) if file.is_file() && option != RECORDS => {
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

    /// A run goes on with the records that it was given.
    fn may_be_written_by(&self, written: &Written) -> bool {
        self.noun == OLD_RECORDS && written.option == RECORDS
    }
}

const RECORDS: &str = "--records";
const MESSAGES: &str = "standard error";
const OLD_RECORDS: &str = "the records";

/// Everything that is written, in the order in which messages name it.
fn written_files(config: &Config) -> Vec<Written> {
    let batch = batch_of(config);
    let records = batch.and_then(|batch| batch.records.clone()).map(Target::new);
    let targets = [
        ("--output", Some(config.output.clone())),
        ("--stderr", batch.map(|batch| batch.stderr.clone())),
        (RECORDS, records),
        ("--summary", config.summary.clone()),
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
        if let Function::Parzen { samples, .. } = &task.function {
            source("the samples", samples);
        }
    }
    if let Some(before) = batch_of(config).and_then(|batch| batch.only_failed.as_deref()) {
        read.push(ReadFile::new(OLD_RECORDS, before));
    }
    read.extend(config.job_files.paths().map(|(noun, path)| ReadFile::new(noun, &path)));
    read.extend(env::current_exe().ok().map(|program| ReadFile::new("the program", &program)));
    read
}

fn batch_of(config: &Config) -> Option<&BatchConfig> {
    match &config.task {
        Task::Run(task) => Some(&task.batch),
        Task::Map(task) => Some(&task.batch),
        Task::Kernel(_) | Task::Info { .. } | Task::Completions(_) | Task::Man(_) => None,
    }
}

fn inputs_of(config: &Config) -> Option<&Inputs> {
    match &config.task {
        Task::Run(task) => Some(&task.inputs),
        Task::Map(task) => Some(&task.inputs),
        Task::Kernel(task) => task.input.as_ref(),
        Task::Info { .. } | Task::Completions(_) | Task::Man(_) => None,
    }
}

impl JobFiles {
    /// The command of `run` or the worker of `map`: a program and its arguments, or a script for the shell.
    pub(super) fn of_command(command: &[String], shell: bool, folder: Option<&str>) -> JobFiles {
        let (program, words) = match command.split_first() {
            Some((program, words)) if !shell => (Some(program.clone()), words.to_vec()),
            _ => (None, words_of_script(&command.join(" "))),
        };
        JobFiles { folder: folder.map(PathBuf::from), program, words, python: None }
    }

    /// What `--python` names.
    pub(super) fn of_python(target: &str, interpreter: Option<&str>, folder: Option<&str>) -> JobFiles {
        let python = target.rsplit_once(':').map(|(place, _)| place.to_owned());
        JobFiles {
            folder: folder.map(PathBuf::from),
            program: interpreter.map(str::to_owned),
            words: Vec::new(),
            python,
        }
    }

    /// The files that there are, each with what a message calls it.
    fn paths(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let folder = self.folder.as_deref();
        let program = self.program.as_deref().and_then(|program| resolve(program, folder).ok());
        let here = move |path: &str| folder.map_or_else(|| path.into(), |folder| folder.join(path));
        let words = self.words.iter().map(move |word| (word, here(word))).filter(|(word, path)| is_meant(word, path));
        let program = program.map(|program| here(&program));
        program
            .map(|path| ("the program", path))
            .into_iter()
            .chain(words.map(|(_, path)| ("a file of the command,", path)))
            .chain(self.python_files().into_iter().map(|path| ("the Python file", path)))
    }

    /// The file, or where Python looks for the module and the packages that it is in.
    fn python_files(&self) -> Vec<PathBuf> {
        let Some(place) = &self.python else { return Vec::new() };
        let here = self.folder.clone().unwrap_or_default();
        if place.ends_with(".py") || place.contains('/') {
            return vec![here.join(place)];
        }
        let folders = env::var_os("PYTHONPATH");
        let folders = folders.iter().flat_map(env::split_paths).map(|folder| here.join(folder));
        let mut files = Vec::new();
        for mut path in [here.clone()].into_iter().chain(folders) {
            for name in place.split('.') {
                path.push(name);
                files.extend([path.with_extension("py"), path.join("__init__.py")]);
            }
        }
        files.retain(|path| path.is_file());
        files
    }
}

/// The words of a script, roughly: enough to find the files among them.
fn words_of_script(script: &str) -> Vec<String> {
    let script = script.replace(['<', '>', '|', '&', ';', '(', ')', '\n'], " ");
    shlex::split(&script).unwrap_or_else(|| script.split_whitespace().map(str::to_owned).collect())
}

/// Whether an argument stands for the file of that name: it looks like a path, or the file is a script. `make build` does not
/// mean the file `build` that an earlier run has left.
fn is_meant(word: &str, path: &Path) -> bool {
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file && (word.contains('/') || path.extension().is_some() || is_script(path))
}

fn is_script(path: &Path) -> bool {
    let mut beginning = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok() && beginning == *b"#!"
}
