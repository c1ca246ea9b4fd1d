//! The options of `rankpool report`.

use std::path::PathBuf;

use clap::Args as ArgGroup;

/// Show what a run did: a page with charts, or text
///
/// It reads a journal (--journal) or a job log (--records), also of a run that still goes on or was killed. The page is one HTML file
/// that needs no network and no other file.
#[derive(Debug, Clone, ArgGroup)]
#[command(after_help = "\
Examples:
  rankpool report run.journal -o report.html      a page to open in a browser, or to send to a colleague
  rankpool report run.journal                     the same facts as text, for a terminal
  rankpool report jobs.jsonl --csv -o jobs.csv    a row for each job
  rankpool report run.journal --json | jq 'select(.seconds > 60)'

A journal has the command, the ranks and the end of the run; a job log has times for every job, also of built-in functions. What the
file does not say is named in the report. docs/report.md explains how to read it.")]
pub(in crate::cli) struct ReportArgs {
    /// The journal or the job log
    #[arg(value_name = "JOURNAL_OR_RECORDS")]
    pub file: PathBuf,
    #[command(flatten)]
    pub form: FormArgs,
}

#[derive(Debug, Clone, Copy, ArgGroup)]
#[group(multiple = false)]
pub(in crate::cli) struct FormArgs {
    /// Write a page [default with --output]
    #[arg(long)]
    pub html: bool,
    /// Write text [default without --output]
    #[arg(long)]
    pub text: bool,
    /// Write a table with a row for each job
    #[arg(long)]
    pub csv: bool,
    /// Write a line of JSON for each job
    #[arg(long)]
    pub json: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Form {
    Html,
    Text,
    Csv,
    Json,
}

impl FormArgs {
    /// Returns what is written; `to_file`: not to standard output.
    pub(in crate::cli) fn form(self, to_file: bool) -> Form {
        match self {
            FormArgs { html: true, .. } => Form::Html,
            FormArgs { text: true, .. } => Form::Text,
            FormArgs { csv: true, .. } => Form::Csv,
            FormArgs { json: true, .. } => Form::Json,
            _ if to_file => Form::Html,
            _ => Form::Text,
        }
    }
}
