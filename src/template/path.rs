//! The part of a path that a placeholder stands for, by GNU parallel's rules, which look at characters and never at files.
//!
//! An extension is the last dot and the text after it, if there is some without a slash: `a.b/c` and `a.` have none, `.bashrc` is
//! only an extension. The last part is the text after the last slash, so that of `a/b/` is empty. The folder is that of `dirname`:
//! slashes at the end are ignored, and without a slash it is `.`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PathPart {
    Whole,
    /// `{.}`
    NoExtension,
    /// `{/}`
    Base,
    /// `{//}`
    Folder,
    /// `{/.}`
    BaseNoExtension,
}

/// The suffixes, the longer ones first, because `x//` also ends in `/`.
const SUFFIXES: [(&str, PathPart); 4] =
    [("//", PathPart::Folder), ("/.", PathPart::BaseNoExtension), ("/", PathPart::Base), (".", PathPart::NoExtension)];

impl PathPart {
    /// Splits the text between braces into the name and the part.
    pub(super) fn split(name: &str) -> (&str, PathPart) {
        for (suffix, part) in SUFFIXES {
            if let Some(base) = name.strip_suffix(suffix) {
                return (base, part);
            }
        }
        (name, PathPart::Whole)
    }

    /// Returns this part of a path.
    pub(super) fn of(self, path: Cow<'_, str>) -> String {
        match self {
            PathPart::Whole => path.into_owned(),
            PathPart::NoExtension => without_extension(&path).to_owned(),
            PathPart::Base => base(&path).to_owned(),
            PathPart::Folder => folder(&path).to_owned(),
            PathPart::BaseNoExtension => without_extension(base(&path)).to_owned(),
        }
    }
}

fn without_extension(path: &str) -> &str {
    match path.rfind(['.', '/']) {
        Some(at) if path[at..].starts_with('.') && at + 1 < path.len() => &path[..at],
        _ => path,
    }
}

fn base(path: &str) -> &str {
    path.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

fn folder(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    let root = if path.starts_with('/') { "/" } else { "." };
    match trimmed.rfind('/') {
        Some(slash) => match trimmed[..slash].trim_end_matches('/') {
            "" => root,
            folder => folder,
        },
        None if trimmed.is_empty() => root,
        None => ".",
    }
}
