//! The status of a run at a moment: what the status file, `rankpool top` and the status page show.

use serde::{Deserialize, Serialize};

/// The value of `schema`.
pub(crate) const SCHEMA: &str = "rankpool-status";
/// The value of `version`. A change that readers of this version would misunderstand raises it; new keys do not.
pub(crate) const VERSION: u32 = 1;

/// The status of a run. Its JSON has the keys below; docs/live.md describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`VERSION`].
    pub version: u32,
    /// The name of the batch.
    pub name: String,
    pub state: State,
    /// The exit code of the run, when it has ended.
    #[serde(default)]
    pub exit_code: Option<u8>,
    /// The host of rank 0, whose clock `written` is from, and its process.
    pub host: String,
    pub pid: u32,
    /// The time of this status by the clock of `host`: in words, and in s since 1970.
    pub written: String,
    pub written_unix: f64,
    /// The number of the status, from 1: a reader sees by it that the file is written anew.
    pub sequence: u64,
    /// The next status is written within about this time, in s.
    pub period_seconds: f64,
    /// Since the first rank was there, in s.
    pub elapsed_seconds: f64,
    /// The number of jobs; null if it is not known.
    #[serde(default)]
    pub jobs: Option<u64>,
    /// The number of settled jobs, failed ones included.
    pub settled: u64,
    /// The number of settled jobs that failed.
    pub failed: u64,
    /// The number of settled jobs that an earlier run has settled.
    #[serde(default)]
    pub restored: u64,
    /// Of late.
    #[serde(default)]
    pub jobs_per_second: Option<f64>,
    /// How long the other jobs take, as far as it can be known; null without a total, and when the run is being stopped.
    #[serde(default)]
    pub seconds_left: Option<f64>,
    /// Each rank, in order.
    pub ranks: Vec<RankStatus>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Running,
    /// A signal or a time limit asked for the end: no more jobs are started.
    Stopping,
    /// The run has ended; this is its last status.
    Ended,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

/// The status of a rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RankStatus {
    pub rank: u32,
    pub host: String,
    /// The number of compute threads: 0 for a dedicated master.
    pub threads: u32,
    /// The number of jobs that it has run, and of those that failed there.
    pub jobs: u64,
    pub failed: u64,
    /// Of late.
    #[serde(default)]
    pub jobs_per_second: Option<f64>,
    /// The share of its threads' time that was spent on jobs of late, from 0 to 1.
    #[serde(default)]
    pub busy: Option<f64>,
    /// The number of its threads that are at work.
    #[serde(default)]
    pub running: Option<u32>,
    /// How long ago its last report came, in s.
    #[serde(default)]
    pub heard_seconds: Option<f64>,
    /// The job that has run longest of those that run there.
    #[serde(default)]
    pub slowest: Option<SlowestJob>,
    /// The time at which the rank was lost, in s since the start; null if it was not lost.
    #[serde(default)]
    pub lost_seconds: Option<f64>,
}

/// A running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlowestJob {
    /// Its number, from 1: the place of its record in the input. Null if it is not known yet.
    #[serde(default)]
    pub job: Option<u64>,
    pub attempt: u32,
    /// How long it had run when its rank reported it.
    pub seconds: f64,
    /// The first characters of its record, as JSON.
    #[serde(default)]
    pub input: Option<String>,
}

impl Status {
    /// Reads a status.
    ///
    /// # Errors
    /// A sentence, if these bytes are not a status that this version can read.
    pub(crate) fn read(bytes: &[u8]) -> Result<Status, String> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            version: u32,
        }
        let foreign = || "it is not a status file of rankpool (--status FILE writes one)".to_string();
        let head: Head = serde_json::from_slice(bytes).map_err(|_| foreign())?;
        if head.schema != SCHEMA {
            return Err(foreign());
        }
        if head.version != VERSION {
            return Err(format!(
                "its format has version {}, and this rankpool reads version {VERSION}: use the rankpool of the run",
                head.version
            ));
        }
        serde_json::from_slice(bytes).map_err(|error| format!("it is damaged: {error}"))
    }

    /// Whether this is the last status of its run.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Returns its JSON, in lines.
    pub(crate) fn json(&self) -> Vec<u8> {
        // A rank for each line: readable, and small with many ranks. They are the last key.
        let head = Status { ranks: Vec::new(), ..self.clone() };
        let mut text = serde_json::to_vec_pretty(&head).unwrap_or_default();
        text.truncate(text.len().saturating_sub("]\n}".len()));
        for (index, rank) in self.ranks.iter().enumerate() {
            text.extend_from_slice(if index == 0 { b"\n    " } else { b",\n    " });
            // Writing into memory cannot fail.
            let _ = serde_json::to_writer(&mut text, rank);
        }
        text.extend_from_slice(b"\n  ]\n}\n");
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The status of a run on this number of ranks.
    pub(in crate::report) fn example(ranks: u32) -> Status {
        let rank = |rank: u32| RankStatus {
            rank,
            host: format!("node{rank}"),
            threads: 2,
            jobs: 10 + u64::from(rank),
            failed: u64::from(rank % 2),
            jobs_per_second: Some(1.5),
            busy: Some(1.0 / f64::from(rank + 1)),
            running: Some(2),
            heard_seconds: Some(0.5),
            slowest: Some(SlowestJob {
                job: Some(7),
                attempt: 1,
                seconds: f64::from(rank) + 3.0,
                input: Some("\"x.txt\"".into()),
            }),
            lost_seconds: None,
        };
        Status {
            schema: SCHEMA.into(),
            version: VERSION,
            name: "run".into(),
            state: State::Running,
            exit_code: None,
            host: "node0".into(),
            pid: 1234,
            written: "2026-01-02T03:04:05Z".into(),
            written_unix: 1_767_323_045.0,
            sequence: 3,
            period_seconds: 2.0,
            elapsed_seconds: 65.0,
            jobs: Some(1000),
            settled: 250,
            failed: 3,
            restored: 0,
            jobs_per_second: Some(4.2),
            seconds_left: Some(178.0),
            ranks: (0..ranks).map(rank).collect(),
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written() {
        for ranks in [0, 1, 3] {
            let status = example(ranks);
            let json = status.json();
            assert_eq!(Status::read(&json), Ok(status));
            let text = String::from_utf8(json).unwrap();
            assert_eq!(text.matches("\"rank\":").count(), ranks as usize, "{text}");
        }
    }

    #[test]
    fn other_files_and_other_versions_are_refused_with_a_sentence() {
        for other in [&b""[..], b"{}", b"[1]", b"{\"schema\":\"x\",\"version\":1}", b"\xff"] {
            assert!(Status::read(other).unwrap_err().contains("not a status file"), "{other:?}");
        }
        let text = String::from_utf8(example(1).json()).unwrap();
        let later = text.replace("\"version\": 1", "\"version\": 2");
        assert!(Status::read(later.as_bytes()).unwrap_err().contains("version 2"), "{later}");
        let cut = text.replace("\"settled\"", "\"other\"");
        assert!(Status::read(cut.as_bytes()).unwrap_err().contains("damaged"));
        let more = text.replace("\"running\",", "\"dancing\", \"new\": {},");
        assert_eq!(Status::read(more.as_bytes()).unwrap().state, State::Unknown, "new keys and states are no error");
    }
}
