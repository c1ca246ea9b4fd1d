use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::*;
use crate::journal::{Journal, JournalOptions, Key, Settled};

struct NoCommands;

impl Commands for NoCommands {
    fn failed_jobs(&self, _: &Facts) -> Option<String> {
        None
    }

    fn job(&self, _: &Facts, _: &NamedJob) -> Option<String> {
        None
    }
}

fn read(path: &Path) -> Facts {
    Facts::read(path, &NoCommands).expect("it is a journal or a job log")
}

/// A line of a job log: job `number` ran on this rank and slot from `start` ms on, in all for `ms`.
fn line(number: u64, status: &str, (rank, slot): (u32, u64), start: u64, ms: u64, more: &str) -> String {
    format!(
        "{{\"number\":{number},\"input\":{{\"lr\":{},\"seed\":{number}}},\"status\":\"{status}\",\"attempts\":{},\"host\":\"n{}\",\
         \"rank\":{rank},\"slot\":{slot},\"start\":\"1970-01-01T00:{:02}:{:02}.{:03}Z\",\"seconds\":{}{more}}}\n",
        if number % 2 == 0 { "0.1" } else { "0.01" },
        1 + number % 3 / 2,
        rank / 2,
        start / 60_000,
        start / 1000 % 60,
        start % 1000,
        ms as f64 / 1000.0
    )
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is a folder")
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("jobs.jsonl");
    fs::write(&path, text).expect("it is written");
    path
}

#[test]
fn known_jobs_give_known_figures() {
    let folder = folder();
    let memory = ",\"user\":0.5,\"system\":0.25,\"max_rss\":1048576,\"queued\":2.0,\"returned\":0.001";
    let text = [
        line(1, "ok", (0, 1), 1000, 1000, memory),
        line(2, "ok", (0, 2), 1000, 3000, memory),
        line(3, "failed", (2, 1), 2000, 2000, ",\"message\":\"exit code 3\\nmore\""),
        line(4, "timeout", (2, 1), 5000, 4000, ",\"message\":\"not done after 4 s\""),
        line(5, "failed", (0, 1), 2500, 500, ",\"message\":\"exit code 3\\nother\""),
    ];
    let facts = read(&file(&folder, &text.concat()));
    assert_eq!(facts.kind, FileKind::JobLog);
    assert_eq!(facts.counts, Counts { ok: 2, failed: 2, timeout: 1, timed: 5, ..Counts::default() });
    assert_eq!(facts.range, Some(Range::new(1_000_000, 9_000_000)));
    let slots = facts.slots.expect("it is known");
    assert_eq!((slots.count, slots.ranks, slots.hosts, slots.most_on_host, slots.wall), (3, 2, 2, 2, 8.0));
    // Slot 1 of rank 0: 1 to 2 and 2.5 to 3. Slot 2: 1 to 4. Rank 2: 2 to 4 and 5 to 9.
    assert_eq!(slots.time, SlotTime { start_up: 1.0, run: 10.5, between: 1.5, tail: 11.0 });
    assert_eq!((facts.times.count(), facts.times.sum(), facts.times.most()), (5, 10.5e9, 4_000_000_000));
    let timeline = facts.timeline.as_ref().expect("times are known");
    assert_eq!((timeline.ended.iter().sum::<u64>(), timeline.failed.iter().sum::<u64>()), (5, 3));
    let ran: f64 = timeline.running().iter().sum::<f64>() * timeline.part_seconds();
    assert!((ran - 10.5).abs() < 1e-6, "{ran}");
    let lanes = facts.lanes.as_ref().expect("ranks are known");
    let seen: Vec<_> =
        lanes.lanes.iter().map(|lane| (&*lane.label, lane.jobs, lane.failed, lane.spans.len())).collect();
    assert_eq!(seen, [("rank 0, slot 1", 2, 1, 2), ("rank 0, slot 2", 1, 0, 1), ("rank 2, slot 1", 2, 2, 2)]);
    assert_eq!(facts.by_name.len(), 1, "a value of each job is no class");
    let classes: Vec<_> =
        facts.by_name[0].classes.iter().map(|class| (&*class.value, class.jobs, class.failed)).collect();
    assert_eq!((&*facts.by_name[0].name, classes), ("lr", vec![("0.01", 3, 2), ("0.1", 2, 1)]));
    assert_eq!(
        facts.by_host.classes.iter().map(|host| (&*host.value, host.jobs)).collect::<Vec<_>>(),
        [("n0", 3), ("n1", 2)]
    );
    assert_eq!((facts.memory.count(), facts.memory.most(), facts.cpus_per_job), (2, 1 << 20, Some(0.375)));
    assert_eq!((facts.queued.count(), facts.queued.most(), facts.returned.most()), (2, 2_000_000_000, 1_000_000));
    assert_eq!(facts.retries, Retries { jobs: 2, succeeded: 1, attempts: 2, most: 2, known: 5 });
    assert_eq!(facts.slowest.iter().map(|job| job.number).collect::<Vec<_>>(), [4, 2, 3, 1, 5]);
    assert_eq!(facts.failed.iter().map(|job| job.number).collect::<Vec<_>>(), [3, 4, 5]);
    let reasons: Vec<_> = facts.reasons.iter().map(|reason| (reason.jobs, &*reason.message, reason.first)).collect();
    assert_eq!(reasons, [(2, "exit code 3", 3), (1, "not done after 4 s", 4)]);
}

#[test]
fn the_last_entry_of_a_job_counts() {
    let folder = folder();
    let text =
        [line(1, "failed", (0, 1), 0, 10, ""), line(2, "ok", (0, 1), 10, 10, ""), line(1, "ok", (0, 1), 100, 20, "")];
    let facts = read(&file(&folder, &text.concat()));
    assert_eq!((facts.counts.ok, facts.counts.failed, facts.times.count()), (2, 0, 2));
    assert_eq!(facts.times.most(), 20_000_000);
}

/// A journal with a job without a description, a described one, and one that has failed twice.
fn journal(path: &Path) {
    let spec = vec![("batch".to_string(), "nop".to_string())];
    let mut journal = Journal::open(&JournalOptions::new(path), &spec, None).expect("it is new");
    let ranks =
        [("began", "1000000"), ("command", "rankpool kernel nop"), ("ranks", "2"), ("node_memory", "1073741824")];
    journal.add_ranks(&ranks.map(|(name, value)| (name.to_string(), value.to_string())).into()).expect("it is written");
    let key = |content| Key { content, occurrence: 0 };
    let description = line(2, "ok", (0, 1), 2000, 500, ",\"max_rss\":268435456");
    let description = description.trim_end().strip_suffix('}').expect("an object").as_bytes();
    for settled in [
        Settled { out: b"1\n", ..Settled::new(key(1), Status::Ok, 1) },
        Settled { description, err: b"warning", ..Settled::new(key(2), Status::Ok, 2) },
        Settled { err: b"first", ..Settled::new(key(3), Status::Failed, 3) },
        Settled { err: b"a\nb\nc\nd\ne\nlast\x1b[31m", ..Settled::new(key(3), Status::Failed, 3) },
    ] {
        journal.settle(settled, Vec::new()).expect("it is written");
    }
    let lost = "[{\"rank\":0,\"host\":\"n0\",\"threads\":1,\"busy\":1.5},{\"rank\":1,\"host\":\"n1\",\"threads\":1,\"lost\":7.5}]";
    let statistics = [("wall", "3"), ("per_rank", lost)];
    journal
        .add_statistics(&statistics.map(|(name, value)| (name.to_string(), value.to_string())).into())
        .expect("written");
    journal.complete(&Spec::new()).expect("it is written");
}

#[test]
fn a_journal_has_its_run_and_what_it_lacks_is_said() {
    let folder = folder();
    let path = folder.path().join("j");
    journal(&path);
    let facts = read(&path);
    assert_eq!(
        (facts.kind, facts.is_complete(), facts.counts.run(), facts.counts.all_failed()),
        (FileKind::Journal, Some(true), 3, 1)
    );
    assert_eq!((facts.counts.timed, facts.node_memory(), facts.lost_ranks()), (1, Some(1 << 30), vec![("n1", 1, 7.5)]));
    assert_eq!(facts.range.as_ref().map(|range| range.start), Some(1_000_000), "the start of the run");
    assert_eq!(facts.slots.map(|slots| slots.time.start_up), Some(1.0));
    assert_eq!(facts.failed[0].stderr.as_deref(), Some("b\nc\nd\ne\nlast\u{1b}[31m"));
    let timeline = facts.timeline.as_ref().expect("moments are known");
    assert_eq!(timeline.ended.iter().sum::<u64>(), 3, "jobs without times are counted by the moments of the journal");
    let missing = facts.missing.join("\n");
    assert!(missing.contains("2 of 3 job(s) ran is not in the file. A journal has no times of built-in"), "{missing}");
    assert!(!missing.contains("earlier version of rankpool, or was compacted"), "{missing}");
    let notes: Vec<_> = facts.notes.iter().map(|note| note.text.clone()).collect();
    let notes = notes.join("\n");
    assert!(notes.contains("A node with 1 GiB has room for 4 of them"), "{notes}");
    assert!(notes.contains("rank 1 on n1, after 7.5 s"), "{notes}");
}

#[test]
fn empty_torn_damaged_and_foreign_files_are_told_apart() {
    let folder = folder();
    let path = folder.path().join("j");
    journal(&path);
    let whole = fs::read(&path).expect("it is there");
    for cut in [0, 64, 200, whole.len() - 5] {
        fs::write(&path, &whole[..cut]).expect("it is written");
        let facts = read(&path);
        assert!(facts.counts.run() <= 3 && facts.is_complete() != Some(true), "{cut}");
        assert_eq!(facts.condition.torn > 0, cut > 64, "{cut}");
        assert!(cut <= 64 || facts.missing.iter().any(|sentence| sentence.contains("not written completely")), "{cut}");
    }
    let mut damaged = whole.clone();
    damaged[300] ^= 1;
    fs::write(&path, damaged).expect("it is written");
    assert!(read(&path).missing.iter().any(|sentence| sentence.contains("The file is damaged in 1 place(s)")));
    for foreign in [&b"hello\n"[..], b"{\"a\":1}\n", b"\x7fELF\0\0\0", b"{"] {
        fs::write(&path, foreign).expect("it is written");
        assert!(matches!(Facts::read(&path, &NoCommands), Err(JournalError::NotAJournal(_))), "{foreign:?}");
    }
    assert!(matches!(
        Facts::read(folder.path(), &NoCommands),
        Err(JournalError::NotAJournal(_) | JournalError::Io { .. })
    ));
    let text = [line(1, "ok", (0, 1), 0, 10, ""), "garbage\n".into(), line(2, "ok", (0, 1), 10, 10, "")].concat();
    let facts = read(&file(&folder, &(text + "{\"number\":3,")));
    assert_eq!((facts.counts.ok, facts.condition.unreadable, facts.condition.torn), (2, 1, 12));
}

#[test]
fn hostile_entries_are_no_reason_to_panic() {
    let folder = folder();
    let mut text = String::new();
    for (at, more) in [
        "\"start\":\"9999-12-31T23:59:59Z\",\"seconds\":1e300,\"rank\":4294967295,\"slot\":18446744073709551615",
        "\"start\":\"1970-01-01T00:00:00Z\",\"seconds\":0,\"rank\":0,\"slot\":0,\"max_rss\":18446744073709551615",
        "\"start\":\"x\",\"seconds\":-1,\"rank\":0,\"queued\":-5,\"attempts\":4294967295",
        "\"user\":1e308,\"system\":1e308,\"seconds\":1e-300,\"host\":7,\"message\":{\"a\":[]}",
        "\"seconds\":\"x\"",
    ]
    .iter()
    .enumerate()
    {
        text += &format!(
            "{{\"number\":{},\"input\":[[],\"\\u0000\"],\"status\":\"failed\",{more}}}\n",
            at as u64 * (u64::MAX / 5)
        );
    }
    let facts = read(&file(&folder, &text));
    assert_eq!((facts.counts.failed, facts.counts.garbled), (5, 1));
    assert!(crate::report::html::page(&facts).len() < 1 << 20);
    assert!(!crate::report::text::text(&facts).is_empty());
}

/// Writes a job log of this many jobs on 1 000 ranks.
fn many(folder: &tempfile::TempDir, jobs: u64) -> PathBuf {
    let path = folder.path().join(format!("{jobs}.jsonl"));
    let mut out = BufWriter::new(fs::File::create(&path).expect("it is new"));
    for number in 1..=jobs {
        let (rank, status) = ((number % 1000) as u32, if number % 50 == 0 { "failed" } else { "ok" });
        let more = format!(",\"max_rss\":{},\"message\":\"no {number}\"", 1000 + number % 7000);
        let line = line(
            number,
            status,
            (rank, u64::from(rank) * 2 + number / 1000 % 2 + 1),
            number * 3,
            40 + number % 1000,
            &more,
        );
        out.write_all(line.as_bytes()).expect("it is written");
    }
    out.into_inner().expect("it is written");
    path
}

#[test]
fn memory_and_size_do_not_depend_on_the_number_of_jobs() {
    let folder = folder();
    let [few, more] = [5_000, 40_000].map(|jobs| {
        let path = many(&folder, jobs);
        let mut size = 0;
        let measured = allocation_counter::measure(|| {
            let facts = read(&path);
            assert_eq!(facts.counts.run(), jobs);
            size = crate::report::html::page(&facts).len() as u64;
        });
        // The filter of last entries has two bytes for each entry of the least length, and is bounded.
        let filter = fs::metadata(&path).map_or(0, |metadata| metadata.len()) / 20;
        (measured.bytes_max.saturating_sub(filter), size)
    });
    assert!(more.0 < few.0 + (2 << 20), "{few:?} {more:?}");
    assert!(few.1 < 500_000 && more.1 < 500_000, "{few:?} {more:?}");
}

#[test]
fn pauses_between_runs_are_left_out_of_the_charts() {
    let folder = folder();
    let path = folder.path().join("j");
    for (number, start) in [(1, 1_000), (2, 1_000_000)] {
        let mut journal = Journal::open(&JournalOptions::new(&path), &Spec::new(), None).expect("it can be opened");
        let description = line(number, "ok", (0, 1), start, 500, "");
        let description = description.trim_end().strip_suffix('}').expect("an object").as_bytes();
        let key = Key { content: number.into(), occurrence: 0 };
        journal.settle(Settled { description, ..Settled::new(key, Status::Ok, number) }, Vec::new()).expect("written");
        journal.leave().expect("it is closed");
    }
    let facts = read(&path);
    let range = facts.range.as_ref().expect("it is known");
    assert_eq!((range.seconds(), range.pauses()), (1.0, (1, 998.5)));
    assert_eq!((facts.wall(), facts.slots.map(|slots| slots.time.busy())), (Some(1.0), Some(1.0)));
    assert!(crate::report::text::text(&facts).contains("without 1 pause between runs, 16 min 39 s in all"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_is_in_the_fields_of_a_log_it_is_a_report(
        values in proptest::collection::vec(
            (0..16_usize, proptest::prop_oneof![
                "[0-9]{1,20}", "-?[0-9]{1,3}\\.[0-9]{1,3}e-?[0-9]{1,3}", "\"[ !#-Z^-~]{0,12}\"", "null|true|\\[\\]|\\{\\}",
                "\"20[0-9]{2}-01-[0-3][0-9]T00:00:0[0-9]\\.[0-9]{3}Z\"",
            ]),
            0..12,
        ),
        number in 0..50_u64,
    ) {
        const NAMES: [&str; 16] = [
            "input", "attempts", "host", "rank", "slot", "start", "seconds", "user", "system", "max_rss", "output_bytes", "exit",
            "signal", "message", "queued", "returned",
        ];
        let folder = folder();
        let mut text = line(number + 1, "failed", (0, 1), 10, 10, "");
        let fields: String = values.iter().map(|(name, value)| format!(",\"{}\":{value}", NAMES[*name])).collect();
        text += &format!("{{\"number\":{number},\"input\":1,\"status\":\"lost\"{fields}}}\n");
        let facts = read(&file(&folder, &text));
        assert!(facts.counts.run() + facts.condition.unreadable == 2);
        assert!(crate::report::html::page(&facts).ends_with("</html>\n"));
        assert!(!crate::report::text::text(&facts).is_empty());
    }
}
