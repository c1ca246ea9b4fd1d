//! The trace of a run (`--trace`): which attempt ran when on which slot, as JSON trace events for Perfetto and Chrome.
//!
//! Its size is bounded. Up to [`MOST`] attempts there is an event for each. With more, short neighbours on a slot are put together
//! in bins of time, which are made wider until there is room: long attempts stay on their own, nothing is left out of the sums, and
//! what is between the bins are gaps. The file says how wide the bins are.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::journal::Status;

/// The most events of jobs, if there are not more slots than half of it.
pub(crate) const MOST: usize = 200_000;
/// The first width of bins, in ns.
const FIRST_WIDTH: u64 = 1_000;

/// An attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub rank: u32,
    pub slot: u32,
    /// In ns since 1970, by the clock of the rank's host.
    pub start_ns: u64,
    pub ns: u64,
    /// The job's number, and which attempt at it this was.
    pub job: u64,
    pub attempt: u32,
    pub status: Status,
    pub has_failed: bool,
    /// The first characters of the job's record.
    pub input: Option<&'a str>,
}

/// An attempt, or several of one slot.
#[derive(Debug, Clone)]
struct Event {
    start_ns: u64,
    end_ns: u64,
    /// The sum of the attempts' times.
    busy_ns: u64,
    attempts: u64,
    failed: u64,
    /// The longest of the attempts.
    longest: Longest,
}

#[derive(Debug, Clone)]
struct Longest {
    ns: u64,
    job: u64,
    attempt: u32,
    status: Status,
    input: Option<Box<str>>,
}

impl Event {
    fn ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Whether this event and a later one are put together in bins of this width.
    fn goes_with(&self, later: &Event, width: u64) -> bool {
        let is_short = |event: &Event| event.ns() < width;
        width > 0 && is_short(self) && is_short(later) && self.start_ns / width == later.start_ns / width
    }

    fn add(&mut self, later: Event) {
        self.end_ns = self.end_ns.max(later.end_ns);
        self.busy_ns = self.busy_ns.saturating_add(later.busy_ns);
        self.attempts += later.attempts;
        self.failed += later.failed;
        if later.longest.ns > self.longest.ns {
            self.longest = later.longest;
        }
    }
}

/// A trace while the run goes on.
#[derive(Debug)]
pub(crate) struct Trace {
    name: String,
    /// The host of each rank.
    hosts: Vec<String>,
    /// The events of each slot of each rank, in the order of time.
    slots: BTreeMap<(u32, u32), Vec<Event>>,
    events: usize,
    most: usize,
    attempts: u64,
    /// The width of the bins, in ns; 0: there are none.
    width: u64,
}

impl Trace {
    /// Makes a trace without events. `hosts`: the host of each rank.
    pub(crate) fn new(name: &str, hosts: Vec<String>) -> Trace {
        let (slots, name) = (BTreeMap::new(), name.to_string());
        Trace { name, hosts, slots, events: 0, most: MOST, attempts: 0, width: 0 }
    }

    /// Adds an attempt. On a slot, attempts come in the order of time; clocks that are set back put them behind each other.
    pub(crate) fn add(&mut self, ended: Ended<'_>) {
        let Ended { rank, slot, start_ns, ns, job, attempt, status, has_failed, input } = ended;
        let events = self.slots.entry((rank, slot)).or_default();
        let before = events.last().map_or(0, |event| event.end_ns);
        let start = start_ns.max(before);
        let end = start_ns.saturating_add(ns).max(start);
        let longest = Longest { ns, job, attempt, status, input: input.map(Box::from) };
        let failed = u64::from(has_failed);
        let event = Event { start_ns: start, end_ns: end, busy_ns: end - start, attempts: 1, failed, longest };
        self.attempts += 1;
        match events.last_mut() {
            Some(last) if last.goes_with(&event, self.width) => last.add(event),
            _ => {
                events.push(event);
                self.events += 1;
            }
        }
        if self.events > self.most {
            self.widen();
        }
    }

    /// Makes the bins wider until half of the events are left, or the bins are as long as the run.
    fn widen(&mut self) {
        let all = || self.slots.values().flatten();
        let first = all().map(|event| event.start_ns).min().unwrap_or(0);
        let last = all().map(|event| event.end_ns).max().unwrap_or(0);
        // Bins are counted from 1970: only those that are much longer than the run have all of it.
        let longest = last.saturating_sub(first).saturating_mul(4).max(FIRST_WIDTH);
        while self.events > self.most / 2 && self.width < longest {
            self.width = if self.width == 0 { FIRST_WIDTH } else { self.width * 2 };
            for events in self.slots.values_mut() {
                let mut merged: Vec<Event> = Vec::new();
                for event in events.drain(..) {
                    match merged.last_mut() {
                        Some(last) if last.goes_with(&event, self.width) => last.add(event),
                        _ => merged.push(event),
                    }
                }
                merged.shrink_to_fit();
                *events = merged;
            }
            self.events = self.slots.values().map(Vec::len).sum();
        }
        // Many more slots than events: from now on there is room for a few for each.
        if self.events > self.most / 2 {
            self.most = self.events * 2;
        }
    }

    /// Returns a sentence about what is not shown one by one, if there is something.
    pub(crate) fn note(&self) -> Option<String> {
        let width = std::time::Duration::from_nanos(self.width);
        (self.width > 0).then(|| {
            format!(
                "{} attempts are more than {MOST} events: those shorter than {width:?} are put together in bins of that length",
                self.attempts
            )
        })
    }

    /// Writes the trace as a JSON object.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        let first_ns = self.slots.values().flatten().map(|event| event.start_ns).min().unwrap_or(0);
        let about = About {
            program: concat!("rankpool ", env!("CARGO_PKG_VERSION")),
            batch: &self.name,
            start_unix_ns: first_ns.to_string(),
            clocks: "each rank's times are by the clock of its host",
            attempts: self.attempts,
            bin_us: self.width as f64 / 1e3,
            note: self.note(),
        };
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
        serde_json::to_writer(&mut out, &about)?;
        out.write_all(b",\"traceEvents\":[\n")?;
        let mut is_first = true;
        let mut write = |line: &dyn erased::Json| {
            out.write_all(if std::mem::take(&mut is_first) { b"" } else { b",\n" })?;
            line.write(&mut out)
        };
        let mut named = None;
        for (thread, ((rank, slot), events)) in (1..).zip(&self.slots) {
            // Trace processors give the process 0 and the thread 0 a meaning of their own.
            let process = rank + 1;
            if named != Some(*rank) {
                named = Some(*rank);
                let host = self.hosts.get(*rank as usize).map_or("an unknown host", String::as_str);
                write(&Named::new("process_name", process, thread, format!("rank {rank} on {host}")))?;
            }
            write(&Named::new("thread_name", process, thread, format!("slot {slot}")))?;
            for event in events {
                write(&Shown::new(event, process, thread, first_ns))?;
            }
        }
        out.write_all(b"\n]}\n")
    }
}

/// `serde_json` for lines of several types.
mod erased {
    use std::io::{self, Write};

    use serde::Serialize;

    pub(super) trait Json {
        fn write(&self, out: &mut dyn Write) -> io::Result<()>;
    }

    impl<T: Serialize> Json for T {
        fn write(&self, out: &mut dyn Write) -> io::Result<()> {
            Ok(serde_json::to_writer(out, self)?)
        }
    }
}

/// `otherData`: what the trace is of.
#[derive(Serialize)]
struct About<'a> {
    program: &'a str,
    batch: &'a str,
    /// The moment 0 of the trace, in ns since 1970: as text, since it is too large for a double.
    start_unix_ns: String,
    clocks: &'a str,
    attempts: u64,
    /// The width of the bins, in µs; 0: there are none.
    bin_us: f64,
    note: Option<String>,
}

/// The name of a process or a thread.
#[derive(Serialize)]
struct Named {
    name: &'static str,
    ph: &'static str,
    pid: u32,
    tid: u32,
    args: Name,
}

#[derive(Serialize)]
struct Name {
    name: String,
}

impl Named {
    fn new(name: &'static str, pid: u32, tid: u32, is: String) -> Named {
        Named { name, ph: "M", pid, tid, args: Name { name: is } }
    }
}

/// An event of an attempt, or of several.
#[derive(Serialize)]
struct Shown<'a> {
    name: String,
    cat: &'static str,
    ph: &'static str,
    /// In µs.
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    args: Args<'a>,
}

#[derive(Serialize)]
struct Args<'a> {
    attempts: u64,
    failed: u64,
    busy_us: f64,
    /// The attempt, or the longest of them.
    job: u64,
    attempt: u32,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a str>,
    /// The time of the longest attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_us: Option<f64>,
}

impl<'a> Shown<'a> {
    fn new(event: &'a Event, pid: u32, tid: u32, first_ns: u64) -> Shown<'a> {
        let us = |ns: u64| ns as f64 / 1e3;
        let Event { attempts, failed, busy_ns, longest, .. } = event;
        let is_bin = *attempts > 1;
        let args = Args {
            attempts: *attempts,
            failed: *failed,
            busy_us: us(*busy_ns),
            job: longest.job,
            attempt: longest.attempt,
            status: longest.status,
            input: longest.input.as_deref(),
            longest_us: is_bin.then_some(us(longest.ns)),
        };
        Shown {
            name: if is_bin { format!("{attempts} attempts") } else { format!("job {}", longest.job) },
            cat: if is_bin {
                "bin"
            } else if *failed > 0 {
                "failed"
            } else {
                "ok"
            },
            ph: "X",
            ts: us(event.start_ns.saturating_sub(first_ns)),
            dur: us(event.ns()),
            pid,
            tid,
            args,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn ended(rank: u32, slot: u32, start_ns: u64, ns: u64, job: u64) -> Ended<'static> {
        let (status, input) = if job % 10 == 0 { (Status::Failed, Some("\"a\\n\"")) } else { (Status::Ok, None) };
        Ended { rank, slot, start_ns, ns, job, attempt: 1, status, has_failed: status == Status::Failed, input }
    }

    fn trace(most: usize) -> Trace {
        Trace { most, ..Trace::new("x", vec!["n0".into(), "n1".into()]) }
    }

    /// Returns the events of jobs, after a check that it is valid JSON and that no two of a slot overlap.
    fn events(trace: &Trace) -> Vec<Value> {
        let mut bytes = Vec::new();
        trace.write(&mut bytes).unwrap();
        let json: Value = serde_json::from_slice(&bytes).expect("valid JSON");
        let events: Vec<_> =
            json["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").cloned().collect();
        let mut ends: BTreeMap<u64, f64> = BTreeMap::new();
        for event in &events {
            let (start, end) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            let before = ends.insert(event["tid"].as_u64().unwrap(), start + end).unwrap_or(0.0);
            // Doubles have rounded ends.
            assert!(start >= before - 1e-6, "{event} begins before {before}");
        }
        events
    }

    #[test]
    fn a_few_attempts_have_an_event_each() {
        let mut trace = trace(100);
        (1..=20).for_each(|job| trace.add(ended(job as u32 % 2, 1 + job as u32 % 2, 1_000_000 * job, 500_000, job)));
        let events = events(&trace);
        assert_eq!((events.len(), trace.note()), (20, None));
        let failed: Vec<_> = events.iter().filter(|event| event["cat"] == "failed").collect();
        assert_eq!((failed.len(), &failed[0]["args"]["input"]), (2, &"\"a\\n\"".into()));
        let slots: Vec<_> = trace.slots.keys().copied().collect();
        assert_eq!(slots, [(0, 1), (1, 2)]);
    }

    #[test]
    fn many_attempts_are_put_into_bins_and_nothing_is_lost_from_the_sums() {
        let mut trace = trace(1000);
        let (mut at, mut busy) = (1_700_000_000_000_000_000, 0);
        for job in 1..=100_000 {
            // Every thousandth job is long.
            let ns = if job % 1000 == 0 { 50_000_000 } else { 700 };
            trace.add(ended(0, 1 + (job % 3) as u32, at, ns, job));
            assert!(trace.events <= 1000, "{}", trace.events);
            at += ns + 300;
            busy += ns;
        }
        let events = events(&trace);
        assert!((200..=1000).contains(&events.len()), "{}", events.len());
        let sum = |key: &str| events.iter().map(|event| event["args"][key].as_f64().unwrap()).sum::<f64>();
        assert_eq!((sum("attempts"), sum("failed")), (100_000.0, 10_000.0));
        assert!((sum("busy_us") / (busy as f64 / 1e3) - 1.0).abs() < 1e-6);
        let long = events.iter().filter(|event| event["name"].as_str().unwrap().starts_with("job ")).count();
        assert!(long >= 100, "long attempts stay on their own: {long}");
        assert!(trace.note().unwrap().contains("100000 attempts are more than"));
    }

    #[test]
    fn attempts_that_overlap_are_put_behind_each_other() {
        let mut trace = trace(100);
        for (start, ns) in [(1000, 500), (1200, 600), (900, 100), (1700, u64::MAX), (5, 5)] {
            trace.add(ended(0, 1, start, ns, 1));
        }
        assert_eq!(events(&trace).len(), 5);
    }

    #[test]
    fn more_slots_than_events_have_a_few_each() {
        let mut trace = trace(100);
        (0..30_000).for_each(|job| trace.add(ended(0, job as u32 % 500, job * 1000, 400, job)));
        assert!(trace.events <= 2 * 1000, "{}", trace.events);
        assert_eq!(events(&trace).len(), trace.events);
    }

    #[test]
    fn an_empty_trace_is_valid() {
        assert!(events(&trace(10)).is_empty());
    }
}
