//! Modules that one interpreter of a node imports, from which the workers are forked: `--preload`, `Executor(preload=…)`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::map_support::{Module, lines};
use crate::support::{self, Finished};
use crate::{LIMIT, until};

/// A module that notes each import of it, and takes a while.
const COUNTED: &str = "import os, time\n\
                       with open('imports', 'a') as file:\n    \
                           file.write('%d\\n' % os.getpid())\n\
                       time.sleep(0.3)\n\
                       by = os.getpid()\n";

/// A module that starts a thread, which is there as long as the process.
const THREADED: &str = "import threading\n\
                        threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n";

/// What the jobs are.
const JOBS: &str = r#"
import os, signal, subprocess, sys, time

def who(_=None):
    """This process, its parent, and who has imported the module."""
    import counted
    time.sleep(0.02)
    return os.getpid(), os.getppid(), counted.by

def has(_=None):
    """Whether the module was imported before this job, and where this is."""
    time.sleep(0.02)
    return "counted" in sys.modules, os.environ["RANKPOOL_RANK"], os.environ["RANKPOOL_SLOT"]

def pid(_=None):
    time.sleep(0.02)
    return os.getpid()

def die(_=None):
    os.kill(os.getpid(), signal.SIGKILL)

def die_with_child(file):
    with open(file, "w") as out:
        out.write("%d\n" % subprocess.Popen(["sleep", "1000"]).pid)
    die()

def wait_with_child(file):
    child = subprocess.Popen(["sleep", "1000"])
    with open(file, "w") as out:
        out.write("%d %d\n" % (os.getpid(), child.pid))
    time.sleep(1000)

def once(file):
    """Does not end, the first time."""
    if os.path.exists(file):
        return "again"
    with open(file, "w") as out:
        out.write("%d\n" % os.getpid())
    time.sleep(1000)

def state(_=None):
    """What a job sees of its process."""
    def number(fd):
        return os.readlink("/proc/self/fd/%d" % fd)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RANKPOOL_S")}
    env.pop("PYTHONPATH", None)
    path = [entry for entry in sys.path if not entry.startswith("/proc/")]
    return dict(
        env=env, argv=sys.argv, path=path, cwd=os.getcwd(), group=os.getpgid(0) == os.getpid(),
        signals=[str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
        blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), stdin=sys.stdin.read(),
        outputs=[number(1) == number(2), sys.stdout.line_buffering], cpus=sorted(os.sched_getaffinity(0)),
        main=sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__")),
        descriptors=len(os.listdir("/proc/self/fd")))

def random_number(_=None):
    import random
    time.sleep(0.05)
    return os.getpid(), random.random()
"#;

/// A folder with the modules, and the program in it.
struct Case {
    module: Module,
}

impl Case {
    fn new() -> Case {
        let module = Module::new("");
        for (name, text) in [("jobs.py", JOBS), ("counted.py", COUNTED), ("threaded.py", THREADED)] {
            module.files.with(name, text);
        }
        module.files.with("broken.py", "import no_such_module_anywhere\n");
        Case { module }
    }

    fn command(&self, words: &[&str], script: &str) -> Command {
        self.module.files.with("script.py", format!("import jobs, os, sys, time\nfrom rankpool import *\n{script}"));
        let mut all = vec!["--threads", "3", "python", "-q"];
        all.extend(words);
        all.push("script.py");
        self.module.program(2, &all)
    }

    /// Runs a script on two ranks with three workers each.
    #[track_caller]
    fn python(&self, words: &[&str], script: &str) -> Finished {
        support::run(&mut self.command(words, script), LIMIT)
    }

    /// The processes that have imported the module.
    fn imports(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.module.files.path("imports")).unwrap_or_default();
        text.lines().map(str::to_string).collect()
    }

    /// Waits until no process uses this folder.
    #[track_caller]
    fn expect_no_process_left(&self) {
        let folder = self.module.files.0.path().canonicalize().expect("the folder");
        until("the end of all processes", || !is_used(&folder));
    }
}

/// Whether a process runs in this folder.
fn is_used(folder: &Path) -> bool {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries.flatten().any(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
}

const ALL: &str = "
with Executor() as executor:
    seen = list(executor.map(jobs.who, range(60), chunksize=1))
print(len({pid for pid, _, _ in seen}), len({parent for _, parent, _ in seen}), all(by == parent for _, parent, by in seen))
";

const HAVE: &str = "
with Executor() as executor:
    seen = set(executor.map(jobs.has, range(60), chunksize=1))
print(all(imported for imported, _, _ in seen), len(seen))
";

#[test]
fn modules_of_preload_are_imported_once_for_all_workers_of_a_script() {
    let case = Case::new();
    let run = case.python(&["--preload", "json,counted"], &format!("{ALL}{HAVE}"));
    assert_eq!(run.expect_code(0).out(), "6 1 True\nTrue 6\n", "{}", run.stderr);
    assert_eq!((case.imports().len(), run.stderr.as_str()), (1, ""));
    case.expect_no_process_left();
}

#[test]
fn modules_of_preload_are_imported_once_for_all_workers_of_a_map() {
    let case = Case::new();
    let words = ["--threads", "3", "map", "-q", "--preload", "counted", "--python", "jobs.py:who", "--range", "1:60"];
    let run = support::run(case.module.program(2, &words).env_remove("PYTHONDONTWRITEBYTECODE"), LIMIT);
    let seen = lines(run.expect_code(0));
    assert!(seen.len() == 60 && seen.iter().all(|line| line[1] == line[2] && line[1] == seen[0][1]), "{seen:?}");
    assert_eq!((case.imports().len(), run.stderr.as_str()), (1, ""));
    assert!(!case.module.files.names().contains(&"__pycache__".to_string()), "{:?}", case.module.files.names());
    case.expect_no_process_left();
}

#[test]
fn an_executor_names_its_modules_itself() {
    let case = Case::new();
    let both = "
with Executor(preload='counted') as executor, Executor(preload=['json']) as other:
    first = list(executor.map(jobs.who, range(30), chunksize=1))
    second = list(other.map(jobs.pid, range(30), chunksize=1))
    third = list(executor.map(jobs.who, range(30), chunksize=1))
print(len({parent for _, parent, _ in first}), all(by == parent for _, parent, by in first + third), len(set(second)) > 1)
";
    let run = case.python(&[], both);
    assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("1 True True\n", ""));
    // One server for the first executor, and perhaps one for both together.
    assert!(case.imports().len() <= 2, "{:?}", case.imports());
    case.expect_no_process_left();
}

#[test]
fn a_script_that_was_started_by_itself_preloads_too() {
    let case = Case::new();
    let script = ALL.replace("Executor()", "Executor(preload=['counted'])");
    case.module.files.with("script.py", format!("import jobs\nfrom rankpool import Executor\n{script}"));
    let mut command = Command::new("python3");
    command.arg("script.py").current_dir(case.module.files.0.path()).env("RANKPOOL_THREADS", "3");
    command.env("RANKPOOL_EXE", env!("CARGO_BIN_EXE_rankpool"));
    command.env("PYTHONPATH", format!("{}/python", env!("CARGO_MANIFEST_DIR")));
    let run = support::run(&mut command, LIMIT);
    assert_eq!(run.expect_code(0).out(), "3 1 True\n", "{}", run.stderr);
    assert_eq!(case.imports().len(), 1);
    case.expect_no_process_left();
}

#[test]
fn a_module_that_cannot_be_imported_refuses_the_run() {
    let case = Case::new();
    let run = case.python(&["--preload", "json", "--preload", "broken"], "time.sleep(1000)");
    run.expect_code(2).expect_said("broken, a module of --preload, cannot be imported: ModuleNotFoundError");
    run.expect_said("broken.py\", line 1, in <module>");
    let map = ["map", "-q", "--preload", "broken", "--python", "jobs.py:pid", "--range", "1:3"];
    let map = support::run(&mut case.module.program(2, &map), LIMIT);
    map.expect_code(2)
        .expect_said("broken, a module of --preload, cannot be imported")
        .expect_said("line 1, in <module>");
    assert_eq!(map.out(), "");
    let wrong = case.python(&["--preload", "broken.py:f"], "");
    wrong.expect_code(2).expect_said("not the name of a module");
    case.expect_no_process_left();
}

#[test]
fn a_module_that_ends_python_refuses_the_run() {
    let case = Case::new();
    case.module.files.with("broken.py", "import os\nos._exit(7)\n");
    let run = case.python(&["--preload", "broken"], "time.sleep(1000)");
    run.expect_code(2).expect_said("has ended Python, which imported it (exit status: 7)");
    case.module.files.with("broken.py", "import sys\nsys.exit('no licence')\n");
    let run = case.python(&["--preload", "broken"], "time.sleep(1000)");
    run.expect_code(2).expect_said("broken, a module of --preload, cannot be imported: SystemExit: no licence");
    case.expect_no_process_left();
}

const COUNT: &str = "
with Executor(preload=PRELOAD) as executor:
    print(len(set(executor.map(jobs.pid, range(60), chunksize=1))))
";

#[test]
fn an_executor_whose_module_cannot_be_imported_says_it_once_and_works() {
    let case = Case::new();
    let run = case.python(&[], &COUNT.replace("PRELOAD", "['broken']"));
    assert_eq!(run.expect_code(0).out(), "6\n", "{}", run.stderr);
    run.expect_said("broken, a module of preload, cannot be imported: ModuleNotFoundError");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    case.expect_no_process_left();
}

#[test]
fn workers_are_started_plainly_if_a_module_has_started_threads() {
    let case = Case::new();
    let threads = "the import of threaded starts threads (poller)";
    let preload = ["--preload", "counted,threaded"];
    let python = case.python(&preload, ALL);
    let out = python.expect_code(0).out();
    assert!(out.starts_with("6 ") && out.ends_with(" False\n"), "{out}{}", python.stderr);
    let have = case.python(&preload, HAVE);
    assert_eq!(have.expect_code(0).out(), "True 6\n", "each imports by itself: {}", have.stderr);
    let executor = case.python(&[], &COUNT.replace("PRELOAD", "['threaded']"));
    assert_eq!(executor.expect_code(0).out(), "6\n", "{}", executor.stderr);
    assert!(case.imports().len() == 14, "twice, the server and each worker: {:?}", case.imports());
    let words = ["map", "-q", preload[0], preload[1], "--python", "jobs.py:who", "--range", "1:20"];
    let map = support::run(&mut case.module.program(2, &words), LIMIT);
    assert!(lines(map.expect_code(0)).iter().all(|line| line[0] == line[2]), "each imports by itself: {}", map.out());
    for run in [python, have, executor, map] {
        run.expect_said(threads);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    case.expect_no_process_left();
}

#[test]
fn threads_that_have_ended_do_not_matter() {
    let case = Case::new();
    case.module.files.with(
        "threaded.py",
        "import threading, time\n\
         thread = threading.Thread(target=time.sleep, args=(0.1,))\n\
         thread.start()\n\
         thread.join()\n",
    );
    let run = case.python(&["--preload", "threaded,counted"], ALL);
    assert_eq!((run.expect_code(0).out().as_str(), run.stderr.as_str()), ("6 1 True\n", ""));
}

#[test]
fn a_worker_that_dies_is_replaced_by_a_forked_one() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    for _ in range(3):
        try:
            executor.submit(jobs.die).result()
        except WorkerDied as error:
            print(error)
    seen = list(executor.map(jobs.who, range(60), chunksize=1))
print(len({pid for pid, _, _ in seen}), len({parent for _, parent, _ in seen}))
";
    let run = case.python(&["--preload", "counted"], script);
    let died = "its worker was ended by signal 9 (SIGKILL)\n";
    assert_eq!(run.expect_code(0).out(), format!("{died}{died}{died}6 1\n"), "{}", run.stderr);
    assert_eq!(case.imports().len(), 1);
}

/// Whether this process runs.
fn runs(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.parse().expect("a number"));
    // A process that nobody has waited for is dead, too.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_dead = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    kill(pid, None) != Err(Errno::ESRCH) && !is_dead
}

#[test]
fn a_worker_that_dies_leaves_no_child() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    try:
        executor.submit(jobs.die_with_child, 'pid').result()
    except WorkerDied:
        print('died', open('pid').read(), end='')
    while os.path.exists('/proc/' + open('pid').read().strip()) and time.sleep(0.01) is None:
        state = open('/proc/' + open('pid').read().strip() + '/stat').read().rpartition(')')[2].split()[0]
        if state in 'ZX':
            break
    print('gone')
";
    let run = case.python(&["--preload", "counted"], script);
    assert!(run.expect_code(0).out().ends_with("gone\n"), "{}{}", run.out(), run.stderr);
}

#[test]
fn a_time_limit_ends_a_forked_worker_with_its_children() {
    let case = Case::new();
    let script = "
with Executor(timeout=1) as executor:
    try:
        executor.submit(jobs.wait_with_child, 'pids').result()
    except JobTimeout:
        print('timeout')
    print(len(executor.submit(jobs.who).result()))
";
    let begin = Instant::now();
    let run = case.python(&["--preload", "counted"], script);
    assert_eq!(run.expect_code(0).out(), "timeout\n3\n", "{}", run.stderr);
    assert!(begin.elapsed() < Duration::from_secs(60), "TERM ends both");
    let pids = std::fs::read_to_string(case.module.files.path("pids")).expect("the job has begun");
    for pid in pids.split_whitespace() {
        until("the end of the worker and its child", || !runs(pid));
    }
    case.expect_no_process_left();
}

#[test]
fn a_killed_server_costs_one_warning_and_no_job() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    _, server, _ = executor.submit(jobs.who).result()
    futures = [executor.submit(jobs.pid) for _ in range(60)]
    os.kill(server, 9)
    print(len({future.result() for future in futures}) >= 6)
";
    let run = case.python(&["--preload", "counted"], script);
    assert_eq!(run.expect_code(0).out(), "True\n", "{}", run.stderr);
    run.expect_said("the fork server, which imports the modules of preload for all workers of this host, has ended");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    case.expect_no_process_left();
}

#[test]
fn a_job_whose_server_is_killed_runs_again_and_its_worker_is_gone() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    _, server, _ = executor.submit(jobs.who).result()
    future = executor.submit(jobs.once, 'pid')
    while not os.path.exists('pid') or not open('pid').read():
        time.sleep(0.01)
    os.kill(server, 9)
    print(future.result())
";
    let run = case.python(&["--preload", "counted"], script);
    assert_eq!(run.expect_code(0).out(), "again\n", "{}", run.stderr);
    let pid = std::fs::read_to_string(case.module.files.path("pid")).expect("the job has begun");
    until("the end of the worker", || !runs(pid.trim()));
    case.expect_no_process_left();
}

#[test]
fn a_killed_rank_leaves_no_process() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    futures = [executor.submit(jobs.wait_with_child, f'pids{n}') for n in range(6)]
    executor.submit(jobs.pid).result()
";
    let mut child = support::start(&mut case.command(&["--preload", "counted"], script));
    let begun = |n: &u32| {
        std::fs::read_to_string(case.module.files.path(&format!("pids{n}"))).is_ok_and(|text| text.ends_with('\n'))
    };
    until("the begin of the jobs", || (0..6).all(|n| begun(&n)));
    let _ = child.kill();
    let _ = child.wait();
    case.expect_no_process_left();
}

#[test]
fn a_stopped_run_leaves_no_process() {
    let case = Case::new();
    let script = "
with Executor() as executor:
    futures = [executor.submit(jobs.wait_with_child, f'pids{n}') for n in range(6)]
    futures[0].result()
";
    let child = support::start(&mut case.command(&["--preload", "counted"], script));
    until("the begin of a job", || case.module.files.path("pids0").exists());
    support::signal(&child, Signal::SIGTERM);
    assert_ne!(support::finish(child, LIMIT).code, Some(0));
    case.expect_no_process_left();
}

#[test]
fn a_forked_worker_looks_like_a_plain_one() {
    let case = Case::new();
    let script = "
import json
with Executor() as executor:
    print(json.dumps(executor.submit(jobs.state).result()))
";
    let python = |words: &[&str]| lines(case.python(words, script).expect_code(0)).remove(0);
    assert_eq!(python(&["--preload", "json"]), python(&[]));
    let map = |words: &[&str]| {
        let mut all = vec!["--threads", "1", "map", "-q", "--python", "jobs.py:state", "--args", "1", "--env", "A=b"];
        all.extend(words);
        lines(support::run(&mut case.module.program(1, &all), LIMIT).expect_code(0)).remove(0)
    };
    assert_eq!(map(&["--preload", "json"]), map(&[]));
}

#[test]
fn forked_workers_have_random_numbers_of_their_own() {
    let case = Case::new();
    case.module.files.with("seeded.py", "import random\nrandom.seed(1)\n");
    let script = "
with Executor() as executor:
    seen = dict(executor.map(jobs.random_number, range(60), chunksize=1))
print(len(seen), len(set(seen.values())))
";
    let run = case.python(&["--preload", "seeded"], script);
    assert_eq!(run.expect_code(0).out(), "6 6\n", "{}", run.stderr);
}
