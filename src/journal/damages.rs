//! Tests of damaged journals: whatever is intact is kept, and nothing wrong is ever read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::frame::{Chain, HEADER_BYTES, Kind, header, push_fields};
use super::index::IndexBuilder;
use super::open::read_contents;
use super::scan::{FrameReader, Scan};
use super::settled::Settled;
use super::storage::Storage;
use super::writer::FrameWriter;
use super::{Journal, JournalError, JournalOptions, Key, Spec, Status};
use crate::engine::exchange::OutputStream;
use crate::output::OutputError;

const JOBS: u64 = 24;

fn options(path: &Path) -> JournalOptions {
    JournalOptions { sync: Duration::ZERO, ..JournalOptions::new(path) }
}

fn spec() -> Spec {
    vec![("command".into(), "echo {}".into())]
}

fn open(path: &Path) -> Result<Journal, JournalError> {
    Journal::open(&options(path), &spec(), None)
}

/// The output of a job, of different lengths.
fn output(number: u64) -> Vec<u8> {
    format!("result of job {number}: {}\n", "x".repeat(number as usize * 7 % 90)).into_bytes()
}

fn status(number: u64) -> Status {
    if number % 9 == 0 { Status::Failed } else { Status::Ok }
}

fn content(number: u64) -> u128 {
    Key::content_of(&number.to_le_bytes(), None)
}

/// Settles these jobs; each third one has a piece of output ahead.
fn settle(journal: &mut Journal, numbers: impl IntoIterator<Item = u64>) -> Result<(), OutputError> {
    for number in numbers {
        let (key, place) = journal.find(content(number));
        assert!(place.is_none(), "job {number} is settled already");
        let (mut parts, out) = (Vec::new(), output(number));
        let mut rest = &out[..];
        if number % 3 == 0 {
            let (part, after) = out.split_at(out.len() / 2);
            journal.add_part(OutputStream::Stdout, part, &mut parts)?;
            rest = after;
        }
        let description = if number % 2 == 0 { &b"{\"number\":1"[..] } else { b"" };
        let settled = Settled { description, out: rest, ..Settled::new(key, status(number), number) };
        journal.settle(settled, parts)?;
    }
    Ok(())
}

/// The bytes of a journal with all jobs.
fn whole() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let mut journal = open(&path).expect("it is new");
    settle(&mut journal, 0..JOBS).expect("there is room");
    journal.complete(&Spec::new()).expect("there is room");
    fs::read(path).expect("it is there")
}

/// The jobs that are read from these bytes, each with its right status and output.
fn kept(bytes: &[u8]) -> Vec<u64> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("there is room");
    kept_in(&file)
}

fn kept_in(file: &File) -> Vec<u64> {
    let mut scan = Scan::new(file).expect("it can be read");
    let mut builder = IndexBuilder::default();
    read_contents(&mut scan, &mut builder).expect("it can be read");
    let mut reader = FrameReader::new();
    let mut jobs = BTreeMap::new();
    for position in builder.build().positions() {
        let Some((Kind::Settled, payload)) = reader.read(file, position.at).expect("it can be read") else {
            panic!("an indexed entry is readable")
        };
        let payload = payload.to_vec();
        let settled = Settled::read(&payload).expect("an entry");
        let mut out = Vec::new();
        let mut is_whole = true;
        for part in settled.parts.iter() {
            match reader.read_piece(file, part).expect("it can be read") {
                Some((_, part)) => out.extend_from_slice(part),
                None => is_whole = false,
            }
        }
        out.extend_from_slice(settled.out);
        let number = settled.number;
        assert_eq!((settled.key.content, settled.status), (content(number), status(number)));
        if is_whole {
            assert_eq!(out, output(number), "job {number}");
            jobs.insert(number, ());
        }
    }
    jobs.into_keys().collect()
}

/// The frames of a journal, each with the job whose entry or piece of output it is.
fn frames(bytes: &[u8]) -> Vec<(Range<usize>, Option<u64>)> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("there is room");
    let mut scan = Scan::new(&file).expect("it can be read");
    let mut frames: Vec<(Range<usize>, Option<u64>)> = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        let Some((kind, number)) = scan.next().expect("it can be read").map(|frame| {
            (frame.kind, Settled::read(frame.payload).filter(|_| frame.kind == Kind::Settled).map(|of| of.number))
        }) else {
            return frames;
        };
        let end = scan.end() as usize;
        if let (Kind::Settled, Some((_, of @ None))) = (kind, frames.last_mut()) {
            // The piece before the entry belongs to it.
            *of = number.filter(|number| number % 3 == 0);
        }
        frames.push((at..end, number));
        at = end;
    }
}

/// The jobs of which no byte is in this range.
fn untouched(frames: &[(Range<usize>, Option<u64>)], damage: &Range<usize>) -> Vec<u64> {
    let touched = |frame: &Range<usize>| frame.start < damage.end && damage.start < frame.end;
    (0..JOBS).filter(|job| !frames.iter().any(|(frame, of)| *of == Some(*job) && touched(frame))).collect()
}

#[test]
fn a_journal_that_is_cut_at_any_byte_has_all_jobs_before_the_cut() {
    let bytes = whole();
    let frames = frames(&bytes);
    assert_eq!(kept(&bytes).len() as u64, JOBS);
    for cut in 0..bytes.len() {
        assert_eq!(kept(&bytes[..cut]), untouched(&frames, &(cut..bytes.len())), "cut at byte {cut}");
    }
}

#[test]
fn a_bit_that_is_flipped_costs_at_most_the_job_it_belongs_to() {
    let bytes = whole();
    let frames = frames(&bytes);
    // A region with entries of every kind, and the header of the file.
    for byte in (0..HEADER_BYTES).step_by(9).chain(frames[3].0.start..frames[9].0.end) {
        for bit in [0, 3, 7] {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1 << bit;
            let (kept, expected) = (kept(&damaged), untouched(&frames, &(byte..byte + 1)));
            // Padding belongs to no job.
            assert!(expected.iter().all(|job| kept.contains(job)), "bit {bit} of byte {byte}");
        }
    }
}

#[test]
fn a_region_of_zeros_costs_only_the_jobs_in_it() {
    let bytes = whole();
    let frames = frames(&bytes);
    for length in [8, 512, 2000, 4096] {
        for start in (0..bytes.len()).step_by(512) {
            let damage = start..(start + length).min(bytes.len());
            let mut damaged = bytes.clone();
            damaged[damage.clone()].fill(0);
            let (kept, expected) = (kept(&damaged), untouched(&frames, &damage));
            assert!(expected.iter().all(|job| kept.contains(job)), "zeros at {damage:?}: {kept:?}");
        }
    }
}

#[test]
fn a_frame_that_is_missing_doubled_or_exchanged_costs_no_other_job() {
    let bytes = whole();
    let frames = frames(&bytes);
    for (at, (frame, of)) in frames.iter().enumerate() {
        let without = [&bytes[..frame.start], &bytes[frame.end..]].concat();
        let doubled = [&bytes[..frame.end], &bytes[frame.start..]].concat();
        // Positions of pieces behind the frame have moved: such jobs are run again.
        let moves = |job: &u64| {
            job % 3 == 0 && frames.iter().any(|(range, of)| of == &Some(*job) && range.start >= frame.start)
        };
        let expected: Vec<u64> = (0..JOBS).filter(|job| Some(*job) != *of && !moves(job)).collect();
        for (what, damaged) in [("missing", without), ("doubled", doubled)] {
            let kept = kept(&damaged);
            assert!(expected.iter().all(|job| kept.contains(job)), "{what}: frame {at}: {kept:?}");
        }
        if let Some((next, of_next)) = frames.get(at + 1) {
            let swapped =
                [&bytes[..frame.start], &bytes[next.clone()], &bytes[frame.clone()], &bytes[next.end..]].concat();
            let kept = kept(&swapped);
            let lost: Vec<u64> = (0..JOBS).filter(|job| !kept.contains(job)).collect();
            // Only a piece of output that is no longer where its entry says costs its job.
            assert!(lost.iter().all(|job| [*of, *of_next].contains(&Some(*job)) && job % 3 == 0), "{at}: {lost:?}");
        }
    }
}

#[test]
fn a_damaged_journal_is_repaired_kept_aside_and_continued() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let mut bytes = whole();
    let frames = frames(&bytes);
    let damage = frames[10].0.start + 30..frames[14].0.start + 30;
    bytes[damage.clone()].fill(0);
    fs::write(&path, &bytes).expect("there is room");
    let mut journal = open(&path).expect("it can be continued");
    let message = journal.messages().join("\n");
    assert!(message.contains("was damaged") && message.contains("journal.broken"), "{message}");
    let kept = untouched(&frames, &damage);
    let mut again = Vec::new();
    for number in 0..JOBS {
        let (key, place) = journal.find(content(number));
        let read = place.map(|place| journal.read(place, number).expect("it can be read").is_some());
        assert_eq!(read.unwrap_or(false), kept.contains(&number), "job {number}");
        if read != Some(true) {
            again.push((key, number));
        }
    }
    for (key, number) in again {
        let out = output(number);
        let settled = Settled { out: &out, ..Settled::new(key, status(number), number) };
        journal.settle(settled, Vec::new()).expect("there is room");
    }
    journal.complete(&Spec::new()).expect("there is room");
    assert_eq!(kept_in(&File::open(&path).expect("it is there")).len() as u64, JOBS);
    assert_eq!(fs::read(folder.path().join("journal.broken")).expect("it is kept"), bytes);
    assert!(open(&path).expect("it is whole").messages().is_empty());
}

#[test]
fn a_file_that_is_no_journal_is_never_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let mut newer = header(1, 1);
    newer[8] = 9;
    let checksum = xxhash_rust::xxh3::xxh3_64(&newer[..56]);
    newer[56..].copy_from_slice(&checksum.to_le_bytes());
    for contents in [&b"x"[..], b"1\n2\n3\n", &[0; 5000], b"RPJOURNX and so on", &newer] {
        fs::write(&path, contents).expect("there is room");
        let error = open(&path).err().expect("it is refused").to_string();
        assert!(error.contains("is not a journal") || error.contains("version 9"), "{error}");
        assert_eq!(fs::read(&path).expect("it is there"), contents);
    }
    let error = open(folder.path()).err().expect("it is a folder").to_string();
    assert!(error.contains("Is a directory"), "{error}");
}

#[test]
fn a_journal_whose_creation_was_interrupted_is_begun_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    for length in [0, 5, 12, 63, 64] {
        fs::write(&path, &header(1, 1)[..length]).expect("there is room");
        let journal = open(&path).unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        journal.complete(&Spec::new()).expect("there is room");
        assert!(kept_in(&File::open(&path).expect("it is there")).is_empty());
        fs::remove_file(&path).expect("it is there");
    }
}

#[test]
fn a_second_run_is_refused_and_told_who_holds_the_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let first = open(&path).expect("it is new");
    let error = open(&path).err().expect("it is in use").with_options();
    assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("--break-lock"), "{error}");
    assert!(Journal::open(&JournalOptions { break_lock: true, ..options(&path) }, &spec(), None).is_ok());
    drop(first);
    assert!(open(&path).is_ok(), "the lock is free");
}

#[test]
fn a_journal_of_other_jobs_is_refused_with_both_unless_that_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    drop(open(&path).expect("it is new"));
    let other: Spec = vec![("command".into(), "cat {}".into()), ("--stdin".into(), "{}".into())];
    let error = Journal::open(&options(&path), &other, None).err().expect("it is refused").with_options();
    for words in ["journal: echo {}", "run:   cat {}", "--stdin in the journal: none", "--accept-changed"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let accepting = JournalOptions { accept_changed: true, ..options(&path) };
    assert!(Journal::open(&accepting, &other, None).is_ok());
    assert!(Journal::open(&options(&path), &other, None).is_ok(), "the journal is of these jobs now");
    let error = Journal::open(&JournalOptions { resume: false, ..options(&path) }, &other, None);
    assert!(matches!(error, Err(JournalError::Exists(_))));
}

#[test]
fn failed_jobs_are_run_again_if_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    settle(&mut open(&path).expect("it is new"), [9, 10]).expect("there is room");
    // Dropping the journal without closing it is what a killed run does, but the buffer was not written.
    let mut journal = open(&path).expect("it is there");
    settle(&mut journal, [9, 10]).expect("there is room");
    journal.leave().expect("there is room");
    for retry_failed in [false, true] {
        let mut journal =
            Journal::open(&JournalOptions { retry_failed, ..options(&path) }, &spec(), None).expect("it is there");
        let mut is_settled = |number| {
            let (_, place) = journal.find(content(number));
            place.is_some_and(|place| journal.read(place, number).expect("it can be read").is_some())
        };
        assert_eq!((is_settled(9), is_settled(10)), (!retry_failed, true));
    }
}

/// A file whose n-th write, or n-th sync, fails.
struct Failing<'f> {
    file: &'f File,
    writes: u32,
    syncs: u32,
}

impl Storage for Failing<'_> {
    fn write_all_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.writes = self.writes.wrapping_sub(1);
        if self.writes == 0 {
            // A part of the bytes is written, as on a full disk.
            std::os::unix::fs::FileExt::write_all_at(self.file, &bytes[..bytes.len() / 3], at)?;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        std::os::unix::fs::FileExt::write_all_at(self.file, bytes, at)
    }

    fn begin_sync(&mut self) -> bool {
        self.syncs = self.syncs.wrapping_sub(1);
        true
    }

    fn check(&mut self) -> io::Result<()> {
        if self.syncs == 0 { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.begin_sync();
        self.check()
    }
}

#[test]
fn whichever_write_or_sync_fails_the_run_is_told_and_what_was_written_before_is_kept() {
    for (fails_at, of_writes) in (1..=JOBS as u32).flat_map(|at| [(at, true), (at, false)]) {
        let file = tempfile::tempfile().expect("a file");
        std::os::unix::fs::FileExt::write_all_at(&file, &header(1, 1), 0).expect("there is room");
        let (writes, syncs) = if of_writes { (fails_at, u32::MAX) } else { (u32::MAX, fails_at) };
        let storage = Failing { file: &file, writes, syncs };
        let mut writer = FrameWriter::new(storage, Chain::default(), HEADER_BYTES as u64, Duration::ZERO);
        let mut flushed = 0;
        let mut result = Ok(());
        for number in 0..JOBS {
            let key = Key { content: content(number), occurrence: 0 };
            let out = output(number);
            let settled = Settled { out: &out, ..Settled::new(key, status(number), number) };
            result = writer.append(Kind::Settled, |out| settled.write(&[], out)).and_then(|_| writer.flush());
            if result.is_err() {
                break;
            }
            flushed += 1;
        }
        result = result.and_then(|()| writer.sync());
        assert!(result.is_err(), "failure {fails_at} was not reported");
        assert!(kept_in(&file).len() >= flushed, "failure {fails_at}");
        // After an error nothing is written any more, and no sync is tried again.
        let length = file.metadata().expect("it is there").len();
        assert!(writer.append(Kind::Closed, |out| push_fields(&[], out)).and_then(|_| writer.flush()).is_err());
        assert_eq!(file.metadata().expect("it is there").len(), length);
    }
}
