//! The options about the end of a run before its last job: signals and time limits.

use std::time::Duration;

use clap::Args as ArgGroup;

use crate::cli::parse::{Limit, time};

const STOP: &str = "Signals and time limits";

/// Options about the end of a run before its last job.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct StopArgs {
    /// After a signal (TERM, INT, HUP, QUIT, USR1, USR2, XCPU) no job is started, and running jobs have this time to end. Then the
    /// processes of jobs get TERM, and KILL after --kill-after; the exit code is 75. A second INT ends the run at once
    #[arg(long, value_name = "TIME", global = true, value_parser = time, default_value = "20s", help_heading = STOP)]
    pub grace: Duration,
    /// The time limit of the whole run, from its start: 30m, 2h. Before it is over, the run stops as after a signal, and early
    /// enough: no job is started that, by the durations measured so far, could not end in time. By default the time limit is that
    /// of the Slurm or PBS allocation, if rankpool runs in one; `none` is no limit
    #[arg(long, value_name = "TIME", global = true, default_value = "auto", help_heading = STOP)]
    pub time_limit: Limit,
}
