//! The options of `rankpool python` and `rankpool serve`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args as ArgGroup;

use super::FailureArgs;
use crate::cli::parse::{module, time};

const SCRIPT: &str = "Script";

/// Run a Python script whose executor or pool has all ranks as its workers
#[derive(Debug, ArgGroup)]
#[command(
    override_usage = "rankpool python [OPTIONS] SCRIPT [ARG]...\n       rankpool python [OPTIONS] -m MODULE [ARG]...\n       \
                      rankpool python [OPTIONS] -c CODE [ARG]...",
    after_help = "\
The script runs once, beside rank 0, with its own arguments, standard input and exit code. `import rankpool` needs no installation there:
  from rankpool import Executor        # as concurrent.futures.ProcessPoolExecutor
  with Executor() as executor:
      results = list(executor.map(function, inputs))
rankpool.Pool is multiprocessing.Pool; rankpool.joblib is a backend of joblib; rankpool.compat has the names of other packages. Functions of the script, lambdas and closures need the package cloudpickle, or else functions have to be importable.

Examples:
  rankpool python script.py input.csv                  on all cores of this machine
  mpiexec -n 8 rankpool python script.py input.csv     on all ranks
  srun rankpool python -m package.module
  mpiexec -n 8 rankpool python --journal run.journal --resume script.py    finished jobs are not run again"
)]
pub(in crate::cli) struct PythonArgs {
    #[command(flatten)]
    pub failures: FailureArgs,
    #[command(flatten)]
    pub workers: CallWorkerArgs,
    /// Run a module as a script: all words behind it are its arguments
    #[arg(short = 'm', value_name = "MODULE", num_args = 1.., allow_hyphen_values = true, conflicts_with_all = ["code", "script"], help_heading = SCRIPT)]
    pub module: Vec<OsString>,
    /// Run this code: all words behind it are its arguments
    #[arg(short = 'c', value_name = "CODE", num_args = 1.., allow_hyphen_values = true, conflicts_with = "script", help_heading = SCRIPT)]
    pub code: Vec<OsString>,
    /// The script and its arguments
    #[arg(
        value_name = "SCRIPT",
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present_any = ["module", "code"],
        help_heading = SCRIPT
    )]
    pub script: Vec<OsString>,
}

/// Options about the workers that answer calls of a script.
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct CallWorkerArgs {
    /// The Python interpreter of the script and of the workers [default: python3]
    #[arg(long, value_name = "PROGRAM", help_heading = SCRIPT)]
    pub python_exe: Option<String>,
    /// Import these modules once on each node, and fork its workers from there: they start at once and share the memory
    #[arg(long, value_name = "MODULE", value_delimiter = ',', value_parser = module, help_heading = SCRIPT)]
    pub preload: Vec<String>,
    /// The time between TERM and KILL for a worker, and for the script after a signal
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5s", help_heading = SCRIPT)]
    pub kill_after: Duration,
}

/// Serve a Python script that was started without rankpool: its executor starts this itself
#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    pub failures: FailureArgs,
    #[command(flatten)]
    pub workers: CallWorkerArgs,
    /// The abstract Unix socket on which the script listens, with @ before its name [default: the socket is standard input]
    #[arg(long, value_name = "@NAME")]
    pub connect: Option<String>,
}
