//! `rankpool kernel NAME`: for each built-in function its jobs and the map that library users would write.

use std::error::Error;

use super::config::{Config, Function, KernelTask};
use super::jobs::{Jobs, random_vectors};
use super::session::Session;
use super::{files, info};
use crate::batch::{NoThread, Stopping};
use crate::console;
use crate::input::{InputError, Record, Source};
use crate::kernels::convert::{float, index, integer, number, pair, summands, vector, width};
use crate::kernels::{
    self, Number, Parzen, RandString, Summands, cube, nop, parzen, power, power_of_pair, rand_string, sleep,
    sleep_square, slow_fn, slow_fn_malloc, spin, sqrt, square, sum,
};
use crate::launch::ExitCode;
use crate::pool::Pool;

/// What can be done about a bad record.
const SKIP_BAD: &str = "--skip-bad leaves bad records out";

pub(super) fn run(config: &Config, task: &KernelTask) -> ExitCode {
    let stopping = Stopping::default();
    config.launch().listener(&stopping).run_to_code(|pool| {
        info::announce(config, pool);
        run_map(config, task, pool, &stopping).unwrap_or_else(|error| {
            let code = if error.is::<NoThread>() { ExitCode::Failure } else { ExitCode::Usage };
            match error.downcast_ref::<InputError>() {
                Some(bad) if bad.is_bad_record() => console::eprint_error(format_args!("{bad} ({SKIP_BAD})")),
                _ => console::eprint_error(error),
            }
            code
        })
    })
}

/// # Errors
/// What is wrong with a file, if no job was started for that reason.
fn run_map<'p>(
    config: &'p Config,
    task: &KernelTask,
    pool: &'p Pool,
    stopping: &'p Stopping,
) -> Result<ExitCode, Box<dyn Error>> {
    files::refuse_conflicts(config)?;
    let session = Session::open(task.name, config, pool, stopping)?;
    Ok(match &task.function {
        Function::Square => {
            let jobs = task.jobs(integer, 0..10, 10)?;
            session.run(jobs, |pool, jobs| pool.map(square, jobs))
        }
        Function::Cube => {
            let jobs = task.jobs(integer, 1..7, 6)?;
            session.run(jobs, |pool, jobs| pool.map(cube, jobs))
        }
        Function::Sqrt => {
            let jobs = task.jobs(float, (1..5000).map(f64::from), 4999)?;
            session.run(jobs, |pool, jobs| pool.map(sqrt, jobs))
        }
        &Function::Power { y } => {
            let jobs = task.jobs(number, (0..10).map(Number::Int), 10)?;
            session.run(jobs, |pool, jobs| pool.map_with(y, jobs, power))
        }
        &Function::PowerOfPair { y } => {
            let jobs = task.jobs(pair, (0..10).map(move |x| (Number::Int(x), y)), 10)?;
            session.run(jobs, |pool, jobs| pool.map(power_of_pair, jobs))
        }
        Function::Sum => {
            let jobs = task.jobs(summands, SUMMANDS.into_iter().map(with_fifteen), SUMMANDS.len() as u64)?;
            session.run(jobs, |pool, jobs| pool.map(sum, jobs))
        }
        &Function::RandString { jobs, length } => {
            let jobs = task.indices(jobs)?;
            let context = RandString { seed: task.seed, length };
            session.run(jobs, |pool, jobs| pool.map_with(context, jobs, rand_string))
        }
        &Function::SleepSquare { duration } => {
            let jobs = task.jobs(integer, 0..10, 10)?;
            session.run(jobs, |pool, jobs| pool.map_with(duration, jobs, sleep_square))
        }
        &Function::SlowFn { jobs, n } => {
            let jobs = task.vectors(jobs)?;
            session.run(jobs, |pool, jobs| pool.map_with(n.get(), jobs, slow_fn))
        }
        &Function::SlowFnMalloc { jobs, n } => {
            let jobs = task.vectors(jobs)?;
            session.run(jobs, |pool, jobs| pool.map_with(n.get(), jobs, slow_fn_malloc))
        }
        Function::Parzen { samples, point, widths } => {
            let context = parzen_context(samples, point.as_deref())?;
            let jobs = task.jobs(width, widths.iter(), widths.count)?;
            session.run(jobs, |pool, jobs| pool.map_with(context, jobs, parzen))
        }
        &Function::Nop { jobs } => {
            let jobs = task.indices(jobs)?;
            session.run(jobs, |pool, jobs| pool.map(nop, jobs))
        }
        &Function::Spin { jobs, duration } => {
            let jobs = task.indices(jobs)?;
            session.run(jobs, |pool, jobs| pool.map_with(duration, jobs, spin))
        }
        &Function::Sleep { jobs, duration } => {
            let jobs = task.indices(jobs)?;
            session.run(jobs, |pool, jobs| pool.map_with(duration, jobs, sleep))
        }
    })
}

impl KernelTask {
    /// The jobs that the input options describe, or the default ones, so many.
    fn jobs<T: Send + 'static>(
        &self,
        parse: fn(&Record) -> Result<T, InputError>,
        default: impl Iterator<Item = T> + Send + 'static,
        total: u64,
    ) -> Result<Jobs<T>, Box<dyn Error>> {
        match &self.input {
            Some(inputs) => Jobs::read(inputs, parse),
            None => Ok(Jobs::made(default, total)),
        }
    }

    fn indices(&self, jobs: u64) -> Result<Jobs<u64>, Box<dyn Error>> {
        self.jobs(index, 0..jobs, jobs)
    }

    fn vectors(&self, jobs: u64) -> Result<Jobs<Vec<f64>>, Box<dyn Error>> {
        let vectors = random_vectors(self.seed).take(usize::try_from(jobs).unwrap_or(usize::MAX));
        self.jobs(vector, vectors, jobs)
    }
}

/// The default jobs of `sum`.
const SUMMANDS: [i64; 9] = [10, 22, 35, 4, 532, 12, 42, 53, 23];

fn with_fifteen(param1: i64) -> Summands {
    Summands { param1: param1.into(), param2: Number::Int(15) }
}

/// The samples, and the point or the origin.
fn parzen_context(samples: &Source, point: Option<&[f64]>) -> Result<Parzen, Box<dyn Error>> {
    let table = samples.table()?;
    let point = point.map_or_else(|| vec![0.0; table.columns], <[f64]>::to_vec);
    let in_file = |error: kernels::parzen::ParzenError| format!("{}: {error}", samples.name());
    Ok(Parzen::new(table.columns, table.values, point).map_err(in_file)?)
}
