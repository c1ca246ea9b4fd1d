//! `rankpool kernel NAME`: the context and the default jobs of each built-in function.

use std::error::Error;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::args::{IndexArgs, KernelArgs, ParzenArgs};
use super::batch;
use super::config::{Config, KernelTask};
use super::time_limit::Asked;
use crate::batch::runners::kernel::KernelRunner;
use crate::batch::{Batch, Jobs};
use crate::engine::func::Value;
use crate::input::{InputError, Record};
use crate::kernels::convert::{float, index, integer, number, pair, summands, vector, width};
use crate::kernels::{
    self, Number, Parzen, RandString, Summands, cube, nop, parzen, power, power_of_pair, rand_string, sleep,
    sleep_square, slow_fn, slow_fn_malloc, spin, sqrt, square, sum,
};
use crate::launch::{self, ExitCode};
use crate::pool::Pool;

pub(super) fn run(config: &Config, task: &KernelTask) -> ExitCode {
    if config.dry_run {
        let show = || Run { config, task, pool: None }.run();
        return if launch::is_first() { batch::to_code(show()) } else { ExitCode::Success };
    }
    let asked = Asked::now(config);
    batch::launch(config, config.launch(), |pool| Run { config, task, pool: Some((pool, &asked)) }.run())
}

/// A run of a built-in function. Without a pool the jobs are only shown.
struct Run<'r> {
    config: &'r Config,
    task: &'r KernelTask,
    pool: Option<(&'r Pool, &'r Asked)>,
}

impl Run<'_> {
    /// # Errors
    /// If an option or a file is bad and so no job was started.
    fn run(&self) -> Result<ExitCode, Box<dyn Error>> {
        let (seed, timeout) = (self.task.seed, self.task.timeout);
        match &self.task.function {
            KernelArgs::Square(_) => self.drive(KernelRunner::plain(square, timeout), integer, || 0..10, 10),
            KernelArgs::Cube(_) => self.drive(KernelRunner::plain(cube, timeout), integer, || 1..7, 6),
            KernelArgs::Sqrt(_) => {
                self.drive(KernelRunner::plain(sqrt, timeout), float, || (1..5000).map(f64::from), 4999)
            }
            &KernelArgs::Power { y, each_y, .. } => {
                let y = y.unwrap_or(Number::Int(2));
                if each_y {
                    self.drive(
                        KernelRunner::plain(power_of_pair, timeout),
                        pair,
                        move || (0..10).map(move |x| (Number::Int(x), y)),
                        10,
                    )
                } else {
                    self.drive(KernelRunner::with_context(y, power, timeout), number, || (0..10).map(Number::Int), 10)
                }
            }
            KernelArgs::Sum(_) => self.drive(
                KernelRunner::plain(sum, timeout),
                summands,
                || SUMMANDS.into_iter().map(with_fifteen),
                SUMMANDS.len() as u64,
            ),
            &KernelArgs::RandString { jobs, length, .. } => self.drive(
                KernelRunner::with_context(RandString { seed, length }, rand_string, timeout),
                index,
                move || 0..jobs,
                jobs,
            ),
            &KernelArgs::SleepSquare { seconds, .. } => {
                self.drive(KernelRunner::with_context(seconds, sleep_square, timeout), integer, || 0..10, 10)
            }
            &KernelArgs::SlowFn { jobs, n, .. } => self.drive(
                KernelRunner::with_context(n.get(), slow_fn, timeout),
                vector,
                move || random_vectors(seed, jobs),
                jobs,
            ),
            &KernelArgs::SlowFnMalloc { jobs, n, .. } => self.drive(
                KernelRunner::with_context(n.get(), slow_fn_malloc, timeout),
                vector,
                move || random_vectors(seed, jobs),
                jobs,
            ),
            KernelArgs::Parzen(args) => {
                let (context, widths) = (parzen_context(args)?, args.widths);
                self.drive(
                    KernelRunner::with_context(context, parzen, timeout),
                    width,
                    move || widths.iter(),
                    widths.count,
                )
            }
            &KernelArgs::Nop { jobs: IndexArgs { jobs }, .. } => {
                self.drive(KernelRunner::plain(nop, timeout), index, move || 0..jobs, jobs)
            }
            &KernelArgs::Spin { jobs: IndexArgs { jobs }, micros, .. } => {
                self.drive(KernelRunner::with_context(micros, spin, timeout), index, move || 0..jobs, jobs)
            }
            &KernelArgs::Sleep { jobs, seconds, .. } => {
                self.drive(KernelRunner::with_context(seconds, sleep, timeout), index, move || 0..jobs, jobs)
            }
        }
    }

    /// Runs a function for each record, read by `parse`, or for the `total` inputs that `default` makes.
    fn drive<C, T, I>(
        &self,
        runner: KernelRunner<C, T>,
        parse: fn(&Record) -> Result<T, InputError>,
        default: impl Fn() -> I + Send + Sync + 'static,
        total: u64,
    ) -> Result<ExitCode, Box<dyn Error>>
    where
        C: Value + Send + Sync,
        T: Value + Clone + Send,
        I: Iterator<Item = T> + Send + 'static,
    {
        let jobs = match &self.task.input {
            Some(inputs) => Jobs::of_records(inputs.clone(), parse),
            None => Jobs::made(default, total),
        };
        let batch = Batch { options: self.config.options(), jobs, runner, client: None };
        match self.pool {
            Some((pool, asked)) => batch::drive(self.config, &batch, pool, asked),
            None => batch::show(&batch),
        }
    }
}

/// Returns `count` vectors of five numbers, uniform from 0 to 1, that depend on the seed alone.
fn random_vectors(seed: u64, count: u64) -> impl Iterator<Item = Vec<f64>> + use<> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(move |_| (0..5).map(|_| generator.random()).collect())
}

/// The default jobs of `sum`.
const SUMMANDS: [i64; 9] = [10, 22, 35, 4, 532, 12, 42, 53, 23];

fn with_fifteen(param1: i64) -> Summands {
    Summands { param1: param1.into(), param2: Number::Int(15) }
}

/// Reads the samples, and takes the point or the origin.
fn parzen_context(args: &ParzenArgs) -> Result<Parzen, Box<dyn Error>> {
    let samples = args.source();
    let table = samples.table()?;
    let point = args.point.as_ref().map_or_else(|| vec![0.0; table.columns], |point| point.0.clone());
    let in_file = |error: kernels::parzen::ParzenError| format!("{}: {error}", samples.name());
    Ok(Parzen::new(table.columns, table.values, point).map_err(in_file)?)
}
