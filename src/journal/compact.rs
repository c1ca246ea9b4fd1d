//! Writes a journal anew with the last entry of each job alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::{Chain, HEADER_BYTES, Kind, header};
use super::index::Index;
use super::presence::open_new;
use super::scan::{FrameReader, Scan};
use super::settled::Settled;
use super::storage::{SyncedFile, sync_folder};
use super::writer::FrameWriter;

/// Writes the entries of `index` and the last entries about runs into a new file, which then replaces the file at `path`, which is
/// no link. Returns
/// the new file, locked. A job with a piece of output that cannot be read is left out.
///
/// # Errors
/// If reading or writing fails; then the old file is as it was.
pub(super) fn write(file: &File, index: &Index, path: &Path) -> io::Result<File> {
    let new = new_path(path);
    let written = open_new(&new)?;
    let replaced = write_new(file, index, &written).and_then(|()| {
        fs::rename(&new, path)?;
        sync_folder(path)
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced.map(|()| written)
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn write_new(file: &File, index: &Index, written: &File) -> io::Result<()> {
    written.set_permissions(file.metadata()?.permissions())?;
    written.write_all_at(&copied_header(file)?, 0)?;
    let storage = SyncedFile::new(written.try_clone()?);
    let mut writer = FrameWriter::new(storage, Chain::default(), HEADER_BYTES as u64, Duration::MAX);
    let last = last_of_runs(file)?;
    let mut reader = FrameReader::new();
    let ends = |kind: &Kind| matches!(kind, Kind::Statistics | Kind::Complete | Kind::Closed);
    for (_, at) in last.iter().filter(|(kind, _)| !ends(kind)) {
        copy(file, &mut reader, *at, &mut writer)?;
    }
    for position in index.positions() {
        copy_settled(file, &mut reader, position.at, &mut writer)?;
    }
    for (_, at) in last.iter().filter(|(kind, _)| ends(kind)) {
        copy(file, &mut reader, *at, &mut writer)?;
    }
    writer.sync()
}

/// Returns the header of a journal, or a new one if it is damaged.
fn copied_header(file: &File) -> io::Result<[u8; HEADER_BYTES]> {
    let mut bytes = [0; HEADER_BYTES];
    let read = file.read_exact_at(&mut bytes, 0);
    let is_intact = read.is_ok() && super::frame::read_header(&bytes) == super::frame::Header::Intact;
    Ok(if is_intact { bytes } else { header(0, 0) })
}

/// Returns the positions of the last entries about runs, in the order of the file. An entry about the end of a run counts only if
/// no other run has begun after it.
fn last_of_runs(file: &File) -> io::Result<Vec<(Kind, u64)>> {
    let mut scan = Scan::new(file)?;
    let mut last: Vec<(Kind, u64)> = Vec::new();
    while let Some(frame) = scan.next()? {
        let kind = frame.kind;
        match kind {
            Kind::Owner => last.retain(|(of, _)| *of == Kind::Spec),
            Kind::Spec | Kind::Ranks | Kind::Statistics | Kind::Complete | Kind::Closed => {
                last.retain(|(of, _)| *of != kind);
            }
            // Moments are about the order of entries, which is not kept.
            Kind::Settled | Kind::Part | Kind::Moment | Kind::Unknown(_) => continue,
        }
        last.push((kind, frame.at));
    }
    Ok(last)
}

fn copy(file: &File, reader: &mut FrameReader, at: u64, writer: &mut FrameWriter<SyncedFile>) -> io::Result<()> {
    if let Some((kind, payload)) = reader.read(file, at)? {
        writer.append(kind, |out| out.extend_from_slice(payload))?;
    }
    Ok(())
}

/// Copies the entry of a job behind the pieces of its output.
fn copy_settled(
    file: &File,
    reader: &mut FrameReader,
    at: u64,
    writer: &mut FrameWriter<SyncedFile>,
) -> io::Result<()> {
    let Some((Kind::Settled, payload)) = reader.read(file, at)? else { return Ok(()) };
    let payload = payload.to_vec();
    let Some(settled) = Settled::read(&payload) else { return Ok(()) };
    let mut parts = Vec::new();
    for part in settled.parts.iter() {
        let Some((stream, bytes)) = reader.read_piece(file, part)? else { return Ok(()) };
        parts.push(writer.append_piece(stream, bytes)?);
    }
    writer.append(Kind::Settled, |out| settled.write(&parts, out)).map(drop)
}
