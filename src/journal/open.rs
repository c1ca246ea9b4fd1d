//! Opens a journal for a run: locks it, reads it, repairs it, and compares it with the jobs of the run.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Status;
use super::compact;
use super::frame::{Chain, HEADER_BYTES, Header, Kind, header, push_fields, read_fields};
use super::index::{Index, IndexBuilder, Position};
use super::lookup::Lookup;
use super::options::{JournalError, JournalOptions, Repaired, Spec, changes};
use super::owner::{Owner, lock};
use super::presence::{free_name, is_there};
use super::run::Journal;
use super::scan::{Damage, Scan};
use super::settled::Settled;
use super::storage::{SyncedFile, read_up_to, sync_folder};
use super::writer::FrameWriter;

/// What a journal contains.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub owner: Option<Owner>,
    pub spec: Option<Spec>,
    /// The fields of the last entry that says that all jobs are settled, if no run has begun after it.
    pub complete: Option<Spec>,
    /// Whether the last run has closed the journal.
    pub is_closed: bool,
    pub frames: u64,
}

/// Reads a whole journal. `index` takes the positions of the entries of jobs.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read_contents(scan: &mut Scan<'_>, index: &mut IndexBuilder) -> io::Result<Contents> {
    let mut contents = Contents::default();
    while let Some(frame) = scan.next()? {
        contents.frames += 1;
        match frame.kind {
            Kind::Settled => {
                if let Some((key, status)) = Settled::peek(frame.payload) {
                    index.push(key, Position { at: frame.at, has_failed: status != Status::Ok });
                }
            }
            Kind::Owner => {
                contents.owner = Some(Owner::from_fields(&read_fields(frame.payload)));
                (contents.complete, contents.is_closed) = (None, false);
            }
            Kind::Spec => contents.spec = Some(read_fields(frame.payload)),
            Kind::Complete => (contents.complete, contents.is_closed) = (Some(read_fields(frame.payload)), true),
            Kind::Closed => contents.is_closed = true,
            Kind::Part | Kind::Ranks | Kind::Moment | Kind::Statistics | Kind::Unknown(_) => {}
        }
    }
    Ok(contents)
}

impl Journal {
    /// Opens a journal for a run whose jobs have `spec` in common and whose output goes to `output`.
    ///
    /// # Errors
    /// If the file cannot be read or written, is not a journal, is in use, or is of other jobs; if it exists and is not to be
    /// continued.
    pub(crate) fn open(options: &JournalOptions, spec: &Spec, output: Option<&Path>) -> Result<Journal, JournalError> {
        let path = &options.path;
        let fault = |source| JournalError::Io { path: path.clone(), source };
        let file = open_locked(options)?;
        let mut scan = Scan::new(&file).map_err(fault)?;
        let mut builder = IndexBuilder::default();
        let contents = read_contents(&mut scan, &mut builder).map_err(fault)?;
        let (length, end, chain, damage) = (scan.length(), scan.end(), scan.chain(), scan.damage().to_vec());
        let is_new = length == 0 || contents.frames == 0 && is_beginning(&file).map_err(fault)?;
        match scan.header() {
            Header::Newer(version) => return Err(JournalError::Newer { path: path.clone(), version }),
            Header::Damaged if contents.frames == 0 && !is_new => return Err(JournalError::NotAJournal(path.clone())),
            Header::Damaged | Header::Intact => {}
        }
        if !is_new && !options.resume {
            return Err(JournalError::Exists(path.clone()));
        }
        if let Some(owner) = contents.owner.as_ref().filter(|_| !contents.is_closed && !options.break_lock) {
            if owner.may_be_alive(&file) {
                return Err(JournalError::InUse { path: path.clone(), owner: Box::new(owner.clone()) });
            }
        }
        let changes = contents.spec.as_ref().map(|before| changes(before, spec)).unwrap_or_default();
        if !changes.is_empty() && !options.accept_changed {
            return Err(JournalError::Changed { path: path.clone(), changes });
        }
        let mut opened = Opened { file, index: builder.build(), chain, end, damage: None };
        let torn = length.saturating_sub(end);
        if !is_new && !damage.is_empty() {
            opened = opened.repair(path, &damage).map_err(fault)?;
        }
        let has_spec = contents.spec.is_some() && changes.is_empty();
        opened.begin(options, spec, has_spec, output, is_new, Earlier { owner: contents.owner, torn })
    }
}

impl Lookup {
    /// Reads the journal that a run would continue, and changes nothing. `None` if there is none.
    ///
    /// # Errors
    /// As [`Journal::open`], except that it may be in use.
    pub(crate) fn preview(options: &JournalOptions, spec: &Spec) -> Result<Option<Lookup>, JournalError> {
        let path = &options.path;
        if !path.is_file() {
            return Ok(None);
        }
        let fault = |source| JournalError::Io { path: path.clone(), source };
        let file = File::open(path).map_err(fault)?;
        let mut scan = Scan::new(&file).map_err(fault)?;
        let mut builder = IndexBuilder::default();
        let contents = read_contents(&mut scan, &mut builder).map_err(fault)?;
        if contents.frames == 0 {
            return Ok(None);
        }
        if !options.resume {
            return Err(JournalError::Exists(path.clone()));
        }
        let changes = contents.spec.as_ref().map(|before| changes(before, spec)).unwrap_or_default();
        if !changes.is_empty() && !options.accept_changed {
            return Err(JournalError::Changed { path: path.clone(), changes });
        }
        Ok(Some(Lookup::new(file, builder.build(), options.retry_failed)))
    }
}

/// What a journal said about the run before.
struct Earlier {
    owner: Option<Owner>,
    /// The number of bytes at the end that were not written completely.
    torn: u64,
}

/// A journal that was read.
struct Opened {
    file: File,
    index: Index,
    chain: Chain,
    end: u64,
    damage: Option<Repaired>,
}

impl Opened {
    /// Writes a damaged journal anew, and keeps the damaged file as `FILE.broken`.
    fn repair(self, path: &Path, damage: &[Damage]) -> io::Result<Opened> {
        let kept = self.index.len() as u64;
        // A link stays, and the file that it leads to is replaced.
        let path = &fs::canonicalize(path)?;
        let original = free_name(path, ".broken")?;
        fs::hard_link(path, &original).or_else(|_| fs::copy(path, &original).map(drop))?;
        let compacted = compact::write(&self.file, &self.index, path)?;
        let mut builder = IndexBuilder::default();
        let mut scan = Scan::new(&compacted)?;
        read_contents(&mut scan, &mut builder)?;
        let (chain, end) = (scan.chain(), scan.end());
        let repaired = Repaired { original, damage: damage.to_vec(), kept };
        Ok(Opened { file: compacted, index: builder.build(), chain, end, damage: Some(repaired) })
    }

    /// Writes the entries with which a run begins.
    fn begin(
        self,
        options: &JournalOptions,
        spec: &Spec,
        has_spec: bool,
        output: Option<&Path>,
        is_new: bool,
        earlier: Earlier,
    ) -> Result<Journal, JournalError> {
        let path = &options.path;
        let fault = |source| JournalError::Io { path: path.clone(), source };
        let writable = self.file.try_clone().map_err(fault)?;
        let mut writer = FrameWriter::new(SyncedFile::new(writable), self.chain, self.end, options.sync);
        let mut begin = || -> io::Result<()> {
            if is_new {
                self.file.set_len(0)?;
                let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
                let identifier = created ^ u64::from(std::process::id()) << 48;
                std::os::unix::fs::FileExt::write_all_at(&self.file, &header(identifier, created), 0)?;
            } else {
                self.file.set_len(self.end)?;
            }
            let owner = Owner::this(output);
            writer.append(Kind::Owner, |out| push_fields(&owner.to_fields(), out))?;
            if !has_spec {
                writer.append(Kind::Spec, |out| push_fields(spec, out))?;
            }
            writer.sync()?;
            if is_new { sync_folder(path) } else { Ok(()) }
        };
        begin().map_err(fault)?;
        let Earlier { owner, torn } = earlier;
        let lookup = Lookup::new(self.file, self.index, options.retry_failed);
        Ok(Journal::new(path.clone(), lookup, writer, owner, torn, self.damage))
    }
}

/// Opens the file and locks it.
fn open_locked(options: &JournalOptions) -> Result<File, JournalError> {
    let path = &options.path;
    let fault = |source| JournalError::Io { path: path.clone(), source };
    loop {
        // Not truncated: what it contains is looked at first.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fault)?;
        if !file.metadata().map_err(fault)?.is_file() {
            return Err(JournalError::NotAJournal(path.clone()));
        }
        if !lock(&file).map_err(fault)? && !options.break_lock {
            let owner = Box::new(last_owner(&file).unwrap_or_default());
            return Err(JournalError::InUse { path: path.clone(), owner });
        }
        // Between opening and locking it, another process may have written it anew.
        if is_there(&file, path) {
            return Ok(file);
        }
    }
}

/// Returns the last owner of a journal that another process writes.
fn last_owner(file: &File) -> Option<Owner> {
    let mut scan = Scan::new(file).ok()?;
    read_contents(&mut scan, &mut IndexBuilder::default()).ok()?.owner
}

/// Whether a file without entries is the beginning of a journal: a run was killed while it created it.
fn is_beginning(file: &File) -> io::Result<bool> {
    let mut bytes = [0; HEADER_BYTES + 1];
    let filled = read_up_to(file, &mut bytes, 0)?;
    let start = header(0, 0);
    let common = filled.min(12);
    Ok(bytes[..common] == start[..common] && (filled >= 12 || filled < HEADER_BYTES))
}
