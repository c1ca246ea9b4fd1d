//! Whether the file of a journal is still at its path, and a copy of one that is not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::has_magic;
use super::owner::lock;

/// Whether this path is that of this file. A path that cannot be looked at now is taken to be.
pub(super) fn is_there(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(path).map(identity), file.metadata().map(identity)) {
        (Ok(found), Ok(own)) => found == own,
        (Err(error), _) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        (_, Err(_)) => true,
    }
}

/// Copies a file that is no longer at its path to a new file beside it; `None` if it has another path now.
///
/// # Errors
/// If the folder is gone, too, or there is no room.
pub(super) fn rescue(file: &File, path: &Path) -> io::Result<Option<PathBuf>> {
    if file.metadata()?.nlink() > 0 {
        return Ok(None);
    }
    let rescued = free_name(path, ".rescued")?;
    let mut copy = OpenOptions::new().write(true).create_new(true).open(&rescued)?;
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let copied = io::copy(&mut file, &mut copy).and_then(|_| copy.sync_all());
    if copied.is_err() {
        let _ = fs::remove_file(&rescued);
    }
    copied.map(|()| Some(rescued))
}

/// Returns a name beside this one, with this ending, that is not taken.
pub(super) fn free_name(path: &Path, ending: &str) -> io::Result<PathBuf> {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        if number > 1 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    let free = (1..1000).map(named).find(|name| name.symlink_metadata().is_err());
    free.ok_or_else(|| io::Error::other(format!("there are too many files {}{ending}; remove some", path.display())))
}

/// Opens the file in which a journal is written anew, empty, and locks it. What a killed run has left there is replaced, and nothing else.
///
/// # Errors
/// If it cannot be opened, or another file has the name.
pub(super) fn open_new(path: &Path) -> io::Result<File> {
    let taken = || io::Error::other(format!("{} is in the way: remove or rename it", path.display()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // A pipe is not waited for, and a link is not followed.
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| if error.raw_os_error() == Some(libc::ELOOP) { taken() } else { error })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > 0 && !has_magic(&file)? {
        return Err(taken());
    }
    // Another process may be writing it, or may have made it the journal just now.
    if !lock(&file)? || !is_there(&file, path) {
        return Err(io::Error::other(format!("another process writes {}", path.display())));
    }
    file.set_len(0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_replaced_or_whose_folder_is_gone_is_not_there_and_can_be_rescued() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("d");
        let path = inner.join("j");
        for number in 1..=2 {
            fs::create_dir_all(&inner).expect("a folder");
            fs::write(&path, "entries").expect("there is room");
            let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
            assert!(is_there(&file, &path));
            fs::rename(&path, inner.join("moved")).expect("it is there");
            assert!(!is_there(&file, &path));
            assert_eq!(rescue(&file, &path).expect("it has another name"), None);
            fs::remove_file(inner.join("moved")).expect("it is there");
            fs::write(&path, "other").expect("there is room");
            assert!(!is_there(&file, &path));
            let rescued = rescue(&file, &path).expect("there is room").expect("it has no name");
            assert_eq!(fs::read_to_string(&rescued).expect("it is there"), "entries");
            assert!(rescued.ends_with(if number == 1 { "j.rescued" } else { "j.rescued.2" }), "{}", rescued.display());
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "other");
            fs::rename(&inner, folder.path().join("elsewhere")).expect("it is there");
            assert!(!is_there(&file, &path) && rescue(&file, &path).is_err());
            fs::rename(folder.path().join("elsewhere"), &inner).expect("it is there");
        }
    }

    #[test]
    fn a_new_journal_replaces_the_rest_of_one_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j.new");
        for rest in [&b""[..], &super::super::frame::header(1, 1)] {
            fs::write(&path, rest).expect("there is room");
            assert_eq!(open_new(&path).and_then(|file| file.metadata()).expect("it is replaced").len(), 0);
        }
        let locked = open_new(&path).expect("it is free");
        assert!(open_new(&path).expect_err("it is in use").to_string().contains("another process writes"));
        drop(locked);
        fs::write(&path, "a letter").expect("there is room");
        assert!(open_new(&path).expect_err("it is no journal").to_string().contains("j.new is in the way"));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "a letter");
        let link = folder.path().join("link.new");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(open_new(&link).expect_err("it is a link").to_string().contains("in the way"));
    }
}
