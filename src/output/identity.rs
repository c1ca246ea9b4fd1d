//! What a file is, whatever it is called: device and inode if it exists, otherwise the folder and the name it will have.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::real_path;

/// Whether both names are those of one file, however they are spelled.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    Identity::of(one).is_same(&Identity::of(other))
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    There {
        device: u64,
        inode: u64,
        kind: Kind,
    },
    /// There is none yet: its folder, as the system calls it, and its name there.
    New(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    /// A terminal, `/dev/null`: who writes there is not in anybody's way.
    Device,
    /// A pipe, a socket, a folder.
    Other,
}

impl Identity {
    pub(crate) fn of(path: &Path) -> Identity {
        match path.metadata() {
            Ok(metadata) => Identity::from_metadata(&metadata),
            Err(_) => Identity::New(real_path(path)),
        }
    }

    /// Of a standard stream. `None`: it is closed.
    pub(crate) fn of_stream(stream: impl AsFd) -> Option<Identity> {
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
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Identity::New(_) | Identity::There { kind: Kind::Regular, .. })
    }

    /// Whether both are one file.
    pub(crate) fn is_same(&self, other: &Identity) -> bool {
        self.is_file() && self == other
    }
}
