//! Compiles the Python package for the interpreters that are found on the machine of the build, so that a script of one of these
//! versions, and its workers, start without compiling it. It is no error if there are none: others compile it when they import it.
//!
//! `RANKPOOL_BUILD_PYTHONS` names the interpreters, separated by colons; empty: none.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The interpreters that are looked for.
const PYTHONS: &str = "python3:python3.10:python3.11:python3.12:python3.13:python3.14";
const VARIABLE: &str = "RANKPOOL_BUILD_PYTHONS";
const COMPILER: &str = "src/process/python/compile.py";
/// The files of the package. New ones are named there.
const LIST: &str = "src/process/python/package.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    for file in ["build.rs", COMPILER, LIST] {
        println!("cargo:rerun-if-changed={file}");
    }
    if env::var_os("CARGO_FEATURE_PROGRAM").is_none() {
        return Ok(());
    }
    let top = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = BTreeSet::new();
    sources(&top.join("python/rankpool"), &mut files)?;
    for old in fs::read_dir(&out)? {
        let old = old?.path();
        if old.file_stem().is_some_and(|stem| stem == "compiled") {
            fs::remove_file(old)?;
        }
    }
    for python in env::var(VARIABLE).as_deref().unwrap_or(PYTHONS).split(':').filter(|python| !python.is_empty()) {
        // One that is not there, or is too old, is skipped.
        let mut compiler = Command::new(python);
        compiler.args(["-I", "-S", "-B"]).arg(top.join(COMPILER)).arg(out.join("compiled"));
        for file in &files {
            compiler.arg(file).arg(file.strip_prefix(top.join("python"))?);
        }
        let _ = compiler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    let mut list = "&[".to_string();
    let mut found = BTreeSet::new();
    for file in fs::read_dir(&out)? {
        let file = file?.path();
        if let Some(magic) = file.extension().filter(|_| file.file_stem().is_some_and(|stem| stem == "compiled")) {
            found.insert((magic.to_string_lossy().into_owned(), file.clone()));
        }
    }
    for (magic, file) in found {
        write!(list, "(\"compiled/{magic}\", include_bytes!({file:?})),")?;
    }
    fs::write(out.join("compiled_files.rs"), list + "]")?;
    Ok(())
}

/// Finds the files of the package, and says that the build depends on each. Not on their folder: Python keeps others there.
fn sources(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            println!("cargo:rerun-if-changed={}", path.display());
            found.insert(path);
        }
    }
    Ok(())
}
