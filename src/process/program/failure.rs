//! Why a program could not be started, in words that say what to do.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Launch;
use super::resolve::check;
use crate::console::reason;

/// Why this would never be started.
pub(super) fn refuse(launch: &Launch) -> Result<(), String> {
    let texts = launch.args.iter().chain(&launch.arg0).chain([&launch.program]);
    let variables = launch.env.iter().flat_map(|(name, value)| [name, value]);
    if texts.chain(variables).any(|text| text.contains('\0')) {
        return Err(format!(
            "{}: an argument or a variable holds a NUL character, which no program can be given",
            launch.program
        ));
    }
    if let Some(folder) = launch.cwd.as_ref().filter(|folder| folder.to_str().is_none()) {
        return Err(format!("cwd: the name is not UTF-8: {}", folder.display()));
    }
    match launch.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        Some((name, _)) => Err(format!("{}: '{name}' is no name for a variable", launch.program)),
        None => Ok(()),
    }
}

/// What this error says of this launch, whose program is that file.
pub(super) fn explain(errno: i32, launch: &Launch, file: &str) -> String {
    let program = &launch.program;
    let error = io::Error::from_raw_os_error(errno);
    if let Some(folder) = &launch.cwd {
        if let Some(why) = folder_trouble(folder) {
            return why;
        }
    }
    let path = launch.cwd.as_ref().map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => match interpreter(&path) {
            Some(interpreter) => {
                format!("{program}: its first line names an interpreter that is not there: {interpreter}")
            }
            None => format!("no such program: {program}"),
        },
        Errno::ACCESS => check(&path, program).err().unwrap_or_else(|| {
            format!("permission denied: {program} (may the programs of its file system be run, and its interpreter?)")
        }),
        Errno::NOEXEC => format!(
            "exec format error: {program} (does the script begin with #!/bin/sh ? or is it a program for another machine?)"
        ),
        Errno::TOOBIG => format!(
            "argument list too long: {program} (one argument may have 128 KiB, all and the environment usually 2 MiB; longer input can go through standard input)"
        ),
        _ => format!(
            "{program}: {}",
            scarce(&error).map_or_else(|| format!("it cannot be started: {}", reason(&error)), str::to_string)
        ),
    }
}

/// What to say when the system has no more of something.
pub(super) fn scarce(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE => "too many open files (raise `ulimit -n`, or use fewer threads)",
        Errno::NFILE => "too many open files on this machine",
        Errno::AGAIN => "no more processes can be started (see `ulimit -u`, and limits of the allocation)",
        Errno::NOMEM => "there is no memory left to start it",
        _ => return None,
    })
}

pub(super) fn not_executable(program: &str) -> String {
    format!("permission denied: {program} (is it executable? chmod +x)")
}

/// Why nothing can start in this folder.
fn folder_trouble(folder: &Path) -> Option<String> {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(found) if !found.is_dir() => Some(format!("cwd: not a directory: {shown}")),
        Ok(_) => rustix::fs::access(folder, rustix::fs::Access::EXEC_OK)
            .is_err()
            .then(|| format!("cwd: permission denied: {shown}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("cwd: no such directory: {shown}")),
        Err(error) => Some(format!("cwd: {shown}: {}", reason(&error))),
    }
}

/// The interpreter that a script's first line names; `None` if the file is no script, or not there.
fn interpreter(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    // A carriage return belongs to the name, as far as the system is concerned, and is best shown.
    Some(String::from_utf8_lossy(line).trim_matches(' ').escape_debug().to_string())
}
