//! What a journal says about the runs that wrote it: who they were, their ranks, and their statistics at the end.

use serde::Deserialize;

use crate::journal::Spec;
use crate::journal::job::micros;

/// A run.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFacts {
    pub host: String,
    pub allocation: String,
    pub since: String,
    pub output: String,
    pub version: String,
    /// When it began, in µs since 1970.
    pub began_us: Option<u64>,
    pub about: About,
    pub statistics: Option<Statistics>,
    /// How it ended, if it did.
    pub end: Option<RunEnd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Complete,
    Closed,
}

/// What a run knows of itself when all ranks are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    /// The command line, quoted for a shell, and the folder it was typed in.
    pub command: Option<String>,
    pub folder: Option<String>,
    pub ranks: Option<u64>,
    pub threads: Option<u64>,
    pub hosts: Option<u64>,
    /// The memory of rank 0's node, or the part of it that its control group allows, in bytes.
    pub node_memory: Option<u64>,
}

/// What a run has counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    /// From the first job's dispatch to the last result, in s.
    pub wall: f64,
    pub ranks: Vec<RankStatistics>,
}

/// What a run has counted of a rank.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RankStatistics {
    pub rank: u32,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub threads: u32,
    #[serde(default)]
    pub jobs: u64,
    #[serde(default)]
    pub failed: u64,
    /// Useful time, summed over threads, in s.
    #[serde(default)]
    pub busy: f64,
    /// When it was lost, from the start of the run, in s.
    #[serde(default)]
    pub lost: Option<f64>,
}

/// Returns the value of a field that is not empty.
fn field<'f>(fields: &'f Spec, name: &str) -> Option<&'f str> {
    fields.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

impl RunFacts {
    pub(crate) fn of_owner(fields: &Spec) -> RunFacts {
        let text = |name| field(fields, name).unwrap_or_default().to_string();
        RunFacts {
            host: text("host"),
            allocation: text("allocation"),
            since: text("since"),
            output: text("output"),
            version: text("version"),
            began_us: field(fields, "since").and_then(micros),
            ..RunFacts::default()
        }
    }

    pub(crate) fn set_about(&mut self, fields: &Spec) {
        let number = |name| field(fields, name).and_then(|text| text.parse().ok());
        self.began_us = number("began").or(self.began_us);
        self.about = About {
            command: field(fields, "command").map(str::to_string),
            folder: field(fields, "folder").map(str::to_string),
            ranks: number("ranks"),
            threads: number("threads"),
            hosts: number("hosts"),
            node_memory: number("node_memory"),
        };
    }

    pub(crate) fn set_statistics(&mut self, fields: &Spec) {
        let Some(wall) = field(fields, "wall").and_then(|text| text.parse::<f64>().ok()) else { return };
        let ranks = field(fields, "per_rank").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        self.statistics = Some(Statistics { wall: if wall.is_finite() { wall.max(0.0) } else { 0.0 }, ranks });
    }
}

impl RankStatistics {
    /// Returns the part of its threads' time that was spent in the functions of jobs, from 0 to 1.
    pub(crate) fn busy_part(&self, wall: f64) -> f64 {
        let offered = wall * f64::from(self.threads);
        if offered > 0.0 { (self.busy / offered).clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl Statistics {
    /// Returns the part of all threads' time that was spent in the functions of jobs, from 0 to 1; `None` if nothing is known.
    pub(crate) fn efficiency(&self) -> Option<f64> {
        let threads: u32 = self.ranks.iter().map(|rank| rank.threads).sum();
        let offered = self.wall * f64::from(threads);
        let busy: f64 = self.ranks.iter().map(|rank| rank.busy).sum();
        (offered > 0.0).then(|| (busy / offered).clamp(0.0, 1.0))
    }
}
