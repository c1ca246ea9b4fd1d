//! Where records say that outputs are: whether they are there, and what is changed when outputs move.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::last::{Line, MAX_LINE_BYTES};
use super::{AT_WIDTH, Status};
use crate::output::layout::{Extent, Moved};
use crate::output::sink::{partial_path, real_path, sorted_path};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// The files in which an earlier run may have left outputs, and what of them is there.
pub(crate) struct OutputFiles {
    output: PathBuf,
    /// The partial output first: a run that goes on writes behind it.
    files: [Option<File>; 3],
    found: Vec<Found>,
    missing: Vec<u64>,
    /// The name that a record gave last, and whether it is that of this output.
    named: Option<(PathBuf, bool)>,
    /// Whether records told of outputs here.
    is_told_of: bool,
    /// Whether records of jobs that ended well told no place.
    has_untold: bool,
    buffer: Vec<u8>,
}

/// An output that is where its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub extent: Extent,
    /// Which file has it, see [`OutputFiles::other`]; 0 is the partial output.
    pub file: usize,
}

impl OutputFiles {
    /// Of this output.
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
            is_told_of: false,
            has_untold: false,
            buffer: Vec::new(),
        }
    }

    /// Takes note of a record. False if it says that the job ended well, and that its output is here, and it is not.
    pub(super) fn look(&mut self, record: &Line<'_>) -> bool {
        let is_ok = record.status == Status::Ok;
        let Some(place) = &record.output else {
            self.has_untold |= is_ok;
            return true;
        };
        if !is_ok && self.is_told_of {
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
        self.is_told_of |= is_here;
        let extent = Extent { number: record.number, at: place.at, length: place.length };
        if extent.length == 0 {
            // There is nothing that could be missing.
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
            // What failed jobs have left there is not kept, but it tells whose the output is.
            Some(file) => {
                self.is_told_of = true;
                self.found.extend(is_ok.then_some(Found { extent, file }));
            }
            None => self.missing.extend(is_ok.then_some(record.number)),
        }
        file.is_some() || !is_ok
    }

    /// Whether records that name this file can mean this output: after the folder was renamed they do if the bytes are there.
    fn may_be(&self, file: &Path) -> bool {
        let name = self.output.file_name().map(OsStr::to_string_lossy);
        self.files.iter().any(Option::is_some) && file.file_name().map(OsStr::to_string_lossy) == name
    }

    /// Whether records told of outputs of jobs that ended well here.
    pub(crate) fn is_told_of(&self) -> bool {
        self.is_told_of
    }

    /// What is there of an unfinished output, if nothing tells which jobs it is of, and some have ended well.
    pub(crate) fn unknown(&self) -> Option<PathBuf> {
        let partial = self.files[0].as_ref().filter(|_| self.has_untold && !self.is_told_of)?;
        let is_empty = partial.metadata().is_ok_and(|metadata| metadata.len() == 0);
        (!is_empty).then(|| partial_path(&self.output))
    }

    /// How many jobs ended well by their last record, and their outputs are not there.
    pub(crate) fn missing(&self, is_ok: impl Fn(u64) -> bool) -> usize {
        let missing: BTreeSet<u64> = self.missing.iter().copied().filter(|number| !is_ok(*number)).collect();
        missing.len()
    }

    /// One of the files that is not the partial output.
    pub(crate) fn other(&self, file: usize) -> Option<&File> {
        self.files[1..].get(file.checked_sub(1)?)?.as_ref()
    }

    /// What is there of the jobs that ended well, each once, in the order of their numbers.
    pub(crate) fn take_found(&mut self, is_ok: impl Fn(u64) -> bool) -> Vec<Found> {
        let mut found = std::mem::take(&mut self.found);
        // The last record of a job counts; sorting keeps their order.
        found.reverse();
        found.sort_by_key(|found| found.extent.number);
        found.dedup_by_key(|found| found.extent.number);
        found.retain(|found| is_ok(found.extent.number));
        found
    }
}

/// The hash of these bytes of a file; nothing if it does not have them.
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

/// Changes the places in a file of records to those where the outputs are now.
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
