//! Signals to a launcher: what it passes on, and that running jobs have their grace time where it leaves them one.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::LIMIT;
use crate::batches::{batch, is_rank, processes_with, wait_until};
use crate::support;

pub const TRIALS: &[(&str, fn())] =
    &[("jobs_that_run_when_the_launcher_is_signalled_have_their_results", running_jobs_have_their_results)];

/// Open MPI's launcher kills its ranks two seconds after TERM, and passes USR2 on; MPICH's passes TERM on.
fn running_jobs_have_their_results() {
    let is_open_mpi = std::env::var("RANKPOOL_MPI_FLAVOUR").is_ok_and(|flavour| flavour == "openmpi");
    let signal = if is_open_mpi { Signal::SIGUSR2 } else { Signal::SIGTERM };
    let folder = tempfile::tempdir().expect("a folder for the test");
    let mark = format!("FOLDER={}", folder.path().display());
    let script = "touch up{}; until test -e go; do sleep 0.02; done; echo {}";
    let words = ["run", "-q", "--threads", "1", "--range", "1:50", "--grace", "10m", "-o", "o", "--records", "r"];
    let words = [&words[..], &["--env", &mark, "--", "sh", "-c", script]].concat();
    let mut child = support::start(batch(2, &words).current_dir(folder.path()));
    wait_until("both ranks run a job", || (1..=2).all(|job| folder.path().join(format!("up{job}")).exists()));
    support::signal(&child, signal);
    // Longer than a launcher waits that kills its ranks.
    thread::sleep(Duration::from_millis(2500));
    fs::write(folder.path().join("go"), "").expect("a file");
    support::wait(&mut child, LIMIT).expect("it ends");
    wait_until("the ranks have ended", || !processes_with(&mark).into_iter().any(is_rank));
    let records = fs::read_to_string(folder.path().join("r")).expect("the job log");
    assert_eq!((records.lines().count(), records.matches("\"ok\"").count()), (2, 2), "{records}");
    assert!(!folder.path().join("up3").exists(), "no job is started after the signal");
}
