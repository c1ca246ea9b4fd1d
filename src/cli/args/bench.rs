//! The definition of `rankpool bench`.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::Args as ArgGroup;

use crate::cli::parse::from_one;

/// Measure this allocation, or work with more and more threads or ranks, and say what limits it
///
/// Without words it measures the ranks with which it was started: start-up, round trips, the cost of a job, the speed of large
/// values, what waiting costs, and the efficiency for each length of job, with METG, the shortest job that is worth sending.
///
/// With `kernel`, `run` or `map` and their words it runs that work with 1, 2, 3, 4, 6 … threads, each several times, shows how much
/// faster it gets, and says why it does not get faster, with the figures behind that. Results are thrown away.
#[derive(Debug, ArgGroup)]
#[command(after_help = "\
Examples:
  mpiexec -n 4 rankpool bench                                   this allocation: what a job costs, which jobs are too short
  rankpool bench --svg speed.svg kernel slow-fn --jobs 2000     a built-in function with 1, 2, 3, 4, 6 … threads
  rankpool bench run --range 1:100 -- ./simulate --seed {}      a command
  rankpool bench map --python model.py:predict --input jobs.jsonl
  rankpool bench --launcher 'mpiexec -n {}' --counts 1,2,4,8 kernel parzen --samples data.csv
                                                                ranks: the words of your launcher, {} for their number")]
pub(in crate::cli) struct BenchArgs {
    /// Write everything that was measured as one JSON object
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw it as SVG: times and speed-up of work, or the efficiency for each length of job
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// The time for each figure of the allocation, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3, value_parser = seconds)]
    pub each: f64,
    /// The numbers of threads or ranks that are tried; 1 is always among them [default: 1, 2, 3, 4, 6 … up to the CPUs]
    #[arg(long, value_name = "N,N…", value_delimiter = ',', value_parser = from_one::<NonZeroU32>)]
    pub counts: Vec<NonZeroU32>,
    /// How often the work is run with each number
    #[arg(long, value_name = "N", default_value = "3", value_parser = from_one::<NonZeroUsize>)]
    pub runs: NonZeroUsize,
    /// How often the work is run before the first measured time
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub warmup: usize,
    /// The words that start N ranks, with {} for their number: measure ranks, of one thread each, instead of threads
    #[arg(long, value_name = "WORDS")]
    pub launcher: Option<String>,
    /// `kernel`, `run` or `map`, and its options
    #[arg(value_name = "WORK", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<OsString>,
}

/// Reads a time of at least a millisecond and at most an hour.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (1e-3..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0.001 to 3600 is expected".into())
}
