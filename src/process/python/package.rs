//! The Python package `rankpool`, which is part of this program: interpreters import it from a zip file in memory, so nothing has to
//! be installed.

use std::env;
use std::fs::File;
use std::io::{self, Cursor, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::process::program::Program;

/// The package's files.
const FILES: &[(&str, &str)] = &[
    ("rankpool/__init__.py", include_str!("../../../python/rankpool/__init__.py")),
    ("rankpool/_by_value.py", include_str!("../../../python/rankpool/_by_value.py")),
    ("rankpool/_captures.py", include_str!("../../../python/rankpool/_captures.py")),
    ("rankpool/_connection.py", include_str!("../../../python/rankpool/_connection.py")),
    ("rankpool/_errors.py", include_str!("../../../python/rankpool/_errors.py")),
    ("rankpool/_forked.py", include_str!("../../../python/rankpool/_forked.py")),
    ("rankpool/_forkserver.py", include_str!("../../../python/rankpool/_forkserver.py")),
    ("rankpool/_frames.py", include_str!("../../../python/rankpool/_frames.py")),
    ("rankpool/_functions.py", include_str!("../../../python/rankpool/_functions.py")),
    ("rankpool/_futures.py", include_str!("../../../python/rankpool/_futures.py")),
    ("rankpool/_importer.py", include_str!("../../../python/rankpool/_importer.py")),
    ("rankpool/_iterators.py", include_str!("../../../python/rankpool/_iterators.py")),
    ("rankpool/_launch.py", include_str!("../../../python/rankpool/_launch.py")),
    ("rankpool/_memfds.py", include_str!("../../../python/rankpool/_memfds.py")),
    ("rankpool/_payload.py", include_str!("../../../python/rankpool/_payload.py")),
    ("rankpool/_pool_results.py", include_str!("../../../python/rankpool/_pool_results.py")),
    ("rankpool/_preload.py", include_str!("../../../python/rankpool/_preload.py")),
    ("rankpool/_process.py", include_str!("../../../python/rankpool/_process.py")),
    ("rankpool/_progress.py", include_str!("../../../python/rankpool/_progress.py")),
    ("rankpool/_reading.py", include_str!("../../../python/rankpool/_reading.py")),
    ("rankpool/_receiving.py", include_str!("../../../python/rankpool/_receiving.py")),
    ("rankpool/_reload.py", include_str!("../../../python/rankpool/_reload.py")),
    ("rankpool/_results.py", include_str!("../../../python/rankpool/_results.py")),
    ("rankpool/_runs.py", include_str!("../../../python/rankpool/_runs.py")),
    ("rankpool/_share.py", include_str!("../../../python/rankpool/_share.py")),
    ("rankpool/_worker.py", include_str!("../../../python/rankpool/_worker.py")),
    ("rankpool/compat/__init__.py", include_str!("../../../python/rankpool/compat/__init__.py")),
    ("rankpool/compat/_common.py", include_str!("../../../python/rankpool/compat/_common.py")),
    ("rankpool/compat/dask.py", include_str!("../../../python/rankpool/compat/dask.py")),
    ("rankpool/compat/loky.py", include_str!("../../../python/rankpool/compat/loky.py")),
    ("rankpool/compat/mpi4py.py", include_str!("../../../python/rankpool/compat/mpi4py.py")),
    ("rankpool/compat/p_tqdm.py", include_str!("../../../python/rankpool/compat/p_tqdm.py")),
    ("rankpool/compat/pathos.py", include_str!("../../../python/rankpool/compat/pathos.py")),
    ("rankpool/compat/ray.py", include_str!("../../../python/rankpool/compat/ray.py")),
    ("rankpool/compat/tqdm.py", include_str!("../../../python/rankpool/compat/tqdm.py")),
    ("rankpool/executor.py", include_str!("../../../python/rankpool/executor.py")),
    ("rankpool/joblib.py", include_str!("../../../python/rankpool/joblib.py")),
    ("rankpool/maps.py", include_str!("../../../python/rankpool/maps.py")),
    ("rankpool/pool.py", include_str!("../../../python/rankpool/pool.py")),
];

/// The package in compiled form, for the versions of Python that were found by the build. The names are those that `_importer.py`
/// looks for.
const COMPILED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/compiled_files.rs"));

/// The program of a worker. Its script's folders come from the session, so the current folder is not searched.
const WORKER: &str = "import sys\n\
                      sys.path[:1] == [''] and sys.path.pop(0)\n\
                      from rankpool._worker import main\n\
                      main()";

/// The program of the interpreter from which workers are forked.
const FORK_SERVER: &str = "import sys\n\
                           sys.path[:1] == [''] and sys.path.pop(0)\n\
                           from rankpool._forkserver import main\n\
                           main()";

/// The variable with the folders and zip files in which Python looks for modules.
pub(crate) const PYTHONPATH: &str = "PYTHONPATH";

/// The variables of a single worker.
pub(crate) const SLOT_VARIABLES: [&str; 2] = ["RANKPOOL_RANK", "RANKPOOL_SLOT"];

/// The variable that marks a worker that answers calls.
const WORKER_VARIABLE: &str = "RANKPOOL_WORKER";

/// The zip file, which lives as long as this process.
static PACKAGE: OnceLock<Result<OwnedFd, String>> = OnceLock::new();

/// Returns the value of `PYTHONPATH` with which an interpreter on this host finds the package, also a child of its children, as long
/// as this process lives.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn python_path() -> Result<String, String> {
    path_before(env::var(PYTHONPATH).ok())
}

/// Returns a `PYTHONPATH` with the package before others.
fn path_before(others: Option<String>) -> Result<String, String> {
    let package = PACKAGE.get_or_init(|| make().map_err(|error| format!("cannot keep the Python package: {error}")));
    let package = package.as_ref().map_err(Clone::clone)?;
    let path = format!("/proc/{}/fd/{}", process::id(), package.as_raw_fd());
    Ok(match others {
        Some(others) if others.starts_with(&path) => others,
        Some(others) if !others.is_empty() => format!("{path}:{others}"),
        Some(_) | None => path,
    })
}

/// Makes the zip file.
fn make() -> io::Result<OwnedFd> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let files = FILES.iter().map(|(name, text)| (name, text.as_bytes()));
    for (name, bytes) in files.chain(COMPILED.iter().map(|(name, code)| (name, *code))) {
        zip.start_file(*name, stored)?;
        zip.write_all(bytes)?;
    }
    let bytes = zip.finish()?.into_inner();
    let mut file = File::from(memfd_create("rankpool.zip", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(&bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Returns the program of a worker that answers calls, with the interpreter `exe`.
pub(crate) fn worker(exe: Option<&str>) -> Program {
    let mut env = vec![(WORKER_VARIABLE.to_string(), "1".to_string())];
    // Without it the worker cannot import the package, and says so.
    env.extend(python_path().ok().map(|path| (PYTHONPATH.to_string(), path)));
    let args = vec!["-c".to_string(), WORKER.to_string()];
    Program { name: exe.unwrap_or("python3").to_string(), args, env, ..Program::default() }
}

/// Returns the program of the interpreter from which workers with this program are forked.
///
/// # Errors
/// If there is no memory for the package.
pub(crate) fn fork_server(worker: &Program) -> Result<Program, String> {
    let mut env = worker.env.clone();
    env.retain(|(name, _)| !SLOT_VARIABLES.contains(&name.as_str()));
    let own = env.iter().rev().find(|(name, _)| name == PYTHONPATH).map(|(_, path)| path.clone());
    env.push((PYTHONPATH.to_string(), path_before(own.or_else(|| env::var(PYTHONPATH).ok()))?));
    let mut args = vec!["-c".to_string(), FORK_SERVER.to_string()];
    if !env.iter().any(|(name, _)| name == WORKER_VARIABLE) {
        // The workers of `rankpool map` write no files beside the user's.
        args.insert(0, "-B".to_string());
    }
    args.extend(worker.preload.iter().cloned());
    Ok(Program { name: worker.name.clone(), args, env, cwd: worker.cwd.clone(), ..Program::default() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "py") {
                found.insert(path);
            }
        }
    }

    #[test]
    fn every_file_of_the_package_is_part_of_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let mut expected = BTreeSet::new();
        sources(&root.join("rankpool"), &mut expected);
        let packed: BTreeSet<_> = FILES.iter().map(|(name, _)| root.join(name)).collect();
        assert_eq!(packed, expected);
    }
}
