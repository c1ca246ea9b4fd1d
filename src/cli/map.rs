//! `rankpool map`: a request to a process that stays, such as a Python function, for every record.

use super::config::{Config, MapTask};
use super::{batch, spec};
use crate::batch::runners::worker::Json;
use crate::batch::{Batch, Jobs};
use crate::launch::{self, ExitCode};

pub(super) fn run(config: &Config, task: &MapTask) -> ExitCode {
    let text = task.text;
    let jobs = Jobs::of_records(task.inputs.clone(), move |record| {
        let mut json = Vec::new();
        record.push_json(text, &mut json);
        Ok(Json::from(json))
    });
    let mut options = config.options();
    if options.journal.is_some() && launch::is_first() {
        options.spec.extend(spec::of_files(&config.job_files));
    }
    batch::run_processes(config, Batch { options, jobs, runner: task.runner.clone(), client: None })
}
