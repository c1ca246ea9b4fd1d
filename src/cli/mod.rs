//! The batch program's command line.
//!
//! `args` parses the command line, `config` resolves and checks it without a look at any file, and then there is one file for each
//! subcommand. Every rank runs the first two; only rank 0 reports errors, opens files and prints results.
//!
//! | file | |
//! |---|---|
//! | `args` | the definition of the command line, with the texts of `--help` |
//! | `parse` | values of options |
//! | `inputs` | the options about records, resolved |
//! | `config` | everything that a run was asked to do |
//! | `spec` | what all jobs of a run have in common, for the journal |
//! | `command`, `map`, `kernel` | the jobs and the runner of `run`, `map` and `kernel` |
//! | `python` | a Python script beside rank 0, or one that was started by itself |
//! | `batch` | launches the ranks and runs a batch |
//! | `files`, `job_files` | refuse to overwrite a file that the run reads, or to write two outputs to one file |
//! | `time_limit` | finds out when a run has to end |
//! | `bench` | measures the allocation, or work with more and more threads or ranks |
//! | `report` | what a journal or a job log says about a run |
//! | `info`, `top`, `journal`, `completions` | the other subcommands |

mod args;
mod batch;
mod bench;
mod command;
mod completions;
mod config;
mod files;
mod info;
mod inputs;
mod job_files;
mod journal;
mod kernel;
mod map;
mod parse;
mod python;
mod report;
mod spec;
mod stdout;
mod time_limit;
mod top;

use std::ffi::OsStr;
use std::process::{ExitCode as ProcessExitCode, Termination};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::console;
use crate::engine::environment;
use crate::kernels;
use crate::launch::{self, ExitCode};
use crate::process::python::script;
use crate::process::spawn;

use config::{Config, Task};

/// Runs the command line of this process.
pub fn run() -> ProcessExitCode {
    match spawn::serve_if_helper() {
        None => {}
        Some(Ok(())) => return ExitCode::Success.report(),
        Some(Err(message)) => {
            console::eprint_error(message);
            return ExitCode::Failure.report();
        }
    }
    if let Some(message) = script::become_script() {
        console::eprint_error(message);
        return ProcessExitCode::from(script::NOT_STARTED);
    }
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return explain(&error).report(),
    };
    let config = match Config::new(args, environment::environment) {
        Ok(config) => config,
        Err(message) => return launch::refuse(&message).report(),
    };
    let code = match &config.task {
        Task::Python(task) => python::run(&config, task),
        Task::Serve(task) => python::serve(&config, task),
        task => run_task(&config, task).report(),
    };
    spawn::end();
    code
}

/// Runs a task that has an exit code of its own.
fn run_task(config: &Config, task: &Task) -> ExitCode {
    match task {
        Task::Run(task) => command::run(config, task),
        Task::Map(task) => map::run(config, task),
        Task::Kernel(kernel) => kernel::run(config, kernel),
        Task::Bench(task) => bench::run(config, task),
        Task::Info { json } => info::run(config, *json),
        Task::Top(file) => top::run(file),
        Task::Journal(task) => journal::run(task),
        Task::Report(args) => report::run(config, args),
        Task::Completions(shell) => completions::write_completions(*shell),
        Task::Man(words) => completions::write_manual(words),
        Task::Python(_) | Task::Serve(_) => ExitCode::Failure,
    }
}

/// Prints an error of clap, or the help that was asked for, on rank 0 only.
fn explain(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
    if !launch::is_first() {
        return ExitCode::Success;
    }
    match unknown_kernel(error) {
        Some(message) => console::eprint_error(&message),
        // The message repeats words of the command line. Their escape sequences must not reach the terminal; colours are left out, too.
        None if error.use_stderr() && std::env::args_os().any(|word| has_control_characters(&word)) => {
            console::eprint(&error.render().to_string());
        }
        // A reader that has gone away is not an error.
        None => drop(error.print()),
    }
    code
}

/// Whether a word contains control characters.
fn has_control_characters(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    *console::escaped(&word) != *word
}

/// Returns the message about a name that no built-in function has, if that is the error.
fn unknown_kernel(error: &clap::Error) -> Option<String> {
    let is_kernel = matches!(error.get(ContextKind::Usage), Some(ContextValue::StyledStr(usage))
        if usage.to_string().contains("rankpool kernel"));
    if error.kind() != ErrorKind::InvalidSubcommand || !is_kernel {
        return None;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let near = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            // The most similar ones come last.
            let nearest: Vec<_> = near.iter().rev().take(2).map(String::as_str).collect();
            format!(" Did you mean {}?", nearest.join(" or "))
        }
        Some(ContextValue::String(near)) => format!(" Did you mean {near}?"),
        _ => String::new(),
    };
    let mut message = format!("there is no built-in function '{name}'.{near}\n\nThere are:\n");
    for kernel in kernels::ALL {
        message += &format!("  {:<14}  {}\n", kernel.name, kernel.summary);
    }
    Some(message + "\n`rankpool kernel NAME --help` describes each of them.")
}
