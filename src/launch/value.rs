//! Runs whose driver returns a value, for programs that go on after the run, on rank 0 only.

use std::error::Error;
use std::sync::OnceLock;

use super::{ExitCode, Launch, is_first, refuse};
use crate::pool::Pool;

/// The rank of this process in MPI, once MPI is started.
pub(super) static RANK: OnceLock<u32> = OnceLock::new();

/// Returns whether this process is the one that calls the driver: rank 0, or the only one.
///
/// All ranks execute `main`, so code before [`launch`](crate::launch()) and after it runs on each of them. With this function it
/// runs once:
///
/// ```no_run
/// fn main() -> rankpool::ExitCode {
///     if rankpool::is_driver() {
///         println!("once, however many ranks there are");
///     }
///     rankpool::launch(|pool| Ok(()))
/// }
/// ```
///
/// Before `launch` has started MPI, the answer comes from the environment variables that the launcher sets (`mpiexec` of Open MPI
/// and MPICH, `srun`); without them it is true. Local ranks are threads of one process, for which the answer is
/// true. In jobs, use [`current_job`](crate::current_job).
pub fn is_driver() -> bool {
    RANK.get().map_or_else(is_first, |&rank| rank == 0)
}

/// As [`launch`](crate::launch()), for a driver that returns a value: rank 0 gets it and goes on, the other ranks never return.
///
/// Code after it runs once, when all ranks have ended. A rank other than 0 ends its process instead of returning. So
/// does rank 0 if the driver returns an error or the run fails: the error is printed, and the exit code is that of `launch`. Values of
/// `main` that are alive then are not dropped.
///
/// ```no_run
/// let squares: Vec<u64> = rankpool::launch_value(|pool| {
///     Ok(pool.map(|x: u64| x * x, 0..10).collect::<Result<_, _>>()?)
/// });
/// println!("{squares:?}");
/// ```
pub fn launch_value<T: Send>(driver: impl FnOnce(&Pool) -> Result<T, Box<dyn Error + Send + Sync>> + Send) -> T {
    match Launch::from_env() {
        Ok(launch) => launch.run_value(driver),
        Err(message) => end(refuse(&message)),
    }
}

fn end(code: ExitCode) -> ! {
    std::process::exit(i32::from(code as u8))
}

impl Launch<'_> {
    /// As [`run`](Self::run), for a driver that returns a value, see [`launch_value`].
    ///
    /// ```
    /// let sum: u64 = rankpool::Launch::new().local(2).threads(1).run_value(|pool| {
    ///     Ok(pool.map(|x: u64| x * x, 0..4).sum::<Result<_, _>>()?)
    /// });
    /// assert_eq!(sum, 14);
    /// ```
    pub fn run_value<T: Send>(self, driver: impl FnOnce(&Pool) -> Result<T, Box<dyn Error + Send + Sync>> + Send) -> T {
        let mut value = None;
        let code = self.run(|pool| {
            value = Some(driver(pool)?);
            Ok(())
        });
        match value {
            Some(value) if code == ExitCode::Success => value,
            _ => end(code),
        }
    }
}
