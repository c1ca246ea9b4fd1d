//! Messages about programs that cannot be started, with what to do about it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Program;
use super::resolve::check;
use crate::console::reason;

/// Refuses a program that can never be started.
pub(in crate::process) fn refuse(program: &Program) -> Result<(), String> {
    let texts = program.args.iter().chain(&program.arg0).chain([&program.name]);
    let variables = program.env.iter().flat_map(|(name, value)| [name, value]);
    if texts.chain(variables).any(|text| text.contains('\0')) {
        return Err(format!(
            "{}: an argument or a variable holds a NUL character, which no program can be given",
            program.name
        ));
    }
    if let Some(folder) = program.cwd.as_ref().filter(|folder| folder.to_str().is_none()) {
        return Err(format!("cwd: the name is not UTF-8: {}", folder.display()));
    }
    match program.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
        Some((name, _)) => Err(format!("{}: '{name}' is not a valid variable name", program.name)),
        None => Ok(()),
    }
}

/// Explains an error of the system about a program, whose file is `file`.
pub(in crate::process) fn explain(errno: i32, program: &Program, file: &str) -> String {
    let name = &program.name;
    let error = io::Error::from_raw_os_error(errno);
    if let Some(folder) = &program.cwd {
        if let Some(why) = folder_trouble(folder) {
            return why;
        }
    }
    let path = program.cwd.as_ref().map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT => match interpreter(&path) {
            Some(interpreter) => {
                format!("{name}: its first line names an interpreter that does not exist: {interpreter}")
            }
            None => format!("no such program: {name}"),
        },
        Errno::ACCESS => check(&path, name).err().unwrap_or_else(|| {
            format!("permission denied: {name} (may the programs of its file system be run, and its interpreter?)")
        }),
        Errno::NOEXEC => format!(
            "exec format error: {name} (does the script begin with #!/bin/sh ? or is it a program for another machine?)"
        ),
        Errno::TOOBIG => format!(
            "argument list too long: {name} (one argument may have 128 KiB, all and the environment usually 2 MiB; longer input can go through standard input)"
        ),
        _ => format!(
            "{name}: {}",
            scarce(&error).map_or_else(|| format!("cannot be started: {}", reason(&error)), str::to_string)
        ),
    }
}

/// Returns a message if the error says that a resource is exhausted.
pub(in crate::process) fn scarce(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE => "too many open files (raise `ulimit -n`, or use fewer threads)",
        Errno::NFILE => "too many open files on this machine",
        Errno::AGAIN => "no more processes can be started (see `ulimit -u`, and limits of the allocation)",
        Errno::NOMEM => "there is no memory left to start it",
        _ => return None,
    })
}

/// Returns why no program can start in this folder.
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

/// Returns the interpreter that a script's first line names; `None` if the file is not a script or does not exist.
fn interpreter(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    // For the system a carriage return belongs to the name, so it is shown.
    Some(String::from_utf8_lossy(line).trim_matches(' ').escape_debug().to_string())
}
