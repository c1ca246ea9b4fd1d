//! Opens the file of an output: directly, or as `FILE.partial`, which is renamed to `FILE` in the end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Existing, Target};

/// Most names that are tried for the partial output of an earlier run.
const KEPT_MAX: u32 = 10_000;
/// Most symbolic links that are followed to the file of an output.
const LINKS_MAX: u32 = 40;

pub(super) enum Sink {
    /// Standard output or error, something that is not a regular file, or one that is read while it is written.
    Direct(File),
    /// A regular file, new or to be replaced.
    Partial(Partial),
}

/// `FILE.partial`, with the output so far. It is removed only if it is empty.
pub(super) struct Partial {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl Sink {
    /// Opens a target; a regular file is written as `FILE.partial`. With `goes_on`, behind the bytes that are already there.
    pub(super) fn open(target: &Target, goes_on: bool) -> io::Result<Sink> {
        match target {
            // Not `io::stdout()`, which would write each line separately.
            Target::Stdout => Ok(Sink::Direct(io::stdout().as_fd().try_clone_to_owned()?.into())),
            Target::Stderr => Ok(Sink::Direct(io::stderr().as_fd().try_clone_to_owned()?.into())),
            Target::File(path) => Sink::open_file(path, goes_on),
        }
    }

    pub(super) fn open_direct(target: &Target, existing: Existing) -> io::Result<Sink> {
        let Target::File(path) = target else {
            return Sink::open(target, false);
        };
        // It is emptied only after the lock shows that no other run writes it. Only regular files are locked and emptied.
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        let file = options.open(path)?;
        if file.metadata()?.is_file() {
            lock(&file)?;
            if existing == Existing::Replace {
                file.set_len(0)?;
            }
        }
        Ok(Sink::Direct(file))
    }

    fn open_file(path: &Path, goes_on: bool) -> io::Result<Sink> {
        let path = linked(path)?;
        let mode = match fs::metadata(&path) {
            Ok(old) => {
                // Opening for writing fails for a directory and for a read-only file, which a rename would not notice.
                let file = OpenOptions::new().write(true).open(&path)?;
                if !old.is_file() {
                    return Ok(Sink::Direct(file));
                }
                Some(old.permissions().mode() & 0o777)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // `name/` is a directory that does not exist; the rename would fail only after all jobs are done.
        if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let partial = partial_path(&path);
        let file = open_partial(&partial, goes_on)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(Sink::Partial(Partial { file, partial, path }))
    }

    /// Drops the bytes of an earlier run in the unfinished file.
    pub(super) fn clear(&self) -> io::Result<()> {
        let Sink::Partial(Partial { file, .. }) = self else { return Ok(()) };
        file.set_len(0)?;
        (&*file).seek(SeekFrom::Start(0)).map(drop)
    }

    /// Returns how many bytes of an earlier run are in the file.
    pub(super) fn start(&self) -> u64 {
        match self {
            Sink::Direct(_) => 0,
            Sink::Partial(partial) => partial.file.metadata().map_or(0, |metadata| metadata.len()),
        }
    }

    /// Returns the unfinished file, its name, and its name when it is finished.
    pub(super) fn partial(&self) -> Option<(&File, &Path, &Path)> {
        match self {
            Sink::Direct(_) => None,
            Sink::Partial(Partial { file, partial, path }) => Some((file, partial, path)),
        }
    }

    /// Gives a regular file its name.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Sink::Direct(_) => Ok(()),
            Sink::Partial(Partial { file, partial, path }) => appear(file, partial, path),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Direct(file) => file.write(bytes),
            Sink::Partial(partial) => partial.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Partial {
    /// Removes the file if it is empty.
    fn drop(&mut self) {
        let is_empty = |metadata: fs::Metadata| metadata.len() == 0 && metadata.is_file();
        if self.file.metadata().is_ok_and(is_empty) && is_at(&self.file, &self.partial) {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Renames an unfinished file to its name.
pub(super) fn appear(file: &File, partial: &Path, path: &Path) -> io::Result<()> {
    // Network file systems report a full disk or quota only here, and a rename may reach the disk before the contents.
    file.sync_all()?;
    // As root, the rename would replace even a device that was created under this name meanwhile.
    if fs::symlink_metadata(path).is_ok_and(|now| !now.is_file() && !now.is_symlink() && !now.is_dir()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(partial, path)
}

/// Returns the name of an unfinished output.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    with_suffix(path, ".partial")
}

/// Returns the name of the ordered copy of an unfinished output.
pub(crate) fn sorted_path(partial: &Path) -> PathBuf {
    with_suffix(partial, ".sorted")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Follows symbolic links to a file, which need not exist.
fn linked(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// Returns the canonical path of a file, which need not exist: its canonical folder and its name.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let path = linked(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => std::path::absolute(&path).unwrap_or(path),
    }
}

/// Opens and locks the unfinished file. The output of an earlier run in it stays in front with `goes_on`, otherwise it is renamed.
fn open_partial(partial: &Path, goes_on: bool) -> io::Result<File> {
    for _ in 0..KEPT_MAX {
        // Opening a FIFO would wait for its reader, and a link would lead to a file that was not asked for.
        if fs::symlink_metadata(partial).is_ok_and(|there| !there.is_file()) {
            let text = format!("{} exists and is not a regular file; remove it", partial.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial)?;
        lock(&file)?;
        if !is_at(&file, partial) {
            // Another run has renamed it meanwhile.
            continue;
        }
        if goes_on || file.metadata()?.len() == 0 {
            file.seek(SeekFrom::End(0))?;
            return Ok(file);
        }
        keep_aside(partial)?;
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Renames the output of an earlier run to a free name, and reports that.
fn keep_aside(partial: &Path) -> io::Result<()> {
    for number in 1..KEPT_MAX {
        let kept = with_suffix(partial, &format!(".{number}"));
        // A hard link fails if the name is taken; a rename would replace the other file.
        match fs::hard_link(partial, &kept) {
            Ok(()) => fs::remove_file(partial)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            // File systems without hard links.
            Err(_) if !kept.exists() => fs::rename(partial, &kept)?,
            Err(_) => continue,
        }
        crate::console::eprint_error(format_args!(
            "{} had results of an earlier run that did not finish; they are in {} now",
            partial.display(),
            kept.display()
        ));
        return Ok(());
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Whether this open file is the one at that path.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Locks a file against other runs until it is closed. On network file systems without locks this has no effect.
pub(super) fn lock(file: &File) -> io::Result<()> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN) => Err(io::Error::new(io::ErrorKind::ResourceBusy, BUSY)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The error of a file that another run is writing.
const BUSY: &str = "another run is writing it; choose another file, or wait for the end of that run";
