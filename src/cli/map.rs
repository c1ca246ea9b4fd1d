//! `rankpool map`: a process that stays, such as a Python function, asked for every record.

use std::num::NonZeroU32;
use std::path::Path;

use super::batch::{self, BatchConfig, Plan};
use super::config::Config;
use super::info;
use crate::batch::Stopping;
use crate::batch::workers::{Json, WorkerPlan, WorkerProgram, Workers};
use crate::exec::helper;
use crate::exec::process::resolve;
use crate::input::{InputError, Inputs, Record};
use crate::report;
use crate::run::{self, ExitCode};

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct MapTask {
    pub inputs: Inputs,
    pub plan: WorkerPlan,
    /// Fields stay text.
    pub text: bool,
    /// How many records the function takes at once.
    pub batch_size: Option<NonZeroU32>,
    pub batch: BatchConfig,
}

pub(super) fn run(config: &Config, task: &MapTask) -> ExitCode {
    if task.batch.dry_run {
        return if run::is_first() { show(task) } else { ExitCode::Success };
    }
    if let Err(error) = helper::start() {
        return run::refuse_as(&format!("cannot start the process that starts workers: {error}"), ExitCode::Failure);
    }
    let stopping = Stopping::default();
    let launch = config.launch().listener(&stopping).complaint(complaint(&task.plan));
    launch.cpus_per_job(task.batch.job_cpus.map_or(0, Into::into)).run_to_code(|pool| {
        info::announce(config, pool);
        if batch::has_complaints(pool) {
            return ExitCode::Usage;
        }
        let plan = Plan { name: "map", inputs: task.inputs.clone(), bind: bind(task.text) };
        // Batches are filled from chunks.
        let chunk = match config.map.chunk {
            0 => task.batch_size.map_or(0, NonZeroU32::get),
            chunk => chunk,
        };
        batch::run(config, &task.batch, plan, pool, &stopping, chunk, |feed| {
            pool.map_chunks(task.plan.clone(), Workers::new, feed, |workers: &Workers, jobs| workers.serve(jobs))
        })
        .unwrap_or_else(|error| {
            report::complain(error);
            ExitCode::Usage
        })
    })
}

/// Why there can be no workers on this host.
fn complaint(plan: &WorkerPlan) -> Option<String> {
    let cwd = plan.cwd.as_deref().map(Path::new);
    if let Some(folder) = cwd.filter(|folder| !folder.is_dir()) {
        return Some(format!("no such directory: {}, which --cwd names", folder.display()));
    }
    match &plan.program {
        WorkerProgram::Python(call) => {
            let interpreter = || if run::is_first_of_host() { call.check_interpreter(cwd).map(drop) } else { Ok(()) };
            call.check(cwd).and_then(|()| interpreter()).err()
        }
        WorkerProgram::Command(words) => resolve(words.first().map_or("", String::as_str), cwd).err(),
    }
}

/// What is asked for a record.
fn bind(text: bool) -> impl Fn(&Record) -> Result<Json, InputError> + Clone + Send + 'static {
    move |record| {
        let mut json = Vec::new();
        record.push_json(text, &mut json);
        Ok(Json::from(json))
    }
}

/// Says what the workers would be asked.
fn show(task: &MapTask) -> ExitCode {
    batch::show(&task.batch, &task.inputs, bind(task.text), |_, json| {
        let mut line = json.to_vec();
        line.push(b'\n');
        line
    })
}
