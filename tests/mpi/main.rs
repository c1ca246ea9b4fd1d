//! rankpool under a real `mpiexec`.
//!
//! `RANKPOOL_MPIEXEC` names the launcher that belongs to the MPI the program was built with (default: `mpiexec`),
//! `RANKPOOL_MPIEXEC_FLAGS` its extra flags. `tests/run.sh` sets both, for each MPI. `RANKPOOL_TEST_EXAMPLES=no` leaves out the tests of
//! examples, which then need not be built.
//!
//! The test program is its own subject, too: with `RANKPOOL_TEST_PROGRAM` set it is one of the programs of `programs.rs`.

mod batches;
mod commands;
#[path = "../support/disk.rs"]
mod disk;
mod durable;
mod examples;
mod failures;
mod lost;
mod programs;
mod python;
mod stops;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

use support::Finished;

/// The time limit of one run.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Returns a command under the launcher, with `ranks` ranks.
pub fn mpiexec(ranks: u32, program: &PathBuf) -> Command {
    let launcher = std::env::var("RANKPOOL_MPIEXEC").unwrap_or_else(|_| "mpiexec".into());
    let flags = std::env::var("RANKPOOL_MPIEXEC_FLAGS").unwrap_or_default();
    let mut command = Command::new(launcher);
    command.args(flags.split_whitespace()).args(["-n", &ranks.to_string()]).arg(program);
    // These tests start more ranks than there are cores, so the launcher must not warn of that.
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command
}

/// The `rankpool` program.
pub fn rankpool() -> PathBuf {
    env!("CARGO_BIN_EXE_rankpool").into()
}

/// An example of this build.
pub fn example(name: &str) -> PathBuf {
    let path = rankpool().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples` with the same profile first", path.display());
    path
}

/// Returns one of the programs of `programs.rs` with `ranks` ranks.
pub fn program(ranks: u32, name: &str) -> Command {
    let own = std::env::current_exe().expect("a program knows its own file");
    let mut command = mpiexec(ranks, &own);
    command.env("RANKPOOL_TEST_PROGRAM", name);
    command
}

pub fn run(command: &mut Command) -> Finished {
    support::run(command, LIMIT)
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn main() {
    if let Ok(name) = std::env::var("RANKPOOL_TEST_PROGRAM") {
        let code = programs::run(&name);
        std::process::exit(code as i32);
    }
    let mut arguments = Arguments::from_args();
    // Most of a test's time is that of launchers that start and end.
    arguments.test_threads.get_or_insert(3);
    let without_examples = std::env::var("RANKPOOL_TEST_EXAMPLES").is_ok_and(|answer| answer == "no");
    let of_examples = if without_examples { &[][..] } else { examples::TRIALS };
    let trials = of_examples
        .iter()
        .chain(commands::TRIALS)
        .chain(failures::TRIALS)
        .chain(lost::TRIALS)
        .chain(batches::TRIALS)
        .chain(durable::TRIALS)
        .chain(python::TRIALS)
        .chain(stops::TRIALS)
        .map(|(name, test)| trial(name, *test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
