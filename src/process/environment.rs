//! The environment variables of a rank that a command must not inherit: those by which a launcher marks a process as a rank.
//!
//! A program linked with MPI that finds them acts as that rank: it joins our world, or waits for ever for our launcher. Variables
//! that users set to choose or tune their MPI stay.

use std::ffi::OsString;

/// Prefixes of names that launchers use.
const PREFIXES: [&str; 20] = [
    // How a rank finds its launcher: MPICH, Intel MPI, Cray; PMI 2; Open MPI and Slurm.
    "PMI_",
    "PMI2_",
    "PMIX_",
    // Open MPI up to 4 and its runtime; the runtime of Open MPI 5.
    "OMPI_",
    "ORTE_",
    "PRTE_",
    // MPICH's and Intel MPI's launcher.
    "HYDRA_",
    "HYDI_",
    "MPIR_",
    // HPE Cray, IBM and ALPS.
    "PALS_",
    "JSM_",
    "ALPS_APP_",
    // MVAPICH.
    "MV2_COMM_WORLD_",
    "MPIRUN_",
    "MPISPAWN_",
    // Flux.
    "FLUX_TASK_",
    // srun's step: an Open MPI program that sees one asks Slurm for its rank. The allocation's variables stay, so that a
    // command can call srun.
    "SLURM_STEP",
    "SLURM_PMI",
    "SLURM_SRUN_COMM_",
    "SLURM_LAUNCH_NODE_",
];

/// Names that launchers use and that have none of these prefixes.
const NAMES: [&str; 4] = ["MPI_LOCALNRANKS", "MPI_LOCALRANKID", "FLUX_PMI_LIBRARY_PATH", "FLUX_JOB_SIZE"];

/// Prefixes of names that users set, although they look like a launcher's.
const KEPT: [&str; 2] = [
    // A container's only user may be root, and its commands may be MPI programs.
    "OMPI_ALLOW_RUN_AS_ROOT",
    // MPICH's settings.
    "MPIR_CVAR_",
];

/// Whether this is a launcher's variable.
pub(crate) fn is_launcher_variable(name: &str) -> bool {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    (begins(&PREFIXES) || NAMES.contains(&name)) && !begins(&KEPT)
}

/// Returns the names of the launcher's variables of this process.
pub(crate) fn launcher_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_str().is_some_and(is_launcher_variable)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_process_a_rank_is_removed() {
        for name in [
            "PMI_FD",
            "PMI_RANK",
            "PMI_SIZE",
            "PMIX_NAMESPACE",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_MCA_orte_hnp_uri",
            "ORTE_JOBID",
            "PRTE_MCA_x",
            "HYDRA_CONTROL_FD",
            "HYDI_CONTROL_FD",
            "PALS_RANKID",
            "MPI_LOCALNRANKS",
            "MPI_LOCALRANKID",
            "MPIR_X",
            "SLURM_STEP_ID",
            "SLURM_STEPID",
            "SLURM_PMIX_MAPPING_SERV",
        ] {
            assert!(is_launcher_variable(name), "{name}");
        }
    }

    #[test]
    fn what_users_set_stays() {
        for name in [
            "PATH",
            "HOME",
            "OMPI_ALLOW_RUN_AS_ROOT",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            "MPIR_CVAR_CH4_NETMOD",
            "OPAL_PREFIX",
            "I_MPI_FABRICS",
            "MPICC",
            "MPI_HOME",
            "SLURM_JOB_ID",
            "SLURM_CPUS_PER_TASK",
            "RANKPOOL_THREADS",
            "RANKPOOL_LOCAL",
            "PMIXER",
            "",
        ] {
            assert!(!is_launcher_variable(name), "{name}");
        }
    }
}
