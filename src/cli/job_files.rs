//! Finds the files that jobs read: programs, scripts and other files that the command line names.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::process::program::resolve;

/// The parts of the command line that may name files of the jobs.
#[derive(Debug, Default)]
pub(super) struct JobFiles {
    /// The folder that the jobs run in, if it is not that of this process.
    pub folder: Option<PathBuf>,
    /// The program of the jobs, as it was typed.
    pub program: Option<String>,
    /// Its arguments, or the words of a script.
    pub words: Vec<String>,
    /// The file or module of `--python`.
    pub python: Option<String>,
}

impl JobFiles {
    /// Takes the command of `run` or the worker of `map`: a program and its arguments, or a script for the shell.
    pub(super) fn of_command(command: &[String], shell: bool, folder: Option<&str>) -> JobFiles {
        let (program, words) = match command.split_first() {
            Some((program, words)) if !shell => (Some(program.clone()), words.to_vec()),
            _ => (None, words_of_script(&command.join(" "))),
        };
        JobFiles { folder: folder.map(PathBuf::from), program, words, python: None }
    }

    /// Takes the value of `--python`.
    pub(super) fn of_python(target: &str, interpreter: Option<&str>, folder: Option<&str>) -> JobFiles {
        let python = target.rsplit_once(':').map(|(place, _)| place.to_owned());
        JobFiles {
            folder: folder.map(PathBuf::from),
            program: interpreter.map(str::to_owned),
            words: Vec::new(),
            python,
        }
    }

    /// Returns the files of `--python` that define the function.
    pub(super) fn function_files(&self) -> Vec<PathBuf> {
        self.python_files()
    }

    /// Returns the existing files, each with its noun for messages.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
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

    /// Returns the Python file, or the files of the module and of its packages that Python may load.
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

/// Splits a script into words, well enough to find the files among them.
fn words_of_script(script: &str) -> Vec<String> {
    let script = script.replace(['<', '>', '|', '&', ';', '(', ')', '\n'], " ");
    shlex::split(&script).unwrap_or_else(|| script.split_whitespace().map(str::to_owned).collect())
}

/// Whether an argument names a file: it looks like a path, or the file is a script. `make build` does not name the file `build`
/// that an earlier run has left.
fn is_meant(word: &str, path: &Path) -> bool {
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file && (word.contains('/') || path.extension().is_some() || is_script(path))
}

fn is_script(path: &Path) -> bool {
    let mut beginning = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok() && beginning == *b"#!"
}
