//! The built-in functions and their own options.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ArgGroup, Subcommand};

use super::super::parse::{Point, Widths, from_one, micros, seconds};
use super::batch::FailureArgs;
use super::input::{ANY_INPUT, InputArgs};
use crate::input::Source;
use crate::kernels::{Number, SLOW_FN_MALLOC_POINTS, SLOW_FN_POINTS, find};

/// Run a built-in function for every record
#[derive(Debug, ArgGroup)]
#[command(
    subcommand_help_heading = "Built-in functions",
    subcommand_value_name = "NAME",
    disable_help_subcommand = true,
    after_help = "\
Examples:
  rankpool kernel square
  rankpool kernel power --y 0.5 --input numbers.csv
  seq 1 100 | rankpool kernel cube --input -
  rankpool kernel sqrt --range 0:1:0.1              inputs from options: words, ranges, grids, samples
  rankpool kernel nop --help                        the options of one function

Results are JSON Lines. A job that failed has its error in place of its result:
  {\"error\":{\"job\":3,\"kind\":\"panic\",\"message\":\"sqrt of -1: …\"}}"
)]
pub(in crate::cli) struct RunKernelArgs {
    #[command(flatten)]
    pub failures: FailureArgs,
    /// The name of the function, as it was typed.
    #[arg(skip)]
    pub name: String,
    #[command(subcommand)]
    pub kernel: KernelArgs,
}

fn about(name: &str) -> &'static str {
    find(name).map_or("", |kernel| kernel.summary)
}

fn points(count: u64) -> NonZeroU64 {
    NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN)
}

const SINGLE_INPUT: &str = "\
A job is one number: a line, or a CSV column or JSON key named x (or the only one).
";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KernelArgs {
    #[command(about = about("square"), after_help = format!("{SINGLE_INPUT}
Examples:
  rankpool kernel square                            0, 1, 4, … 81
  seq 1 100 | rankpool kernel square --input -"))]
    Square(InputArgs),
    #[command(about = about("cube"), after_help = format!("{SINGLE_INPUT}
Examples:
  rankpool kernel cube                              1, 8, 27, … 216
  seq 1 100 | rankpool kernel cube --input -"))]
    Cube(InputArgs),
    #[command(about = about("sqrt"), after_help = format!("{SINGLE_INPUT}
Examples:
  rankpool kernel sqrt                              of 1, 2, … 4999
  rankpool kernel sqrt --input numbers.csv --output roots.jsonl"))]
    Sqrt(InputArgs),
    #[command(about = about("power"), after_help = "\
With --each-y a job is a pair: CSV columns x and y, or JSON [x, y] or {\"x\": …, \"y\": …}.

Examples:
  rankpool kernel power                             0, 1, 4, … 81
  rankpool kernel power --y -0.5 --input numbers.csv
  rankpool kernel power --each-y --input pairs.csv")]
    Power {
        #[command(flatten)]
        input: InputArgs,
        /// The exponent y: an integer, or a number with a point [default: 2]
        #[arg(long, visible_alias = "exponent", value_name = "Y", allow_negative_numbers = true)]
        y: Option<Number>,
        /// Take the exponent from each record
        #[arg(long)]
        each_y: bool,
    },
    #[command(about = about("sum"), after_help = "\
A job has the CSV columns or JSON keys param1 and param2.

Examples:
  rankpool kernel sum
  echo '{\"param1\": 1, \"param2\": 2}' | rankpool kernel sum --input -")]
    Sum(InputArgs),
    #[command(about = about("rand-string"), after_help = "\
Example:
  rankpool kernel rand-string --jobs 3 --length 8 --seed 7     [0,\"…\"], [1,\"…\"], [2,\"…\"]")]
    RandString {
        #[command(flatten)]
        input: InputArgs,
        /// The number of strings; --count means the same
        #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = ANY_INPUT)]
        jobs: u64,
        /// The number of characters in each string
        #[arg(long, value_name = "N", default_value_t = 5)]
        length: usize,
    },
    #[command(about = about("sleep-square"), after_help = format!("{SINGLE_INPUT}
Example, ten jobs of a second on five threads, which takes two seconds:
  rankpool kernel sleep-square --threads 5"))]
    SleepSquare {
        #[command(flatten)]
        input: InputArgs,
        /// The time that each job sleeps
        #[arg(long, value_name = "S", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
        seconds: Duration,
    },
    #[command(about = about("slow-fn"), after_help = VECTORS)]
    SlowFn {
        #[command(flatten)]
        input: InputArgs,
        /// The number of vectors of five numbers from 0 to 1, drawn from --seed
        #[arg(long, value_name = "N", default_value_t = 512, conflicts_with = ANY_INPUT)]
        jobs: u64,
        /// The number of grid points in each job
        #[arg(long, value_name = "N", default_value_t = points(SLOW_FN_POINTS), value_parser = from_one::<NonZeroU64>)]
        n: NonZeroU64,
    },
    #[command(about = about("slow-fn-malloc"), after_help = VECTORS)]
    SlowFnMalloc {
        #[command(flatten)]
        input: InputArgs,
        /// The number of vectors of five numbers from 0 to 1, drawn from --seed
        #[arg(long, value_name = "N", default_value_t = 4096, conflicts_with = ANY_INPUT)]
        jobs: u64,
        /// The number of grid points in each job
        #[arg(long, value_name = "N", default_value_t = points(SLOW_FN_MALLOC_POINTS), value_parser = from_one::<NonZeroU64>)]
        n: NonZeroU64,
    },
    #[command(about = about("parzen"), after_help = "\
A job is a width h; the samples are sent once to each rank. The answer is
{\"h\": …, \"count\": k, \"density\": k/(N·h^D)} for N samples in D dimensions.

Examples:
  rankpool kernel parzen --samples data.csv --point 0,0 --widths 0.1:1.2:12
  rankpool kernel parzen --samples data.csv --input widths.csv")]
    Parzen(ParzenArgs),
    #[command(about = about("nop"), after_help = "\
Example, to measure the cost of ten million jobs:
  rankpool kernel nop --jobs 10000000 --output /dev/null")]
    Nop {
        #[command(flatten)]
        input: InputArgs,
        #[command(flatten)]
        jobs: IndexArgs,
    },
    #[command(about = about("spin"), after_help = "\
Example, to measure how busy jobs of 100 µs keep all cores:
  rankpool kernel spin --jobs 100000 --micros 100 --output /dev/null")]
    Spin {
        #[command(flatten)]
        input: InputArgs,
        #[command(flatten)]
        jobs: IndexArgs,
        /// The time that each job computes
        #[arg(long, value_name = "µS", default_value = "100", value_parser = micros, allow_negative_numbers = true)]
        micros: Duration,
    },
    #[command(about = about("sleep"), after_help = "\
Example:
  rankpool kernel sleep --jobs 20 --seconds 0.5")]
    Sleep {
        #[command(flatten)]
        input: InputArgs,
        /// The number of jobs
        #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = ANY_INPUT)]
        jobs: u64,
        /// The time that each job sleeps
        #[arg(long, value_name = "S", default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
        seconds: Duration,
    },
}

const VECTORS: &str = "\
A job is a vector of any length: CSV columns p1, p2, … or a JSON array.

Examples:
  mpiexec -n 4 rankpool kernel slow-fn
  rankpool kernel slow-fn-malloc --jobs 100 --seed 7
  rankpool kernel slow-fn --input vectors.csv --n 1000";

#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct ParzenArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// The file of samples: CSV, a row for each sample, with or without a header
    #[arg(long, value_name = "FILE")]
    pub samples: PathBuf,
    /// The point at which to estimate, with commas between its coordinates [default: the origin]
    #[arg(long, value_name = "X,Y,…", allow_hyphen_values = true)]
    pub point: Option<Point>,
    /// The widths of the windows, evenly spaced, both ends included
    #[arg(long, value_name = "START:END:COUNT", default_value = "1.0:1.2:100", conflicts_with = ANY_INPUT)]
    pub widths: Widths,
}

impl ParzenArgs {
    /// Returns the source of the samples.
    pub(in crate::cli) fn source(&self) -> Source {
        Source::new(self.samples.clone())
    }
}

#[derive(Debug, ArgGroup)]
pub(in crate::cli) struct IndexArgs {
    /// The number of jobs
    #[arg(long, value_name = "N", default_value_t = 1000, conflicts_with = ANY_INPUT)]
    pub jobs: u64,
}

impl KernelArgs {
    /// Takes the options about records, and leaves none.
    pub(in crate::cli) fn take_input(&mut self) -> InputArgs {
        std::mem::take(match self {
            KernelArgs::Square(input) | KernelArgs::Cube(input) | KernelArgs::Sqrt(input) | KernelArgs::Sum(input) => {
                input
            }
            KernelArgs::Power { input, .. }
            | KernelArgs::RandString { input, .. }
            | KernelArgs::SleepSquare { input, .. }
            | KernelArgs::SlowFn { input, .. }
            | KernelArgs::SlowFnMalloc { input, .. }
            | KernelArgs::Nop { input, .. }
            | KernelArgs::Spin { input, .. }
            | KernelArgs::Sleep { input, .. } => input,
            KernelArgs::Parzen(args) => &mut args.input,
        })
    }
}
