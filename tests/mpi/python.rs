//! `rankpool python` under a launcher: one script, and the workers of all ranks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lost::recovery;
use crate::support::Finished;
use crate::{mpiexec, rankpool, run};

pub const TRIALS: &[(&str, fn())] = &[
    ("a_script_runs_once_and_its_jobs_run_on_all_ranks", all_ranks),
    ("a_launched_script_has_its_own_exit_code", exit_code),
    ("large_arguments_and_results_cross_ranks", large_values),
    ("jobs_behind_one_that_waits_for_them_run_on_another_rank", delayed_jobs),
    ("a_rank_that_is_killed_while_a_script_runs_costs_no_result", a_killed_rank),
];

/// Returns a run of this script under a launcher with these flags.
fn script(ranks: u32, flag: Option<&str>, text: &str, folder: &Path) -> Command {
    let file = folder.join("script.py");
    fs::write(&file, text).expect("a file for the test");
    let plain = mpiexec(ranks, &rankpool());
    let mut command = Command::new(plain.get_program());
    command.args(flag).args(plain.get_args()).args(["python", "--threads", "1"]).arg(file).current_dir(folder);
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn run_script(ranks: u32, text: &str) -> Finished {
    let folder = tempfile::tempdir().expect("a directory for the test");
    run(&mut script(ranks, None, text, folder.path()))
}

const WHERE: &str = "
import os, time
from rankpool import Executor

def where(x):
    time.sleep(0.05)
    return os.environ['RANKPOOL_RANK']

if __name__ == '__main__':
    print('once', flush=True)
    with Executor() as executor:
        print(sorted(set(executor.map(where, range(60), chunksize=1))), executor.num_workers)
";

fn all_ranks() {
    assert_eq!(run_script(1, WHERE).expect_code(0).out(), "once\n['0'] 1\n");
    assert_eq!(run_script(3, WHERE).expect_code(0).out(), "once\n['0', '1', '2'] 3\n");
}

fn exit_code() {
    run_script(2, "import sys; sys.exit(7)").expect_code(7);
    let failed = run_script(2, "from rankpool import Executor\nExecutor().submit(int, 'x').result()");
    failed.expect_code(1).expect_said("ValueError: invalid literal");
}

fn large_values() {
    let text = "
import array, os
from rankpool import Executor

def back(rank, data):
    return (os.environ['RANKPOOL_RANK'], data * 2)

if __name__ == '__main__':
    data = os.urandom(20_000_000)
    with Executor() as executor:
        for rank, doubled in executor.map(back, range(8), [data] * 8, chunksize=1):
            assert doubled == data * 2
    print('equal')
";
    assert_eq!(run_script(2, text).expect_code(0).out(), "equal\n");
}

fn delayed_jobs() {
    let text = "
import os, time
from rankpool import Executor

def note(i):
    with open('log', 'a') as log:
        log.write(f'{i}\\n')
    return i

def wait_for_lines(count):
    deadline = time.monotonic() + 60
    while not os.path.exists('log') or len(open('log').readlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)

if __name__ == '__main__':
    with Executor() as executor:
        for begin in range(0, 2400, 800):
            before = [executor.submit(note, i) for i in range(begin, begin + 400)]
            long = executor.submit(wait_for_lines, begin + 800)
            behind = [executor.submit(note, i) for i in range(begin + 400, begin + 800)]
            long.result()
            assert [future.result() for future in before + behind] == list(range(begin, begin + 800))
    print(sorted(int(line) for line in open('log')) == list(range(2400)))
";
    assert_eq!(run_script(2, text).expect_code(0).out(), "True\n");
}

fn a_killed_rank() {
    // The job of rank 1 that runs first kills its rank: the worker's parent is the rank's helper.
    let text = "
import os, signal, time
from rankpool import Executor

def parent(pid):
    with open(f'/proc/{pid}/stat') as stat:
        return int(stat.read().rsplit(')', 1)[1].split()[1])

def job(x):
    if os.environ['RANKPOOL_RANK'] == '1' and not os.path.exists('killed'):
        open('killed', 'x').close()
        os.kill(parent(os.getppid()), signal.SIGKILL)
        time.sleep(1000)
    time.sleep(0.02)
    return x * x

if __name__ == '__main__':
    with Executor() as executor:
        print(list(executor.map(job, range(100), chunksize=1)) == [x * x for x in range(100)])
";
    let folder = tempfile::tempdir().expect("a directory for the test");
    let mut command = script(2, recovery(), text, folder.path());
    let finished = run(command.env("RANKPOOL_LOST_AFTER", "2"));
    if crate::lost::is_open_mpi() {
        assert_eq!(finished.out(), "True\n", "{}", finished.stderr);
    } else {
        // MPICH's launcher ends the ranks of a host together.
        assert_ne!(finished.code, Some(0), "{}", finished.stderr);
    }
    assert!(folder.path().join("killed").exists());
}
