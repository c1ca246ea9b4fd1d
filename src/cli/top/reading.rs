//! Reads a status file again and again, on a thread of its own: a shared file system may take long to answer.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::console::reason;
use crate::report::Status;

/// A larger file is not the status of a run.
const LARGEST: u64 = 64 << 20;
/// The file is read this often.
const POLL: Duration = Duration::from_secs(1);

/// Reads the status file once.
///
/// # Errors
/// A sentence with the name of the file.
pub(super) fn read(file: &Path) -> Result<Status, String> {
    let name = file.display();
    let mut bytes = Vec::new();
    let opened =
        File::open(file).and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) });
    let read = opened.and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    read.map_err(|error| format!("{name}: {}", reason(&error)))?;
    Status::read(&bytes).map_err(|message| format!("{name}: {message}"))
}

fn not_a_file() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Starts the thread that reads the file; it ends with the receiver.
///
/// # Errors
/// If there are no more threads.
pub(super) fn start(file: PathBuf) -> io::Result<Receiver<Result<Status, String>>> {
    let (sender, receiver) = bounded(1);
    thread::Builder::new().name("rankpool top".into()).spawn(move || poll(&file, &sender))?;
    Ok(receiver)
}

fn poll(file: &Path, sender: &Sender<Result<Status, String>>) {
    while sender.send(read(file)).is_ok() {
        thread::sleep(POLL);
    }
}

/// How old a status is, as far as that can be known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Age {
    /// It was written this long ago, by the clock of this host, which has written it, too.
    Known(Duration),
    /// It has stayed the same for this long, as seen from here. The clock of another host is not compared with this one's.
    UnchangedFor(Duration),
}

impl Age {
    fn duration(self) -> Duration {
        let (Age::Known(age) | Age::UnchangedFor(age)) = self;
        age
    }

    /// Returns a sentence, if the run should have written another status by now.
    pub(super) fn warning(self, status: &Status) -> Option<String> {
        let period = Duration::try_from_secs_f64(status.period_seconds).unwrap_or_default();
        if status.has_ended() || self.duration() < LATE.max(period.saturating_mul(3)) {
            return None;
        }
        let seconds = self.duration().as_secs();
        let how = match self {
            Age::Known(_) => format!("written {seconds} s ago"),
            Age::UnchangedFor(_) => format!("unchanged for {seconds} s, as seen from this host"),
        };
        Some(format!("STALE: {how}: the run was killed, is stopped, or its disk does not answer"))
    }
}

/// A status that is older than this is late, if its period is not longer.
const LATE: Duration = Duration::from_secs(10);

/// Follows a status over time.
#[derive(Debug)]
pub(super) struct Watched {
    here: String,
    /// What tells one status from the next, and when it was first seen.
    seen: Option<((u32, u64, String), Instant)>,
}

impl Watched {
    /// `here`: the name of this host.
    pub(super) fn new(here: String) -> Watched {
        Watched { here, seen: None }
    }

    /// Takes a status that was read at the moment `now`, when the clock of this host shows `unix` seconds since 1970, and returns
    /// its age.
    pub(super) fn age(&mut self, status: &Status, now: Instant, unix: f64) -> Age {
        let mark = (status.pid, status.sequence, status.written.clone());
        let since = match &self.seen {
            Some((same, since)) if *same == mark => *since,
            _ => self.seen.insert((mark, now)).1,
        };
        if status.host == self.here {
            Age::Known(Duration::try_from_secs_f64(unix - status.written_unix).unwrap_or_default())
        } else {
            Age::UnchangedFor(now.saturating_duration_since(since))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(host: &str, sequence: u64) -> Status {
        let text = format!(
            r#"{{"schema":"rankpool-status","version":1,"name":"x","state":"running","host":"{host}","pid":1,"written":"then",
            "written_unix":1000.0,"sequence":{sequence},"period_seconds":2.0,"elapsed_seconds":1.0,"settled":0,"failed":0,"ranks":[]}}"#
        );
        Status::read(text.as_bytes()).expect("a status")
    }

    #[test]
    fn the_clock_of_another_host_is_never_compared() {
        let (mut watched, start) = (Watched::new("here".into()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let far = status("there", 1);
        assert_eq!(watched.age(&far, at(0), 9_999.0), Age::UnchangedFor(Duration::ZERO));
        let age = watched.age(&far, at(15), 9_999.0);
        assert_eq!(age, Age::UnchangedFor(Duration::from_secs(15)));
        assert!(age.warning(&far).expect("it is late").contains("unchanged for 15 s, as seen from this host"));
        let age = watched.age(&status("there", 2), at(16), 9_999.0);
        assert_eq!((age, age.warning(&far)), (Age::UnchangedFor(Duration::ZERO), None), "it was written anew");
    }

    #[test]
    fn on_the_same_host_a_status_is_late_at_the_first_look() {
        let (mut watched, now) = (Watched::new("here".into()), Instant::now());
        let mut near = status("here", 1);
        let age = watched.age(&near, now, 1_060.0);
        assert_eq!(age, Age::Known(Duration::from_secs(60)));
        assert!(age.warning(&near).expect("it is late").contains("written 60 s ago"));
        assert_eq!(watched.age(&near, now, 900.0), Age::Known(Duration::ZERO), "a clock that was set back");
        near.period_seconds = 30.0;
        assert_eq!(age.warning(&near), None, "a slow disk has a long period");
    }
}
