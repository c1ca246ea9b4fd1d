//! `rankpool map`: a process that stays, such as a Python function, asked for every record.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::batch::{self, BatchConfig, Plan};
use super::config::Config;
use crate::batch::doubts::{self, Token};
use crate::batch::workers::{Json, WorkerPlan, WorkerProgram, Workers};
use crate::input::{InputError, Inputs, Record};
use crate::launch::{self, ExitCode};
use crate::process::worker::prestarted;

/// How long the first worker may take to import and to set up what it needs before the run begins without knowing whether it can.
/// It is less than rank 0 waits for the others.
const PATIENCE: Duration = Duration::from_secs(60);

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
        return if launch::is_first() { show(config, task) } else { ExitCode::Success };
    }
    let launch = match batch::prepare(config, &task.batch) {
        Ok(launch) => launch,
        Err(code) => return code,
    };
    let checked = check(&task.plan);
    let expected = launch.expected_slots();
    if checked.is_ok() {
        let workers: u32 = expected.iter().map(|(_, slots)| slots.end - slots.start).sum();
        task.plan.prepare(workers);
    }
    let launch = launch.check(|| {
        checked?;
        look_at_workers(&task.plan, expected)
    });
    let launch = launch.on_threads(|rank, slots| task.plan.assign(rank, slots));
    let code = batch::launch(config, launch, |pool, stopping| {
        // Where nothing but the order says whose an answer is, the end of the workers has something to say, too.
        let is_unsure = matches!(task.plan.program, WorkerProgram::Command(_)) && !task.plan.ids;
        let workers = WorkerPlan { token: is_unsure.then(Token::new), ..task.plan.clone() };
        let plan = Plan { name: "map", inputs: task.inputs.clone(), bind: bind(task.text), token: workers.token };
        // Batches are filled from chunks.
        let chunk = match config.map.chunk {
            0 => task.batch_size.map_or(0, NonZeroU32::get),
            chunk => chunk,
        };
        batch::run(config, &task.batch, plan, pool, stopping, chunk, |pool, chunk| {
            pool.stream_of_chunks::<Workers>(&workers, chunk)
        })
    });
    prestarted::kill_all();
    doubts::tell_the_rest();
    code
}

/// What can be said of the workers before MPI is started.
fn check(plan: &WorkerPlan) -> Result<(), String> {
    batch::check_folder(plan.cwd.as_deref().map(Path::new))?;
    plan.check()
}

/// Whether there will be workers: the first process of each host finds it out before the first job, while all begin to import.
fn look_at_workers(plan: &WorkerPlan, expected: Vec<(u32, Range<u32>)>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let is_first = launch::is_first_of_host();
    if is_first {
        plan.try_out()?;
    }
    let (rank, slot) =
        expected.iter().find(|(_, slots)| !slots.is_empty()).map_or((0, 0), |(rank, slots)| (*rank, slots.start));
    for (rank, slots) in expected {
        plan.assign(rank, slots);
    }
    if is_first { plan.start_up(rank, slot, deadline) } else { Ok(()) }
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
fn show(config: &Config, task: &MapTask) -> ExitCode {
    batch::show(config, &task.batch, &task.inputs, bind(task.text), |_, json| {
        let mut line = json.to_vec();
        line.push(b'\n');
        line
    })
}
