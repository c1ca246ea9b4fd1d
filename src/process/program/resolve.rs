//! Finds the file of a program's name.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, PoisonError, RwLock};

use rustix::fs::{Access, access};

use crate::console::reason;

/// Names that were found in `PATH`, with their files.
static FOUND: LazyLock<RwLock<HashMap<String, String>>> = LazyLock::new(RwLock::default);

/// Returns the file of a program's name. What was found in `PATH` is kept. A path is not checked: that takes time on shared disks,
/// and starting the program reports the same errors.
pub(in crate::process) fn file_of(program: &str) -> Result<String, String> {
    if program.is_empty() {
        return Err("no such program: the name is empty".into());
    }
    if program.contains('/') {
        return Ok(program.into());
    }
    if let Some(file) = FOUND.read().unwrap_or_else(PoisonError::into_inner).get(program) {
        return Ok(file.clone());
    }
    let file = search(program, env::var_os("PATH").as_deref())?;
    FOUND.write().unwrap_or_else(PoisonError::into_inner).insert(program.into(), file.clone());
    Ok(file)
}

/// Makes the next call look for a program again.
pub(in crate::process) fn forget(program: &str) {
    FOUND.write().unwrap_or_else(PoisonError::into_inner).remove(program);
}

/// Finds the first executable file of this name in the folders of `PATH`.
fn search(program: &str, folders: Option<&OsStr>) -> Result<String, String> {
    let folders = folders.unwrap_or(OsStr::new("/bin:/usr/bin"));
    let mut why = None;
    for folder in env::split_paths(folders) {
        // An empty entry is the current folder.
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let path = std::path::absolute(folder.join(program))
            .map_err(|error| format!("{program}: its path cannot be made absolute: {}", reason(&error)))?;
        match (check(&path, program), path.into_os_string().into_string()) {
            (Ok(()), Ok(path)) => return Ok(path),
            (Ok(()), Err(_)) => why = Some(format!("{program}: its path is not UTF-8")),
            // A folder of that name is not reported.
            (Err(error), Ok(path)) if Path::new(&path).is_file() => why = why.or(Some(error)),
            (Err(_), _) => {}
        }
    }
    Err(why.unwrap_or_else(|| format!("no such program: {program} (it is not in a folder of PATH)")))
}

/// Checks that a file can be run.
pub(super) fn check(path: &Path, program: &str) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(file) if file.is_dir() => Err(format!("not a program: {program} is a directory")),
        Ok(_) => access(path, Access::EXEC_OK).map_err(|_| not_executable(program)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(not_executable(program)),
        Err(_) => Err(format!("no such program: {program}")),
    }
}

fn not_executable(program: &str) -> String {
    format!("permission denied: {program} (is it executable? chmod +x)")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::process::program::resolve;

    #[test]
    fn a_name_is_looked_for_in_path_and_a_path_is_taken_as_it_is() {
        let found = resolve("sh", None).expect("every system has it");
        assert!(found.starts_with('/') && found.ends_with("/sh"), "{found}");
        assert_eq!(resolve("/bin/sh", None).as_deref(), Ok("/bin/sh"));
        assert_eq!(resolve("./sh", Some(Path::new("/bin"))).as_deref(), Ok("./sh"));
    }

    #[test]
    fn what_cannot_be_run_is_explained() {
        let folder = tempfile::tempdir().expect("a directory for the test");
        let plain = folder.path().join("plain");
        fs::write(&plain, "echo").expect("a file for the test");
        let said = |program: &str| resolve(program, Some(folder.path())).expect_err("it cannot be run");
        assert!(said("./missing").starts_with("no such program: ./missing"));
        assert!(said("missing-in-path").starts_with("no such program: missing-in-path"));
        assert!(said("./plain").starts_with("permission denied: ./plain"));
        assert!(said("./").contains("is a directory"));
        assert!(said("").contains("empty"));
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).expect("it is ours");
        assert!(resolve("./plain", Some(folder.path())).is_ok());
    }

    #[test]
    fn a_file_in_path_that_is_not_executable_is_skipped_and_named_if_there_is_no_other() {
        let folder = tempfile::tempdir().expect("a directory for the test");
        fs::write(folder.path().join("sh"), "echo").expect("a file for the test");
        let path = env::join_paths([folder.path(), Path::new("/bin"), Path::new("/usr/bin")]).expect("no colons");
        assert!(search("sh", Some(&path)).expect("the other one").starts_with('/'));
        let why = search("sh", Some(folder.path().as_os_str())).expect_err("there is no other");
        assert!(why.starts_with("permission denied: sh"), "{why}");
    }
}
