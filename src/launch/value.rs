//! Runs whose driver returns a value, and programs that go on behind them on rank 0 only.

use std::error::Error;
use std::sync::OnceLock;

use super::{ExitCode, Launch, is_first, refuse};
use crate::pool::Pool;

/// The rank of this process, as MPI says it.
pub(super) static RANK: OnceLock<u32> = OnceLock::new();

/// Whether this process is the one that calls the driver: rank 0, or the only one.
///
/// All ranks execute `main`. What stands before [`launch`](crate::launch()) or behind it runs on each of them, unless this is asked:
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
/// Before MPI has started, in `launch`, this is what the environment says that the launcher sets (`mpiexec` of Open MPI and
/// MPICH, `srun`); where it says nothing, the answer is true. Local ranks are threads of one process, for which the answer is
/// true. In jobs, ask [`current_job`](crate::current_job).
pub fn is_driver() -> bool {
    RANK.get().map_or_else(is_first, |&rank| rank == 0)
}

/// [`launch`](crate::launch()) for a driver that returns a value: rank 0 gets it and goes on, the other ranks never return.
///
/// What stands behind it runs once, when all ranks have ended. A rank other than 0 ends its process where it would return. So
/// does rank 0 if the driver returns an error or the run fails: that is said, and the exit code is that of `launch`. Values of
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
    /// [`run`](Self::run) for a driver that returns a value, see [`launch_value`].
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
