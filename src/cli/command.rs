//! `rankpool run -- COMMAND`: a process for every record.

use super::batch;
use super::config::{Config, RunTask};
use crate::batch::runners::command::bind;
use crate::batch::{Batch, Jobs};
use crate::launch::ExitCode;

pub(super) fn run(config: &Config, task: &RunTask) -> ExitCode {
    let template = task.runner.commands.template.clone();
    let jobs = Jobs::of_records(task.inputs.clone(), move |record| bind(&template, record));
    batch::run_processes(config, Batch { options: config.options(), jobs, runner: task.runner.clone(), client: None })
}
