//! How much memory jobs have needed: quantiles from a histogram, whose size does not depend on the number of jobs.

use std::io::{self, Write};

use serde::Serialize;

use super::bytes;

/// The number of buckets for each power of two: a quantile is at most 5 % too high.
const PER_DOUBLING: f64 = 16.0;

/// The memory that jobs have needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// The numbers of jobs, by the logarithm of their memory.
    buckets: Vec<u64>,
    jobs: u64,
    most: u64,
}

impl Needs {
    /// Adds a job that had this many bytes at most.
    pub(crate) fn add(&mut self, bytes: u64) {
        let bucket = ((bytes.max(1) as f64).log2() * PER_DOUBLING) as usize;
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.jobs += 1;
        self.most = self.most.max(bytes);
    }

    /// Returns a number of bytes that this share of the jobs has not exceeded.
    fn quantile(&self, share: f64) -> u64 {
        let wanted = (share * self.jobs as f64).ceil() as u64;
        let mut counted = 0;
        let bucket = self.buckets.iter().position(|jobs| {
            counted += jobs;
            counted >= wanted
        });
        let end = |bucket: usize| ((bucket + 1) as f64 / PER_DOUBLING).exp2() as u64;
        bucket.map_or(self.most, end).min(self.most)
    }

    /// Returns what the summary says about the jobs, if anything is known, on a node with this much memory. `out_of_memory`: the
    /// number of attempts that were killed and followed by another one.
    pub(crate) fn summary(&self, node: Option<u64>, out_of_memory: u64) -> Option<MemorySummary> {
        (self.jobs > 0 || out_of_memory > 0).then(|| MemorySummary {
            jobs: self.jobs,
            median_bytes: self.quantile(0.5),
            p95_bytes: self.quantile(0.95),
            most_bytes: self.most,
            node_bytes: node,
            fit_on_node: node.filter(|_| self.most > 0).map(|node| node / self.most),
            out_of_memory,
        })
    }
}

/// The part of the summary about the memory of jobs. All keys are those of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MemorySummary {
    /// The number of jobs whose memory is known.
    jobs: u64,
    median_bytes: u64,
    p95_bytes: u64,
    most_bytes: u64,
    /// The memory of rank 0's node, or the part of it that its control group allows.
    node_bytes: Option<u64>,
    /// How many of the largest jobs fit into that.
    fit_on_node: Option<u64>,
    /// The number of attempts that were killed for lack of memory and followed by one with fewer others beside it.
    out_of_memory: u64,
}

impl MemorySummary {
    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.jobs > 0 {
            let (median, p95, most) = (bytes(self.median_bytes), bytes(self.p95_bytes), bytes(self.most_bytes));
            write!(out, "memory of a job: median {median}, 95 % within {p95}, most {most}")?;
            if let (Some(fit), Some(node)) = (self.fit_on_node, self.node_bytes) {
                write!(out, "; {fit} of the largest fit on a node with {}", bytes(node))?;
            }
            writeln!(out)?;
        }
        if self.out_of_memory > 0 {
            let killed = self.out_of_memory;
            writeln!(
                out,
                "{killed} attempt(s) were killed for lack of memory; these jobs were run again with fewer others"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn needs(all: impl IntoIterator<Item = u64>) -> Needs {
        let mut needs = Needs::default();
        all.into_iter().for_each(|bytes| needs.add(bytes));
        needs
    }

    #[test]
    fn quantiles_are_at_most_a_bucket_too_high() {
        for unit in [1, 999, MIB, 1 << 33] {
            let needs = needs((1..=1000).map(|at| at * unit));
            for (share, exact) in [(0.001, unit), (0.5, 500 * unit), (0.95, 950 * unit), (1.0, 1000 * unit)] {
                let (found, exact) = (needs.quantile(share) as f64, exact as f64);
                assert!((exact..=exact * 1.05 + 1.0).contains(&found), "{share} of {unit}: {found}, not {exact}");
            }
        }
        assert!(needs([0, u64::MAX]).buckets.len() <= 1025, "its size is bounded");
    }

    #[test]
    fn the_summary_says_what_jobs_needed_and_how_many_fit_on_a_node() {
        let summary = needs((0..100).map(|at| if at < 90 { 10 * MIB } else { 100 * MIB })).summary(Some(1050 * MIB), 2);
        let summary = summary.expect("something is known");
        assert_eq!((summary.jobs, summary.most_bytes, summary.fit_on_node), (100, 100 * MIB, Some(10)));
        assert!((10 * MIB..11 * MIB).contains(&summary.median_bytes) && summary.p95_bytes == 100 * MIB, "{summary:?}");
        let mut text = Vec::new();
        summary.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("95 % within 100.00 MiB, most 100.00 MiB; 10 of the largest fit on a node with 1.03 GiB"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "2 attempt(s) were killed for lack of memory; these jobs were run again with fewer others\n"
            )
        );
    }

    #[test]
    fn nothing_is_said_if_nothing_is_known() {
        assert_eq!(needs([]).summary(Some(MIB), 0), None);
        let killed = needs([]).summary(None, 1).expect("jobs were killed");
        let mut text = Vec::new();
        killed.write_text(&mut text).unwrap();
        assert!(text.starts_with(b"1 attempt(s) were killed"));
        assert_eq!(needs([5]).summary(None, 0).expect("it is known").fit_on_node, None);
    }
}
