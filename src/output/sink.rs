//! Where the bytes go: straight to an open file, or to a temporary one that becomes the output in the end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Existing, Target};

/// Read and write for everybody, as far as the user's umask lets them: what a shell's `>` asks for.
const NEW_FILE_MODE: u32 = 0o666;

pub(super) enum Sink {
    /// Standard output or error, something that is not a regular file, or one that is read while it is written.
    Direct(File),
    /// A regular file, new or to be replaced.
    Whole { partial: NamedTempFile, path: PathBuf },
}

impl Sink {
    pub(super) fn open(target: &Target) -> io::Result<Sink> {
        match target {
            // Not `io::stdout()`, which would write every line by itself.
            Target::Stdout => Ok(Sink::Direct(io::stdout().as_fd().try_clone_to_owned()?.into())),
            Target::Stderr => Ok(Sink::Direct(io::stderr().as_fd().try_clone_to_owned()?.into())),
            Target::File(path) => Sink::open_file(path),
        }
    }

    pub(super) fn open_direct(target: &Target, existing: Existing) -> io::Result<Sink> {
        let Target::File(path) = target else {
            return Sink::open(target);
        };
        // What is not a regular file takes neither.
        let mut options = OpenOptions::new();
        match existing {
            Existing::Replace => options.write(true).truncate(true),
            Existing::Append => options.append(true),
        };
        Ok(Sink::Direct(options.create(true).open(path)?))
    }

    fn open_file(path: &Path) -> io::Result<Sink> {
        let old = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(old) = old else {
            let partial = partial_file_beside(path)?;
            return Ok(Sink::Whole { partial, path: path.to_owned() });
        };
        // Opening for writing tells a directory and a file that its owner has made read-only, which a rename would not.
        let file = OpenOptions::new().write(true).open(path)?;
        if !old.is_file() {
            return Ok(Sink::Direct(file));
        }
        // A symbolic link stays one: its target is replaced.
        let path = fs::canonicalize(path)?;
        let partial = partial_file_beside(&path)?;
        partial.as_file().set_permissions(Permissions::from_mode(old.permissions().mode() & 0o777))?;
        Ok(Sink::Whole { partial, path })
    }

    /// Lets a regular file appear.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Sink::Direct(_) => Ok(()),
            Sink::Whole { partial, path } => appear(partial, &path),
        }
    }

    /// Lets a regular file appear beside where it would have been whole, if there is something in it.
    pub(super) fn leave_partial(self) -> io::Result<()> {
        match self {
            Sink::Direct(_) => Ok(()),
            Sink::Whole { partial, .. } if partial.as_file().metadata()?.len() == 0 => Ok(()),
            Sink::Whole { partial, path } => appear(partial, &partial_path(&path)),
        }
    }

    fn file(&mut self) -> &mut File {
        match self {
            Sink::Direct(file) => file,
            Sink::Whole { partial, .. } => partial.as_file_mut(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Gives a temporary file its name.
fn appear(partial: NamedTempFile, path: &Path) -> io::Result<()> {
    // Network file systems report a full disk or a quota only here, and a rename may reach the disk before the contents do.
    partial.as_file().sync_all()?;
    // The superuser's rename would replace even a device that has taken the name since.
    if fs::symlink_metadata(path).is_ok_and(|now| !now.is_file() && !now.is_symlink()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    partial.persist(path)?;
    Ok(())
}

/// Where an output is left that is not whole.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// A temporary file in the directory of `path`, where it can be renamed to `path`.
fn partial_file_beside(path: &Path) -> io::Result<NamedTempFile> {
    // `name/` is a directory that is not there; the rename would find that out only when all jobs are done.
    if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".rankpool-")
        .suffix(".partial")
        .permissions(Permissions::from_mode(NEW_FILE_MODE))
        .tempfile_in(directory)
}
