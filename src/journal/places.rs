//! The places of outputs in a job log: whether the outputs are there, and how the places are changed when outputs move.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::line::{Line, MAX_LINE_BYTES};
use super::{AT_WIDTH, Status};
use crate::output::layout::{Extent, Moved};
use crate::output::sink::{partial_path, real_path, sorted_path};

/// The number of bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// The files in which an earlier run may have left outputs, and the outputs that were found there.
pub(crate) struct OutputFiles {
    output: PathBuf,
    /// The partial output first: a run that continues the earlier one appends to it.
    files: [Option<File>; 3],
    found: Vec<Found>,
    /// Successful jobs whose outputs were not found.
    missing: Vec<u64>,
    /// The file that the last entry named, and whether it is this output.
    named: Option<(PathBuf, bool)>,
    /// Whether an entry has a place in this output.
    has_places: bool,
    /// Whether an entry of a successful job has no place.
    has_unplaced: bool,
    buffer: Vec<u8>,
}

/// An output that is at the place in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub extent: Extent,
    /// The file that has it, see [`OutputFiles::other`]; 0 is the partial output.
    pub file: usize,
}

impl OutputFiles {
    /// Opens the files that may hold parts of this output.
    pub(crate) fn new(output: &Path) -> OutputFiles {
        let output = real_path(output);
        let open = |path: &Path| if path.is_file() { File::open(path).ok() } else { None };
        let partial = partial_path(&output);
        let files = [open(&partial), open(&sorted_path(&partial)), open(&output)];
        OutputFiles {
            output,
            files,
            found: Vec::new(),
            missing: Vec::new(),
            named: None,
            has_places: false,
            has_unplaced: false,
            buffer: Vec::new(),
        }
    }

    /// Looks for the output of an entry and notes the result. Returns false if the job succeeded and its output should be here but
    /// is not.
    pub(super) fn look_up(&mut self, entry: &Line<'_>) -> bool {
        let is_ok = entry.status == Status::Ok;
        let Some(place) = &entry.output else {
            self.has_unplaced |= is_ok;
            return true;
        };
        if !is_ok && self.has_places {
            return true;
        }
        let file = Path::new(&*place.file);
        if self.named.as_ref().is_none_or(|(named, _)| named != file) {
            self.named = Some((file.to_owned(), real_path(file).to_string_lossy() == self.output.to_string_lossy()));
        }
        let is_here = self.named.as_ref().is_some_and(|(_, is_here)| *is_here);
        if !is_here && !self.may_be(file) {
            return true;
        }
        self.has_places |= is_here;
        let extent = Extent { number: entry.number, at: place.at, length: place.length };
        if extent.length == 0 {
            // An empty output cannot be missing.
            self.found.extend(is_ok.then_some(Found { extent: Extent { at: 0, ..extent }, file: 0 }));
            return true;
        }
        let hash = u64::from_str_radix(&place.hash, 16).ok();
        let buffer = &mut self.buffer;
        let file = self
            .files
            .iter()
            .position(|file| file.as_ref().is_some_and(|file| hash.is_some() && hash_of(file, extent, buffer) == hash));
        match file {
            // The output of a failed job is not kept, but it shows that the log belongs to this output.
            Some(file) => {
                self.has_places = true;
                self.found.extend(is_ok.then_some(Found { extent, file }));
            }
            None => self.missing.extend(is_ok.then_some(entry.number)),
        }
        file.is_some() || !is_ok
    }

    /// Whether entries that name this file can mean this output: they do if the folder was renamed and the bytes are there.
    fn may_be(&self, file: &Path) -> bool {
        let name = self.output.file_name().map(OsStr::to_string_lossy);
        self.files.iter().any(Option::is_some) && file.file_name().map(OsStr::to_string_lossy) == name
    }

    /// Whether entries have places in this output.
    pub(crate) fn has_places(&self) -> bool {
        self.has_places
    }

    /// Returns the partial output if it is not empty, some jobs have succeeded, and no entry says which parts of it are theirs.
    pub(crate) fn unknown(&self) -> Option<PathBuf> {
        let partial = self.files[0].as_ref().filter(|_| self.has_unplaced && !self.has_places)?;
        let is_empty = partial.metadata().is_ok_and(|metadata| metadata.len() == 0);
        (!is_empty).then(|| partial_path(&self.output))
    }

    /// Returns the number of jobs that a log calls successful although their outputs are missing. `is_ok`: whether a job counts as
    /// successful by its last entry and its output.
    pub(crate) fn missing(&self, is_ok: impl Fn(u64) -> bool) -> usize {
        let missing: BTreeSet<u64> = self.missing.iter().copied().filter(|number| !is_ok(*number)).collect();
        missing.len()
    }

    /// Returns one of the files that are not the partial output.
    pub(crate) fn other(&self, file: usize) -> Option<&File> {
        self.files[1..].get(file.checked_sub(1)?)?.as_ref()
    }

    /// Takes the outputs that were found of successful jobs, one for each job, in the order of their numbers.
    pub(crate) fn take_found(&mut self, is_ok: impl Fn(u64) -> bool) -> Vec<Found> {
        let mut found = std::mem::take(&mut self.found);
        // The last entry of a job counts; the sort is stable.
        found.reverse();
        found.sort_by_key(|found| found.extent.number);
        found.dedup_by_key(|found| found.extent.number);
        found.retain(|found| is_ok(found.extent.number));
        found
    }
}

/// Returns the hash of an extent of a file; `None` if the file is too short.
fn hash_of(file: &File, extent: Extent, buffer: &mut Vec<u8>) -> Option<u64> {
    buffer.resize(READ_BYTES, 0);
    let mut hash = Xxh3::new();
    let end = extent.at.checked_add(extent.length)?;
    let mut at = extent.at;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..most], at).ok()?;
        hash.update(&buffer[..most]);
        at += most as u64;
    }
    Some(hash.digest())
}

/// Changes the places in a job log after outputs were moved.
///
/// # Errors
/// If it cannot be read or written.
pub(super) fn change_places(mut file: &File, moved: &Moved) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut lines = BufReader::with_capacity(READ_BYTES, file);
    let (mut line, mut end) = (Vec::new(), 0);
    loop {
        line.clear();
        let length = io::Read::take(&mut lines, MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        end += length as u64;
        let Ok(Line { number, output: Some(place), .. }) = serde_json::from_slice::<Line<'_>>(&line) else { continue };
        let old = Extent { number, at: place.at, length: place.length };
        let Some(at) = moved.place(old).filter(|at| *at != place.at) else { continue };
        let tail = format!("{at:<AT_WIDTH$}}}}}\n");
        let has_room = line.len() > tail.len() && line[..line.len() - tail.len()].ends_with(b"\"at\":");
        if has_room {
            file.write_all_at(tail.as_bytes(), end - tail.len() as u64)?;
        }
    }
}
