//! The efficiency of a pool for each length of job, and the shortest job for which it reaches a given share.
//!
//! The measure is METG, the minimum effective task granularity of Task Bench (Slaughter et al. 2020, arXiv 1908.05790): METG(50 %) is
//! the shortest job for which half of the machine's time is spent in the jobs themselves.

use serde::Serialize;

/// The efficiency for one length of job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    /// The length of a job, in seconds.
    pub seconds: f64,
    /// The time in the function of the jobs, as a share of the time of all compute threads, from 0 to 1.
    pub efficiency: f64,
}

/// The shortest job for which a share is reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "is", content = "seconds", rename_all = "snake_case")]
pub(crate) enum Metg {
    Seconds(f64),
    /// The shortest length that was measured reaches it.
    AtMost(f64),
    /// The longest length that was measured does not reach it.
    Above(f64),
}

/// Returns the METG of a share: below it, some length of job does not reach the share. Between two lengths that were measured, the
/// efficiency is taken as linear in the logarithm of the length.
pub(crate) fn metg(points: &[Point], share: f64) -> Option<Metg> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let mut longer = *sorted.first()?;
    if longer.efficiency < share {
        return Some(Metg::Above(longer.seconds));
    }
    for point in &sorted[1..] {
        if point.efficiency < share {
            let part = (share - point.efficiency) / (longer.efficiency - point.efficiency);
            return Some(Metg::Seconds(point.seconds * (longer.seconds / point.seconds).powf(part)));
        }
        longer = *point;
    }
    Some(Metg::AtMost(longer.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        values.iter().map(|&(seconds, efficiency)| Point { seconds, efficiency }).collect()
    }

    #[test]
    fn the_share_is_reached_between_two_lengths() {
        let curve = points(&[(1e-6, 0.2), (1e-4, 0.8), (1e-2, 0.99)]);
        let Some(Metg::Seconds(seconds)) = metg(&curve, 0.5) else { panic!("it is between them") };
        assert!((seconds - 1e-5).abs() < 1e-9, "{seconds}");
        let Some(Metg::Seconds(seconds)) = metg(&curve, 0.8) else { panic!("it is the second one") };
        assert!((seconds - 1e-4).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn a_longer_job_that_does_not_reach_the_share_counts() {
        let curve = points(&[(1e-6, 0.6), (1e-5, 0.4), (1e-4, 0.8)]);
        assert!(matches!(metg(&curve, 0.5), Some(Metg::Seconds(seconds)) if seconds > 1e-5));
    }

    #[test]
    fn a_share_that_all_or_no_lengths_reach_is_said_so() {
        let curve = points(&[(1e-6, 0.6), (1e-5, 0.7)]);
        assert_eq!(metg(&curve, 0.5), Some(Metg::AtMost(1e-6)));
        assert_eq!(metg(&curve, 0.9), Some(Metg::Above(1e-5)));
        assert_eq!(metg(&[], 0.5), None);
    }
}
