//! A status as figures for Prometheus, in its text format.

use std::fmt::Write;

use super::status::{RankStatus, State, Status};

/// Returns the figures of a status.
pub(super) fn of(status: &Status) -> String {
    let mut text = Text(String::new());
    let info = [("name", status.name.as_str()), ("host", &status.host), ("pid", &status.pid.to_string())];
    text.one("run_info", "gauge", "The run.", &info, 1.0);
    let states = [("running", State::Running), ("stopping", State::Stopping), ("ended", State::Ended)];
    text.head("run_state", "gauge", "1 for the state of the run.");
    for (name, state) in states {
        text.value("run_state", &[("state", name)], f64::from(u8::from(status.state == state)));
    }
    text.one("run_elapsed_seconds", "gauge", "Since the ranks were there.", &[], status.elapsed_seconds);
    text.some("run_left_seconds", "gauge", "The estimated time that is left.", status.seconds_left);
    text.some("jobs", "gauge", "The number of jobs, if it is known.", status.jobs.map(|jobs| jobs as f64));
    text.one(
        "jobs_settled_total",
        "counter",
        "Jobs that are settled, failed ones included.",
        &[],
        status.settled as f64,
    );
    text.one("jobs_failed_total", "counter", "Settled jobs that failed.", &[], status.failed as f64);
    text.one("jobs_restored_total", "counter", "Jobs that an earlier run has settled.", &[], status.restored as f64);
    let ranks = &status.ranks;
    text.each("rank_threads", "gauge", "Compute threads.", ranks, |rank| Some(rank.threads.into()));
    text.each("rank_jobs_total", "counter", "Jobs that the rank has run.", ranks, |rank| Some(rank.jobs as f64));
    text.each("rank_jobs_failed_total", "counter", "Jobs that failed there.", ranks, |rank| Some(rank.failed as f64));
    text.each("rank_busy_ratio", "gauge", "Busy share of its threads' time of late.", ranks, |rank| rank.busy);
    text.each("rank_running", "gauge", "Threads at work.", ranks, |rank| rank.running.map(f64::from));
    text.each("rank_slowest_job_seconds", "gauge", "How long its slowest running job has run.", ranks, |rank| {
        rank.slowest.as_ref().map(|job| job.seconds)
    });
    text.each("rank_heard_seconds", "gauge", "Since its last report.", ranks, |rank| rank.heard_seconds);
    text.each("rank_lost", "gauge", "1 if the rank was lost.", ranks, |rank| {
        Some(f64::from(u8::from(rank.lost_seconds.is_some())))
    });
    text.0
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP rankpool_{name} {help}\n# TYPE rankpool_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "rankpool_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.head(name, kind, help);
        self.value(name, labels, value);
    }

    fn some(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.one(name, kind, help, &[], value);
        }
    }

    /// Adds a figure of each rank that has it.
    fn each(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        ranks: &[RankStatus],
        value: impl Fn(&RankStatus) -> Option<f64>,
    ) {
        self.head(name, kind, help);
        for rank in ranks {
            if let Some(value) = value(rank) {
                self.value(name, &[("rank", &rank.rank.to_string()), ("host", &rank.host)], value);
            }
        }
    }
}

/// Returns the value of a label as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::example;
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_figure_of_a_named_family() {
        let mut status = example(3);
        status.name = "a\"b\\c\nd".into();
        status.ranks[1].busy = None;
        let text = of(&status);
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().into();
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next(), Some(family.as_str()), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("rankpool_run_info{name=\"a\\\"b\\\\c\\nd\",host=\"node0\",pid=\"1234\"} 1\n"), "{text}");
        assert_eq!(text.matches("rankpool_rank_busy_ratio{").count(), 2);
        assert!(text.contains("rankpool_rank_slowest_job_seconds{rank=\"2\",host=\"node2\"} 5\n"));
    }
}
