//! Tests with random journals: reading never panics, never takes much memory, and never returns a wrong output.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::frame::{HEAD_BYTES, HEADER_BYTES, Head};
use super::inspect;
use super::settled::Settled;
use super::{Journal, JournalError, JournalOptions, Key, Spec, Status};
use crate::engine::exchange::OutputStream;

const JOBS: u64 = 12;
/// What a reader may allocate: twice the largest payload, the index, and what it reads at once.
const MOST_BYTES: u64 = 40 << 20;

fn open(path: &Path) -> Result<Journal, JournalError> {
    let options = JournalOptions {
        path: path.into(),
        resume: true,
        retry_failed: false,
        accept_changed: true,
        break_lock: true,
        sync: Duration::MAX,
    };
    Journal::open(&options, &vec![("command".into(), "echo {}".into())], None)
}

fn content(number: u64) -> u128 {
    Key::content_of(&number.to_le_bytes(), None)
}

/// The output of a job. Those of some jobs have the same length.
fn output(number: u64) -> Vec<u8> {
    format!("{number:02}").repeat(10 + number as usize / 4 * 5).into_bytes()
}

/// Adds a job whose output is in pieces, or in its entry.
fn settle(journal: &mut Journal, key: Key, number: u64) {
    let (out, mut parts) = (output(number), Vec::new());
    let pieces = if number % 2 == 0 { number as usize % 3 } else { 0 };
    let (ahead, rest) = out.split_at(out.len() / 4 * pieces);
    for piece in ahead.chunks(out.len() / 4) {
        journal.add_part(OutputStream::Stdout, piece, &mut parts).expect("there is room");
    }
    let settled = Settled { description: b"{\"number\":1", out: rest, ..Settled::new(key, Status::Ok, number) };
    journal.settle(settled, parts).expect("there is room");
}

/// A folder in memory, if there is one: these tests sync many files.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A few cases, or as many as PROPTEST_CASES says.
fn config() -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { given } else { ProptestConfig { cases: 64, ..given } }
}

/// The bytes of a journal with all jobs, of several runs.
fn whole() -> Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(make_whole).clone()
}

fn make_whole() -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("journal");
    for last in [JOBS / 2, JOBS] {
        let mut journal = open(&path).expect("it is new or continued");
        for number in 0..last {
            if let (key, None) = journal.find(content(number)) {
                settle(&mut journal, key, number);
            }
        }
        journal.leave().expect("there is room");
    }
    fs::read(path).expect("it is there")
}

/// The frames of an intact journal.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut frames, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some(head) = bytes.get(at..).and_then(Head::read) {
        frames.push(at..at + head.frame_bytes());
        at += head.frame_bytes();
    }
    frames
}

/// Continues a journal with these bytes, as a run does, and looks at each output; then all jobs are settled, and it is whole. Returns
/// how many jobs were settled before.
fn continue_run(bytes: &[u8]) -> usize {
    let folder = folder();
    let path = folder.path().join("journal");
    fs::write(&path, bytes).expect("there is room");
    let Ok(mut journal) = open(&path) else {
        assert_eq!(fs::read(&path).expect("it is there"), bytes, "what is refused is not changed");
        return 0;
    };
    let mut found = 0;
    for number in 0..JOBS {
        let (key, place) = journal.find(content(number));
        match place.and_then(|place| output_of(&mut journal, place, number)) {
            Some(out) => {
                assert_eq!(out, output(number), "job {number}");
                found += 1;
            }
            None => settle(&mut journal, key, number),
        }
    }
    journal.complete(&Spec::new()).expect("there is room");
    let summary = inspect::summary(&path).expect("it is a journal");
    assert!(summary.is_complete && summary.damage.is_empty() && summary.torn == 0);
    let mut journal = open(&path).expect("it is whole");
    for number in 0..JOBS {
        let place = journal.find(content(number)).1.expect("it is settled");
        assert_eq!(output_of(&mut journal, place, number).expect("it is settled"), output(number));
    }
    found
}

/// The whole output of a settled job.
fn output_of(journal: &mut Journal, place: super::Place, number: u64) -> Option<Vec<u8>> {
    let settled = journal.read(place, number).expect("it can be read")?;
    let (parts, rest): (Vec<u64>, _) = (settled.parts.iter().collect(), settled.out.to_vec());
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(journal.read_part(part).expect("it can be read").expect("it was looked at").1);
    }
    out.extend_from_slice(&rest);
    Some(out)
}

/// What happens to a file. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Zeros(usize, usize),
    Cut(usize),
    Insert(usize, Vec<u8>),
    /// Bytes are copied over others.
    Copy(usize, usize, usize),
    Swap(usize, usize),
    Double(usize, usize),
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<u16>().prop_map(usize::from);
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, by)| Change::Flip(at, by)),
        (at.clone(), 1_usize..600).prop_map(|(at, length)| Change::Zeros(at, length)),
        at.clone().prop_map(Change::Cut),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at.clone(), at.clone(), 1_usize..600).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
        (at.clone(), at.clone()).prop_map(|(one, other)| Change::Swap(one, other)),
        (at.clone(), at.clone()).prop_map(|(one, before)| Change::Double(one, before)),
        at.prop_map(Change::Remove),
    ]
}

/// Changes a journal whose frames are `frames`, of which the file may have had other changes.
fn apply(bytes: &mut Vec<u8>, frames: &[Range<usize>], change: &Change) {
    let end = bytes.len();
    if end == 0 {
        return;
    }
    let frame = |at: usize| {
        let frame = frames[at % frames.len()].clone();
        frame.start.min(end)..frame.end.min(end)
    };
    match change {
        Change::Flip(at, by) => bytes[at % end] ^= by,
        Change::Zeros(at, length) => bytes[at % end..(at % end + length).min(end)].fill(0),
        Change::Cut(at) => bytes.truncate(at % end),
        Change::Insert(at, new) => drop(bytes.splice(at % end..at % end, new.iter().copied())),
        Change::Copy(from, to, length) => {
            let copied = bytes[from % end..(from % end + length).min(end)].to_vec();
            let to = to % end..(to % end + copied.len()).min(end);
            bytes[to.clone()].copy_from_slice(&copied[..to.len()]);
        }
        Change::Swap(one, other) => {
            let (one, other) = (frame(*one.min(other)), frame(*one.max(other)));
            let (one, other) = if one.start <= other.start { (one, other) } else { (other, one) };
            if one.end <= other.start {
                let swapped = [&bytes[other.clone()], &bytes[one.end..other.start], &bytes[one.clone()]].concat();
                bytes.splice(one.start..other.end, swapped);
            }
        }
        Change::Double(one, before) => {
            let doubled = bytes[frame(*one)].to_vec();
            let at = frame(*before).start;
            bytes.splice(at..at, doubled);
        }
        Change::Remove(one) => drop(bytes.drain(frame(*one))),
    }
}

/// Corrects the checksum of the frame that begins here, as only a malicious writer would.
fn forge(bytes: &mut [u8], frame: &Range<usize>) {
    let Some(head) = bytes.get(frame.start..).and_then(Head::read) else { return };
    if let Some(hashed) = bytes.get(frame.start + 8..frame.start + HEAD_BYTES + head.length) {
        let checksum = xxh3_64(hashed);
        bytes[frame.start..frame.start + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Reads everything that people can ask for.
fn inspect_all(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("journal");
    fs::write(&path, bytes).expect("there is room");
    let measured = allocation_counter::measure(|| {
        let settled = inspect::summary(&path).map(|summary| summary.settled);
        let exported = inspect::export(&path, |_| true);
        assert_eq!(settled.is_ok(), exported.is_ok());
    });
    assert!(measured.bytes_max < MOST_BYTES, "{} bytes", measured.bytes_max);
    if inspect::compact(&path).is_ok() {
        assert!(inspect::summary(&path).is_ok_and(|summary| summary.damage.is_empty()));
    }
}

#[test]
fn pieces_of_output_that_were_exchanged_are_never_taken_for_each_other() {
    let bytes = whole();
    let frames = frames(&bytes);
    assert_eq!(continue_run(&bytes) as u64, JOBS);
    for one in 0..frames.len() {
        for other in one + 1..frames.len() {
            let mut changed = bytes.clone();
            apply(&mut changed, &frames, &Change::Swap(one, other));
            continue_run(&changed);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_journal_with_any_changes_never_gives_a_wrong_output(changes in prop::collection::vec(change(), 1..6)) {
        let mut bytes = whole();
        let frames = frames(&bytes);
        changes.iter().for_each(|change| apply(&mut bytes, &frames, change));
        continue_run(&bytes);
        inspect_all(&bytes);
    }

    #[test]
    fn a_journal_with_forged_frames_is_read_without_a_panic(
        forged in prop::collection::vec((any::<u16>(), 8_usize..200, any::<u8>()), 1..8),
    ) {
        let mut bytes = whole();
        let frames = frames(&bytes);
        for (frame, at, by) in forged {
            let frame = &frames[usize::from(frame) % frames.len()];
            bytes[frame.start + at % frame.len().max(1)] ^= by;
            forge(&mut bytes, frame);
        }
        inspect_all(&bytes);
        let folder = folder();
        let path = folder.path().join("journal");
        fs::write(&path, &bytes).expect("there is room");
        if let Ok(mut journal) = open(&path) {
            for number in 0..JOBS {
                if let Some(place) = journal.find(content(number)).1 {
                    let _ = output_of(&mut journal, place, number);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_a_journal_or_refused(
        start in prop::sample::select(vec![0, 12, HEADER_BYTES, HEADER_BYTES + HEAD_BYTES]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut text = whole();
        text.truncate(start);
        text.extend(bytes);
        continue_run(&text);
        inspect_all(&text);
    }
}
