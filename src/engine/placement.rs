//! Who and where am I: hosts, CPU masks, threads per rank, launchers and allocations.
//!
//! Every rank gathers [`RankFacts`] about itself. The master decides from all of them how many threads each rank gets
//! and what is wrong with the placement. Nothing here talks to MPI: the facts travel as messages.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

/// What a rank knows of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankFacts {
    /// The host's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The CPUs that this process may run on, ascending.
    pub cpus: Vec<u32>,
    /// How many threads can run at once: the CPU mask, less where a container's quota says so.
    pub parallelism: u32,
    /// How many CPUs the machine has.
    pub machine_cpus: u32,
    /// The threads that were asked for, by option or environment.
    pub threads_asked: Option<NonZeroU32>,
    /// How many CPUs a job needs.
    pub cpus_per_job: NonZeroU32,
    /// A hash of the executable file.
    pub executable: u64,
    /// Why jobs cannot run here, if the program has looked.
    pub complaint: Option<String>,
}

/// A rank of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rank {
    /// What it said of itself.
    pub facts: RankFacts,
    /// The threads it computes with: 0 for a dedicated master.
    pub threads: u32,
}

impl RankFacts {
    /// The facts of this process.
    pub(crate) fn gather(threads_asked: Option<NonZeroU32>) -> Result<Self, String> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let cpus = cpu_mask();
        let parallelism =
            std::thread::available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(u32::MAX));
        let machine_cpus = online_cpus().unwrap_or(parallelism);
        let executable = hash_executable()?;
        Ok(RankFacts {
            host,
            pid: std::process::id(),
            cpus,
            parallelism,
            machine_cpus,
            threads_asked,
            cpus_per_job: NonZeroU32::MIN,
            executable,
            complaint: None,
        })
    }
}

fn cpu_mask() -> Vec<u32> {
    let Ok(mask) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).map(|cpu| cpu as u32).collect()
}

/// How many CPUs the machine has in use, if its kernel says so.
fn online_cpus() -> Option<u32> {
    count_cpus(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// How many CPUs are in a list like `0-3,8`.
fn count_cpus(list: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok();
    list.trim().split(',').try_fold(0u32, |count, run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        count.checked_add(number(last)?.checked_sub(number(first)?)?.checked_add(1)?)
    })
}

/// A hash of the file that this process runs, read in pieces, once.
fn hash_executable() -> Result<u64, String> {
    use std::io::Read;
    use std::sync::OnceLock;
    static HASH: OnceLock<u64> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(*hash);
    }
    // The link in /proc still leads to the file after it was replaced on disk.
    let proc_link = std::path::Path::new("/proc/self/exe");
    let path = if proc_link.exists() { proc_link.to_path_buf() } else { std::env::current_exe().unwrap_or_default() };
    let explain = |error| format!("cannot read the program's own executable: {error}");
    let mut file = std::fs::File::open(path).map_err(explain)?;
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(explain)? {
            0 => return Ok(*HASH.get_or_init(|| hash.digest())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// CPUs as people write them: `0-3,8`.
pub fn cpu_list(cpus: &[u32]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for run in cpus.chunk_by(|a, b| a + 1 == *b) {
        parts.push(match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => continue,
        });
    }
    parts.join(",")
}

/// How many threads each rank gets, in the order of the ranks. A rank's own wish comes first; else it gets the CPUs of its
/// mask, divided among the ranks of the same host that share them (the later ranks get what does not divide evenly, since
/// rank 0 has the master, too). Jobs that need several CPUs leave a thread for each such group.
pub(crate) fn threads_per_rank(facts: &[RankFacts], dedicated_master: bool) -> Vec<u32> {
    let computes = |rank: usize| !(dedicated_master && rank == 0 && facts.len() > 1);
    let mut sharing: BTreeMap<(&str, &[u32]), Vec<usize>> = BTreeMap::new();
    for (rank, facts) in facts.iter().enumerate().filter(|(rank, _)| computes(*rank)) {
        sharing.entry((&facts.host, &facts.cpus)).or_default().push(rank);
    }
    let mut threads = vec![0; facts.len()];
    for ((host, cpus), ranks) in &sharing {
        let others: u32 = sharing
            .iter()
            .filter(|((other, mask), _)| other == host && mask != cpus && mask.iter().any(|cpu| cpus.contains(cpu)))
            .map(|(_, ranks)| ranks.len() as u32)
            .sum();
        // Masks that overlap without being equal: count all who might be there.
        let count = ranks.len() as u32 + others;
        for (place, &rank) in ranks.iter().enumerate() {
            let available = facts[rank].parallelism.max(1);
            let extra = u32::from(place as u32 + available % count >= ranks.len() as u32);
            let share = (available / count + extra).max(1);
            let cpus = facts[rank].threads_asked.map_or(share, NonZeroU32::get);
            threads[rank] = (cpus / facts[rank].cpus_per_job).max(1);
        }
    }
    threads
}

/// What the people who run this should know about the placement of the ranks, a sentence each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Warnings {
    /// The launcher leaves most of a machine idle. Nobody wants this.
    pub bound: Option<String>,
    /// More threads than CPUs. Some want this: for a test, or for jobs that sleep.
    pub crowded: Option<String>,
}

impl Warnings {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        [&self.bound, &self.crowded].into_iter().flatten().map(String::as_str)
    }
}

/// What is wrong with the placement of these ranks.
pub(crate) fn warnings(ranks: &[Rank]) -> Warnings {
    let mut hosts: BTreeMap<&str, Vec<&Rank>> = BTreeMap::new();
    for rank in ranks {
        hosts.entry(&rank.facts.host).or_default().push(rank);
    }
    let mut bound = Vec::new();
    let mut crowded = Vec::new();
    for (host, ranks) in &hosts {
        let cpus: BTreeSet<u32> = ranks.iter().flat_map(|rank| &rank.facts.cpus).copied().collect();
        let machine = ranks.iter().map(|rank| rank.facts.machine_cpus).max().unwrap_or(1);
        let threads: u32 = ranks.iter().map(|rank| rank.threads).sum();
        // One thread on one core may be what was asked for.
        let one_core =
            |rank: &&Rank| rank.facts.cpus.len() == 1 && (rank.facts.threads_asked.is_none() || rank.threads > 1);
        if (cpus.len() as u32) < machine && ranks.iter().all(one_core) {
            bound.push((host, cpus.len(), machine));
        } else if !cpus.is_empty() && threads as usize > cpus.len() {
            crowded.push((host, threads, cpus.len()));
        }
    }
    let more =
        |hosts: usize| if hosts > 1 { format!(" (and {} more hosts like it)", hosts - 1) } else { String::new() };
    Warnings {
        bound: bound.first().map(|(host, cpus, machine)| {
            format!(
                "the launcher bound each rank on {host} to one core: {cpus} of {machine} CPU(s) are in use{}. Start with `mpiexec --bind-to none` (Open MPI), `srun -c CPUS` (Slurm), or one rank per node.",
                more(bound.len())
            )
        }),
        crowded: crowded.first().map(|(host, threads, cpus)| {
            format!(
                "{threads} threads share {cpus} CPU(s) on {host}{}. Start fewer ranks, or give a smaller `--threads`.",
                more(crowded.len())
            )
        }),
    }
}

/// Where a launcher put this process: its number, and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub rank: u32,
    pub size: u32,
}

/// The variables in which launchers tell a process its rank and the number of processes: Open MPI, MPICH and Intel MPI
/// (and Slurm's PMI), MVAPICH, Flux, and `srun` itself (the step's variable: a batch script that runs a program without
/// `srun` is one process, whatever the allocation's number of tasks).
const PLACES: [(&str, &str); 5] = [
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
];

/// Where the launcher says that this process is, if a launcher started it. It is known before MPI is started.
pub(crate) fn place(environment: impl Fn(&str) -> Option<String>) -> Option<Place> {
    PLACES.iter().find_map(|(rank, size)| {
        let number = |name: &str| environment(name)?.trim().parse().ok();
        Some(Place { rank: number(rank)?, size: number(size)? })
    })
}

/// The variables in which launchers tell a process its number among those of its host.
const PLACES_ON_HOST: [&str; 5] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "FLUX_TASK_LOCAL_ID",
    "SLURM_LOCALID",
];

/// The variables in which launchers tell a process how many of them are on its host; Slurm lists hosts, as `2(x3),1`.
const RANKS_ON_HOST: [&str; 4] =
    ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"];

/// How many processes the launcher has started on this host, as far as it says so; of Slurm's list the first host stands for all.
pub(crate) fn ranks_on_host(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    let number = |text: String| text.split(['(', ',']).next()?.trim().parse().ok();
    RANKS_ON_HOST.iter().find_map(|name| environment(name).and_then(number)).filter(|ranks| *ranks > 0)
}

/// The number that the launcher gave this process among those of its host.
pub(crate) fn place_on_host(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    PLACES_ON_HOST.iter().find_map(|name| environment(name)?.trim().parse().ok())
}

/// The id of what Slurm or PBS granted, with the system's name.
pub(crate) fn allocation(environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    [("Slurm", "SLURM_JOB_ID"), ("PBS", "PBS_JOBID"), ("LSF", "LSB_JOBID"), ("Flux", "FLUX_JOB_ID")]
        .iter()
        .find_map(|(system, name)| Some(format!("{system} {}", environment(name)?)))
}

/// Why ranks that each see only themselves cannot be one run, if that is so: `world` is the number of ranks that this process
/// sees.
pub(crate) fn worlds_of_one(place: Option<Place>, world: u32) -> Option<String> {
    let size = place?.size;
    if size <= world {
        return None;
    }
    let why = if cfg!(feature = "mpi") {
        "this program was built for another MPI than the one whose mpiexec started it. Use the mpiexec that belongs to the \
         mpicc it was built with, or build it again (MPICC=… cargo build); `--local` is for one process"
    } else {
        "this program was built without MPI (--no-default-features). Build it with the feature `mpi`"
    };
    Some(format!("{size} processes were started, but each sees only itself: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(host: &str, cpus: &[u32]) -> RankFacts {
        RankFacts {
            host: host.into(),
            pid: 1,
            cpus: cpus.to_vec(),
            parallelism: cpus.len() as u32,
            machine_cpus: 4,
            threads_asked: None,
            cpus_per_job: NonZeroU32::MIN,
            executable: 0,
            complaint: None,
        }
    }

    #[test]
    fn a_shared_mask_is_divided_and_disjoint_masks_are_used_as_they_are() {
        let all = [0, 1, 2, 3];
        assert_eq!(threads_per_rank(&[facts("a", &all), facts("a", &all)], false), [2, 2]);
        assert_eq!(threads_per_rank(&[facts("a", &all), facts("b", &all)], false), [4, 4]);
        assert_eq!(threads_per_rank(&[facts("a", &[0, 1]), facts("a", &[2, 3])], false), [2, 2]);
        assert_eq!(threads_per_rank(&[facts("a", &all), facts("a", &all), facts("a", &all)], false), [1, 1, 2]);
        assert_eq!(threads_per_rank(&vec![facts("a", &[0, 1]); 5], false), [1; 5]);
    }

    #[test]
    fn a_dedicated_master_leaves_its_share_to_the_others() {
        let all = [0, 1, 2, 3];
        assert_eq!(threads_per_rank(&[facts("a", &all), facts("a", &all)], true), [0, 4]);
        assert_eq!(threads_per_rank(&[facts("a", &all)], true), [4], "a single rank computes all the same");
    }

    #[test]
    fn a_wish_comes_before_the_mask() {
        let wish = RankFacts { threads_asked: NonZeroU32::new(7), ..facts("a", &[0]) };
        assert_eq!(threads_per_rank(&[wish, facts("a", &[1])], false), [7, 1]);
    }

    #[test]
    fn binding_to_one_core_and_crowding_are_told_of() {
        let rank = |facts: RankFacts, threads| Rank { facts, threads };
        let bound = warnings(&[rank(facts("a", &[0]), 1), rank(facts("a", &[1]), 1)]);
        let Warnings { bound: Some(bound), crowded: None } = bound else { panic!("{bound:?}") };
        assert!(bound.contains("one core") && bound.contains("2 of 4"), "{bound:?}");
        let crowded = warnings(&[rank(facts("a", &[0, 1, 2, 3]), 9)]);
        let Warnings { bound: None, crowded: Some(crowded) } = crowded else { panic!("{crowded:?}") };
        assert!(crowded.contains("9 threads share 4"), "{crowded:?}");
        assert_eq!(warnings(&[rank(facts("a", &[0, 1, 2, 3]), 4)]), Warnings::default());
    }

    #[test]
    fn one_core_is_no_surprise_for_one_thread_that_was_asked_for() {
        let rank = |threads| Rank {
            facts: RankFacts { threads_asked: NonZeroU32::new(threads), ..facts("a", &[0]) },
            threads,
        };
        assert_eq!(warnings(&[rank(1)]), Warnings::default());
        assert!(warnings(&[rank(2)]).bound.is_some());
    }

    #[test]
    fn the_ranks_of_a_host_are_counted_by_the_launcher() {
        let ranks = |name: &'static str, value: &'static str| {
            ranks_on_host(move |asked| (asked == name).then(|| value.to_string()))
        };
        assert_eq!(ranks("OMPI_COMM_WORLD_LOCAL_SIZE", "4"), Some(4));
        assert_eq!(ranks("MPI_LOCALNRANKS", "2"), Some(2));
        assert_eq!(ranks("SLURM_STEP_TASKS_PER_NODE", "2(x3),1"), Some(2));
        assert_eq!(ranks("SLURM_STEP_TASKS_PER_NODE", "3,1"), Some(3));
        assert_eq!(ranks("MPI_LOCALNRANKS", "0"), None);
        assert_eq!(ranks("MPI_LOCALNRANKS", "many"), None);
    }

    #[test]
    fn a_launcher_is_recognised_by_its_variables() {
        let variables = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
        };
        let open_mpi = place(variables(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")]));
        assert_eq!(open_mpi, Some(Place { rank: 1, size: 4 }));
        assert_eq!(place(variables(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")])), None, "a batch script");
        assert!(worlds_of_one(open_mpi, 1).unwrap().starts_with("4 processes were started, but each sees only itself"));
        assert_eq!(worlds_of_one(open_mpi, 4), None);
        assert_eq!(worlds_of_one(None, 1), None);
    }

    #[test]
    fn the_cpus_in_a_list_of_ranges_are_counted() {
        for (list, count) in [("0-3,8\n", Some(5)), ("0\n", Some(1)), ("0-127", Some(128)), ("", None), ("3-1", None)] {
            assert_eq!(count_cpus(list), count, "{list:?}");
        }
    }

    #[test]
    fn this_process_may_run_on_some_of_the_machine_s_cpus() {
        let facts = RankFacts::gather(None).expect("the executable can be read");
        let (mask, machine) = (u32::try_from(facts.cpus.len()).expect("few"), facts.machine_cpus);
        assert!((1..=machine).contains(&mask), "{mask} of {machine} CPUs");
        assert!(!facts.host.is_empty());
    }

    #[test]
    fn cpus_are_written_as_ranges() {
        assert_eq!(cpu_list(&[0, 1, 2, 5, 8, 9]), "0-2,5,8-9");
        assert_eq!(cpu_list(&[]), "");
    }
}
