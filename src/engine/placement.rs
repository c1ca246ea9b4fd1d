//! The placement of ranks: hosts, CPU masks, threads per rank, launchers and allocations.
//!
//! Every rank gathers [`RankFacts`] about itself. From all of them the master decides how many threads each rank gets,
//! and it finds mistakes in the placement. Nothing here calls MPI: the facts travel as messages.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

/// The facts about a rank and its host, which it sends when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankFacts {
    /// The host's name.
    pub host: String,
    /// The id of the process.
    pub pid: u32,
    /// A hash of the kernel's boot and the namespace of process ids: ranks with the same one see each other's processes.
    pub processes: u64,
    /// The CPUs that this process may run on, ascending.
    pub cpus: Vec<u32>,
    /// The number of threads that can run at once: the CPUs of the mask, or fewer if a container's quota is lower.
    pub parallelism: u32,
    /// The number of CPUs of the machine.
    pub machine_cpus: u32,
    /// The number of threads that an option or the environment sets.
    pub threads_asked: Option<NonZeroU32>,
    /// The number of CPUs that a job needs.
    pub cpus_per_job: NonZeroU32,
    /// A hash of the executable file.
    pub executable: u64,
    /// The reason why jobs cannot run here, if [`Launch::check`](crate::Launch::check) has found one.
    pub complaint: Option<String>,
}

/// A rank of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rank {
    /// The facts that it has sent.
    pub facts: RankFacts,
    /// The number of its compute threads: 0 for a dedicated master.
    pub threads: u32,
}

impl RankFacts {
    /// Gathers the facts of this process.
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
            processes: hash_process_namespace(),
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

pub(crate) fn cpu_mask() -> Vec<u32> {
    let Ok(mask) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).map(|cpu| cpu as u32).collect()
}

/// Returns the number of the machine's online CPUs, if its kernel reports it.
pub(crate) fn online_cpus() -> Option<u32> {
    count_cpus(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

/// Counts the CPUs in a list like `0-3,8`.
fn count_cpus(list: &str) -> Option<u32> {
    let number = |text: &str| text.parse::<u32>().ok();
    list.trim().split(',').try_fold(0u32, |count, run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        count.checked_add(number(last)?.checked_sub(number(first)?)?.checked_add(1)?)
    })
}

/// Returns a hash of what process ids mean here; of this process alone if that cannot be found out.
fn hash_process_namespace() -> u64 {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    let known = match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => [boot, namespace.into_os_string().into_encoded_bytes()].concat(),
        _ => std::process::id().to_le_bytes().to_vec(),
    };
    xxhash_rust::xxh3::xxh3_64(&known)
}

/// Returns a hash of this process's executable file, which is read once, in pieces.
fn hash_executable() -> Result<u64, String> {
    use std::io::Read;
    use std::sync::OnceLock;
    static HASH: OnceLock<u64> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(*hash);
    }
    // The link in /proc still leads to the file that was started, after it was replaced on disk.
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

/// Formats a list of CPUs with ranges: `0-3,8`.
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

/// Returns the number of threads of each rank, in the order of the ranks. A number that was asked for comes first; otherwise a rank
/// gets the CPUs of its mask, divided among the ranks of the same host that share them (the remainder goes to the later ranks,
/// since rank 0 has the master, too). If a job needs several CPUs, a rank gets one thread for each such group.
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
        // Where masks overlap without being equal, all ranks that may use a CPU are counted.
        let count = ranks.len() as u32 + others;
        for (position, &rank) in ranks.iter().enumerate() {
            let available = facts[rank].parallelism.max(1);
            let remainder = available % count;
            let gets_one_more = position as u32 + remainder >= ranks.len() as u32;
            let share = (available / count + u32::from(gets_one_more)).max(1);
            let cpus = facts[rank].threads_asked.map_or(share, NonZeroU32::get);
            threads[rank] = (cpus / facts[rank].cpus_per_job).max(1);
        }
    }
    threads
}

/// The warnings about the placement of the ranks, a sentence each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Warnings {
    /// The launcher leaves most of a machine idle. This is always a mistake.
    pub bound: Option<String>,
    /// There are more threads than CPUs. This may be wanted: for a test, or for jobs that sleep.
    pub crowded: Option<String>,
}

impl Warnings {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        [&self.bound, &self.crowded].into_iter().flatten().map(String::as_str)
    }
}

/// Returns the warnings about the placement of these ranks.
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
        // One thread on one core may have been asked for.
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

/// The rank of this process and the number of processes, as the launcher sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LauncherRank {
    pub rank: u32,
    pub size: u32,
}

/// The variables in which launchers tell a process its rank and the number of processes: Open MPI, MPICH and Intel MPI
/// (and Slurm's PMI), MVAPICH, Flux, and `srun` itself (the step's variable: a batch script that runs a program without
/// `srun` is one process, whatever the allocation's number of tasks).
const RANK_VARIABLES: [(&str, &str); 5] = [
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
];

/// Returns the rank of this process by the launcher's variables, if a launcher started it. It is known before MPI is started.
pub(crate) fn launcher_rank(environment: impl Fn(&str) -> Option<String>) -> Option<LauncherRank> {
    RANK_VARIABLES.iter().find_map(|(rank, size)| {
        let number = |name: &str| environment(name)?.trim().parse().ok();
        Some(LauncherRank { rank: number(rank)?, size: number(size)? })
    })
}

/// The variables in which launchers tell a process its number among the processes of its host.
const RANK_ON_HOST_VARIABLES: [&str; 5] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "FLUX_TASK_LOCAL_ID",
    "SLURM_LOCALID",
];

/// The variables in which launchers tell a process the number of processes on its host; Slurm lists all hosts, as `2(x3),1`.
const RANKS_ON_HOST_VARIABLES: [&str; 4] =
    ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"];

/// Returns the number of processes that the launcher has started on this host, if its variables tell; of Slurm's list, the number of
/// the first host is taken.
pub(crate) fn ranks_on_host(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    let number = |text: String| text.split(['(', ',']).next()?.trim().parse().ok();
    RANKS_ON_HOST_VARIABLES.iter().find_map(|name| environment(name).and_then(number)).filter(|ranks| *ranks > 0)
}

/// Returns the number that the launcher gave this process among the processes of its host.
pub(crate) fn rank_on_host(environment: impl Fn(&str) -> Option<String>) -> Option<u32> {
    RANK_ON_HOST_VARIABLES.iter().find_map(|name| environment(name)?.trim().parse().ok())
}

/// Returns the id of the allocation, with the name of the batch system.
pub(crate) fn allocation(environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    [("Slurm", "SLURM_JOB_ID"), ("PBS", "PBS_JOBID"), ("LSF", "LSB_JOBID"), ("Flux", "FLUX_JOB_ID")]
        .iter()
        .find_map(|(system, name)| Some(format!("{system} {}", environment(name)?)))
}

/// Returns an error message if the launcher has started more processes than MPI sees: `world` is the number of ranks that MPI
/// sees.
pub(crate) fn worlds_of_one(launched: Option<LauncherRank>, world: u32) -> Option<String> {
    let size = launched?.size;
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
            processes: 1,
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
    fn a_number_of_threads_that_was_asked_for_comes_before_the_mask() {
        let asked = RankFacts { threads_asked: NonZeroU32::new(7), ..facts("a", &[0]) };
        assert_eq!(threads_per_rank(&[asked, facts("a", &[1])], false), [7, 1]);
    }

    #[test]
    fn binding_to_one_core_and_crowding_are_reported() {
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
        let open_mpi = launcher_rank(variables(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")]));
        assert_eq!(open_mpi, Some(LauncherRank { rank: 1, size: 4 }));
        assert_eq!(launcher_rank(variables(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")])), None, "a batch script");
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
