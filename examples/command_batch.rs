//! A batch of commands from a program: `gzip -k` for many files would look the same.
//!
//! `mpiexec -n 2 target/release/examples/command_batch` prints the result of each command in the order of the inputs, and then
//! how many succeeded.

use rankpool::{CommandBatch, ExitCode};

fn main() -> ExitCode {
    // Commands are started by a helper process, which must be there before MPI.
    CommandBatch::init();
    rankpool::launch(|pool| {
        let numbers = (1..=6).map(|number| number.to_string());
        let script = "test {} -ne 4 && echo the square of {} is $(({} * {}))";
        let report = CommandBatch::new(["sh", "-c", script], numbers)?.run(pool)?;
        println!("{} succeeded, {} failed", report.succeeded(), report.failed());
        Ok(())
    })
}
