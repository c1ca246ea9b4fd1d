//! The options about the source of records, the same for every command that has records.

use std::path::PathBuf;

use clap::{Args as ArgGroup, ValueEnum};

use crate::input::{Axis, Draw, Range};

const INPUTS: &str = "Inputs";

/// The group of all these options. An option that describes jobs without records conflicts with it.
pub(super) const ANY_INPUT: &str = "any_input";

#[derive(Debug, Default, ArgGroup)]
#[group(id = ANY_INPUT, multiple = true)]
pub(in crate::cli) struct InputArgs {
    /// Read records from this file; `-` is standard input. Repeat it for more files
    #[arg(short, long, value_name = "FILE", help_heading = INPUTS)]
    pub input: Vec<PathBuf>,
    /// The format of the records [default: by the file's ending: .txt .list .lst are lines, .csv, .tsv, and .jsonl .ndjson
    /// .json]
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = INPUTS)]
    pub format: Option<FormatArg>,
    /// Lines end in a NUL byte, as those of `find -print0` do
    #[arg(long, help_heading = INPUTS)]
    pub null: bool,
    /// The first line names the columns, which is the default for CSV and TSV
    #[arg(long, help_heading = INPUTS)]
    pub header: bool,
    /// The first line is a record like the others: columns have numbers, from 1, and no names
    #[arg(long, conflicts_with = "header", help_heading = INPUTS)]
    pub no_header: bool,
    /// Make a record of each of these words, up to the next option or `--`
    #[arg(long, value_name = "WORD", num_args = 1.., allow_negative_numbers = true, help_heading = INPUTS)]
    pub args: Vec<String>,
    /// Make a record of each of these numbers, both ends included: 1:100, 0:1:0.1, 10:1:-1
    #[arg(long, value_name = "START:END[:STEP]", allow_hyphen_values = true, help_heading = INPUTS)]
    pub range: Option<Range>,
    /// Make a record of each of these values, named NAME; of several grids, of each combination, the last one fastest
    #[arg(long, value_name = "NAME=V1,V2,…", help_heading = INPUTS)]
    pub grid: Vec<Axis>,
    /// Add a random number named NAME to each record, drawn from --seed: uniform in 0.0:1.0, integers in 1:6, uniform in the
    /// logarithm in 1e-5:0.1:log. With grids, for each of their combinations
    #[arg(long, value_name = "NAME=LOW:HIGH[:log]", help_heading = INPUTS)]
    pub sample: Vec<Draw>,
    /// The number of samples; with grids, of each combination
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub count: Option<u64>,
    /// Leave out the first N records. The other records keep their numbers
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub skip: Option<u64>,
    /// Use only N records
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    pub take: Option<u64>,
    /// Leave out records that cannot be read, and report them at the end
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
