//! What the runs compute, and the notes that their jobs take.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::processes::Target;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    Kernel,
    /// Jobs of nanoseconds.
    FastKernel,
    Run,
    Python,
    Worker,
}

pub const TASKS: [Task; 5] = [Task::Kernel, Task::Run, Task::Python, Task::Worker, Task::FastKernel];

/// How long a job of the kernel takes.
pub const KERNEL_SECONDS: f64 = 0.004;

// Some outputs are longer than what travels with a result, some have several lines, some have none, and some have no end of line.
const JOB: &str = r#"read now rest </proc/uptime
echo "b $1 $now $$" >>notes
sleep 0.0$(($1 % 4 + 1))
case $1 in
  *7) printf "%0300000d\n" "$1" ;;
  *5) ;;
  *) printf "result of job %d\n%d without an end" "$1" "$1" ;;
esac
echo "error of job $1" >&2
read now rest </proc/uptime
echo "e $1 $now $$" >>notes
[ -e fails ] && [ $(($1 % 9)) = 0 ] && exit 5
exit 0
"#;

const PYTHON: &str = r#"import os, time
notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(kind, number):
    os.write(notes, f"{kind} {number} {time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {os.getpid()}\n".encode())
def work(number):
    note("b", number)
    time.sleep(0.004 + number % 3 * 0.004)
    note("e", number)
    if os.path.exists("fails") and number % 9 == 0:
        raise ValueError(f"job {number} fails")
    return {"job": number, "text": "x" * (number % 7 * 1000)}
"#;

const WORKER: &str = r#"while read -r number; do
  read now rest </proc/uptime
  echo "b $number $now $$" >>notes
  sleep 0.01
  read now rest </proc/uptime
  echo "e $number $now $$" >>notes
  echo "\"answer to $number\""
done
"#;

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Task::Kernel => "kernel",
            Task::FastKernel => "kernel (fast)",
            Task::Run => "run",
            Task::Python => "map --python",
            Task::Worker => "map -- worker",
        }
    }

    /// The number of jobs.
    pub fn jobs(self) -> u64 {
        match self {
            Task::Kernel => 2000,
            Task::FastKernel => 400_000,
            Task::Run => 300,
            Task::Python => 900,
            Task::Worker => 600,
        }
    }

    pub fn takes_notes(self) -> bool {
        !matches!(self, Task::Kernel | Task::FastKernel)
    }

    pub fn has_stderr(self) -> bool {
        self == Task::Run
    }

    /// Whether some jobs can be made to fail.
    pub fn can_fail(self) -> bool {
        matches!(self, Task::Run | Task::Python)
    }

    pub fn targets(self, has_launcher: bool) -> Vec<Target> {
        let mut targets = vec![Target::FirstRank];
        if has_launcher {
            targets.extend([Target::OtherRank, Target::Launcher]);
        }
        match self {
            Task::Kernel | Task::FastKernel => {}
            Task::Run => targets.extend([Target::Command, Target::Helper]),
            Task::Python | Task::Worker => targets.extend([Target::Worker, Target::Helper]),
        }
        targets
    }

    /// The words of the command line, without those about the journal, the outputs and the ranks.
    pub fn words(self) -> Vec<String> {
        let jobs = self.jobs();
        let text = match self {
            Task::Kernel => format!("kernel sleep-square --seconds {KERNEL_SECONDS} --range 1:{jobs}"),
            Task::FastKernel => format!("kernel square --range 1:{jobs}"),
            Task::Run => format!("run --range 1:{jobs} --stderr e -- sh job.sh {{}}"),
            Task::Python => format!("map --range 1:{jobs} --python functions.py:work"),
            Task::Worker => format!("map --range 1:{jobs} -- sh worker.sh"),
        };
        text.split(' ').map(str::to_string).collect()
    }

    /// Writes the files of the jobs.
    pub fn prepare(self, folder: &Path, fails: bool) {
        for (name, text) in [("job.sh", JOB), ("functions.py", PYTHON), ("worker.sh", WORKER)] {
            fs::write(folder.join(name), text).expect("a file for the jobs");
        }
        if fails {
            fs::write(folder.join("fails"), "").expect("a file for the jobs");
        }
    }
}

/// One attempt at a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attempt {
    pub began: f64,
    /// When its work was done; `None` if it was ended before.
    pub ended: Option<f64>,
    process: u32,
}

/// Reads the attempts at each job, in the order in which they began.
pub fn attempts(folder: &Path) -> BTreeMap<u64, Vec<Attempt>> {
    let mut attempts: BTreeMap<u64, Vec<Attempt>> = BTreeMap::new();
    let notes = fs::read_to_string(folder.join("notes")).unwrap_or_default();
    for line in notes.lines() {
        let [kind, number, time, process] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a torn note: {line}")
        };
        let (number, process) = (number.parse().expect("a number"), process.parse().expect("a number"));
        let time = time.parse().expect("a time");
        let of_job = attempts.entry(number).or_default();
        if kind == "b" {
            of_job.push(Attempt { began: time, ended: None, process });
        } else {
            let own = of_job.iter_mut().rfind(|attempt| attempt.process == process && attempt.ended.is_none());
            own.expect("it has begun").ended = Some(time);
        }
    }
    attempts
}
