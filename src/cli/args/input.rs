//! The options that say where records come from, the same for every command that has records.

use std::path::PathBuf;

use clap::{Args as ArgGroup, ValueEnum};

use crate::input::{Axis, Draw, Range};

const INPUTS: &str = "Inputs";

/// The group of all of them: an option that describes jobs without any input conflicts with it.
pub(super) const ANY_INPUT: &str = "any_input";

#[derive(Debug, Default, ArgGroup)]
#[group(id = ANY_INPUT, multiple = true)]
pub(in crate::cli) struct InputArgs {
    /// Read records from this file, and then from the next one if there are several; `-` is standard input
    #[arg(short, long, value_name = "FILE", help_heading = INPUTS)]
    pub input: Vec<PathBuf>,
    /// How records are written [default: the file's ending decides: .txt .list .lst are lines, .csv, .tsv, and .jsonl
    /// .ndjson .json]
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = INPUTS)]
    pub format: Option<FormatArg>,
    /// Lines end in a NUL byte, as those of `find -print0` do
    #[arg(long, help_heading = INPUTS)]
    pub null: bool,
    /// The first line names the columns; in CSV and TSV it does so anyway
    #[arg(long, help_heading = INPUTS)]
    pub header: bool,
    /// The first line is a record like the others: columns have numbers, from 1, and no names
    #[arg(long, conflicts_with = "header", help_heading = INPUTS)]
    pub no_header: bool,
    /// The records are these words, up to the next option or `--`
    #[arg(long, value_name = "WORD", num_args = 1.., allow_negative_numbers = true, help_heading = INPUTS)]
    pub args: Vec<String>,
    /// The records are these numbers, both ends included: 1:100, 0:1:0.1, 10:1:-1
    #[arg(long, value_name = "START:END[:STEP]", allow_hyphen_values = true, help_heading = INPUTS)]
    pub range: Option<Range>,
    /// The records are these values under this name; of several grids, every combination, the last one fastest
    #[arg(long, value_name = "NAME=V1,V2,…", help_heading = INPUTS)]
    pub grid: Vec<Axis>,
    /// A random number under this name in each record, drawn from --seed: evenly from 0.0:1.0, integers from 1:6, evenly
    /// in the logarithm from 1e-5:0.1:log. With grids, for each of their combinations
    #[arg(long, value_name = "NAME=LOW:HIGH[:log]", help_heading = INPUTS)]
    pub sample: Vec<Draw>,
    /// How many samples; with grids, of each combination
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub count: Option<u64>,
    /// Leave out the first N records. Every record keeps the number that it has without this
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub skip: Option<u64>,
    /// Stop behind N records
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub take: Option<u64>,
    /// Leave out records that cannot be read, and say at the end how many they were and why
    #[arg(long, help_heading = INPUTS)]
    pub skip_bad: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FormatArg {
    /// Each line is a record
    Lines,
    /// Comma-separated values
    Csv,
    /// Tab-separated values, without quoting
    Tsv,
    /// A JSON value on each line
    Jsonl,
}
