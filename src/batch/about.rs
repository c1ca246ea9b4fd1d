//! What the journal has of the run itself, for reports: its ranks at the start, and what it has counted at the end.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::journal::Spec;
use crate::pool::Pool;
use crate::process::memory::of_process;

/// Returns what is known when all ranks are there, behind what the program knows.
pub(super) fn ranks(about: &Spec, pool: &Pool) -> Spec {
    let hosts: BTreeSet<&str> = pool.ranks().iter().map(|rank| rank.facts.host.as_str()).collect();
    let mut fields = about.clone();
    let mut add = |name: &str, number: u64| fields.push((name.to_string(), number.to_string()));
    add("ranks", pool.ranks().len() as u64);
    add("threads", pool.threads().into());
    add("hosts", hosts.len() as u64);
    of_process().into_iter().for_each(|bytes| add("node_memory", bytes));
    fields
}

/// Returns what the pool has counted; nothing if it has failed.
pub(super) fn statistics(pool: &Pool) -> Spec {
    /// What is known of a rank.
    #[derive(Serialize)]
    struct Rank<'a> {
        rank: u32,
        host: &'a str,
        threads: u32,
        jobs: u64,
        failed: u64,
        busy: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<f64>,
    }

    let Some(stats) = pool.stats() else { return Spec::new() };
    let ranks = stats.ranks.iter().map(|rank| Rank {
        rank: rank.rank,
        host: &rank.host,
        threads: rank.threads,
        jobs: rank.jobs,
        failed: rank.failed,
        busy: rank.busy.as_secs_f64(),
        lost: rank.lost.map(|lost| lost.as_secs_f64()),
    });
    let json = serde_json::to_string(&ranks.collect::<Vec<_>>()).unwrap_or_default();
    vec![("wall".into(), stats.wall.as_secs_f64().to_string()), ("per_rank".into(), json)]
}
