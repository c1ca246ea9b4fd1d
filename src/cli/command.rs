//! `rankpool run -- COMMAND`: a process for every record.

use std::borrow::Cow;
use std::path::Path;

use super::batch::{self, BatchConfig, Plan};
use super::config::Config;
use crate::batch::command::{self, Commands};
use crate::input::{InputError, Inputs, Record};
use crate::launch::{self, ExitCode};
use crate::process::program::resolve;
use crate::template::{Fields, JobNumbers, Template, Values};

/// What is run for which records.
#[derive(Debug)]
pub(super) struct RunTask {
    pub inputs: Inputs,
    pub template: Template,
    /// The folder that the jobs run in, if it is the same for all records.
    pub cwd: Option<String>,
    /// Every record has its own.
    pub has_own_folders: bool,
    pub batch: BatchConfig,
}

pub(super) fn run(config: &Config, task: &RunTask) -> ExitCode {
    if task.batch.dry_run {
        return if launch::is_first() { show(config, task) } else { ExitCode::Success };
    }
    let launch = match batch::prepare(config, &task.batch) {
        Ok(launch) => launch.check(|| check(task)),
        Err(code) => return code,
    };
    batch::launch(config, launch, |pool, stopping| {
        let commands = Commands {
            template: task.template.clone(),
            job_cpus: task.batch.job_cpus.map(Into::into),
            timeout: task.batch.timeout,
            kill_after: task.batch.limits.kill_after,
        };
        let template = task.template.clone();
        let plan = Plan {
            name: "run",
            inputs: task.inputs.clone(),
            bind: move |record: &Record| bind(&template, record),
            token: None,
        };
        batch::run(config, &task.batch, plan, pool, stopping, config.map.chunk, |pool, chunk| {
            pool.stream_with(&commands, command::run, chunk)
        })
    })
}

/// Whether jobs can be started on this host.
fn check(task: &RunTask) -> Result<(), String> {
    let folder = task.cwd.as_deref().map(Path::new);
    batch::check_folder(folder)?;
    // What is below a folder of its own is found, or not, when its turn comes.
    let is_below = |program: &&str| program.contains('/') && !program.starts_with('/');
    let program = task.template.program().filter(|program| !(task.has_own_folders && is_below(program)));
    program.map_or(Ok(()), |program| resolve(program, folder).map(drop))
}

/// The values of a record that the command uses.
fn bind(template: &Template, record: &Record) -> Result<Values, InputError> {
    let refused = |error| InputError::Refused { place: record.place().clone(), message: format!("{error}") };
    template.bind(record).map_err(refused)
}

/// Says what would be run.
fn show(config: &Config, task: &RunTask) -> ExitCode {
    let template = task.template.clone();
    let bind = move |record: &Record| bind(&template, record);
    batch::show(config, &task.batch, &task.inputs, bind, |number, values| {
        let mut line = task.template.fill(values, &JobNumbers { number, slot: 1 }).shown();
        line.push('\n');
        line.into_bytes()
    })
}

impl Fields for Record {
    fn text(&self) -> Cow<'_, str> {
        self.text()
    }

    fn named(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|cell| cell.to_text())
    }

    fn at(&self, position: usize) -> Option<Cow<'_, str>> {
        self.position(position).map(|cell| cell.to_text())
    }

    fn names(&self) -> Vec<String> {
        self.names().map(str::to_string).collect()
    }
}
