//! `rankpool info`, which a run shows with `--verbose`, too: the ranks, their CPUs and threads, the MPI library, and warnings.

use std::fmt::Write as _;

use serde::Serialize;

use super::config::{Config, Verbosity};
use super::stdout::print;
use crate::console;
use crate::engine::environment::environment;
use crate::engine::placement::{self, Warnings, cpu_list};
use crate::engine::transport::TransportInfo;
use crate::launch::{self, ExitCode};
use crate::pool::Pool;

/// The facts that are shown, with the keys of `--json`.
#[derive(Debug, Serialize)]
struct Info<'a> {
    /// rankpool's version.
    version: &'static str,
    /// Whether this program was built with MPI.
    built_with_mpi: bool,
    /// `null` if the ranks are threads of one process.
    mpi: Option<MpiInfo<'a>>,
    /// The allocation of Slurm, PBS or another system.
    allocation: Option<String>,
    threads: u32,
    ranks: Vec<RankInfo<'a>>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MpiInfo<'a> {
    library: &'a str,
    thread_level: &'a str,
}

#[derive(Debug, Serialize)]
struct RankInfo<'a> {
    rank: usize,
    host: &'a str,
    pid: u32,
    threads: u32,
    /// The CPUs that the rank may use.
    cpus: &'a [u32],
    machine_cpus: u32,
}

pub(super) fn run(config: &Config, json: bool) -> ExitCode {
    config.launch().run_to_code(|pool| {
        let info = Info::new(pool);
        if !json {
            return print(info.text().as_bytes()).1;
        }
        match serde_json::to_vec_pretty(&info) {
            Ok(mut text) => {
                text.push(b'\n');
                print(&text).1
            }
            Err(error) => launch::refuse_as(&error.to_string(), ExitCode::Failure),
        }
    })
}

/// Shows warnings about the placement of the ranks at the start of a run, and everything with `--verbose`.
pub(super) fn announce(config: &Config, pool: &Pool) {
    match config.verbosity {
        Verbosity::Quiet => {}
        Verbosity::Verbose => console::eprint(&Info::new(pool).text()),
        Verbosity::Normal => {
            let Warnings { bound, crowded } = placement::warnings(pool.ranks());
            // With --threads or --local, more threads than CPUs are intended.
            let asked = config.threads.is_some() || config.local.is_some();
            for warning in bound.into_iter().chain(crowded.filter(|_| !asked)) {
                console::eprint_error(format_args!("warning: {warning}"));
            }
        }
    }
}

impl<'a> Info<'a> {
    fn new(pool: &'a Pool) -> Info<'a> {
        let rank = |(rank, of): (usize, &'a placement::Rank)| RankInfo {
            rank,
            host: &of.facts.host,
            pid: of.facts.pid,
            threads: of.threads,
            cpus: &of.facts.cpus,
            machine_cpus: of.facts.machine_cpus,
        };
        Info {
            version: env!("CARGO_PKG_VERSION"),
            built_with_mpi: cfg!(feature = "mpi"),
            mpi: match pool.transport() {
                TransportInfo::Local => None,
                TransportInfo::Mpi { library, thread_level } => Some(MpiInfo { library, thread_level }),
            },
            allocation: placement::allocation(environment),
            threads: pool.threads(),
            ranks: pool.ranks().iter().enumerate().map(rank).collect(),
            warnings: placement::warnings(pool.ranks()).iter().map(str::to_string).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("rankpool {}, ", self.version);
        let _ = match (&self.mpi, self.built_with_mpi) {
            (Some(MpiInfo { library, thread_level }), _) => writeln!(text, "{library}, {thread_level}"),
            (None, true) => writeln!(text, "without MPI: the ranks are threads of this process"),
            (None, false) => writeln!(text, "built without MPI: the ranks are threads of this process"),
        };
        if let Some(allocation) = &self.allocation {
            let _ = writeln!(text, "allocation: {allocation}");
        }
        let hosts: std::collections::BTreeSet<_> = self.ranks.iter().map(|rank| rank.host).collect();
        let _ = writeln!(text, "{} rank(s) on {} host(s), {} thread(s)", self.ranks.len(), hosts.len(), self.threads);
        for RankInfo { rank, host, pid, threads, cpus, machine_cpus } in &self.ranks {
            let cpus = cpu_list(cpus);
            let _ = writeln!(
                text,
                "  rank {rank} on {host}, process {pid}: {threads} thread(s) on CPUs {cpus} of {machine_cpus}"
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }
}
